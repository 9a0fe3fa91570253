"""Dice in training on TensorFlow's CPU kernels, in as few passes over memory as they allow."""

import tensorflow as tf

from ctr_keras.custom_gradient import custom_gradient


def dice_of_batch(x, alpha, epsilon):
    """Dice by the statistics of the batch, with a third of the passes over memory.

    Returns:
        `(outputs, mean, variance)`.
    """
    units = x.shape[-1]
    rows = tf.reshape(x, (-1, units))
    count = tf.shape(rows)[0]
    # A custom gradient of a variable would have to be of its reads: hand it a tensor.
    outputs, mean, variance = fused_dice(rows, tf.convert_to_tensor(alpha), epsilon)
    # The kernel reports the unbiased variance, though it normalizes by the biased one.
    bias = tf.cast(tf.maximum(count - 1, 1), x.dtype) / tf.cast(tf.maximum(count, 1), x.dtype)
    return tf.reshape(outputs, tf.shape(x)), mean, variance * bias


def fused_dice(x, alpha, epsilon):
    """Forward and gradient written out, since each elementwise op is a walk through memory."""

    @custom_gradient
    def dice(x, alpha):
        z, mean, variance, saved = _normalize(x, epsilon)
        p = tf.sigmoid(z)
        slope = _scale_and_shift(p, 1.0 - alpha, alpha)

        def gradient(upstream, *_):
            d_p, d_scale, d_shift = _scale_and_shift_gradient(upstream * x, p, 1.0 - alpha)
            d_z = tf.raw_ops.SigmoidGrad(y=p, dy=d_p)
            d_x = upstream * slope + _normalize_gradient(d_z, x, saved, epsilon)
            return d_x, d_shift - d_scale

        return (x * slope, mean, variance), gradient

    return dice(x, alpha)


def _normalize(x, epsilon):
    """`(x - mean) / sqrt(variance + epsilon)` in one kernel."""
    units = x.shape[-1]
    none = tf.zeros((0,), x.dtype)
    result = tf.raw_ops.FusedBatchNormV3(
        x=tf.reshape(x, (-1, 1, 1, units)),
        scale=tf.ones((units,), x.dtype),
        offset=tf.zeros((units,), x.dtype),
        mean=none,
        variance=none,
        epsilon=epsilon,
        is_training=True,
    )
    saved = (result.reserve_space_1, result.reserve_space_2, result.reserve_space_3)
    return tf.reshape(result.y, tf.shape(x)), result.batch_mean, result.batch_variance, saved


def _normalize_gradient(upstream, x, saved, epsilon):
    four_axes = (-1, 1, 1, x.shape[-1])
    result = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=tf.reshape(upstream, four_axes),
        x=tf.reshape(x, four_axes),
        scale=tf.ones((x.shape[-1],), x.dtype),
        reserve_space_1=saved[0],
        reserve_space_2=saved[1],
        reserve_space_3=saved[2],
        epsilon=epsilon,
        is_training=True,
    )
    return tf.reshape(result.x_backprop, tf.shape(x))


def _scale_and_shift(x, scale, shift):
    """`x * scale + shift` by column in one kernel: a normalization by mean 0 and variance 1."""
    units = x.shape[-1]
    result = tf.raw_ops.FusedBatchNormV3(
        x=tf.reshape(x, (-1, 1, 1, units)),
        scale=scale,
        offset=shift,
        mean=tf.zeros((units,), x.dtype),
        variance=tf.ones((units,), x.dtype),
        epsilon=0.0,
        is_training=False,
    )
    return tf.reshape(result.y, tf.shape(x))


def _scale_and_shift_gradient(upstream, x, scale):
    """Gradients to `x`, `scale` and `shift`, in one kernel."""
    units = x.shape[-1]
    result = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=tf.reshape(upstream, (-1, 1, 1, units)),
        x=tf.reshape(x, (-1, 1, 1, units)),
        scale=scale,
        reserve_space_1=tf.zeros((units,), x.dtype),
        reserve_space_2=tf.ones((units,), x.dtype),
        reserve_space_3=tf.zeros((0,), x.dtype),
        epsilon=0.0,
        is_training=False,
    )
    d_x = tf.reshape(result.x_backprop, tf.shape(x))
    return d_x, result.scale_backprop, result.offset_backprop
