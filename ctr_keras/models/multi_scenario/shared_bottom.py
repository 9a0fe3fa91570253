"""One network under the towers of all scenarios."""

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
class SharedBottom(CTRModel):
    """One network for all scenarios, and a tower for each on top.

        logit = tower_s(MLP([v_1, ..., v_F]))                   s: the row's scenario

    Each row's logit, and so its loss, comes from its own scenario's tower alone. A row of a
    scenario that the schema does not know gets the mean of all towers' logits.

    Args:
        schema: `ck.Schema` with one feature of role `scenario`, whose vocabulary tells how many
            scenarios there are.
        embedding_dim: Width of the embeddings, which all scenarios share.
        units: Widths of the shared layers.
        tower_units: Widths of a tower's layers before its logit.
        activation: Activation of all layers, `"dice"` included.
        dropout: Share of the layers' outputs dropped in training.
        l2: Weight of the squared norm of the table rows that a batch touches.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Raises:
        ValueError: the schema has no such feature.

    Example:

    >>> model = ck.models.SharedBottom(schema, embedding_dim=16)
    >>> model.compile(ck.optimizers.LazyAdam(1e-3))

    Reference:
        - [Caruana, 1997: Multitask Learning](https://doi.org/10.1023/A:1007379606734)
        - [Huan et al., 2023: AntM2C](https://arxiv.org/abs/2308.16437)
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        units: Sequence[int] = (128,),
        tower_units: Sequence[int] = (32,),
        activation: str = "relu",
        dropout: float = 0.0,
        l2: float = 0.0,
        **kwargs: Any,
    ):
        schema = Schema.of(schema)
        scenarios = Scenarios.of(schema, "SharedBottom")
        inputs = model_inputs(schema)
        fields = embed(schema, scaled(schema, inputs), embedding_dim, "embedding", l2)
        x = fields.deep_input()
        bottom = layers.SharedBottom(scenarios.count, units, activation, dropout, name="bottom")
        x = bottom(x)
        towers = layers.ScenarioTowers(
            scenarios.count, tower_units, activation, dropout, name="towers"
        )
        logit = towers(x, scenarios.towers(inputs))
        super().__init__(schema, inputs, logit, auxiliary_tensors(fields), **kwargs)
        self.embedding_dim = embedding_dim
        self.units = tuple(check_units(units))
        self.tower_units = tuple(check_units(tower_units, "tower_units"))
        self.activation = activation
        self.dropout = dropout
        self.l2 = l2

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "embedding_dim": self.embedding_dim,
            "units": list(self.units),
            "tower_units": list(self.tower_units),
            "activation": self.activation,
            "dropout": self.dropout,
            "l2": self.l2,
        }
