"""The row as a `tf.train.Example`: what other TensorFlow tools write, and a server is sent."""

from collections.abc import Iterable

import tensorflow as tf

from ctr_keras.schema import Feature


def parse_examples(features: Iterable[Feature], examples: tf.Tensor) -> dict:
    """Parse serialized `tf.train.Example`s into raw columns.

    Args:
        features: The features to parse.
        examples: String tensor `(batch,)`.

    Returns:
        By feature name, a tensor `(batch,)`, `(batch, width)` for vectors, or a `tf.RaggedTensor`
        for sequences (empty where an example lacks it).
    """
    return tf.io.parse_example(examples, {feature.name: _spec(feature) for feature in features})


def _spec(feature: Feature):
    dtype = raw_dtype(feature)
    if feature.is_sequence:
        return tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
    return tf.io.FixedLenFeature(feature.shape, dtype)


def raw_dtype(feature: Feature) -> tf.DType:
    """TensorFlow's type of a raw value."""
    return {"float32": tf.float32, "int64": tf.int64, "string": tf.string}[feature.dtype]
