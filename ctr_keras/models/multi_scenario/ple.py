"""Experts of each scenario's own beside shared ones."""

from collections.abc import Sequence
from typing import Any

from ctr_keras import layers
from ctr_keras.api_export import export
from ctr_keras.layers.mlp import check_units
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.features import auxiliary_tensors, embed, model_inputs, scaled
from ctr_keras.models.multi_scenario.scenarios import Scenarios
from ctr_keras.schema import Schema


@export
class PLE(CTRModel):
    """Experts of each scenario's own and shared ones, in one or several levels, under towers.

        logit = tower_s(PLE([v_1, ..., v_F])_s)                 s: the row's scenario

    `model.tensors["gates"]`, `(batch, scenarios, num_experts + num_shared_experts)`, tells what
    the last level's gates take: the scenario's own experts first.

    Each row's logit, and so its loss, comes from its own scenario's tower alone. A row of a
    scenario that the schema does not know gets the mean of all towers' logits.

    Args:
        schema: `ck.Schema` with one feature of role `scenario`, whose vocabulary tells how many
            scenarios there are.
        embedding_dim: Width of the embeddings, which all scenarios share.
        num_experts: How many experts each scenario has at a level.
        num_shared_experts: How many experts all share at a level.
        num_levels: How many levels.
        units: Widths of an expert's layers.
        tower_units: Widths of a tower's layers before its logit.
        activation: Activation of all layers, `"dice"` included: in towers, and in a scenario's own
            experts of the last level, by the statistics of that scenario's rows, in all others by
            those of all rows.
        dropout: Share of the layers' outputs dropped in training.
        l2: Weight of the squared norm of the table rows that a batch touches.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Raises:
        ValueError: the schema has no such feature.

    Example:

    >>> model = ck.models.PLE(schema, embedding_dim=16)
    >>> model.compile(ck.optimizers.LazyAdam(1e-3))

    Reference:
        - [Tang et al., 2020: Progressive Layered Extraction (PLE)](
          https://doi.org/10.1145/3383313.3412236)
        - [Huan et al., 2023: AntM2C](https://arxiv.org/abs/2308.16437)
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        num_experts: int = 1,
        num_shared_experts: int = 1,
        num_levels: int = 1,
        units: Sequence[int] = (128,),
        tower_units: Sequence[int] = (32,),
        activation: str = "relu",
        dropout: float = 0.0,
        l2: float = 0.0,
        **kwargs: Any,
    ):
        schema = Schema.of(schema)
        scenarios = Scenarios.of(schema, "PLE")
        inputs = model_inputs(schema)
        fields = embed(schema, scaled(schema, inputs), embedding_dim, "embedding", l2)
        x = fields.deep_input()
        mixture = layers.PLE(
            scenarios.count,
            units,
            num_experts,
            num_shared_experts,
            num_levels,
            activation,
            dropout,
            name="mixture",
        )
        scenario = scenarios.towers(inputs)
        x, gates = mixture(x, return_gates=True, scenario=scenario)
        towers = layers.ScenarioTowers(
            scenarios.count, tower_units, activation, dropout, name="towers"
        )
        logit = towers(x, scenario)
        tensors = {**auxiliary_tensors(fields), "gates": gates}
        super().__init__(schema, inputs, logit, tensors, **kwargs)
        self.embedding_dim = embedding_dim
        self.num_experts = num_experts
        self.num_shared_experts = num_shared_experts
        self.num_levels = num_levels
        self.units = tuple(check_units(units))
        self.tower_units = tuple(check_units(tower_units, "tower_units"))
        self.activation = activation
        self.dropout = dropout
        self.l2 = l2

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "embedding_dim": self.embedding_dim,
            "num_experts": self.num_experts,
            "num_shared_experts": self.num_shared_experts,
            "num_levels": self.num_levels,
            "units": list(self.units),
            "tower_units": list(self.tower_units),
            "activation": self.activation,
            "dropout": self.dropout,
            "l2": self.l2,
        }
