"""The similarity of each past item, as side information of that item in any ranker."""

from typing import Any

from keras import ops

from ctr_keras import layers
from ctr_keras.api_export import export
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.multimodal.item_vectors import (
    ItemVectors,
    extended,
    history_of,
    without,
)
from ctr_keras.models.wrapping_model import WrappingModel
from ctr_keras.schema import Feature, Schema

ITEM_SCORE, HISTORY_SCORE = "item_score", "history_score"


@export
class SimScore(WrappingModel):
    """A ranker whose past items each carry their similarity to the target item.

        logit = base(features, s_1 ... s_L, s_target),    s_l = v_l . v_target,  s_target = 1

    The similarity is a feature of the past item beside its id, so it enters the attention of a
    base that has one. The representations `v` are inputs, looked up as rows are read, frozen, and
    no part of the model. A past item without one has similarity 0.

    Args:
        base: A model of this package with features `item_score` and `history_score`; see `on`.
        width: Of the representations.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Raises:
        ValueError: the base has no such features, or no history of items.

    Example:

    >>> model = ck.models.SimScore.on(ck.models.DIN, schema, width=128, embedding_dim=16)

    Reference:
        [Sheng et al., 2024: Enhancing Taobao Display Advertising with Multimodal
        Representations](https://arxiv.org/abs/2407.19467), section on SimScore
    """

    def __init__(self, base: CTRModel, width: int, **kwargs: Any):
        schema = without(base.schema, {ITEM_SCORE, HISTORY_SCORE}, "SimScore")
        vectors = ItemVectors.of(schema, width, "SimScore")
        scores = layers.SimScore(name="scores")(vectors.target, vectors.history, mask=vectors.mask)
        made = {
            HISTORY_SCORE: ops.expand_dims(scores, -1),
            ITEM_SCORE: ops.ones_like(vectors.target[:, :1]),
        }
        tensors = vectors.through(base, made)
        super().__init__(
            vectors.schema, vectors.inputs, tensors["logit"], tensors, base.auxiliary_weights,
            **kwargs,
        )  # fmt: skip
        self.base = base
        self.width = width

    @classmethod
    def on(cls, model: type[CTRModel], schema: Schema, width: int, **options: Any) -> "SimScore":
        """A base of a class, and this model on top of it; arguments as of `SimTier.on`."""
        schema = Schema.of(schema)
        key, past = history_of(schema, "SimScore")
        features = (
            Feature(ITEM_SCORE, "item", kind="vector", width=1, of=key),
            Feature(
                HISTORY_SCORE, "history", kind="vector", width=1, length=schema[past].length,
                of=past, shares=ITEM_SCORE, crossed=True,
            ),
        )  # fmt: skip
        return cls(model(extended(schema, *features), **options), width)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}
