"""A tower for each scenario, and each row's logit from its own."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.layers.mlp import check_units, get_activation, serialize_activation
from ctr_keras.layers.parallel_mlp import ParallelMLP


@export
class ScenarioTowers(keras.layers.Layer):
    """One MLP with a logit a scenario (or task); with scenarios given, each row's from its own.

        z_k  = MLP_k(x_k) w_k + b_k
        z    = z_scenario                   where the row's scenario is one of them
             = mean_k z_k                   elsewhere

    Only the own tower has a part in a row's logit, so its loss moves no other, and a tower's `Dice`
    has the statistics of its own rows; a row of no scenario, whose logit all towers make, is every
    tower's. All towers are computed, as one batched product.

    Args:
        num_scenarios: Positive integer.
        units: Sequence of positive integers, the widths of a tower's layers before its logit.
        activation: Name of an activation, a callable, `None`, or `"dice"`. Defaults to `"relu"`.
        dropout: Float in `[0, 1)`, the share of outputs dropped in training. Defaults to `0.0`.
        kernel_initializer: Initializer of the kernels. Defaults to `"glorot_uniform"`.
        seed: Optional integer, the seed of dropout. Defaults to `None`.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(batch, features)`, the same for all towers, or
            `(batch, num_scenarios, features)`, as `MMoE` and `PLE` give it.
        scenario: Optional integer tensor of shape `(batch,)`: which tower, from 0. Other values
            than `0, ..., num_scenarios - 1` mean a scenario that has none.
        training: Boolean, passed to `Dice` and dropout.

    Output shape:
        Logits `(batch, 1)`, or `(batch, num_scenarios)` without `scenario`: all tasks of a row.

    Example:

    >>> towers = ScenarioTowers(num_scenarios=5, units=[32])
    >>> x = np.ones((2, 5, 128), "float32")
    >>> tuple(towers(x, scenario=np.array([4, 0])).shape), tuple(towers(x).shape)
    ((2, 1), (2, 5))

    Reference:

    - [Huan et al., 2023: AntM2C](https://arxiv.org/abs/2308.16437)
    """

    def __init__(
        self,
        num_scenarios: int,
        units: Sequence[int],
        activation: str | Callable | None = "relu",
        dropout: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_scenarios = check_positive_integer("num_scenarios", num_scenarios)
        self.units = check_units(units)
        self.activation = get_activation(activation)
        self.dropout = dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.seed = seed
        self.towers = ParallelMLP(
            num_scenarios,
            self.units,
            self.activation,
            dropout,
            kernel_initializer=self.kernel_initializer,
            seed=seed,
            dtype=self.dtype_policy,
            name="towers",
        )
        self.logits = ParallelMLP(
            num_scenarios, [1], None, dtype=self.dtype_policy, name="logits"
        )  # fmt: skip

    def build(self, inputs_shape, scenario_shape=None):
        self.towers.build(inputs_shape)
        self.logits.build(self.towers.compute_output_shape(inputs_shape))

    def call(self, inputs: Any, scenario: Any = None, training: bool = False) -> Any:
        if scenario is None:
            return self._of_all(inputs, training, None)
        shares = tower_shares(scenario, self.num_scenarios, self.compute_dtype)
        logits = self._of_all(inputs, training, shares > 0)
        return ops.sum(logits * shares, axis=-1, keepdims=True)

    def _of_all(self, inputs, training, used):
        """The logits of all towers `(batch, num_scenarios)`."""
        hidden = self.towers(inputs, training=training, used=used)
        return ops.squeeze(self.logits(hidden), axis=-1)

    def compute_output_shape(self, inputs_shape, scenario_shape=None):
        return (inputs_shape[0], self.num_scenarios if scenario_shape is None else 1)

    def get_config(self):
        return {
            **super().get_config(),
            "num_scenarios": self.num_scenarios,
            "units": self.units,
            "activation": serialize_activation(self.activation),
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "seed": self.seed,
        }


def tower_shares(scenario: Any, num_scenarios: int, dtype: str) -> Any:
    """What each tower counts for a row `(batch, num_scenarios)`, by the row's scenario `(batch,)`.

    1 for the own tower, 0 for the others; equal shares where no tower is the own.
    """
    if len(scenario.shape) != 1:
        raise ValueError(
            "`scenario` must have shape (batch,). "
            f"Received: `scenario.shape={tuple(scenario.shape)}`"
        )
    towers = ops.arange(num_scenarios, dtype=scenario.dtype)
    own = ops.equal(scenario[:, None], towers[None, :])
    known = ops.any(own, axis=-1, keepdims=True)
    return ops.where(known, ops.cast(own, dtype), 1 / num_scenarios)
