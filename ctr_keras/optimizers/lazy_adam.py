"""Adam that touches only the rows that a batch looked up."""

from typing import Any

import keras

from ctr_keras.api_export import export
from ctr_keras.optimizers.sparse_rows import SparseRows, merge_rows

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


@export
class LazyAdam(SparseRows, keras.optimizers.Adam):
    """Adam whose step costs the rows a batch touches, not the table.

    A gradient that comes as `tf.IndexedSlices` (embedding tables) is first merged, so that an id
    that occurs several times counts once with the sum of its gradients `g`. Then for each touched
    row

        m <- m + (1 - beta_1) (g - m)
        v <- v + (1 - beta_2) (g^2 - v)
        w <- w - learning_rate sqrt(1 - beta_2^t) / (1 - beta_1^t)  m / (sqrt(v) + epsilon)

    with `t` the step of the optimizer, and rows that are not touched keep `w`, `m` and `v`. That is
    Adam wherever a row is touched each step, and differs from it where a row rests: its moments do
    not decay meanwhile. Variables with a dense gradient are updated as `keras.optimizers.Adam`
    does.

    Only on the TensorFlow backend, and without XLA (`jit_compile=False`, which `compile` chooses by
    itself where the model has a `FeatureEmbedding`).

    Args:
        learning_rate: Float, `keras.optimizers.schedules.LearningRateSchedule`, or callable.
            Defaults to `0.001`.
        beta_1: Float, the decay of the first moment. Defaults to `0.9`.
        beta_2: Float, the decay of the second moment. Defaults to `0.999`.
        epsilon: Float, added to the root of the second moment. Defaults to `1e-7`.
        weight_decay: Optional float, decoupled weight decay. In tables it decays the touched rows
            only.
        clipnorm: Optional float, the highest norm of each variable's (merged) gradient.
        clipvalue: Optional float, the highest absolute element of a (merged) gradient.
        global_clipnorm: Optional float, the highest norm of all (merged) gradients together.
        loss_scale_factor: Optional float, see `keras.optimizers.Adam`.
        name: Optional name.
        **kwargs: What else `keras.optimizers.Adam` takes. `amsgrad`, `use_ema` and
            `gradient_accumulation_steps` are refused: they would need whole tables each step.

    Example:

    >>> model = keras.Sequential([keras.layers.Embedding(100, 8)])
    >>> model.compile(LazyAdam(1e-3, clipnorm=1.0), loss="mse", jit_compile=False)

    Reference:

    - [Kingma & Ba, 2014: Adam](https://arxiv.org/abs/1412.6980)
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        loss_scale_factor: float | None = None,
        name: str | None = "lazy_adam",
        **kwargs: Any,
    ):
        super().__init__(
            learning_rate=learning_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            weight_decay=weight_decay,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            loss_scale_factor=loss_scale_factor,
            name=name,
            **kwargs,
        )
        self._refuse_dense_options()
        if self.amsgrad:
            raise ValueError(f"`amsgrad` is not supported. Received: `amsgrad={self.amsgrad}`")

    def update_step(self, gradient, variable, learning_rate):
        if not isinstance(gradient, tf.IndexedSlices):
            return super().update_step(gradient, variable, learning_rate)
        index = self._get_variable_index(variable)
        m_slot, v_slot = self._momentums[index].value, self._velocities[index].value
        gradient = merge_rows(gradient)
        rows, g = gradient.indices, tf.cast(gradient.values, variable.dtype)

        m = tf.gather(m_slot, rows)
        v = tf.gather(v_slot, rows)
        m += (g - m) * (1 - self.beta_1)
        v += (tf.square(g) - v) * (1 - self.beta_2)
        w = tf.gather(variable, rows)
        decay = self._row_decay(variable, learning_rate)
        if decay is not None:
            w -= w * decay
        w -= m * self._step_size(learning_rate, variable.dtype) / (tf.sqrt(v) + self.epsilon)
        for slot, value in ((m_slot, m), (v_slot, v), (variable, w)):
            slot.scatter_update(tf.IndexedSlices(value, rows))

    def _step_size(self, learning_rate, dtype):
        step = tf.cast(self.iterations + 1, dtype)
        beta_1_power = tf.pow(tf.cast(self.beta_1, dtype), step)
        beta_2_power = tf.pow(tf.cast(self.beta_2, dtype), step)
        return tf.cast(learning_rate, dtype) * tf.sqrt(1 - beta_2_power) / (1 - beta_1_power)
