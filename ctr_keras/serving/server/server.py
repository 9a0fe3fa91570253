"""A server of SavedModels that speaks TF Serving's protocols."""

import dataclasses
import pathlib
import ssl
import threading
import time

from ctr_keras.serving.errors import UnauthenticatedError
from ctr_keras.serving.server.admission import AdmissionInterceptor
from ctr_keras.serving.server.batching import BatchingConfig
from ctr_keras.serving.server.bearer_token import Token, TokenInterceptor
from ctr_keras.serving.server.gate import Gate
from ctr_keras.serving.server.grpc_listener import GrpcListener
from ctr_keras.serving.server.grpc_services import ModelService, PredictionService
from ctr_keras.serving.server.http_listener import HttpListener
from ctr_keras.serving.server.limits import RUNNING, WAITING, Limits
from ctr_keras.serving.server.manager import ModelManager
from ctr_keras.serving.server.metrics import Metrics
from ctr_keras.serving.server.model_config import ModelConfig
from ctr_keras.serving.server.rest_api import Response, RestApi, error_response
from ctr_keras.serving.server.servable import Servable

_LAST_PORT = 65_535


@dataclasses.dataclass(frozen=True)
class ServerConfig:
    """What to serve, where, and how much at a time.

    Attributes:
        models: The models.
        host: Address to listen on. By default only this machine can connect.
        port: Of gRPC; 0 takes a free one.
        rest_port: Of REST; 0 takes a free one.
        batching: How to gather rows of several requests; `None`: not at all.
        poll_seconds: How often to look for new versions; 0: never.
        load_threads: Models that load at a time.
        running: Predictions that run at a time, beside batches.
        waiting: Predictions that may be there beside those; more are refused. All together must be
            fewer than the `connections` of the limits.
        timeout_seconds: How long a REST request may wait for its turn. A gRPC call has its own
            deadline.
        limits: Of requests and connections.
        tls_cert: PEM file with the certificate chain; both protocols are encrypted with it.
        tls_key: PEM file with its private key.
        token: What every request must bring along, as `Authorization: Bearer <token>`.
        models_root: Folder that a reloaded configuration calls `/models`; `None`: `/models`.
    """

    models: tuple[ModelConfig, ...]
    host: str = "127.0.0.1"
    port: int = 8500
    rest_port: int = 8501
    batching: BatchingConfig | None = None
    poll_seconds: float = 1.0
    load_threads: int = 1
    running: int = RUNNING
    waiting: int = WAITING
    timeout_seconds: float = 30.0
    limits: Limits = Limits()
    tls_cert: pathlib.Path | None = None
    tls_key: pathlib.Path | None = None
    token: str | None = dataclasses.field(default=None, repr=False)
    models_root: pathlib.Path | None = None

    def __post_init__(self):
        for name in ("port", "rest_port"):
            port = getattr(self, name)
            if not 0 <= port <= _LAST_PORT:  # gRPC would take the rest of a division.
                raise ValueError(
                    f"`{name}` must be from 0 to {_LAST_PORT}. Received: `{name}={port!r}`"
                )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError(
                "`tls_cert` and `tls_key` go together. "
                f"Received: `tls_cert={self.tls_cert}`, `tls_key={self.tls_key}`"
            )
        if self.running + self.waiting >= self.limits.connections:
            raise ValueError(
                "`limits.connections` must be more than the predictions that run and wait. "
                f"Received: `limits.connections={self.limits.connections}`, "
                f"`running={self.running}`, `waiting={self.waiting}`"
            )


class Server:
    """The embedded server: for one machine and tests.

    It answers as TensorFlow's own server does, which production runs on the same folders with the
    same client.

    Args:
        config: What to serve, and how.

    Raises:
        ValueError: the TLS files are none, or do not fit each other.
        OSError: a port is taken.

    Example:

    >>> models = (ModelConfig("din", "saved_models/din"),)
    >>> with Server(ServerConfig(models, port=0, rest_port=0)) as server:
    ...     Client(f"127.0.0.1:{server.port}").status("din")
    """

    def __init__(self, config: ServerConfig):
        tls = _tls(config)
        self._stopped = False
        self._lock = threading.Lock()  # It does not stop while it begins to listen.
        gate = Gate(config.running, config.waiting)
        self.manager = ModelManager(
            config.models,
            lambda folder, gently: Servable.load(folder, gate, config.batching, gently),
            config.poll_seconds,
            config.load_threads,
        )
        metrics = Metrics()
        token = Token(config.token)
        api = RestApi(self.manager, gate, metrics, config.timeout_seconds)
        self._grpc = GrpcListener(
            (config.host, config.port),
            (
                PredictionService(self.manager, metrics, config.limits.request_bytes),
                ModelService(self.manager, metrics, config.models_root),
            ),
            (TokenInterceptor(token), AdmissionInterceptor(gate, metrics)),
            config.limits,
            _pem(config),
        )
        try:
            self._http = HttpListener(
                (config.host, config.rest_port), _guarded(api, token), config.limits, tls
            )
        except BaseException:
            self._grpc.stop(0)
            raise

    @property
    def port(self) -> int:
        """Port of gRPC."""
        return self._grpc.port

    @property
    def rest_port(self) -> int:
        """Port of REST."""
        return self._http.port

    def start(self) -> None:
        """Load the models, then listen, unless another thread has called `stop`."""
        self.manager.start()
        with self._lock:
            if not self._stopped:
                self._grpc.start()
                self._http.start()

    def stop(self, seconds: float = 10.0) -> None:
        """Take no more requests, finish those that came within so many seconds, unload."""
        end = time.monotonic() + seconds
        with self._lock:
            self._stopped = True
        grpc_stopped = self._grpc.stop(seconds)
        self._http.stop(seconds)
        grpc_stopped.wait()
        self.manager.stop(max(0.0, end - time.monotonic()))

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *exception) -> None:
        self.stop()


def _guarded(api: RestApi, token: Token):
    def respond(verb: str, path: str, body: bytes, authorization: str | None) -> Response:
        try:
            token.check(authorization)
        except UnauthenticatedError as error:
            return error_response(error.http_status, str(error))
        return api.respond(verb, path, body)

    return respond


def _pem(config: ServerConfig) -> tuple[bytes, bytes] | None:
    if config.tls_cert is None or config.tls_key is None:
        return None
    return config.tls_key.read_bytes(), config.tls_cert.read_bytes()


def _tls(config: ServerConfig) -> ssl.SSLContext | None:
    if config.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # The password is that of an encrypted key, for which a server must not sit and ask.
        context.load_cert_chain(config.tls_cert, config.tls_key, password="")
    except OSError as error:
        raise ValueError(
            "`tls_cert` and `tls_key` must be PEM files of a certificate and of its key, not "
            f"encrypted: {error}. Received: `tls_cert={str(config.tls_cert)!r}`, "
            f"`tls_key={str(config.tls_key)!r}`"
        ) from None
    return context
