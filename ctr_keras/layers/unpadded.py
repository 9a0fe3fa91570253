"""Moving between a padded tensor and its unpadded rows on TensorFlow, cheaply in both directions.

The obvious `tf.gather_nd` and `tf.scatter_nd` are each other's gradients, but scattering rows costs
several times a gather on a CPU. Knowing for each padded position where its row lies (`slots`), both
directions and both gradients are gathers.
"""

import tensorflow as tf

from ctr_keras.custom_gradient import custom_gradient


def index_unpadded(unpadded):
    """Where the unpadded rows are.

    Args:
        unpadded: Boolean tensor of shape `(size,)`.

    Returns:
        `(positions, slots)`: int32 `(count,)`, the positions of the `True` in order; and int32
        `(size,)`, 1 + the place of each position among them, 0 where padded.
    """
    positions = tf.where(unpadded)
    # Several times cheaper than a cumulative sum, which would do as well.
    slots = tf.raw_ops.SparseToDense(
        sparse_indices=positions,
        output_shape=tf.shape(unpadded, tf.int64),
        sparse_values=tf.range(1, tf.shape(positions)[0] + 1),
        default_value=0,
        validate_indices=False,  # They are in order by construction.
    )
    return tf.cast(positions[:, 0], tf.int32), slots


@custom_gradient
def take_unpadded(x, positions, slots):
    """The unpadded rows of `x`: `(size, width)` -> `(count, width)`."""

    def gradient(upstream):
        return put_unpadded(upstream, positions, slots), None, None

    return tf.gather(x, positions), gradient


@custom_gradient
def put_unpadded(rows, positions, slots):
    """Rows back at their positions, zeros elsewhere: `(count, width)` -> `(size, width)`."""

    def gradient(upstream):
        return take_unpadded(upstream, positions, slots), None, None

    # A gradient of a gradient may not know its width in advance.
    zero = tf.zeros((1, rows.shape[1] or tf.shape(rows)[1]), rows.dtype)
    return tf.gather(tf.concat([zero, rows], axis=0), slots), gradient


@custom_gradient
def repeat_rows(x, owners):
    """`x[owners]` for ascending `owners`: `(batch, width)` -> `(count, width)`."""

    def gradient(upstream):
        # Much cheaper than the unsorted sum that `tf.gather` would use. It ends at the last owner.
        sums = tf.math.segment_sum(upstream, owners)
        rest = tf.shape(x)[0] - tf.shape(sums)[0]
        return tf.pad(sums, [[0, rest], [0, 0]]), None

    return tf.gather(x, owners), gradient
