"""The keys of past batches, in a ring."""

from typing import Any

import keras
import tensorflow as tf

from ctr_keras.api_export import export
from ctr_keras.argument_checks import check_positive_integer

SIZE = 196_800


@export
class MemoryBank(keras.layers.Layer):
    """The last `size` keys, oldest overwritten first, with the ids of what they stand for.

    It is part of a model's state: saved and restored with it, and never trained. A batch may be of
    any size, also larger than the bank, whose last rows are then kept. Adding a batch writes its
    rows in place and costs the same whatever the size of the bank.

    Args:
        width: Width of the keys.
        size: Number of slots.
        **kwargs: `name` of `keras.layers.Layer`. It keeps float32, whatever the policy.

    Example:

    >>> bank = MemoryBank(width=128, size=1000)
    >>> bank.add(keys, ids)
    >>> bank.keys, bank.ids, bank.in_use       # (1000, 128), (1000,), (1000,)

    Reference:
        [He et al., 2019: Momentum Contrast](https://arxiv.org/abs/1911.05722), section 3.2
    """

    def __init__(self, width: int, size: int = SIZE, **kwargs: Any):
        super().__init__(**{**kwargs, "dtype": "float32", "trainable": False})
        self.width = check_positive_integer("width", width)
        self.size = check_positive_integer("size", size)
        self._keys = self.add_weight(name="keys", shape=(size, width), initializer="zeros")
        self._ids = self.add_weight(name="ids", shape=(size,), initializer="zeros", dtype="int64")
        # How many were ever added: the place of the next one, and how much of the ring is in use.
        self.added = self.add_weight(name="added", shape=(), initializer="zeros", dtype="int64")
        self.built = True

    @property
    def keys(self) -> tf.Tensor:
        """All slots, zeros where unused: float32 `(size, width)`."""
        return tf.convert_to_tensor(self._keys.value)

    @property
    def ids(self) -> tf.Tensor:
        """Of all slots: int64 `(size,)`."""
        return tf.convert_to_tensor(self._ids.value)

    @property
    def in_use(self) -> tf.Tensor:
        """Which slots hold a key: bool `(size,)`."""
        return tf.range(self.size, dtype=tf.int64) < self.added.value

    def add(self, keys: tf.Tensor, ids: tf.Tensor) -> None:
        """Put the keys of a batch into the ring.

        In a graph it must come after whatever uses the keys that are there, so that they are
        overwritten in place and not copied first.

        Args:
            keys: `(batch, width)`.
            ids: Integers `(batch,)`.
        """
        keys = tf.ensure_shape(tf.cast(tf.stop_gradient(keys), tf.float32), (None, self.width))
        ids = tf.cast(ids, tf.int64)
        count = tf.shape(keys, tf.int64)[0]
        skipped = tf.maximum(count - self.size, 0)
        start = (self.added.value + skipped) % self.size
        first = tf.minimum(count - skipped, self.size - start)
        for ring, rows in ((self._keys.value, keys), (self._ids.value, ids)):
            _write(ring, start, rows[skipped : skipped + first])
            _write(ring, tf.zeros_like(start), rows[skipped + first :])
        self.added.assign_add(count)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {"name": config["name"], "width": self.width, "size": self.size}


def _write(variable: tf.Variable, start: tf.Tensor, rows: tf.Tensor) -> None:
    """Overwrite rows of a variable. `variable[a:b].assign` would read it first, and so copy it."""
    tf.raw_ops.ResourceStridedSliceAssign(
        ref=variable.handle,
        begin=start[tf.newaxis],
        end=(start + tf.shape(rows, tf.int64)[0])[tf.newaxis],
        strides=tf.ones((1,), tf.int64),
        value=rows,
    )
