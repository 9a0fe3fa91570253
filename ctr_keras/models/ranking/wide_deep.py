"""Wide & Deep: a linear model with crosses beside an MLP."""

from collections.abc import Sequence
from typing import Any

import keras

from ctr_keras.api_export import export
from ctr_keras.layers import MLP
from ctr_keras.layers.mlp import check_units
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.features import auxiliary_tensors, embed, model_inputs, scaled
from ctr_keras.models.linear import crossed_logit, linear_logit
from ctr_keras.schema import Schema


@export
class WideDeep(CTRModel):
    """Linear model over ids and crosses of ids, beside an MLP over embeddings.

        logit = w^T [x, crosses(x)] + w0 + MLP([v_1, ..., v_F])

    A feature with several values (history, genres, words) enters as the mean of its values.

    Args:
        schema: `ck.Schema` of the features.
        embedding_dim: Width of the embeddings.
        units: Widths of the MLP's layers.
        crosses: Tuples of id features; each combination of their ids has a weight of its own,
            found by a hash.
        cross_buckets: Number of hash buckets of each cross.
        activation: Activation of the MLP, `"dice"` included.
        dropout: Share of the MLP's outputs dropped in training.
        l2: Weight of the squared norm of the table rows that a batch touches.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Example:

    >>> model = ck.models.WideDeep(schema, crosses=[("user_id", "item_id")])
    >>> model.compile(ck.optimizers.LazyAdam(1e-3))

    Reference:
        [Cheng et al., 2016: Wide & Deep Learning](https://arxiv.org/abs/1606.07792), equation 3
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        units: Sequence[int] = (200, 80),
        crosses: Sequence[Sequence[str]] = (),
        cross_buckets: int = 100_000,
        activation: str = "relu",
        dropout: float = 0.0,
        l2: float = 0.0,
        **kwargs: Any,
    ):
        schema = Schema.of(schema)
        inputs = model_inputs(schema)
        values = scaled(schema, inputs)
        fields = embed(schema, values, embedding_dim, "embedding", l2)
        deep = MLP(units, activation=activation, dropout=dropout, name="mlp")(fields.deep_input())
        terms = [
            linear_logit(schema, values, l2),
            keras.layers.Dense(1, use_bias=False, name="mlp_logit")(deep),
        ]
        if crosses:
            terms.append(crossed_logit(schema, values, crosses, cross_buckets, l2))
        logit = keras.layers.Add(name="logit")(terms)
        super().__init__(schema, inputs, logit, auxiliary_tensors(fields), **kwargs)
        self.embedding_dim = embedding_dim
        self.units = tuple(check_units(units))
        self.crosses = tuple(tuple(names) for names in crosses)
        self.cross_buckets = cross_buckets
        self.activation = activation
        self.dropout = dropout
        self.l2 = l2

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "embedding_dim": self.embedding_dim,
            "units": list(self.units),
            "crosses": [list(names) for names in self.crosses],
            "cross_buckets": self.cross_buckets,
            "activation": self.activation,
            "dropout": self.dropout,
            "l2": self.l2,
        }
