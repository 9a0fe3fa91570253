"""Adagrad with one accumulator a table row."""

from typing import Any

import keras

from ctr_keras.api_export import export
from ctr_keras.optimizers.sparse_rows import SparseRows, merge_rows

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


@export
class RowwiseAdagrad(SparseRows, keras.optimizers.Adagrad):
    """Adagrad that keeps one number a table row, and touches only the rows of a batch.

    For the tables of `ctr_keras.layers.FeatureEmbedding` (variables with `sparse_rows = True`) the
    state is one accumulator a row instead of one an element: at width 16 a sixteenth of Adagrad's
    memory, a thirty-second of Adam's. With `g` the gradient of a touched row, equal ids merged,

        acc <- acc + mean(g^2)
        w   <- w - learning_rate g / (sqrt(acc) + epsilon)

    All other variables are updated as `keras.optimizers.Adagrad` does; if their gradient is sparse,
    row by row.

    Only on the TensorFlow backend.

    Args:
        learning_rate: Float, `keras.optimizers.schedules.LearningRateSchedule`, or callable.
            Defaults to `0.01`.
        initial_accumulator_value: Float, where accumulators start. Defaults to `0.1`.
        epsilon: Float, added to the root of the accumulator. Defaults to `1e-7`.
        weight_decay: Optional float, decoupled weight decay. In tables it decays the touched rows
            only.
        clipnorm: Optional float, the highest norm of each variable's (merged) gradient.
        clipvalue: Optional float, the highest absolute element of a (merged) gradient.
        global_clipnorm: Optional float, the highest norm of all (merged) gradients together.
        loss_scale_factor: Optional float, see `keras.optimizers.Adagrad`.
        name: Optional name.
        **kwargs: What else `keras.optimizers.Adagrad` takes. `use_ema` and
            `gradient_accumulation_steps` are refused: they would need whole tables each step.

    Example:

    >>> model = keras.Sequential([FeatureEmbedding({"item_id": 100}, width=8)])
    >>> model.compile(RowwiseAdagrad(0.05), loss="mse")

    Reference:

    - [Duchi et al., 2011](https://www.jmlr.org/papers/volume12/duchi11a/duchi11a.pdf)
    - [Mudigere et al., 2021](https://arxiv.org/abs/2104.05158), for the row-wise form
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        loss_scale_factor: float | None = None,
        name: str | None = "rowwise_adagrad",
        **kwargs: Any,
    ):
        super().__init__(
            learning_rate=learning_rate,
            initial_accumulator_value=initial_accumulator_value,
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

    def build(self, var_list):
        if self.built:
            return
        # Not `Adagrad.build`: it would create an accumulator of each table's full size.
        keras.optimizers.Optimizer.build(self, var_list)
        self._accumulators = [self._add_accumulator(variable) for variable in var_list]

    def _add_accumulator(self, variable):
        initializer = keras.initializers.Constant(self.initial_accumulator_value)
        if not getattr(variable, "sparse_rows", False):
            return self.add_variable_from_reference(variable, "accumulator", initializer)
        with self._distribution_strategy.extended.colocate_vars_with(variable.value):
            return self.add_variable(
                shape=(variable.shape[0],),
                initializer=initializer,
                dtype=variable.dtype,
                name=f"{variable.path.replace('/', '_')}_accumulator",
            )

    def update_step(self, gradient, variable, learning_rate):
        accumulator = self._accumulators[self._get_variable_index(variable)].value
        by_row = len(accumulator.shape) < len(variable.shape)
        if isinstance(gradient, tf.IndexedSlices):
            self._update_rows(gradient, variable, accumulator, learning_rate, by_row)
        elif by_row:
            self._update_all_rows(gradient, variable, accumulator, learning_rate)
        else:
            super().update_step(gradient, variable, learning_rate)

    def _update_rows(self, gradient, variable, accumulator, learning_rate, by_row):
        gradient = merge_rows(gradient)
        rows, g = gradient.indices, tf.cast(gradient.values, variable.dtype)
        square = tf.reduce_mean(tf.square(g), axis=-1) if by_row else tf.square(g)
        total = tf.gather(accumulator, rows) + square
        w = tf.gather(variable, rows)
        decay = self._row_decay(variable, learning_rate)
        if decay is not None:
            w -= w * decay
        w -= self._change(g, total, learning_rate, by_row)
        accumulator.scatter_update(tf.IndexedSlices(total, rows))
        variable.scatter_update(tf.IndexedSlices(w, rows))

    def _update_all_rows(self, gradient, variable, accumulator, learning_rate):
        g = tf.cast(gradient, variable.dtype)
        total = accumulator + tf.reduce_mean(tf.square(g), axis=-1)
        accumulator.assign(total)
        variable.assign_sub(self._change(g, total, learning_rate, by_row=True))

    def _change(self, g, total, learning_rate, by_row):
        rate = tf.cast(learning_rate, g.dtype)
        if by_row:
            return g * (rate / (tf.sqrt(total) + self.epsilon))[:, tf.newaxis]
        return rate * g / tf.sqrt(total + self.epsilon)
