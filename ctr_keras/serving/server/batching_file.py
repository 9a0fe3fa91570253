"""TF Serving's file of batching parameters."""

import functools
import pathlib
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)

from ctr_keras.serving.server.batching import BatchingConfig

# TensorFlow publishes no Python module of this message: its fields, by number.
_WRAPPED = {
    "max_batch_size": (1, "Int64Value"),
    "batch_timeout_micros": (2, "Int64Value"),
    "max_enqueued_batches": (3, "Int64Value"),
    "num_batch_threads": (4, "Int64Value"),
    "thread_pool_name": (5, "StringValue"),
}
_READ = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")


def read_batching_file(path: str | pathlib.Path) -> BatchingConfig:
    """The parameters in a file that TF Serving takes as `--batching_parameters_file`.

    Raises:
        ValueError: it is no such file, or asks for what only TF Serving can do.
    """
    text = pathlib.Path(path).read_text(encoding="utf-8")
    try:
        proto = text_format.Parse(text, _message()())
        if proto.allowed_batch_sizes or proto.pad_variable_length_inputs:
            raise ValueError(
                "Batches are padded neither to `allowed_batch_sizes` nor, as what pads a feature "
                "is known to the model alone, by `pad_variable_length_inputs`. "
                f"Received: `{text_format.MessageToString(proto, as_one_line=True)}`"
            )
        given = {name: getattr(proto, name).value for name in _READ if proto.HasField(name)}
        return BatchingConfig(**given)
    except (text_format.ParseError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


@functools.cache
def _message() -> Any:
    """The class of `tensorflow.serving.BatchingParameters`."""
    file = descriptor_pb2.FileDescriptorProto(
        name="ctr_keras/batching_parameters.proto",
        package="ctr_keras.serving",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    message = file.message_type.add(name="BatchingParameters")
    field = descriptor_pb2.FieldDescriptorProto
    for name, (number, kind) in _WRAPPED.items():
        message.field.add(
            name=name,
            number=number,
            label=field.LABEL_OPTIONAL,
            type=field.TYPE_MESSAGE,
            type_name=f".google.protobuf.{kind}",
        )
    message.field.add(
        name="allowed_batch_sizes", number=6, label=field.LABEL_REPEATED, type=field.TYPE_INT64
    )
    message.field.add(
        name="pad_variable_length_inputs",
        number=7,
        label=field.LABEL_OPTIONAL,
        type=field.TYPE_BOOL,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    found = pool.FindMessageTypeByName("ctr_keras.serving.BatchingParameters")
    return message_factory.GetMessageClass(found)
