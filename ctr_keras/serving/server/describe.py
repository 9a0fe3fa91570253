"""What a server tells of its models, as TF Serving's messages."""

from ctr_keras.serving.errors import InvalidArgumentError
from ctr_keras.serving.protocol import grpc, metadata_pb2, status_pb2
from ctr_keras.serving.server.manager import ModelManager
from ctr_keras.serving.server.model_name import ModelName


def model_status(manager: ModelManager, model: ModelName):
    """A `GetModelStatusResponse`."""
    response = status_pb2.GetModelStatusResponse()
    for status in manager.statuses(model):
        version = response.model_version_status.add(version=status.version)
        version.state = status_pb2.ModelVersionStatus.State.Value(status.state.value)
        version.status.error_code = grpc.StatusCode[status.code].value[0]
        version.status.error_message = status.message
    return response


def model_metadata(manager: ModelManager, model: ModelName, fields=("signature_def",)):
    """A `GetModelMetadataResponse`.

    Raises:
        InvalidArgumentError: a field is asked for that there is not.
    """
    if not fields:
        raise InvalidArgumentError("`metadata_field` must name at least one field")
    for field in fields:
        if field != "signature_def":
            raise InvalidArgumentError(f"Metadata field {field} is not supported")
    response = metadata_pb2.GetModelMetadataResponse()
    with manager.lease(model) as (version, servable):
        signatures = metadata_pb2.SignatureDefMap()
        for name, proto in servable.model.signature_protos.items():
            signatures.signature_def[name].CopyFrom(proto)
    response.model_spec.name = model.name
    response.model_spec.version.value = version
    response.metadata["signature_def"].Pack(signatures)
    return response
