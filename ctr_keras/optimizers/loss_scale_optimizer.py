"""Loss scaling for float16 that keeps sparse gradients sparse."""

import keras
from keras import ops

from ctr_keras.api_export import export

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


@export
class LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """`keras.optimizers.LossScaleOptimizer` without its pass over whole tables.

    With the policy `"mixed_float16"`, `compile` wraps the optimizer in Keras' `LossScaleOptimizer`,
    whose test for infinite gradients turns each table's sparse gradient into a dense mask, every
    step. Results are right, but a step then costs the table. Wrap the optimizer yourself in this
    class, which tests the looked-up rows only. `"mixed_bfloat16"` needs no loss scaling.

    Args:
        inner_optimizer: The optimizer to wrap.
        **kwargs: See `keras.optimizers.LossScaleOptimizer`.

    Example:

    >>> optimizer = LossScaleOptimizer(LazyAdam(1e-3))
    """

    def check_finite(self, grads):
        return super().check_finite([_values(g) for g in grads])


def _values(gradient):
    if keras.backend.backend() == "tensorflow" and isinstance(gradient, tf.IndexedSlices):
        return gradient.values
    return gradient if gradient is None else ops.convert_to_tensor(gradient)
