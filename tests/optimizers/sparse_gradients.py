"""Gradients with repeated rows, and what a traced step does to a variable."""

import collections

import keras
import numpy as np
import tensorflow as tf

ROWS, WIDTH = 12, 4


def table(seed=0, rows=ROWS):
    values = np.random.default_rng(seed).normal(size=(rows, WIDTH))
    variable = keras.Variable(values.astype("float32"), name="table")
    variable.sparse_rows = True
    return variable


def slices(indices, seed, rows=ROWS, scale=1.0):
    values = np.random.default_rng(seed).normal(size=(len(indices), WIDTH)) * scale
    return tf.IndexedSlices(
        tf.constant(values, tf.float32), tf.constant(indices, tf.int64), (rows, WIDTH)
    )


def some_rows(seed, count=9, rows=ROWS):
    """Ids with repeats that leave some rows out."""
    return np.random.default_rng(seed).integers(0, rows, count)


def all_rows(seed, rows=ROWS):
    """Each row at least once, some more often."""
    rng = np.random.default_rng(seed)
    return rng.permutation(np.concatenate([np.arange(rows), rng.integers(0, rows, 7)]))


def to_dense(gradient):
    return np.array(tf.convert_to_tensor(gradient))


def consumers(function, variable):
    """Type of op -> how many of them take this variable's resource in a traced function."""
    graph = function.graph
    handles = [c for v, c in graph.captures if v is variable.value.handle]
    return collections.Counter(op.type for handle in handles for op in handle.consumers())
