"""Negatives from within the batch: for each past item one of another row."""

from typing import Any

import keras
import tensorflow as tf

from ctr_keras.layers.unpadded import index_unpadded, put_unpadded
from ctr_keras.models.saved_seed import SavedSeed


class OtherItems(keras.layers.Layer):
    """Draws for each position of a history an item of another row of the batch.

    Every unpadded item of the other rows is equally likely, so the more often an item occurs, the
    more often it is drawn.

    Args:
        seed: Optional integer; by default it follows `keras.utils.set_random_seed`.
        **kwargs: Base layer keyword arguments.

    Call arguments:
        items: Tensor of shape `(batch, length, width)`, or a list of those that tell of one item.
        mask: Boolean tensor of shape `(batch, length)`, `True` where there is an item.

    Returns:
        Tensors like `items`, zeros where masked, and a boolean one like `mask`: where there is an
        item and one of another row was found for it.
    """

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = seed
        self.random = SavedSeed(seed, name="random")

    def call(self, items: Any, mask: Any) -> Any:
        batch, length = tf.unstack(tf.shape(mask))
        positions, slots = index_unpadded(tf.reshape(mask, (-1,)))
        rows = positions // length
        own = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
        others = tf.size(positions) - own
        # All items in a ring, row by row: behind a row's last one begin those of the other rows.
        place = tf.gather(tf.cumsum(own), rows) + self._draw(tf.gather(others, rows))
        place %= tf.maximum(tf.size(positions), 1)
        sources = tf.gather(positions, place)

        def draw(x):
            flat = tf.reshape(x, (-1, x.shape[-1]))
            drawn = put_unpadded(tf.gather(flat, sources), positions, slots)
            return tf.reshape(drawn, (batch, length, x.shape[-1]))

        return keras.tree.map_structure(draw, items), tf.logical_and(mask, others[:, None] > 0)

    def _draw(self, bounds):
        """For each of `bounds` an integer from 0 up to it, exclusive; 0 where it is 0."""
        uniform = tf.random.stateless_uniform(tf.shape(bounds), self.random.next())
        drawn = tf.cast(uniform * tf.cast(bounds, tf.float32), tf.int32)
        return tf.minimum(drawn, tf.maximum(bounds - 1, 0))

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}
