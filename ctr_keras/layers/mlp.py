"""A stack of dense layers."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras

from ctr_keras.api_export import export
from ctr_keras.layers.argument_checks import check_dropout
from ctr_keras.layers.dice import Dice
from ctr_keras.layers.side_by_side import product


@export
class MLP(keras.layers.Layer):
    """Stack of dense layers, each followed by batch normalization, activation and dropout.

    For each width in `units`: `x = dropout(activation(batch_norm(x W + b)))`, batch normalization
    and dropout only where asked for. The last layer is no exception: put a `Dense(1)` after it for
    a logit.

    Args:
        units: Sequence of positive integers, the width of each layer.
        activation: Name of an activation, a callable, `None` for linear layers, or `"dice"` for a
            `Dice` of its own after each layer. Defaults to `"relu"`.
        dropout: Float in `[0, 1)`, the share of outputs dropped in training. Defaults to `0.0`.
        batch_norm: Boolean, whether to normalize before the activation. Defaults to `False`.
        use_bias: Boolean. Defaults to `True`.
        kernel_initializer: Initializer of the kernels. Defaults to `"glorot_uniform"`.
        kernel_regularizer: Regularizer of the kernels. Defaults to `None`.
        seed: Optional integer, the seed of dropout. Defaults to `None`.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(..., features)`; of a built layer also a list of tensors
            `(batch, features_i)` that lie side by side. One of batch 1 holds for all rows, and its
            share of the first product is computed once.
        training: Boolean, passed to batch normalization, `Dice` and dropout.
        mask: Optional boolean tensor of shape `inputs.shape[:-1]`: masked positions stay out of the
            statistics of batch normalization and `Dice`.

    Output shape:
        `(..., units[-1])`.

    Example:

    >>> tuple(MLP([200, 80], activation="dice")(np.ones((4, 32), "float32")).shape)
    (4, 80)
    """

    def __init__(
        self,
        units: Sequence[int],
        activation: str | Callable | None = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units = check_units(units)
        self.activation = get_activation(activation)
        self.dropout = check_dropout(dropout)
        self.batch_norm = batch_norm
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.seed = seed
        self.supports_masking = True
        self.stages = [self._make_stage(i) for i in range(len(self.units))]

    def _make_stage(self, i):
        """The layers of one width, in the order they are applied."""
        dtype = self.dtype_policy
        # One initializer object used twice would draw the same numbers twice.
        initializer = self.kernel_initializer
        if isinstance(initializer, keras.initializers.Initializer):
            initializer = initializer.clone()
        stage = [
            keras.layers.Dense(
                self.units[i],
                use_bias=self.use_bias,
                kernel_initializer=initializer,
                kernel_regularizer=self.kernel_regularizer,
                dtype=dtype,
                name=f"dense_{i}",
            )
        ]
        if self.batch_norm:
            stage.append(keras.layers.BatchNormalization(dtype=dtype, name=f"batch_norm_{i}"))
        stage += activation_and_dropout(self.activation, self.dropout, self.seed, dtype, i)
        return stage

    def build(self, input_shape):
        shape = tuple(input_shape)
        for stage, units in zip(self.stages, self.units, strict=True):
            stage[0].build(shape)
            shape = (*shape[:-1], units)
            for layer in stage[1:]:
                layer.build(shape)

    def call(self, inputs: Any, training: bool = False, mask: Any = None) -> Any:
        (first, *following), *stages = self.stages
        if isinstance(inputs, (list, tuple)):
            mask = None  # Keras looked for one a tensor.
            x = product(inputs, first.kernel)
            x = x + first.bias if self.use_bias else x
        else:
            x = first(inputs)
        for layer in itertools.chain(following, *stages):
            x = apply_layer(layer, x, training, mask)
        return x

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "activation": serialize_activation(self.activation),
            "dropout": self.dropout,
            "batch_norm": self.batch_norm,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "seed": self.seed,
        }


def check_units(units, name="units"):
    """The widths as a list of positive integers, or a `ValueError` that names the argument."""
    widths = list(units) if isinstance(units, Sequence) else [units]
    if not widths or any(not isinstance(u, int) or isinstance(u, bool) or u < 1 for u in widths):
        raise ValueError(
            f"`{name}` must be one or more positive integers. Received: `{name}={units!r}`"
        )
    return widths


def get_activation(activation):
    """`"dice"` as it is, anything else as a Keras activation."""
    if activation == "dice":
        return activation
    try:
        return keras.activations.get(activation)
    except (TypeError, ValueError):
        raise ValueError(
            '`activation` must be the name of one that Keras has, `"dice"`, a callable or `None`. '
            f"Received: `activation={activation!r}`"
        ) from None


def serialize_activation(activation):
    return "dice" if activation == "dice" else keras.activations.serialize(activation)


def make_activation(activation, dtype, name):
    """A fresh layer: `Dice` has weights and statistics of its own."""
    if activation == "dice":
        return Dice(dtype=dtype, name=name)
    return keras.layers.Activation(activation, dtype=dtype, name=name)


def activation_and_dropout(activation, dropout, seed, dtype, i):
    """What ends the `i`-th of several stages: a fresh activation, and dropout where asked for."""
    layers = [make_activation(activation, dtype, f"activation_{i}")]
    if dropout:
        seed = None if seed is None else seed + i
        layers.append(keras.layers.Dropout(dropout, seed=seed, dtype=dtype, name=f"dropout_{i}"))
    return layers


def apply_layer(layer, x, training, mask):
    if isinstance(layer, (Dice, keras.layers.BatchNormalization)):
        return layer(x, training=training, mask=mask)
    if isinstance(layer, keras.layers.Dropout):
        return layer(x, training=training)
    return layer(x)
