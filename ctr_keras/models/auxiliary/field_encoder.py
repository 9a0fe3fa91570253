"""The encoder of feature interactions of CL4CTR."""

from typing import Any

import keras
from keras import ops

from ctr_keras.layers import MLP, SelfAttention


class FieldEncoder(keras.layers.Layer):
    """A row's feature embeddings to one vector: transformer layers and a linear projection.

        E <- norm(E + self_attention(E));  E <- norm(E + MLP(E))        num_layers times
        h  = flatten(E) W + b

    Args:
        num_layers: Number of transformer layers.

    Call arguments:
        fields: Float tensor of shape `(batch, fields, dim)`.

    Output shape:
        `(batch, dim)`.
    """

    def __init__(self, num_layers: int, **kwargs: Any):
        super().__init__(**kwargs)
        if num_layers < 1:
            raise ValueError(f"`num_layers` must be positive. Received: `num_layers={num_layers}`")
        self.attentions = [SelfAttention(name=f"attention_{n}") for n in range(num_layers)]
        self.norms = [
            keras.layers.LayerNormalization(name=f"norm_{n}") for n in range(2 * num_layers)
        ]

    def build(self, fields_shape):
        dim = fields_shape[-1]
        shape = (None, *fields_shape[1:])
        self.feed_forwards = [
            keras.Sequential([MLP([2 * dim]), keras.layers.Dense(dim)], name=f"feed_forward_{n}")
            for n in range(len(self.attentions))
        ]
        for layer in (*self.attentions, *self.norms, *self.feed_forwards):
            layer.build(shape)
        self.projection = keras.layers.Dense(dim, name="projection")
        self.projection.build((None, fields_shape[1] * dim))

    def call(self, fields):
        x = fields
        for n, attention in enumerate(self.attentions):
            x = self.norms[2 * n](x + attention(x))
            x = self.norms[2 * n + 1](x + self.feed_forwards[n](x))
        return self.projection(ops.reshape(x, (ops.shape(x)[0], -1)))
