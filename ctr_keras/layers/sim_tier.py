"""How many past items are how similar to the target item."""

from typing import Any

import keras
import numpy as np
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.layers.argument_checks import check_mask, mask_of
from ctr_keras.layers.similarity import check_representations, similarity

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


@export
class SimTier(keras.layers.Layer):
    """Histogram of the similarities between past items and the target item.

        s_l    = v_l . v_target                                    in [-1, 1]
        tier_l = min(floor((s_l + 1) / 2 * num_tiers), num_tiers - 1)
        out_n  = how many unmasked l have tier_l = n

    A similarity at the edge of two tiers, as float32 rounds it, is in the upper one.

    The representations `v` are unit vectors, made by an encoder and frozen: nothing can be learned
    through a histogram, and no gradient flows. A vector of zeros stands for an item without a
    representation: it is in the tier of similarity 0 unless it is masked, or left out by
    `skip_zeros`. A NaN makes all counts of its row NaN, so that it is noticed.

    Args:
        num_tiers: Positive integer, the number of tiers of equal width. Defaults to `20`.
        skip_zeros: Whether to leave out a similarity of exactly 0, as a vector of zeros has it and
            the product of two floating-point vectors hardly ever. Defaults to `False`.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        target: Float tensor of shape `(batch, width)`.
        history: Float tensor of shape `(batch, length, width)`.
        mask: Optional boolean tensor of shape `(batch, length)`, `True` where there is a past item
            with a representation. Without it, the mask that Keras attached to `history`, if any.

    Output shape:
        `(batch, num_tiers)`, from the least similar tier to the most similar one.

    Example:

    >>> target, history = np.array([[1.0, 0.0]]), np.array([[[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]]])
    >>> np.asarray(SimTier(num_tiers=4)(target, history)).tolist()
    [[1.0, 0.0, 0.0, 2.0]]

    Reference:

    - [Sheng et al., 2024: Enhancing Taobao Display Advertising with Multimodal
      Representations](https://arxiv.org/abs/2407.19467), section on SimTier
    """

    def __init__(self, num_tiers: int = 20, skip_zeros: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.skip_zeros = skip_zeros
        self.num_tiers = check_positive_integer("num_tiers", num_tiers)
        self.supports_masking = True

    def build(self, target_shape, history_shape, mask_shape=None):
        check_representations(target_shape, history_shape)

    def call(self, target: Any, history: Any, mask: Any = None) -> Any:
        mask = mask_of(mask, history)
        check_mask(mask, history, "mask")
        scores = similarity(ops.stop_gradient(target), ops.stop_gradient(history))
        kept = None if mask is None else ops.cast(mask, "bool")
        if self.skip_zeros:
            is_there = ops.not_equal(scores, 0.0)
            kept = is_there if kept is None else ops.logical_and(kept, is_there)
        if kept is not None:
            scores = ops.where(kept, scores, float("inf"))
        counts = self._count(self._tiers(scores))
        # One NaN makes the sum of its row NaN, and infinity does not.
        is_nan = ops.isnan(ops.sum(scores, axis=1, keepdims=True))
        return ops.cast(ops.where(is_nan, float("nan"), counts), self.compute_dtype)

    def _tiers(self, scores):
        """How many edges each score has reached; infinity, which is left out, one more."""
        edges = np.linspace(-1, 1, self.num_tiers + 1, dtype="float32")[1:]
        edges[-1] = np.finfo("float32").max  # The last tier holds what rounding puts above 1.
        flat = ops.searchsorted(edges, ops.reshape(scores, (-1,)), side="right")
        return ops.reshape(ops.cast(flat, "int32"), ops.shape(scores))

    def _count(self, tier):
        """How often each tier occurs in a row, float32; what lies above the last is left out."""
        if keras.backend.backend() == "tensorflow":
            empty = tf.zeros((0,), tf.float32)
            return tf.raw_ops.DenseBincount(input=tier, size=self.num_tiers, weights=empty)
        return ops.sum(ops.one_hot(tier, self.num_tiers, dtype="float32"), axis=1)

    def compute_output_spec(self, target, history, mask=None):
        return keras.KerasTensor((target.shape[0], self.num_tiers), dtype=self.compute_dtype)

    def compute_output_shape(self, target_shape, history_shape, mask_shape=None):
        return (target_shape[0], self.num_tiers)

    def compute_mask(self, *args, **kwargs):
        return None  # The masked axis is gone.

    def get_config(self):
        return {**super().get_config(), "num_tiers": self.num_tiers, "skip_zeros": self.skip_zeros}
