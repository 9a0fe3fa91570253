"""Progressive layered extraction: experts of each task's own beside shared ones."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.layers.argument_checks import check_matrix_shape
from ctr_keras.layers.mlp import check_units, get_activation, serialize_activation
from ctr_keras.layers.mmoe import gates, softmax
from ctr_keras.layers.parallel_mlp import ParallelMLP
from ctr_keras.layers.scenario_towers import tower_shares


@export
class PLE(keras.layers.Layer):
    """Each task mixes experts of its own with shared ones, in one or several levels.

    At a level, task `k` has `num_experts` experts `E_k` and all share `num_shared_experts` experts
    `E_s`. With gates `w_k(x) = softmax(W_k x)` over the task's own and the shared ones,

        y_k = w_k(x_k) [E_k(x_k), E_s(x_s)]

    At the first level `x_k = x_s = x`; at the next one `x_k` is `y_k`, and `x_s` a mixture of all
    experts by a gate of its own, which the last level does not have. One level is the paper's CGC.

    Args:
        num_tasks: Positive integer.
        units: Sequence of positive integers, the widths of an expert's layers, at every level.
        num_experts: Positive integer, the experts of each task at a level. Defaults to `1`.
        num_shared_experts: Positive integer, the shared experts at a level. Defaults to `1`.
        num_levels: Positive integer. Defaults to `1`.
        activation: Name of an activation, a callable, `None`, or `"dice"`. Defaults to `"relu"`.
        dropout: Float in `[0, 1)`, the share of outputs dropped in training. Defaults to `0.0`.
        kernel_initializer: Initializer of the kernels. Defaults to `"glorot_uniform"`.
        seed: Optional integer, the seed of dropout. Defaults to `None`.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(batch, features)`.
        return_gates: Boolean, whether to return `(outputs, gates)`. Defaults to `False`.
        training: Boolean, passed to `Dice` and dropout.
        scenario: Optional integer tensor of shape `(batch,)`, where tasks are scenarios: whose
            task a row is, as `ScenarioTowers` takes it. The `Dice` of a task's own experts then
            has the statistics of its own rows, at the last level: before it all mix all experts.

    Output shape:
        `(batch, num_tasks, units[-1])`; gates of the last level, over the task's own experts and
        then the shared ones: `(batch, num_tasks, num_experts + num_shared_experts)`.

    Example:

    >>> tuple(PLE(num_tasks=5, units=[128], num_levels=2)(np.ones((4, 32), "float32")).shape)
    (4, 5, 128)

    Reference:

    - [Tang et al., 2020: Progressive Layered Extraction (PLE)](
      https://doi.org/10.1145/3383313.3412236)
    """

    def __init__(
        self,
        num_tasks: int,
        units: Sequence[int],
        num_experts: int = 1,
        num_shared_experts: int = 1,
        num_levels: int = 1,
        activation: str | Callable | None = "relu",
        dropout: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_tasks = check_positive_integer("num_tasks", num_tasks)
        self.units = check_units(units)
        self.num_experts = check_positive_integer("num_experts", num_experts)
        self.num_shared_experts = check_positive_integer("num_shared_experts", num_shared_experts)
        self.num_levels = check_positive_integer("num_levels", num_levels)
        self.activation = get_activation(activation)
        self.dropout = dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.seed = seed
        levels = range(num_levels)
        self.experts = [self._make_experts(level) for level in levels]
        dtype, mixed = self.dtype_policy, num_experts + num_shared_experts
        self.gates = [gates(num_tasks, mixed, dtype, f"gates_{level}") for level in levels]
        self.shared_gates = [
            gates(1, self._total(), dtype, f"shared_gate_{level}") for level in levels[:-1]
        ]

    def _total(self):
        return self.num_tasks * self.num_experts + self.num_shared_experts

    def _make_experts(self, level):
        """All experts of a level: those of each task in turn, then the shared ones."""
        return ParallelMLP(
            self._total(),
            self.units,
            self.activation,
            self.dropout,
            kernel_initializer=self.kernel_initializer,
            seed=None if self.seed is None else self.seed + level * len(self.units),
            dtype=self.dtype_policy,
            name=f"experts_{level}",
        )

    def build(self, inputs_shape, scenario_shape=None):
        check_matrix_shape("inputs", inputs_shape)
        batch, width = inputs_shape[0], self.units[-1]
        for level in range(self.num_levels):
            first = level == 0
            self.experts[level].build(inputs_shape if first else (batch, self._total(), width))
            self.gates[level].build(inputs_shape if first else (batch, self.num_tasks, width))
        for level, gate in enumerate(self.shared_gates):
            gate.build((batch, width) if level else inputs_shape)

    def call(
        self,
        inputs: Any,
        return_gates: bool = False,
        training: bool = False,
        scenario: Any = None,
    ) -> Any:
        of_experts = of_tasks = of_shared = inputs
        for level in range(self.num_levels):
            is_last = level == self.num_levels - 1
            used = self._used(scenario) if is_last and scenario is not None else None
            experts = self.experts[level](of_experts, training=training, used=used)
            shares = softmax(self.gates[level](of_tasks))
            of_tasks = self._mix(shares, experts)
            if not is_last:
                share = softmax(self.shared_gates[level](of_shared))
                of_shared = ops.squeeze(ops.matmul(share, experts), axis=1)
                of_experts = self._expert_inputs(of_tasks, of_shared)
        return (of_tasks, shares) if return_gates else of_tasks

    def _used(self, scenario):
        """Which experts a row's own output mixes: bool `(batch, experts)`."""
        own = tower_shares(scenario, self.num_tasks, self.compute_dtype) > 0
        shared = ops.ones_like(own[:, :1])
        return ops.concatenate(
            [
                ops.repeat(own, self.num_experts, axis=1),
                ops.repeat(shared, self.num_shared_experts, axis=1),
            ],
            axis=1,
        )

    def _mix(self, shares, experts):
        """Each task's mixture of its own and the shared experts: `(batch, num_tasks, width)`."""
        own = self.num_tasks * self.num_experts
        of_task, shared = experts[:, :own], experts[:, own:]
        shape = (-1, self.num_tasks, self.num_experts, experts.shape[-1])
        of_task = ops.reshape(of_task, shape) * shares[:, :, : self.num_experts, None]
        return ops.sum(of_task, axis=2) + ops.matmul(shares[:, :, self.num_experts :], shared)

    def _expert_inputs(self, of_tasks, of_shared):
        """One input an expert, as `ParallelMLP` takes it."""
        own = ops.repeat(of_tasks, self.num_experts, axis=1)
        shared = ops.repeat(of_shared[:, None, :], self.num_shared_experts, axis=1)
        return ops.concatenate([own, shared], axis=1)

    def compute_output_spec(self, inputs, return_gates=False, training=False, scenario=None):
        shape = self.compute_output_shape(inputs.shape)
        outputs = keras.KerasTensor(shape, dtype=self.compute_dtype)
        if not return_gates:
            return outputs
        shares = (*shape[:2], self.num_experts + self.num_shared_experts)
        return outputs, keras.KerasTensor(shares, dtype=self.compute_dtype)

    def compute_output_shape(self, inputs_shape, scenario_shape=None):
        return (inputs_shape[0], self.num_tasks, self.units[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "num_tasks": self.num_tasks,
            "units": self.units,
            "num_experts": self.num_experts,
            "num_shared_experts": self.num_shared_experts,
            "num_levels": self.num_levels,
            "activation": serialize_activation(self.activation),
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "seed": self.seed,
        }
