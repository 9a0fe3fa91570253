"""Negatives from within the batch: for each past item one of another row."""

from typing import Any

import keras
import tensorflow as tf


class OtherItems(keras.layers.Layer):
    """Draws for each position of a history an item of another row of the batch.

    Every unpadded item of the other rows is equally likely, so the more often an item occurs, the
    more often it is drawn. The draw depends on a seed and a counter that are saved with the
    weights: a training that goes on from a file draws what an uninterrupted one would.

    Args:
        seed: Optional integer; by default it follows `keras.utils.set_random_seed`.
        **kwargs: Base layer keyword arguments.

    Call arguments:
        items: Float tensor of shape `(batch, length, width)`.
        mask: Boolean tensor of shape `(batch, length)`, `True` where there is an item.

    Returns:
        Tensor like `items`, and a boolean one like `mask`: where there is an item and one of
        another row was found for it.
    """

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = seed

    def build(self, items_shape, mask_shape=None):
        start = keras.random.SeedGenerator(self.seed).state[0]
        self.draws = self.add_weight(
            name="draws",
            shape=(2,),
            dtype="int64",
            initializer=lambda shape, dtype: tf.cast(tf.stack([start, 0]), dtype),
            trainable=False,
        )

    def call(self, items: Any, mask: Any) -> Any:
        own = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1, keepdims=True)
        number = tf.reduce_sum(own)
        others = number - own
        # All items in a ring, row by row: behind a row's last one begin those of the other rows.
        ends = tf.cumsum(own, axis=0)
        place = (ends + self._draw(tf.shape(mask), others)) % tf.maximum(number, 1)
        flat = tf.cast(tf.where(tf.reshape(mask, (-1,)))[:, 0], tf.int32)
        # A batch without items still has to draw something.
        flat = tf.concat([flat, tf.zeros((1,), tf.int32)], axis=0)
        drawn = tf.gather(tf.reshape(items, (-1, items.shape[-1])), tf.gather(flat, place))
        return drawn, tf.logical_and(mask, others > 0)

    def _draw(self, shape, others):
        """Integers of `shape` from 0 up to `others`, one bound a row."""
        uniform = tf.random.stateless_uniform(shape, tf.convert_to_tensor(self.draws))
        self.draws.assign_add([0, 1])
        drawn = tf.cast(uniform * tf.cast(others, tf.float32), tf.int32)
        return tf.minimum(drawn, tf.maximum(others - 1, 0))

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}
