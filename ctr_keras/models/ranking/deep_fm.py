"""DeepFM: a factorization machine and an MLP on the same embeddings."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.layers import MLP, FactorizationMachine
from ctr_keras.layers.mlp import check_units
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.features import auxiliary_tensors, embed, model_inputs, scaled
from ctr_keras.models.linear import linear_logit
from ctr_keras.schema import Schema


@export
class DeepFM(CTRModel):
    """Factorization machine plus MLP on the same embeddings.

        logit = FM(x) + MLP([v_1, ..., v_F])

    A feature with several values (history, genres, words) enters as the mean of its values.

    Args:
        schema: `ck.Schema` of the features.
        embedding_dim: Width of the embeddings.
        units: Widths of the MLP's layers.
        activation: Activation of the MLP, `"dice"` included.
        dropout: Share of the MLP's outputs dropped in training.
        l2: Weight of the squared norm of the table rows that a batch touches.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Example:

    >>> model = ck.models.DeepFM(schema, embedding_dim=16, units=(200, 80))
    >>> model.compile(ck.optimizers.LazyAdam(1e-3))

    Reference:
        [Guo et al., 2017: DeepFM](https://arxiv.org/abs/1703.04247), equations 1 to 4
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        units: Sequence[int] = (200, 80),
        activation: str = "relu",
        dropout: float = 0.0,
        l2: float = 0.0,
        **kwargs: Any,
    ):
        schema = Schema.of(schema)
        inputs = model_inputs(schema)
        values = scaled(schema, inputs)
        fields = embed(schema, values, embedding_dim, "embedding", l2)
        second_order = FactorizationMachine(name="interactions")(
            ops.stack(fields.all_pooled(), axis=1)
        )
        deep = MLP(units, activation=activation, dropout=dropout, name="mlp")(fields.deep_input())
        deep = keras.layers.Dense(1, use_bias=False, name="mlp_logit")(deep)
        terms = [linear_logit(schema, values, l2), second_order, deep]
        logit = keras.layers.Add(name="logit")(terms)
        super().__init__(schema, inputs, logit, auxiliary_tensors(fields), **kwargs)
        self.embedding_dim = embedding_dim
        self.units = tuple(check_units(units))
        self.activation = activation
        self.dropout = dropout
        self.l2 = l2

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "embedding_dim": self.embedding_dim,
            "units": list(self.units),
            "activation": self.activation,
            "dropout": self.dropout,
            "l2": self.l2,
        }
