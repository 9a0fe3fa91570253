"""Requests made of real rows, which TF Serving runs before a version takes traffic."""

import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ctr_keras.data.raw_rows import raw_rows
from ctr_keras.examples import serialize_examples
from ctr_keras.extras import require
from ctr_keras.schema import Schema
from ctr_keras.serving.tensors import put_arrays

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
    columns = raw_rows(data, schema, min(_ROWS, MAX_RECORDS // len(signatures)))
    write_requests(folder, model, _requests(schema, columns, signatures))


def write_requests(
    folder: pathlib.Path, model: str, requests: Iterable[tuple[str, Mapping[str, np.ndarray]]]
) -> None:
    """Write requests as the warm-up file of a version.

    Args:
        folder: The version.
        model: Its model's name.
        requests: Of each the name of the signature, and its inputs.
    """
    messages = require_serving_api()
    path = folder / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests:
            log = messages.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = model
            request.model_spec.signature_name = signature
            put_arrays(request.inputs, inputs)
            writer.write(log.SerializeToString())


def read_requests(folder: pathlib.Path) -> Iterator[Any]:
    """The `PredictRequest`s in the warm-up file of a version, none without a file.

    Raises:
        ValueError: a record is no prediction, or there are more than TF Serving takes.
    """
    path = folder / WARMUP_FILE
    if not path.is_file():
        return
    messages = require_serving_api()
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    for number, record in enumerate(records, start=1):
        if number > MAX_RECORDS:
            raise ValueError(
                f"At most {MAX_RECORDS} warm-up records are read. Received: `file={str(path)!r}`"
            )
        log = messages.PredictionLog.FromString(record)
        if log.WhichOneof("log_type") != "predict_log":
            raise ValueError(
                f"Warm-up record {number} must be a `predict_log`. "
                f"Received: `log_type={log.WhichOneof('log_type')!r}`"
            )
        yield log.predict_log.request


def _requests(
    schema: Schema, columns: dict, signatures: Sequence[str]
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Of each row one a signature, so that none of them waits for the others.

    To `rank` it is the row's user with the row's item alone: with one row in every input, a server
    that batches takes the request too.
    """
    examples = serialize_examples(schema.inputs, columns)
    padded = _padded_columns(schema, columns)
    for row, example in enumerate(examples):
        one = {name: x[row : row + 1].numpy() for name, x in padded.items()}
        for signature in signatures:
            inputs = one
            if signature == "serving_examples":
                inputs = {"examples": np.array([example], object)}
            yield signature, inputs


def _padded_columns(schema: Schema, columns: dict) -> dict[str, tf.Tensor]:
    """Raw columns as `serving_default` takes them, sequences at least as long as in the schema."""
    padded = {}
    for name, x in columns.items():
        if isinstance(x, tf.RaggedTensor):
            longest = max(int(x.bounding_shape()[1]), schema[name].length or 0)
            x = x.to_tensor(schema.padding(name), shape=(None, longest))
        padded[name] = x
    return padded
