"""Ids that a fused table cannot tell from a neighbour's must be caught before the lookup."""

import keras
import numpy as np
from keras import ops

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


def check_dtype(name, ids):
    dtype = keras.backend.standardize_dtype(ids.dtype)
    if "int" not in dtype:
        raise TypeError(
            f"Feature '{name}' must hold integer ids. Received: `inputs['{name}'].dtype={dtype}`"
        )
    return ids


def check_range(ids, sizes):
    """The same ids, on which an error depends that names the features out of range."""
    if keras.backend.backend() == "tensorflow" and not tf.executing_eagerly():
        return _check_range_in_graph(ids, sizes)
    for name, x in ids.items():
        if not _is_concrete(x) or not ops.size(x):
            continue
        low, high = int(ops.min(x)), int(ops.max(x))
        if low < 0 or high >= sizes[name]:
            raise ValueError(
                f"The ids of feature '{name}' must lie in [0, {sizes[name]}). "
                f"Received: `inputs['{name}']` with ids from {low} to {high}"
            )
    return ids


def _is_concrete(x):
    if keras.backend.backend() != "jax":
        return True
    import jax

    return not isinstance(x, jax.core.Tracer)


def _check_range_in_graph(ids, sizes):
    highest = tf.stack([_highest(x) for x in ids.values()])
    limits = np.array([sizes[name] for name in ids], "uint64")
    fits = highest < limits
    names = tf.constant([f"{name} (size {sizes[name]}) " for name in ids])
    message = "Ids must lie in [0, size), 0 for padding. Out of range:"
    found = tf.strings.reduce_join(tf.where(fits, "", names))
    # Not `tf.Assert`, which would trace a branch of its own for the error.
    check = tf.raw_ops.Assert(condition=tf.reduce_all(fits), data=[message, found])
    with tf.control_dependencies([check]):
        return {name: tf.identity(x) for name, x in ids.items()}


def _highest(ids):
    """The highest id as `uint64`, read as unsigned so that a negative one is higher than any."""
    unsigned = {1: tf.uint8, 2: tf.uint16, 4: tf.uint32, 8: tf.uint64}[ids.dtype.size]
    return tf.cast(tf.reduce_max(tf.bitcast(ids, unsigned)), tf.uint64)
