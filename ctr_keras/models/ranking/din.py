"""Deep interest network."""

from collections.abc import Sequence
from typing import Any

import keras

from ctr_keras.api_export import export
from ctr_keras.layers import MLP, TargetAttention
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
class DIN(CTRModel):
    """Deep interest network: the target item attends to the user's past items.

        logit = MLP([v_1, ..., v_F, sum_t a(e_t, e_target) e_t])

    Each history feature that shares a feature of the target item (`history_item_id` shares
    `item_id`) takes part: the past item is the concatenation of its features, the target that of
    the features they share. Every other feature with several values enters by its mean.

    Args:
        schema: `ck.Schema` with at least one history that shares a feature of one value.
        embedding_dim: Width of the embeddings.
        units: Widths of the MLP's layers.
        attention_units: Widths of the activation unit's layers.
        activation: Activation of the MLP, `"dice"` included.
        attention_activation: Activation of the activation unit.
        attention_normalize: `None` keeps the weights' intensity, as the paper does; `"softmax"`
            makes them sum to one.
        dropout: Share of the MLP's outputs dropped in training.
        l2: Weight of the squared norm of the table rows that a batch touches (the paper's
            mini-batch aware regularization).
        **kwargs: `name` and `trainable` of `keras.Model`.

    Example:

    >>> model = ck.models.DIN(schema, embedding_dim=16)
    >>> model.compile(ck.optimizers.LazyAdam(1e-3), metrics=["AUC"])
    >>> model.fit(ck.data.read("tf_data/movielens/train", schema, shuffle=True))

    Reference:
        [Zhou et al., 2018: Deep Interest Network](https://arxiv.org/abs/1706.06978), equation 3
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        units: Sequence[int] = (200, 80),
        attention_units: Sequence[int] = (80, 40),
        activation: str = "relu",
        attention_activation: str = "dice",
        attention_normalize: str | None = None,
        dropout: float = 0.0,
        l2: float = 0.0,
        **kwargs: Any,
    ):
        schema = Schema.of(schema)
        inputs = model_inputs(schema)
        fields = embed(schema, scaled(schema, inputs), embedding_dim, "embedding", l2)
        history = ItemHistory.of(fields, "DIN")
        interest = TargetAttention(
            attention_units,
            activation=attention_activation,
            normalize=attention_normalize,
            name="attention",
        )(history.target, history.items, mask=history.mask)
        joint = fields.deep_input(interest, without=history.names)
        deep = MLP(units, activation=activation, dropout=dropout, name="mlp")(joint)
        logit = keras.layers.Dense(1, name="logit")(deep)
        super().__init__(schema, inputs, logit, auxiliary_tensors(fields), **kwargs)
        self.embedding_dim = embedding_dim
        self.units = tuple(check_units(units))
        self.attention_units = tuple(check_units(attention_units, "attention_units"))
        self.activation = activation
        self.attention_activation = attention_activation
        self.attention_normalize = attention_normalize
        self.dropout = dropout
        self.l2 = l2

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "embedding_dim": self.embedding_dim,
            "units": list(self.units),
            "attention_units": list(self.attention_units),
            "activation": self.activation,
            "attention_activation": self.attention_activation,
            "attention_normalize": self.attention_normalize,
            "dropout": self.dropout,
            "l2": self.l2,
        }
