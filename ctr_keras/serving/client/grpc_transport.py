"""Requests over gRPC."""

from collections.abc import Mapping

import numpy as np

from ctr_keras.serving.client.model_metadata import ModelMetadata
from ctr_keras.serving.client.options import ClientOptions
from ctr_keras.serving.errors import error_of_code
from ctr_keras.serving.protocol import (
    grpc,
    metadata_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    status_pb2,
)
from ctr_keras.serving.signature import Signature
from ctr_keras.serving.tensors import get_arrays, put_arrays

_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A server that is back is found at once, not after gRPC's own, slower back-off.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class GrpcTransport:
    """One attempt at a request, that ends after some seconds if given; the client tries again.

    Args:
        address: `host:port`.
        options: Encryption and token.
    """

    def __init__(self, address: str, options: ClientOptions):
        if options.tls:
            roots = None if options.tls_ca is None else options.tls_ca.read_bytes()
            credentials = grpc.ssl_channel_credentials(roots)
            self._channel = grpc.secure_channel(address, credentials, _CHANNEL_OPTIONS)
        else:
            self._channel = grpc.insecure_channel(address, _CHANNEL_OPTIONS)
        self._metadata = [("authorization", f"Bearer {options.token}")] if options.token else []
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def predict(
        self, spec, signature: Signature, inputs: Mapping[str, np.ndarray], seconds: float | None
    ) -> dict[str, np.ndarray]:
        request = predict_pb2.PredictRequest(model_spec=spec)
        request.model_spec.signature_name = signature.name
        put_arrays(request.inputs, inputs)
        response = self._call(self._predictions.Predict, request, seconds)
        return get_arrays(response.outputs)

    def metadata(self, spec, seconds: float | None) -> ModelMetadata:
        request = metadata_pb2.GetModelMetadataRequest(
            model_spec=spec, metadata_field=["signature_def"]
        )
        response = self._call(self._predictions.GetModelMetadata, request, seconds)
        found = metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(found)
        return ModelMetadata.of(spec.name, response.model_spec.version.value, found)

    def status(self, spec, seconds: float | None):
        request = status_pb2.GetModelStatusRequest(model_spec=spec)
        return self._call(self._models.GetModelStatus, request, seconds)

    def close(self) -> None:
        self._channel.close()

    def _call(self, method, request, seconds: float | None):
        try:
            return method(request, timeout=seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            raise error_of_code(error.code().name, error.details() or "") from None
