"""Refusing gRPC calls that are too many."""

from google.protobuf.message import DecodeError

from ctr_keras.serving.errors import InvalidArgumentError, ResourceExhaustedError
from ctr_keras.serving.protocol import grpc
from ctr_keras.serving.server.gate import Gate
from ctr_keras.serving.server.grpc_status import abort
from ctr_keras.serving.server.metrics import Metrics

_PREDICT = "/tensorflow.serving.PredictionService/Predict"


class AdmissionInterceptor(grpc.ServerInterceptor):
    """Refuses predictions before their messages are parsed, most of the work under overload.

    Args:
        gate: Admits so many at a time.
        metrics: Counts what is refused.
    """

    def __init__(self, gate: Gate, metrics: Metrics):
        self._gate = gate
        self._metrics = metrics

    def intercept_service(self, continuation, handler_call_details):
        handler = continuation(handler_call_details)
        if handler_call_details.method != _PREDICT:
            return handler

        def predict(message: bytes, context):
            try:
                with self._gate.admitted():
                    request = handler.request_deserializer(message)
                    return handler.unary_unary(request, context)
            except ResourceExhaustedError as error:
                self._metrics.observe("", "grpc", "Predict", error.code, 0.0)
                abort(context, error)
            except DecodeError as error:
                abort(context, InvalidArgumentError(f"No PredictRequest: {error}"))

        return grpc.unary_unary_rpc_method_handler(
            predict, response_serializer=handler.response_serializer
        )
