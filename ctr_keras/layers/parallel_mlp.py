"""Several MLPs side by side, computed as one wide product."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.layers.argument_checks import check_dropout
from ctr_keras.layers.mlp import (
    activation_and_dropout,
    apply_layer,
    check_units,
    get_activation,
    serialize_activation,
)
from ctr_keras.layers.side_by_side import product


@export
class ParallelMLP(keras.layers.Layer):
    """Several MLPs of the same widths side by side: experts, gates or towers.

    MLP `n` has weights of its own and computes, for each width in `units`,

        x_n = dropout(activation(x_n W_n + b_n))

    Where all take the same input, their first layers are one product of `(batch, features)` with
    `(features, num_mlps * units[0])`; every other layer is one batched product.

    Args:
        num_mlps: Positive integer, how many.
        units: Sequence of positive integers, the width of each layer.
        activation: Name of an activation, a callable, `None` for linear layers, or `"dice"`.
            Defaults to `"relu"`.
        dropout: Float in `[0, 1)`, the share of outputs dropped in training. Defaults to `0.0`.
        use_bias: Boolean. Defaults to `True`.
        kernel_initializer: Initializer of each MLP's kernels. Defaults to `"glorot_uniform"`.
        seed: Optional integer, the seed of dropout. Defaults to `None`.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(batch, features)`, the same for all MLPs, or
            `(batch, num_mlps, features)`, one for each. Of a built layer also a list of tensors
            `(batch, features_i)` that lie side by side, as of `MLP`.
        training: Boolean, passed to `Dice` and dropout.
        used: Optional boolean tensor of shape `(batch, num_mlps)`: which MLPs' outputs a row uses.
            The others' `Dice` leaves the row out of its statistics. Defaults to all.

    Output shape:
        `(batch, num_mlps, units[-1])`.

    Example:

    >>> tuple(ParallelMLP(6, [128])(np.ones((4, 32), "float32")).shape)
    (4, 6, 128)
    """

    def __init__(
        self,
        num_mlps: int,
        units: Sequence[int],
        activation: str | Callable | None = "relu",
        dropout: float = 0.0,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_mlps = check_positive_integer("num_mlps", num_mlps)
        self.units = check_units(units)
        self.activation = get_activation(activation)
        self.dropout = check_dropout(dropout)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.seed = seed
        self.stages = [self._make_stage(i) for i in range(len(self.units))]

    def _make_stage(self, i):
        """What follows the product of one width."""
        return activation_and_dropout(
            self.activation, self.dropout, self.seed, self.dtype_policy, i
        )

    def build(self, input_shape):
        self._check_shape(input_shape)
        width = input_shape[-1]
        self.kernels, self.biases = [], []
        for i, (units, stage) in enumerate(zip(self.units, self.stages, strict=True)):
            # With a common input the kernels lie side by side, so that they are one matrix.
            axis = 1 if i == 0 and len(input_shape) == 2 else 0
            shape = (width, self.num_mlps, units) if axis else (self.num_mlps, width, units)
            self.kernels.append(
                self.add_weight(name=f"kernel_{i}", shape=shape, initializer=self._initial(axis))
            )
            if self.use_bias:
                shape = (self.num_mlps * units,)
                self.biases.append(
                    self.add_weight(name=f"bias_{i}", shape=shape, initializer="zeros")
                )
            for layer in stage:
                layer.build((input_shape[0], self.num_mlps * units))
            width = units

    def _check_shape(self, shape):
        is_common = len(shape) == 2
        if shape[-1] is None or not (is_common or (len(shape) == 3 and shape[1] == self.num_mlps)):
            raise ValueError(
                "`inputs` must have shape (batch, features) or (batch, num_mlps, features). "
                f"Received: `inputs.shape={tuple(shape)}`, `num_mlps={self.num_mlps}`"
            )

    def _initial(self, axis):
        """Each MLP's kernel drawn by its own width, not by that of the joint one."""

        def initial(shape, dtype=None):
            one = tuple(size for n, size in enumerate(shape) if n != axis)
            draws = [_variant(self.kernel_initializer, n) for n in range(self.num_mlps)]
            return ops.stack([draw(one, dtype=dtype) for draw in draws], axis=axis)

        return initial

    def call(self, inputs: Any, training: bool = False, used: Any = None) -> Any:
        x = inputs
        is_common = isinstance(inputs, (list, tuple)) or len(inputs.shape) == 2
        for i, (units, stage) in enumerate(zip(self.units, self.stages, strict=True)):
            if i == 0 and is_common:
                x = product(x, ops.reshape(self.kernels[0], (-1, self.num_mlps * units)))
            else:
                x = ops.reshape(x, (-1, self.num_mlps, self.kernels[i].shape[1]))
                x = ops.einsum("bnf,nfu->bnu", x, self.kernels[i])
                x = ops.reshape(x, (-1, self.num_mlps * units))
            if self.use_bias:
                x = x + self.biases[i]
            mask = None if used is None else ops.repeat(used, units, axis=-1)
            for layer in stage:
                x = apply_layer(layer, x, training, mask)
        return ops.reshape(x, (-1, self.num_mlps, self.units[-1]))

    def compute_output_shape(self, input_shape):
        self._check_shape(input_shape)
        return (input_shape[0], self.num_mlps, self.units[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "num_mlps": self.num_mlps,
            "units": self.units,
            "activation": serialize_activation(self.activation),
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "seed": self.seed,
        }


def _variant(initializer, n):
    """The `n`-th of several initializers alike: experts that start equal would stay equal."""
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config = initializer.get_config()
    if isinstance(config.get("seed"), int):
        config["seed"] += n
    return type(initializer).from_config(config)
