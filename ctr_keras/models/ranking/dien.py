"""Deep interest evolution network."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.layers import AUGRU, MLP, InterestExtractor
from ctr_keras.layers.mlp import check_units
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.features import (
    ItemHistory,
    auxiliary_tensors,
    embed,
    model_inputs,
    scaled,
)
from ctr_keras.models.other_items import OtherItems
from ctr_keras.schema import Schema


@export
class DIEN(CTRModel):
    """Deep interest evolution network: how the user's interest in the target item evolved.

        h_1, ..., h_n = GRU(e_1, ..., e_n)
        a_t   = softmax_t(h_t^T W e_target)
        logit = MLP([v_1, ..., v_F, AUGRU(h_1, ..., h_n; a_1, ..., a_n)])
        loss  = ctr_loss + interest_weight * interest_loss

    The past items `e_t` are those of `DIN`; both recurrences are as wide as one of them. The
    auxiliary loss is that of `InterestExtractor`, its negatives drawn from the past items of the
    batch's other rows. It is part of training alone.

    Args:
        schema: `ck.Schema` with at least one history that shares a feature of one value.
        embedding_dim: Width of the embeddings.
        units: Widths of the MLP's layers.
        activation: Activation of the MLP, `"dice"` included.
        interest_weight: Weight of the auxiliary loss; 0 leaves it out.
        dropout: Share of the MLP's outputs dropped in training.
        l2: Weight of the squared norm of the table rows that a batch touches.
        seed: Seed of the negatives; by default it follows `ck.set_seed`.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Example:

    >>> model = ck.models.DIEN(schema, embedding_dim=16)
    >>> model.compile(ck.optimizers.LazyAdam(1e-3), metrics=["AUC"])
    >>> model.fit(ck.data.read("tf_data/movielens/train", schema, shuffle=True))

    Reference:
        [Zhou et al., 2018: Deep Interest Evolution Network](https://arxiv.org/abs/1809.03672)
    """

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int = 16,
        units: Sequence[int] = (200, 80),
        activation: str = "relu",
        interest_weight: float = 1.0,
        dropout: float = 0.0,
        l2: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        if not interest_weight >= 0:
            raise ValueError(
                "`interest_weight` must not be negative. "
                f"Received: `interest_weight={interest_weight}`"
            )
        schema = Schema.of(schema)
        inputs = model_inputs(schema)
        fields = embed(schema, scaled(schema, inputs), embedding_dim, "embedding", l2)
        history = ItemHistory.of(fields, "DIEN")
        width = history.items.shape[-1]
        states = InterestExtractor(width, name="interests")(history.items, mask=history.mask)
        interest = AUGRU(width, name="evolution")(
            states, _attention(states, history), mask=history.mask
        )
        joint = fields.deep_input(interest, without=history.names)
        deep = MLP(units, activation=activation, dropout=dropout, name="mlp")(joint)
        logit = keras.layers.Dense(1, name="logit")(deep)
        super().__init__(
            schema,
            inputs,
            logit,
            {**auxiliary_tensors(fields), "past_items": history.items, "interests": states},
            {"interest_loss": interest_weight} if interest_weight else {},
            **kwargs,
        )
        self.embedding_dim = embedding_dim
        self.units = tuple(check_units(units))
        self.activation = activation
        self.interest_weight = interest_weight
        self.dropout = dropout
        self.l2 = l2
        self.seed = seed
        if interest_weight:
            self.negatives = OtherItems(seed, name="negatives")
            self.negatives.build(history.items.shape)

    def auxiliary_losses(self, x, y, tensors, sample_weight):
        if not self.interest_weight:
            return {}
        items, mask = tensors["past_items"], tensors["history_mask"]
        negatives, found = self.negatives(items, mask)
        extractor = self.get_layer("interests")
        loss = extractor.auxiliary_loss(tensors["interests"], items, negatives, found)
        return {"interest_loss": loss}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "embedding_dim": self.embedding_dim,
            "units": list(self.units),
            "activation": self.activation,
            "interest_weight": self.interest_weight,
            "dropout": self.dropout,
            "l2": self.l2,
            "seed": self.seed,
        }


def _attention(states, history: ItemHistory):
    """How much each interest state matters to the target item: `(batch, length)`, sums to one."""
    project = keras.layers.Dense(states.shape[-1], use_bias=False, name="attention")
    scores = ops.squeeze(ops.matmul(states, project(history.target)[:, :, None]), axis=-1)
    # Softmax in half precision loses the tail of a long history.
    softmax = keras.layers.Softmax(axis=-1, dtype="float32", name="attention_scores")
    return softmax(scores, mask=history.mask)
