"""The layers that decide on a click, with weights that all rows share or a set for each task."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from ctr_keras.layers.mlp import check_units


class DecisionLayers(keras.layers.Layer):
    """Dense layers with an activation between them, down to a logit.

        x_(l+1) = activation(x_l W_l + b_l),    logit = x_n W_n + b_n

    The weights may be given at each call, one set for each of several tasks; all tasks are then
    one batched product a layer. It computes in float32, whatever the policy: a small step of the
    weights would vanish in less.

    Args:
        units: Widths of the layers before the logit.
        activation: Activation between the layers.
        **kwargs: `name` of `keras.layers.Layer`.

    Call arguments:
        inputs: `(rows, width)`, or `(tasks, rows, width)` with weights a task.
        weights: Kernels and biases in turn, as in `self.shared_weights`, each with an axis
            `tasks` in front. By default the shared ones.

    Output shape:
        That of `inputs` with a last axis of 1.
    """

    def __init__(self, units: Sequence[int], activation: str = "relu", **kwargs: Any):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.units = check_units(units)
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        widths = [input_shape[-1], *self.units, 1]
        self.shared_weights = []
        for i, shape in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            self.shared_weights += [
                self.add_weight(name=f"kernel_{i}", shape=shape, initializer="glorot_uniform"),
                self.add_weight(name=f"bias_{i}", shape=shape[1:], initializer="zeros"),
            ]

    def call(self, inputs, weights=None):
        x = inputs
        weights = self.shared_weights if weights is None else weights
        pairs = list(zip(weights[::2], weights[1::2], strict=True))
        for number, (kernel, bias) in enumerate(pairs):
            x = ops.matmul(x, kernel) + ops.expand_dims(bias, -2)
            if number < len(pairs) - 1:
                x = self.activation(x)
        return x

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 1)
