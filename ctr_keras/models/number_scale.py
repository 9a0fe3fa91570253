"""Numbers of any unit, brought to one scale."""

from typing import Any

import keras
from keras import ops

from ctr_keras.api_export import export

# What deviates by less than this share of its mean is a constant, to the rounding of float32.
_LEAST_SPREAD = 1e-4
_LEAST_VARIANCE = 1e-16  # Of what is constantly 0.
# No value of a batch of 1024 is further out, in standard deviations.
_FARTHEST = 32.0


@export
class NumberScale(keras.layers.Layer):
    """Batch normalization of a number whose unit may be anything.

        gamma * clip((x - mean) / sqrt(variance + floor), -32, 32) + beta

    with the mean and variance of the batch in training and their moving averages elsewhere, which
    are those of the first batch after it; an empty batch leaves them as they are. Unlike Keras'
    epsilon, the floor goes with the mean, so a rate of 0.001 counts as much as an amount of a
    million. A column that was constant in training gives `beta`, and the clip keeps a value that it
    first shows later from drowning all else.

    Args:
        momentum: Of the moving averages, once there were enough batches for it.
        **kwargs: `name` of `keras.layers.Layer`. It computes in float32, whatever the policy.

    Call arguments:
        inputs: Tensor `(batch, 1)`.
        training: Whether the call belongs to training.

    Output shape:
        `(batch, 1)`, float32.
    """

    def __init__(self, momentum: float = 0.9, **kwargs: Any):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.momentum = momentum

    def build(self, input_shape):
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer="ones")
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros")
        self.moving_mean = self.add_weight(
            name="moving_mean", shape=shape, initializer="zeros", trainable=False
        )
        self.moving_variance = self.add_weight(
            name="moving_variance", shape=shape, initializer="ones", trainable=False
        )
        self.batches = self.add_weight(
            name="batches", shape=(), initializer="zeros", trainable=False
        )

    def call(self, inputs, training=False):
        mean, variance = self.moving_mean, self.moving_variance
        if training and self.trainable:
            mean, variance = self._batch_statistics(inputs)
        floor = ops.square(_LEAST_SPREAD * mean) + _LEAST_VARIANCE
        scaled = (inputs - mean) * ops.rsqrt(variance + floor)
        return ops.clip(scaled, -_FARTHEST, _FARTHEST) * self.gamma + self.beta

    def _batch_statistics(self, inputs):
        """Mean and variance of the batch, towards which the moving ones go."""
        mean, variance = ops.moments(inputs, axes=[0])
        has_rows = ops.shape(inputs)[0] > 0
        # Of no rows they are NaN, and the moving ones would be for good.
        mean = ops.where(has_rows, mean, self.moving_mean.value)
        variance = ops.where(has_rows, variance, self.moving_variance.value)
        self.batches.assign_add(ops.cast(has_rows, "float32"))
        share = ops.maximum(1 - self.momentum, 1 / ops.maximum(self.batches, 1))
        self.moving_mean.assign(self.moving_mean * (1 - share) + mean * share)
        self.moving_variance.assign(self.moving_variance * (1 - share) + variance * share)
        return mean, variance

    def compute_output_shape(self, input_shape):
        return input_shape

    def load_own_variables(self, store):
        if not len(store.keys()):
            raise ValueError(
                "The file is of an earlier version, whose numbers were scaled otherwise: train the "
                f"model again. Received: the layer {self.name!r} without weights"
            )
        super().load_own_variables(store)

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum}
