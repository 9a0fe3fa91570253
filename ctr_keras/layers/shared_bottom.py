"""One network under all tasks."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.layers.argument_checks import check_matrix_shape
from ctr_keras.layers.mlp import MLP, serialize_activation


@export
class SharedBottom(keras.layers.Layer):
    """One MLP whose output every task gets: `y_k = MLP(x)` for each task `k`.

    It takes the place of `MMoE` and `PLE` under the same towers.

    Args:
        num_tasks: Positive integer.
        units: Sequence of positive integers, the widths of the MLP's layers.
        activation: Name of an activation, a callable, `None`, or `"dice"`. Defaults to `"relu"`.
        dropout: Float in `[0, 1)`, the share of outputs dropped in training. Defaults to `0.0`.
        kernel_initializer: Initializer of the kernels. Defaults to `"glorot_uniform"`.
        seed: Optional integer, the seed of dropout. Defaults to `None`.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(batch, features)`.
        training: Boolean, passed to `Dice` and dropout.

    Output shape:
        `(batch, num_tasks, units[-1])`.

    Example:

    >>> tuple(SharedBottom(5, [128])(np.ones((4, 32), "float32")).shape)
    (4, 5, 128)

    Reference:

    - [Caruana, 1997: Multitask Learning](https://doi.org/10.1023/A:1007379606734)
    """

    def __init__(
        self,
        num_tasks: int,
        units: Sequence[int],
        activation: str | Callable | None = "relu",
        dropout: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_tasks = check_positive_integer("num_tasks", num_tasks)
        self.bottom = MLP(
            units,
            activation,
            dropout,
            kernel_initializer=kernel_initializer,
            seed=seed,
            dtype=self.dtype_policy,
            name="bottom",
        )
        self.units = self.bottom.units
        self.activation = self.bottom.activation
        self.dropout = dropout
        self.kernel_initializer = self.bottom.kernel_initializer
        self.seed = seed

    def build(self, input_shape):
        check_matrix_shape("inputs", input_shape)
        self.bottom.build(input_shape)

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = self.bottom(inputs, training=training)
        return ops.broadcast_to(x[:, None, :], self.compute_output_shape(ops.shape(x)))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_tasks, self.units[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "num_tasks": self.num_tasks,
            "units": self.units,
            "activation": serialize_activation(self.activation),
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "seed": self.seed,
        }
