"""What the signatures of an exported model take, by its schema."""

import tensorflow as tf

from ctr_keras.examples import raw_dtype
from ctr_keras.schema import Feature, Schema


def expected_signatures(schema: Schema) -> dict[str, dict[str, tf.TensorSpec]]:
    """The arguments of each signature, by name.

    `rank` is there where the schema has features of items and others: those have one row.
    """
    columns = {f.name: column_spec(f) for f in schema.inputs}
    of_user = {name: spec for name, spec in columns.items() if not schema.is_of_item(name)}
    signatures = {
        "serving_default": columns,
        "serving_examples": {"examples": tf.TensorSpec((None,), tf.string, "examples")},
    }
    if 0 < len(of_user) < len(columns):
        one = {n: tf.TensorSpec((1, *s.shape[1:]), s.dtype, n) for n, s in of_user.items()}
        signatures["rank"] = columns | one
    return signatures


def column_spec(feature: Feature) -> tf.TensorSpec:
    """What the `serving_default` signature takes for a feature."""
    shape: tuple = (None,)
    if feature.is_sequence:
        shape = (None, None)
    elif feature.kind == "vector":
        shape = (None, *feature.shape)
    return tf.TensorSpec(shape, raw_dtype(feature), name=feature.name)
