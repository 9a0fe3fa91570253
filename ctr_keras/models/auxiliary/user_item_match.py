"""The user-item match task of AT4CTR."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from ctr_keras.layers import SelfAttention
from ctr_keras.losses import info_nce
from ctr_keras.models.auxiliary.towers import tower
from ctr_keras.models.features import mean_of_values


class UserItemMatch(keras.layers.Layer):
    """Contrasts the user of each click with the items of the batch, and its item with the users.

        u    = MLP_u([profile, mean_t self_attention(history)_t])
        v    = MLP_v(item)
        loss = info_nce(u, v) + info_nce(v, u)      anchors: the clicks; candidates: all rows

    An anchor's loss has the weight of its row; a row of weight 0 is no candidate either, as if it
    were not in the batch.

    Args:
        units: Widths of both projections' layers: ReLU between them, the last one linear.
        num_heads: Heads of the self-attention.
        temperature: Of the softmax over cosine similarities.

    Reference:
        [Liu et al., 2023: AT4CTR](https://arxiv.org/abs/2312.06683), user-item match task
    """

    def __init__(self, units: Sequence[int], num_heads: int, temperature: float, **kwargs: Any):
        # The weights of rows stay float32 under mixed precision: half of it ends at 65504.
        super().__init__(autocast=False, **kwargs)
        self.temperature = temperature
        self.attention = SelfAttention(num_heads, name="attention")
        self.of_user = tower(units, "of_user")
        self.of_item = tower(units, "of_item")

    def build(self, user_shape, item_shape, history_shape=None):
        width = 0 if user_shape is None else user_shape[-1]
        if history_shape is not None:
            self.attention.build(history_shape)
            width += history_shape[-1]
        self.of_user.build((None, width))
        self.of_item.build(item_shape)

    def call(
        self, user, item, history, history_mask, clicked, user_ids, item_ids, weights=None,
        training=True,
    ):  # fmt: skip
        """The loss, a scalar.

        Args:
            user: Profile `(rows, U)` or `None`.
            item: Features of the target item `(rows, I)`.
            history: Past items `(rows, length, W)` or `None`.
            history_mask: Where there is one: bool `(rows, length)`.
            clicked: The anchors: bool `(rows,)`.
            user_ids: Rows of one user are no negatives of each other's item; or `None`.
            item_ids: Rows of one item are no negatives of each other's user; or `None`.
            weights: Of the rows `(rows,)`, or `None`.
            training: Passed to the layers.
        """
        parts = [] if user is None else [user]
        if history is not None:
            attended = self.attention(history, mask=history_mask, training=training)
            parts.append(mean_of_values(attended, history_mask))
        joint = parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)
        return info_nce(
            self.of_user(joint, training=training),
            self.of_item(item, training=training),
            self.temperature,
            anchor_mask=clicked,
            candidate_mask=None if weights is None else ops.not_equal(weights, 0),
            anchor_weight=weights,
            query_ids=user_ids,
            key_ids=item_ids,
            symmetric=True,
        )
