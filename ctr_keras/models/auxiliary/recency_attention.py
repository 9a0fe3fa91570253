"""Attention that knows how long ago a past item was."""

from typing import Any

import keras
from keras import ops

from ctr_keras.api_export import export


@export
class RecencyAttention(keras.layers.Layer):
    """Pools a history by content and position, counted from the most recent item.

        b_t = z . tanh(W_e e_t + W_p p_(T - t) + W_c target + b)
        out = sum_t softmax_t(b_t) e_t                 over the unmasked positions

    A row without any gives zeros.

    Args:
        units: Width of the hidden layer.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        items: Float tensor of shape `(batch, length, width)`, oldest first.
        mask: Boolean tensor of shape `(batch, length)`; the unmasked positions come first.
        target: Optional float tensor of shape `(batch, any width)`.

    Output shape:
        `(batch, width)`, and the scores `b_t` `(batch, length)`, zero where masked.

    Reference:

    - [Lyu et al., 2020: Deep Match to Rank Model](https://doi.org/10.1609/aaai.v34i01.5346)
    """

    def __init__(self, units: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = units
        self.supports_masking = True
        dtype = self.dtype_policy
        self.of_item = keras.layers.Dense(units, dtype=dtype, name="of_item")
        self.of_target = keras.layers.Dense(units, use_bias=False, dtype=dtype, name="of_target")
        self.score = keras.layers.Dense(1, use_bias=False, dtype=dtype, name="score")

    def build(self, items_shape, mask_shape=None, target_shape=None):
        # W_p p is one learned vector a position.
        self.positions = self.add_weight(
            name="positions", shape=(items_shape[1], self.units), initializer="uniform"
        )
        self.of_item.build(items_shape)
        if target_shape is not None:
            self.of_target.build((None, target_shape[-1]))
        self.score.build((None, None, self.units))

    def call(self, items: Any, mask: Any, target: Any = None) -> Any:
        count = ops.sum(ops.cast(mask, "int32"), axis=1, keepdims=True)
        recency = count - 1 - ops.arange(ops.shape(mask)[1], dtype="int32")
        hidden = self.of_item(items) + ops.take(self.positions, ops.maximum(recency, 0), axis=0)
        if target is not None:
            hidden = hidden + self.of_target(target)[:, None, :]
        scores = ops.squeeze(self.score(ops.tanh(hidden)), axis=-1)
        scores = ops.where(mask, scores, 0)
        exponent = ops.cast(ops.where(mask, scores, -1e4), "float32")
        weights = ops.where(mask, ops.cast(ops.softmax(exponent, axis=-1), scores.dtype), 0)
        return ops.squeeze(ops.matmul(weights[:, None, :], items), axis=1), scores

    def compute_mask(self, *args, **kwargs):
        return None, None  # The masked axis is gone from one, the other is zero there.

    def compute_output_spec(self, items, mask, target=None):
        return (
            keras.KerasTensor((items.shape[0], items.shape[-1]), dtype=self.compute_dtype),
            keras.KerasTensor(tuple(items.shape[:2]), dtype=self.compute_dtype),
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}
