"""How `fit` drives a compiled Keras model, in Keras 2 and 3 alike, less its Python loop."""

from collections.abc import Callable

import tensorflow as tf


def steps(model, features: dict, labels) -> Callable[[], object]:
    """One call is one training step on the next batch."""
    dataset = tf.data.Dataset.from_tensor_slices((features, labels)).prefetch(2)
    iterator = iter(dataset)
    model.make_train_function()
    return lambda: model.train_function(iterator)["loss"]
