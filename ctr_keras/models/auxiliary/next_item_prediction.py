"""The next-item prediction task of AT4CTR."""

from typing import Any

import keras
from keras import ops

from ctr_keras.layers import CausalSelfAttention
from ctr_keras.losses import info_nce
from ctr_keras.models.auxiliary.leading import leading


class NextItemPrediction(keras.layers.Layer):
    """Predicts each past item from those before it.

        r    = causal_self_attention(history)
        loss = info_nce(r^k, e^(k+1)) + info_nce(e^(k+1), r^k)      at each position k

    The negatives of a row at a position are the other rows' items at the same position. A row
    without an item there is neither anchor nor candidate, another row's same item no negative.

    Args:
        num_heads: Heads of the self-attention.
        temperature: Of the softmax over cosine similarities.

    Reference:
        [Liu et al., 2023: AT4CTR](https://arxiv.org/abs/2312.06683), next item prediction task
    """

    def __init__(self, num_heads: int, temperature: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.temperature = temperature
        self.attention = CausalSelfAttention(num_heads, name="attention")

    def build(self, history_shape):
        self.attention.build(history_shape)

    def call(self, history, history_mask, history_ids, training=True):
        """The loss, a scalar: the mean over all pairs of row and position that have a next item.

        Args:
            history: Past items `(rows, length, W)`, oldest first.
            history_mask: Where there is one: bool `(rows, length)`.
            history_ids: Their ids `(rows, length)`, or `None`.
            training: Passed to the layers.
        """
        if history.shape[1] < 2:
            return ops.zeros(())
        seen = self.attention(history, mask=history_mask, training=training)
        ids = None if history_ids is None else ops.transpose(history_ids[:, 1:])
        return info_nce(
            leading(ops.swapaxes(seen, 0, 1), 0, history.shape[1] - 1),
            leading(ops.swapaxes(history, 0, 1), 1, history.shape[1] - 1),
            self.temperature,
            candidate_mask=ops.transpose(history_mask[:, 1:]),
            query_ids=ids,
            key_ids=ids,
            symmetric=True,
        )
