"""The two layouts of a TFRecord shard: how rows become records, and records columns again."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from ctr_keras.columns import Columns, Ragged, num_rows
from ctr_keras.examples import parse_examples
from ctr_keras.schema import Feature, Schema

LAYOUTS = ("block", "row")
_ROWS_KEY = "__rows__"


def check_layout(layout: str) -> None:
    """Refuse what is no layout, with a `ValueError`: before the work, not when it is written."""
    if layout not in LAYOUTS:
        raise ValueError(f"`layout` must be one of {LAYOUTS}. Received: `{layout=}`")


def storage_dtype(schema: Schema, feature: Feature) -> str:
    """Type on disk: ids that are known to fit take 4 bytes, in place of 8."""
    if feature.dtype == "int64" and feature.kind == "id":
        vocabulary = schema.vocabulary(feature.name)
        if vocabulary is not None and vocabulary.is_encoded and vocabulary.size < 2**31:
            return "int32"
    return feature.dtype


def encode_block(schema: Schema, columns: Columns) -> bytes:
    """All rows as one `tf.train.Example`: each column its raw little-endian bytes.

    A sequence adds `<name>/lengths` (int32); texts stay a list of bytes.
    """
    features = {_ROWS_KEY: _int64_feature([num_rows(columns)])}
    for feature in schema:
        column = columns[feature.name]
        if isinstance(column, Ragged):
            lengths = np.ascontiguousarray(column.lengths, "<i4").tobytes()
            features[f"{feature.name}/lengths"] = _bytes_feature([lengths])
            column = column.values
        if feature.dtype == "string":
            features[feature.name] = _bytes_feature([value.encode() for value in column])
        else:
            dtype = np.dtype(storage_dtype(schema, feature)).newbyteorder("<")
            features[feature.name] = _bytes_feature([column.astype(dtype, copy=False).tobytes()])
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString()


def decode_block(schema: Schema, names: list[str], record: tf.Tensor) -> dict:
    """The named columns of a block record: tensors `(rows,)`, ragged for sequences."""
    specs: dict = {}
    for feature in map(schema.__getitem__, names):
        is_text = feature.dtype == "string"
        specs[feature.name] = (
            tf.io.FixedLenSequenceFeature((), tf.string, allow_missing=True)
            if is_text
            else tf.io.FixedLenFeature((), tf.string)
        )
        if feature.is_sequence:
            specs[f"{feature.name}/lengths"] = tf.io.FixedLenFeature((), tf.string)
    parsed = tf.io.parse_single_example(record, specs)
    return {name: _decode_column(schema, schema[name], parsed) for name in names}


def _decode_column(schema: Schema, feature: Feature, parsed: dict):
    values = parsed[feature.name]
    if feature.dtype != "string":
        values = tf.io.decode_raw(values, tf.as_dtype(storage_dtype(schema, feature)))
    if feature.kind == "vector":
        return tf.reshape(values, (-1, *feature.shape))
    if feature.is_sequence:
        lengths = tf.io.decode_raw(parsed[f"{feature.name}/lengths"], tf.int32)
        return tf.RaggedTensor.from_row_lengths(values, lengths, validate=False)
    return values


def encode_rows(schema: Schema, columns: Columns) -> Iterator[bytes]:
    """Each row as a `tf.train.Example` with int64, float and bytes lists."""
    for row in range(num_rows(columns)):
        example = tf.train.Example()
        for feature in schema:
            column = columns[feature.name]
            if isinstance(column, Ragged):
                values = column.values[column.offsets[row] : column.offsets[row + 1]]
            else:
                # Not `column[row]`: of one text NumPy makes an array without the zeros at its end.
                values = np.ravel(column[row : row + 1])
            target = example.features.feature[feature.name]
            if feature.dtype == "string":
                target.bytes_list.value.extend(value.encode() for value in values)
            elif feature.dtype == "float32":
                target.float_list.value.extend(values.tolist())
            else:
                target.int64_list.value.extend(values.tolist())
        yield example.SerializeToString()


def decode_rows(schema: Schema, names: list[str], records: tf.Tensor) -> dict:
    """The named columns of a batch of row records: tensors `(rows,)`, ragged for sequences."""
    return parse_examples(map(schema.__getitem__, names), records)


def _bytes_feature(values: list[bytes]) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _int64_feature(values: list[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
