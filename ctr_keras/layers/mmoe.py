"""Mixture of experts with a gate for each task."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.layers.argument_checks import check_matrix_shape
from ctr_keras.layers.mlp import serialize_activation
from ctr_keras.layers.parallel_mlp import ParallelMLP


@export
class MMoE(keras.layers.Layer):
    """Multi-gate mixture of experts: all tasks share the experts, each mixes them its own way.

    For task `k`, with experts `f_i` and gate `g_k(x) = softmax(W_gk x)` over them,

        y_k = sum_i g_k(x)_i f_i(x)

    Args:
        num_experts: Positive integer.
        num_tasks: Positive integer, how many gates.
        units: Sequence of positive integers, the widths of an expert's layers.
        activation: Name of an activation, a callable, `None`, or `"dice"`. Defaults to `"relu"`.
        dropout: Float in `[0, 1)`, the share of outputs dropped in training. Defaults to `0.0`.
        kernel_initializer: Initializer of the kernels. Defaults to `"glorot_uniform"`.
        seed: Optional integer, the seed of dropout. Defaults to `None`.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(batch, features)`.
        return_gates: Boolean, whether to return `(outputs, gates)`. Defaults to `False`.
        training: Boolean, passed to `Dice` and dropout.

    Output shape:
        `(batch, num_tasks, units[-1])`; gates `(batch, num_tasks, num_experts)`, which sum to 1.

    Example:

    >>> layer = MMoE(num_experts=6, num_tasks=5, units=[128])
    >>> outputs, gates = layer(np.ones((4, 32), "float32"), return_gates=True)
    >>> tuple(outputs.shape), tuple(gates.shape)
    ((4, 5, 128), (4, 5, 6))

    Reference:

    - [Ma et al., 2018: Modeling Task Relationships in Multi-task Learning with Multi-gate
      Mixture-of-Experts](https://doi.org/10.1145/3219819.3220007), equations 5 and 6
    """

    def __init__(
        self,
        num_experts: int,
        num_tasks: int,
        units: Sequence[int],
        activation: str | Callable | None = "relu",
        dropout: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_experts = check_positive_integer("num_experts", num_experts)
        self.num_tasks = check_positive_integer("num_tasks", num_tasks)
        self.experts = ParallelMLP(
            num_experts,
            units,
            activation,
            dropout,
            kernel_initializer=kernel_initializer,
            seed=seed,
            dtype=self.dtype_policy,
            name="experts",
        )
        self.gates = gates(num_tasks, num_experts, self.dtype_policy, "gates")
        self.units = self.experts.units
        self.activation = self.experts.activation
        self.dropout = dropout
        self.kernel_initializer = self.experts.kernel_initializer
        self.seed = seed

    def build(self, input_shape):
        check_matrix_shape("inputs", input_shape)
        self.experts.build(input_shape)
        self.gates.build(input_shape)

    def call(self, inputs: Any, return_gates: bool = False, training: bool = False) -> Any:
        experts = self.experts(inputs, training=training)
        shares = softmax(self.gates(inputs))
        outputs = ops.matmul(shares, experts)
        return (outputs, shares) if return_gates else outputs

    def compute_output_spec(self, inputs, return_gates=False, training=False):
        shape = self.compute_output_shape(inputs.shape)
        outputs = keras.KerasTensor(shape, dtype=self.compute_dtype)
        if not return_gates:
            return outputs
        shares = (*shape[:2], self.num_experts)
        return outputs, keras.KerasTensor(shares, dtype=self.compute_dtype)

    def compute_output_shape(self, inputs_shape):
        return (inputs_shape[0], self.num_tasks, self.units[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "num_experts": self.num_experts,
            "num_tasks": self.num_tasks,
            "units": self.units,
            "activation": serialize_activation(self.activation),
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "seed": self.seed,
        }


def gates(num_gates, num_experts, dtype, name):
    """Linear maps to the logits of so many gates over so many experts."""
    return ParallelMLP(num_gates, [num_experts], None, use_bias=False, dtype=dtype, name=name)


def softmax(logits):
    """Over the experts, in float32 whatever the precision around it."""
    dtype = keras.backend.result_type(logits.dtype, "float32")
    return ops.cast(ops.softmax(ops.cast(logits, dtype), axis=-1), logits.dtype)
