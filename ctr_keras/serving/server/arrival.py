"""Ending gRPC calls whose request does not come."""

import threading
import time
from collections.abc import Iterator
from typing import Any

from ctr_keras.serving.errors import InvalidArgumentError
from ctr_keras.serving.protocol import grpc
from ctr_keras.serving.server.grpc_status import abort


class ArrivalInterceptor(grpc.ServerInterceptor):
    """Cancels calls whose request has not come in time: each would hold a thread for good.

    It is the first of the interceptors, since it waits for the request in place of gRPC.

    Args:
        seconds: How long a request may take.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        # One after the other they are due: dicts keep their order.
        self._expected: dict[int, tuple[float, Any]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="grpc-arrival", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def intercept_service(self, continuation, handler_call_details):
        handler = continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        codec = (handler.request_deserializer, handler.response_serializer)
        if handler.response_streaming:

            def stream(requests, context):
                yield from handler.unary_stream(self._first(requests, context), context)

            return grpc.stream_stream_rpc_method_handler(stream, *codec)

        def answer(requests, context):
            return handler.unary_unary(self._first(requests, context), context)

        return grpc.stream_unary_rpc_method_handler(answer, *codec)

    def _first(self, requests: Iterator, context: Any) -> Any:
        key = id(context)
        self._expected[key] = time.monotonic() + self._seconds, context
        try:
            for request in requests:
                return request
        finally:
            del self._expected[key]
        return abort(context, InvalidArgumentError("The call has no request"))

    def _watch(self) -> None:
        while not self._stopped.wait(min(1.0, self._seconds / 4)):
            now = time.monotonic()
            for due, context in list(self._expected.values()):
                if due > now:
                    break
                context.cancel()
