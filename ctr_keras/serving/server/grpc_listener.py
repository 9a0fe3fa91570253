"""The gRPC side of a server."""

import concurrent.futures
import threading
from collections.abc import Sequence
from typing import Any

from ctr_keras.extras import require
from ctr_keras.serving.protocol import (
    grpc,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)
from ctr_keras.serving.server.arrival import ArrivalInterceptor
from ctr_keras.serving.server.grpc_services import ModelService, PredictionService
from ctr_keras.serving.server.limits import Limits

health: Any = require("grpc_health.v1.health", "serving", "A server of models")
health_pb2: Any = require("grpc_health.v1.health_pb2", "serving", "A server of models")
health_pb2_grpc: Any = require("grpc_health.v1.health_pb2_grpc", "serving", "A server of models")


class GrpcListener:
    """Answers gRPC calls: predictions, models, health.

    Args:
        address: Host and port; port 0 takes a free one.
        services: What answers predictions, and what answers questions about models.
        interceptors: What calls must pass, in this order.
        limits: Sizes; `connections` is the number of calls at a time, `read_seconds` how long the
            request of one may take.
        tls: PEM of the private key and of the certificate chain; `None` does not encrypt.

    Raises:
        OSError: the port is taken.
    """

    def __init__(
        self,
        address: tuple[str, int],
        services: tuple[PredictionService, ModelService],
        interceptors: Sequence[Any],
        limits: Limits,
        tls: tuple[bytes, bytes] | None = None,
    ):
        # As many threads as calls: one that waited here unseen would come too late.
        self._threads = concurrent.futures.ThreadPoolExecutor(limits.connections, "grpc")
        self._arrival = ArrivalInterceptor(limits.read_seconds)
        self._server = grpc.server(
            self._threads,
            interceptors=(self._arrival, *interceptors),
            maximum_concurrent_rpcs=limits.connections,
            options=[
                ("grpc.max_receive_message_length", limits.request_bytes),
                ("grpc.max_send_message_length", -1),
                # A call whose request never comes holds a place: nobody can take them all at once.
                ("grpc.max_concurrent_streams", max(1, limits.connections * 3 // 4)),
                ("grpc.so_reuseport", 0),  # else two servers share a port and nobody notices
            ],
        )
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        predictions, models = services
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            predictions, self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(models, self._server)
        self.port = self._bind(address, tls)

    def start(self) -> None:
        self._arrival.start()
        self._server.start()
        self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    def stop(self, seconds: float) -> threading.Event:
        """Take no more calls, and end those that are not done in time; set when all have ended."""
        self._health.enter_graceful_shutdown()
        self._arrival.stop()
        return self._server.stop(seconds)

    def _bind(self, address: tuple[str, int], tls: tuple[bytes, bytes] | None) -> int:
        host, port = address
        text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if tls is None:
                return self._server.add_insecure_port(text)
            return self._server.add_secure_port(text, grpc.ssl_server_credentials([tls]))
        except RuntimeError as error:
            raise OSError(f"Cannot listen on {text}: {error}") from None
