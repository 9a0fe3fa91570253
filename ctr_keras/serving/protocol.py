"""TF Serving's messages and services, and gRPC: what the extra `serving` brings."""

from typing import Any

from ctr_keras.extras import require


def _api(module: str) -> Any:
    return require(module, "serving", "A server or a client of models")


grpc = _api("grpc")
metadata_pb2 = _api("tensorflow_serving.apis.get_model_metadata_pb2")
model_management_pb2 = _api("tensorflow_serving.apis.model_management_pb2")
model_pb2 = _api("tensorflow_serving.apis.model_pb2")
model_server_config_pb2 = _api("tensorflow_serving.config.model_server_config_pb2")
model_service_pb2_grpc = _api("tensorflow_serving.apis.model_service_pb2_grpc")
predict_pb2 = _api("tensorflow_serving.apis.predict_pb2")
prediction_log_pb2 = _api("tensorflow_serving.apis.prediction_log_pb2")
prediction_service_pb2_grpc = _api("tensorflow_serving.apis.prediction_service_pb2_grpc")
status_pb2 = _api("tensorflow_serving.apis.get_model_status_pb2")
