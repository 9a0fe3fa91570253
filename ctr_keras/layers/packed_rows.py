"""Rows of unequal length laid out step by step, so that a recurrence walks over no padding.

The rows are sorted by length, longest first. Step `k` then holds the `k`-th unpadded element of
each row that has one: the first `counts[k]` rows. All steps lie one after the other in one tensor
`(elements, width)`; each is a slice of it, and the rows of a step are the first ones of the step
before. Only on TensorFlow.
"""

import dataclasses

import tensorflow as tf

from ctr_keras.custom_gradient import custom_gradient
from ctr_keras.layers.unpadded import put_unpadded, take_unpadded


@dataclasses.dataclass(frozen=True)
class PackedRows:
    """Where the elements of a batch lie once packed.

    Attributes:
        positions: int32 `(elements,)`, the place of each packed element in the flattened batch.
        slots: int32 `(batch * length,)`, 1 + the packed place of each element, 0 where padded.
        counts: int32 `(steps,)`, the rows that have that many elements, never growing.
        offsets: int32 `(steps,)`, where each step begins.
        last: int32 `(batch,)`, 1 + the packed place of each row's last element, 0 for no element.
        length: int32 scalar, the padded length.
    """

    positions: tf.Tensor
    slots: tf.Tensor
    counts: tf.Tensor
    offsets: tf.Tensor
    last: tf.Tensor
    length: tf.Tensor

    @classmethod
    def of(cls, mask: tf.Tensor) -> "PackedRows":
        """Of a boolean mask `(batch, length)`, `True` where there is an element."""
        ones = tf.cast(mask, tf.int32)
        rank = tf.cumsum(ones, axis=1) - ones
        lengths = tf.reduce_sum(ones, axis=1)
        steps = tf.range(tf.reduce_max(tf.concat([lengths, [0]], axis=0)))
        counts = tf.reduce_sum(tf.cast(lengths[:, None] > steps, tf.int32), axis=0)
        offsets = tf.cumsum(counts, exclusive=True)
        by_length = tf.argsort(lengths, direction="DESCENDING", stable=True)
        place = 1 + tf.math.invert_permutation(by_length)
        # One entry more, for the rank of what follows a row's last element.
        starts = tf.concat([offsets, [0]], axis=0)
        slots = tf.reshape((tf.gather(starts, rank) + place[:, None]) * ones, (-1,))
        filled = tf.cast(tf.where(slots > 0)[:, 0], tf.int32)
        positions = tf.gather(filled, tf.math.invert_permutation(tf.gather(slots, filled) - 1))
        last = tf.gather(starts, tf.maximum(lengths - 1, 0)) + place
        last *= tf.cast(lengths > 0, tf.int32)
        return cls(positions, slots, counts, offsets, last, tf.shape(mask)[1])

    def pack(self, x: tf.Tensor) -> tf.Tensor:
        """`(batch, length, width)` -> `(elements, width)`."""
        return take_unpadded(tf.reshape(x, (-1, x.shape[-1])), self.positions, self.slots)

    def unpack(self, packed: tf.Tensor) -> tf.Tensor:
        """`(elements, width)` -> `(batch, length, width)`, zeros where padded."""
        rows = put_unpadded(packed, self.positions, self.slots)
        return tf.reshape(rows, (-1, self.length, packed.shape[-1]))

    def last_of(self, packed: tf.Tensor) -> tf.Tensor:
        """`(elements, width)` -> `(batch, width)`, zeros for a row without elements."""
        return _take_or_zero(packed, self.last)


@custom_gradient
def _take_or_zero(rows, slots):
    """Row `slots - 1` of each slot, zeros for slot 0; no slot but 0 comes twice."""
    size = 1 + tf.shape(rows)[0]

    def gradient(upstream):
        # Of `tf.gather` it would be `IndexedSlices`, which the next gradient had to sum up.
        shape = tf.stack([size, rows.shape[1]])
        return tf.scatter_nd(slots[:, None], upstream, shape)[1:], None

    zero = tf.zeros((1, rows.shape[1]), rows.dtype)
    return tf.gather(tf.concat([zero, rows], axis=0), slots), gradient
