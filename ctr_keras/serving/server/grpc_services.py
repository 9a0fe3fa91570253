"""TF Serving's gRPC services."""

import pathlib
from collections.abc import Callable

from ctr_keras.serving.deadline import Deadline
from ctr_keras.serving.errors import InvalidArgumentError, ServingError
from ctr_keras.serving.protocol import (
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from ctr_keras.serving.server.answering import Answering
from ctr_keras.serving.server.describe import model_metadata, model_status
from ctr_keras.serving.server.grpc_status import abort
from ctr_keras.serving.server.manager import ModelManager
from ctr_keras.serving.server.metrics import Metrics
from ctr_keras.serving.server.model_config import below, models_of_proto
from ctr_keras.serving.server.model_name import DEFAULT_SIGNATURE, ModelName
from ctr_keras.serving.tensors import get_arrays, put_arrays


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """`Predict` and `GetModelMetadata`; the other methods are unimplemented.

    Args:
        manager: The models.
        metrics: Counts requests.
        max_bytes: Size of all tensors that a request stands for, at most.
    """

    def __init__(self, manager: ModelManager, metrics: Metrics, max_bytes: int):
        self._manager = manager
        self._answering = Answering(manager, metrics, "grpc")
        self._max_bytes = max_bytes

    def Predict(self, request, context):
        deadline = Deadline.after(context.time_remaining())
        model = request.model_spec.name
        return _call(
            context, self._answering, model, "Predict", lambda: self._predict(request, deadline)
        )

    def GetModelMetadata(self, request, context):
        model = request.model_spec.name
        return _call(context, self._answering, model, "Metadata", lambda: self._metadata(request))

    def _predict(self, request, deadline: Deadline):
        signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
        inputs = self._arrays(request)
        with self._manager.lease(_model_name(request.model_spec)) as (version, servable):
            outputs = servable.run(signature, inputs, request.output_filter, deadline)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version
        response.model_spec.signature_name = signature
        put_arrays(response.outputs, outputs)
        return response

    def _metadata(self, request):
        return model_metadata(
            self._manager, _model_name(request.model_spec), request.metadata_field
        )

    def _arrays(self, request):
        try:
            return get_arrays(request.inputs, self._max_bytes)
        except ValueError as error:
            raise InvalidArgumentError(str(error)) from None


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """`GetModelStatus` and `HandleReloadConfigRequest`."""

    def __init__(self, manager: ModelManager, metrics: Metrics, models_root: pathlib.Path | None):
        self._manager = manager
        self._models_root = models_root
        self._answering = Answering(manager, metrics, "grpc")

    def GetModelStatus(self, request, context):
        model = request.model_spec.name
        return _call(context, self._answering, model, "Status", lambda: self._status(request))

    def HandleReloadConfigRequest(self, request, context):
        return _call(context, self._answering, "", "Reload", lambda: self._reload(request))

    def _status(self, request):
        return model_status(self._manager, _model_name(request.model_spec))

    def _reload(self, request):
        try:
            models = models_of_proto(request.config)
        except ValueError as error:
            raise InvalidArgumentError(str(error)) from None
        if self._models_root is not None:
            models = below(models, self._models_root)
        self._manager.reload(models)
        return model_management_pb2.ReloadConfigResponse()


def _model_name(spec) -> ModelName:
    kind = spec.WhichOneof("version_choice")
    return ModelName(
        spec.name,
        spec.version.value if kind == "version" else None,
        spec.version_label if kind == "version_label" else None,
    )


def _call(context, answering: Answering, model: str, method: str, answer: Callable):
    """The response to a call, or its status."""
    try:
        return answering.run(model, method, answer)
    except ServingError as error:
        abort(context, error)
