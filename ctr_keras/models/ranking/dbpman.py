"""Deep behavior path matching network."""

from collections.abc import Sequence
from typing import Any

import keras

from ctr_keras.api_export import export
from ctr_keras.layers import MLP, BehaviorPathMatching
from ctr_keras.layers.mlp import check_units
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.features import (
    ItemHistory,
    auxiliary_tensors,
    embed,
    model_inputs,
    scaled,
)
from ctr_keras.schema import Schema


@export
class DBPMaN(CTRModel):
    """Deep behavior path matching network: what followed paths like the user's current one.

        logit = MLP([v_1, ..., v_F, BehaviorPathMatching(e_target, e_1, ..., e_n)])

    The past items `e_t` are those of `DIN`. Every feature with several values enters by its mean,
    the histories included: a user with a single past item has no path to match.

    The paper also draws augmented paths together by a contrastive loss, which is left out, as in
    public code. `BehaviorPathMatching` tells what else the paper leaves open.

    Args:
        schema: `ck.Schema` with at least one history that shares a feature of one value.
        embedding_dim: Width of the embeddings.
        units: Widths of the MLP's layers.
        path_length: Number of past items in a path.
        kept: How many of them count, those with the largest weights.
        attention_units: Widths of the activation unit's layers.
        activation: Activation of the MLP, `"dice"` included.
        attention_activation: Activation of the activation unit.
        dropout: Share of the MLP's outputs dropped in training.
        l2: Weight of the squared norm of the table rows that a batch touches.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Example:

    >>> model = ck.models.DBPMaN(schema, embedding_dim=16)
    >>> model.compile(ck.optimizers.LazyAdam(1e-3), metrics=["AUC"])
    >>> model.fit(ck.data.read("tf_data/movielens/train", schema, shuffle=True))

    Reference:
        [Dong et al., 2023: A Deep Behavior Path Matching Network for Click-Through Rate
        Prediction](https://arxiv.org/abs/2302.00302)
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        units: Sequence[int] = (200, 80),
        path_length: int = 10,
        kept: int = 5,
        attention_units: Sequence[int] = (80, 40),
        activation: str = "relu",
        attention_activation: str = "dice",
        dropout: float = 0.0,
        l2: float = 0.0,
        **kwargs: Any,
    ):
        schema = Schema.of(schema)
        inputs = model_inputs(schema)
        fields = embed(schema, scaled(schema, inputs), embedding_dim, "embedding", l2)
        history = ItemHistory.of(fields, "DBPMaN")
        interest = BehaviorPathMatching(
            path_length,
            kept,
            units=attention_units,
            activation=attention_activation,
            name="path_matching",
        )(history.target, history.items, mask=history.mask)
        joint = fields.deep_input(interest)
        deep = MLP(units, activation=activation, dropout=dropout, name="mlp")(joint)
        logit = keras.layers.Dense(1, name="logit")(deep)
        super().__init__(schema, inputs, logit, auxiliary_tensors(fields), **kwargs)
        self.embedding_dim = embedding_dim
        self.units = tuple(check_units(units))
        self.path_length = path_length
        self.kept = kept
        self.attention_units = tuple(check_units(attention_units, "attention_units"))
        self.activation = activation
        self.attention_activation = attention_activation
        self.dropout = dropout
        self.l2 = l2

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "embedding_dim": self.embedding_dim,
            "units": list(self.units),
            "path_length": self.path_length,
            "kept": self.kept,
            "attention_units": list(self.attention_units),
            "activation": self.activation,
            "attention_activation": self.attention_activation,
            "dropout": self.dropout,
            "l2": self.l2,
        }
