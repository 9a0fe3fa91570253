"""Experts that all scenarios share, mixed by a gate for each."""

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
class MMoE(CTRModel):
    """Experts that all scenarios share, a gate and a tower for each scenario.

        logit = tower_s(sum_i g_s(x)_i f_i(x)),  x = [v_1, ..., v_F]     s: the row's scenario

    `model.tensors["gates"]`, `(batch, scenarios, experts)`, tells who uses which expert.

    Each row's logit, and so its loss, comes from its own scenario's tower alone. A row of a
    scenario that the schema does not know gets the mean of all towers' logits.

    Args:
        schema: `ck.Schema` with one feature of role `scenario`, whose vocabulary tells how many
            scenarios there are.
        embedding_dim: Width of the embeddings, which all scenarios share.
        num_experts: How many experts.
        units: Widths of an expert's layers.
        tower_units: Widths of a tower's layers before its logit.
        activation: Activation of all layers, `"dice"` included.
        dropout: Share of the layers' outputs dropped in training.
        l2: Weight of the squared norm of the table rows that a batch touches.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Raises:
        ValueError: the schema has no such feature.

    Example:

    >>> model = ck.models.MMoE(schema, embedding_dim=16)
    >>> model.compile(ck.optimizers.LazyAdam(1e-3))

    Reference:
        - [Ma et al., 2018: Modeling Task Relationships in Multi-task Learning with Multi-gate
          Mixture-of-Experts](https://doi.org/10.1145/3219819.3220007), equations 5 and 6
        - [Huan et al., 2023: AntM2C](https://arxiv.org/abs/2308.16437)
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        num_experts: int = 6,
        units: Sequence[int] = (128,),
        tower_units: Sequence[int] = (32,),
        activation: str = "relu",
        dropout: float = 0.0,
        l2: float = 0.0,
        **kwargs: Any,
    ):
        schema = Schema.of(schema)
        scenarios = Scenarios.of(schema, "MMoE")
        inputs = model_inputs(schema)
        fields = embed(schema, scaled(schema, inputs), embedding_dim, "embedding", l2)
        x = fields.deep_input()
        mixture = layers.MMoE(
            num_experts, scenarios.count, units, activation, dropout, name="mixture"
        )
        x, gates = mixture(x, return_gates=True)
        towers = layers.ScenarioTowers(
            scenarios.count, tower_units, activation, dropout, name="towers"
        )
        logit = towers(x, scenarios.towers(inputs))
        tensors = {**auxiliary_tensors(fields), "gates": gates}
        super().__init__(schema, inputs, logit, tensors, **kwargs)
        self.embedding_dim = embedding_dim
        self.num_experts = num_experts
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
            "units": list(self.units),
            "tower_units": list(self.tower_units),
            "activation": self.activation,
            "dropout": self.dropout,
            "l2": self.l2,
        }
