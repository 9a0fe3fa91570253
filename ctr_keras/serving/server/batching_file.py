"""TF Serving's file of batching parameters."""

import pathlib

from google.protobuf import text_format

from ctr_keras.serving.batching_parameters import BatchingParameters
from ctr_keras.serving.server.batching import BatchingConfig

_READ = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")


def read_batching_file(path: str | pathlib.Path) -> BatchingConfig:
    """The parameters in a file that TF Serving takes as `--batching_parameters_file`.

    Raises:
        ValueError: it is no such file, or asks for what only TF Serving can do.
    """
    text = pathlib.Path(path).read_text(encoding="utf-8")
    try:
        proto = text_format.Parse(text, BatchingParameters())
        if proto.allowed_batch_sizes:
            raise ValueError(
                "Batches have as many rows as there are: leave `allowed_batch_sizes` out. "
                f"Received: `allowed_batch_sizes={list(proto.allowed_batch_sizes)}`"
            )
        given = {name: getattr(proto, name).value for name in _READ if proto.HasField(name)}
        return BatchingConfig(**given, pad_variable_length_inputs=proto.pad_variable_length_inputs)
    except (text_format.ParseError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
