"""Requests made of real rows, which TF Serving runs before a version takes traffic."""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from ctr_keras.data.raw_rows import raw_rows
from ctr_keras.examples import serialize_examples
from ctr_keras.extras import require
from ctr_keras.schema import Schema

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
MAX_RECORDS = 1000  # TF Serving refuses a file with more.
_ROWS = 100


def require_serving_api() -> Any:
    """The messages of TF Serving.

    Raises:
        ImportError: they are not installed; names the extra to install.
    """
    return require("tensorflow_serving.apis.prediction_log_pb2", "serving", "A warm-up")


def write_warmup(
    folder: pathlib.Path,
    model: str,
    schema: Schema,
    signatures: Sequence[str],
    data: str | os.PathLike,
) -> None:
    """Write the warm-up file of a version: for each of some rows a request a signature.

    Args:
        folder: The version.
        model: Its model's name.
        schema: What it takes.
        signatures: Names of its signatures.
        data: Folder that `ck.data.write` made.
    """
    messages = require_serving_api()
    columns = raw_rows(data, schema, min(_ROWS, MAX_RECORDS // len(signatures)))
    path = folder / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in _requests(schema, columns, signatures):
            log = messages.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = model
            request.model_spec.signature_name = signature
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value.numpy()))
            writer.write(log.SerializeToString())


def _requests(
    schema: Schema, columns: dict, signatures: Sequence[str]
) -> Iterator[tuple[str, dict]]:
    """Of each row one a signature, so that none of them waits for the others.

    To `rank` it is the row's user with the row's item alone: with one row in every input, a server
    that batches takes the request too.
    """
    examples = serialize_examples(schema.inputs, columns)
    padded = padded_columns(schema, columns)
    for row, example in enumerate(examples):
        one = {name: x[row : row + 1] for name, x in padded.items()}
        for signature in signatures:
            inputs = one
            if signature == "serving_examples":
                inputs = {"examples": tf.constant([example])}
            yield signature, inputs


def padded_columns(schema: Schema, columns: dict) -> dict[str, tf.Tensor]:
    """Raw columns as `serving_default` takes them, sequences at least as long as in the schema."""
    padded = {}
    for name, x in columns.items():
        if isinstance(x, tf.RaggedTensor):
            longest = max(int(x.bounding_shape()[1]), schema[name].length or 0)
            x = x.to_tensor(schema.padding(name), shape=(None, longest))
        padded[name] = x
    return padded
