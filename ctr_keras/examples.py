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


def serialize_examples(features: Iterable[Feature], columns: dict) -> list[bytes]:
    """The opposite of `parse_examples`: raw columns as serialized `tf.train.Example`s.

    Args:
        features: The features to write.
        columns: By feature name, a tensor `(batch, ...)` or a `tf.RaggedTensor`.
    """
    features = list(features)
    rows = int(tf.shape(columns[features[0].name])[0])
    examples = []
    for row in range(rows):
        example = tf.train.Example()
        for feature in features:
            values = tf.reshape(columns[feature.name][row], (-1,)).numpy().tolist()
            target = example.features.feature[feature.name]
            lists = {"float32": target.float_list, "int64": target.int64_list}
            lists.get(feature.dtype, target.bytes_list).value.extend(values)
        examples.append(example.SerializeToString())
    return examples


def _spec(feature: Feature):
    dtype = raw_dtype(feature)
    if feature.is_sequence:
        return tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
    return tf.io.FixedLenFeature(feature.shape, dtype)


def raw_dtype(feature: Feature) -> tf.DType:
    """TensorFlow's type of a raw value."""
    return {"float32": tf.float32, "int64": tf.int64, "string": tf.string}[feature.dtype]
