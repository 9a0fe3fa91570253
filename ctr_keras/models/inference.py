"""A model's graph as one compiled function."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ctr_keras.models.ctr_model import CTRModel


def inference_function(model: CTRModel, outputs: Any = None) -> Callable[[dict], Any]:
    """A function of a batch of any size, traced once.

    Args:
        model: The model.
        outputs: Tensors of its graph in any structure; the probability by default.

    Returns:
        A function from a dict of features (more than the model takes may be in it) to the values
        of `outputs`.
    """
    graph = keras.Model(model.input, model.outputs[0] if outputs is None else outputs)
    spec = {name: tf.TensorSpec(t.shape, t.dtype, name) for name, t in model.input.items()}
    function = tf.function(lambda x: graph(x, training=False)).get_concrete_function(spec)
    return lambda x: function({name: x[name] for name in spec})
