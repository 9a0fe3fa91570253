"""Dice, the data-adaptive activation of DIN."""

from typing import Any

import keras
from keras import ops

from ctr_keras.api_export import export

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    from ctr_keras.layers.fused_dice import dice_of_batch


@export
class Dice(keras.layers.Layer):
    """Data-adaptive activation: a PReLU whose rectified point follows the batch.

    For each feature `s` of the last axis

        f(s) = p(s) * s + (1 - p(s)) * alpha * s
        p(s) = sigmoid((s - E[s]) / sqrt(Var[s] + epsilon))

    with the mean and (biased) variance of the mini-batch in training and their moving averages in
    inference. `alpha` is learned, one a feature, and starts at 0. Statistics are computed in
    float32 whatever the layer's policy.

    Args:
        momentum: Float in `[0, 1)`. Momentum of the moving statistics, which start at a mean of 0
            and a variance of 1: an epoch has to be enough to forget that, and a batch of rows tells
            a lot. Defaults to `0.9`.
        epsilon: Float. Added to the variance. Defaults to `1e-8`, as in the paper.
        alpha_initializer: Initializer of `alpha`. Defaults to `"zeros"`.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(..., units)`.
        training: Boolean, whether to use (and record) the statistics of this batch.
        mask: Optional boolean tensor of shape `inputs.shape[:-1]`, or of the inputs' own shape for
            a mask of each feature's own. Positions that are `False` change neither the statistics
            of this batch nor the moving ones.

    Output shape:
        The same as the input's.

    Example:

    >>> x = np.array([[-1.0, 0.0], [1.0, 2.0]], dtype="float32")
    >>> tuple(Dice()(x, training=True).shape)
    (2, 2)

    Reference:

    - [Zhou et al., 2018: Deep Interest Network](https://arxiv.org/abs/1706.06978), section 5.2
    """

    def __init__(
        self,
        momentum: float = 0.9,
        epsilon: float = 1e-8,
        alpha_initializer: Any = "zeros",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must be in [0, 1). Received: `momentum={momentum}`")
        if epsilon <= 0:
            raise ValueError(f"`epsilon` must be positive. Received: `epsilon={epsilon}`")
        self.momentum = momentum
        self.epsilon = epsilon
        self.alpha_initializer = keras.initializers.get(alpha_initializer)
        self.supports_masking = True

    def build(self, input_shape):
        units = input_shape[-1]
        if units is None:
            raise ValueError(
                "The last axis of the input must have a known size. "
                f"Received: `input_shape={tuple(input_shape)}`"
            )
        self.alpha = self.add_weight(
            name="alpha", shape=(units,), initializer=self.alpha_initializer, autocast=False
        )
        self.moving_mean = self._add_statistic("moving_mean", units, "zeros")
        self.moving_variance = self._add_statistic("moving_variance", units, "ones")

    def _add_statistic(self, name, units, initializer):
        return self.add_weight(
            name=name, shape=(units,), initializer=initializer, trainable=False, autocast=False
        )

    def call(self, inputs: Any, training: bool = False, mask: Any = None) -> Any:
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        if mask is not None and len(x.shape) - len(mask.shape) not in (0, 1):
            raise ValueError(
                "`mask` must have one axis less than `inputs`, or as many. "
                f"Received: `mask.shape={tuple(mask.shape)}`, `inputs.shape={tuple(x.shape)}`"
            )
        alpha = ops.convert_to_tensor(self.alpha)
        if training and self.trainable and mask is None and _has_fused_kernels(x.dtype):
            outputs, mean, variance = dice_of_batch(x, alpha, self.epsilon)
            self._record(mean, variance, tf.size(x) // x.shape[-1])
            return ops.cast(outputs, inputs.dtype)
        if training and self.trainable:
            mean, variance = self._batch_statistics(x, mask)
        else:
            mean, variance = self.moving_mean, self.moving_variance
        p = ops.sigmoid((x - mean) * ops.rsqrt(variance + self.epsilon))
        return ops.cast(x * (alpha + (1.0 - alpha) * p), inputs.dtype)

    def _batch_statistics(self, x, mask):
        """Mean and variance over the unmasked positions; also moves the moving ones."""
        axes = tuple(range(len(x.shape) - 1))
        if mask is None:
            weight = 1.0
            count = ops.cast(ops.size(x) // x.shape[-1], x.dtype)
        else:
            weight = ops.cast(mask, x.dtype)
            if len(mask.shape) < len(x.shape):
                weight = ops.expand_dims(weight, -1)
            count = ops.sum(weight, axis=axes)
        # An empty batch (every history is padding) must leave numbers, not 0 / 0.
        divisor = ops.maximum(count, 1.0)
        mean = ops.sum(x * weight, axis=axes) / divisor
        variance = ops.sum(ops.square(x - mean) * weight, axis=axes) / divisor
        self._record(mean, variance, count)
        return mean, variance

    def _record(self, mean, variance, count):
        """Moves the moving statistics towards the batch's, unless it was empty."""
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            old = ops.convert_to_tensor(moving.value)
            new = ops.where(count > 0, ops.stop_gradient(new), old)
            moving.assign(old + (new - old) * (1.0 - self.momentum))

    def coefficients(self) -> tuple[Any, Any, Any, Any]:
        """What inference comes to, one number a feature: `s * (slope * tanh(scale * s + shift) +
        offset)`.

        Returns:
            `(scale, shift, slope, offset)`, each `(units,)`.
        """
        # sigmoid(z) is (1 + tanh(z / 2)) / 2, and a hyperbolic tangent costs half a sigmoid.
        scale = 0.5 * ops.rsqrt(self.moving_variance + self.epsilon)
        return scale, -self.moving_mean * scale, (1 - self.alpha) / 2, (1 + self.alpha) / 2

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "alpha_initializer": keras.initializers.serialize(self.alpha_initializer),
        }


def _has_fused_kernels(dtype):
    """Only in float32, and not on GPUs: cuDNN takes no epsilon below 1e-5."""
    if keras.backend.backend() != "tensorflow" or dtype != tf.float32:
        return False
    return not tf.config.list_physical_devices("GPU")
