"""From the logit of a model that saw a share of the negatives to the logit of a click."""

from typing import Any

import keras
from keras import KerasTensor, ops

from ctr_keras.api_export import export

_RECALIBRATED = "_ctr_keras_recalibrated"


@export
class Recalibration(keras.layers.Layer):
    """Adds the logarithm of the share of negatives that training saw, outside of training.

        p / (p + (1 - p) / ratio) = sigmoid(logit + log(ratio)), with p = sigmoid(logit)

    In training the logit passes as it is: there it is compared with the clicks of the very rows
    that were sampled. With `negative_ratio` 1, as it is at first, nothing changes.

    Its one weight, `negative_ratio`, is not trained: it is saved with the others, and assigned by
    `CTRModel.negative_ratio`.

    Args:
        **kwargs: `name` of `keras.layers.Layer`. It computes in float32, whatever the policy.

    Call arguments:
        logit: Tensor of any shape.
        training: Whether the call belongs to training.

    Output shape:
        That of `logit`, float32.

    Example:

    >>> layer = Recalibration()
    >>> layer.build((None, 1))
    >>> layer.negative_ratio.assign(0.1)
    >>> keras.ops.sigmoid(layer(keras.ops.zeros((1, 1))))   # 1 / 11

    Reference:
        [He et al., 2014: Practical Lessons from Predicting Clicks on Ads at
        Facebook](https://doi.org/10.1145/2648584.2648589), section 6.3
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**{**kwargs, "dtype": "float32"})

    def build(self, input_shape):
        self.negative_ratio = self.add_weight(
            name="negative_ratio", shape=(), initializer="ones", trainable=False
        )

    def call(self, logit, training=False):
        if training:
            return logit
        return logit + ops.log(self.negative_ratio)

    def compute_output_shape(self, input_shape):
        return input_shape

    def load_own_variables(self, store):
        # Models saved before there was this layer had seen every negative.
        if len(store.keys()):
            super().load_own_variables(store)


def recalibrated(logit: KerasTensor) -> tuple[Recalibration, KerasTensor]:
    """The layer and its output for a logit of a functional model.

    A model that is built on another's logit shares the other's layer, as it shares what computes
    the logit: both then mean the same by a probability.
    """
    if not hasattr(logit, _RECALIBRATED):
        layer = Recalibration(name="recalibration")
        setattr(logit, _RECALIBRATED, (layer, layer(logit)))
    return getattr(logit, _RECALIBRATED)


def share_recalibration(logit: KerasTensor, of: KerasTensor) -> None:
    """Let the probability of a logit mean the same as that of another one: one layer for both."""
    layer, _ = recalibrated(of)
    setattr(logit, _RECALIBRATED, (layer, layer(logit)))
