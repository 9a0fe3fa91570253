"""Tiers of similarity to past items, as a feature of any ranker."""

from typing import Any

import keras
from keras import ops

from ctr_keras import layers
from ctr_keras.api_export import export
from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.multimodal.item_vectors import (
    ItemVectors,
    extended,
    made_vector,
    without,
)
from ctr_keras.models.wrapping_model import WrappingModel
from ctr_keras.schema import Schema

SIM_TIERS = "sim_tiers"


@export
class SimTier(WrappingModel):
    """A ranker that also knows how many past items are how similar to the target item.

        logit = base(features, log(1 + SimTier(v_target, v_1 ... v_L)))

    The representations `v` are inputs, looked up as rows are read (`ck.data.VectorTable`), frozen,
    and no part of the model. Past items without one (a vector of zeros) are left out. The logarithm
    brings counts to the scale of other features. They join the input of the base's MLP; a base
    without one, such as `FM`, projects them to `embedding_dim`.

    Args:
        base: A model of this package with a feature `sim_tiers`; see `on`.
        width: Of the representations.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Raises:
        ValueError: the base has no such feature, or no history of items.

    Example:

    >>> model = ck.models.SimTier.on(ck.models.DIN, schema, width=128, embedding_dim=16)
    >>> model.compile(ck.optimizers.LazyAdam(1e-3))
    >>> model.fit(ck.data.read("tf_data/movielens/train", model.schema, shuffle=True))

    Reference:
        [Sheng et al., 2024: Enhancing Taobao Display Advertising with Multimodal
        Representations](https://arxiv.org/abs/2407.19467), section on SimTier
    """

    def __init__(self, base: CTRModel, width: int, **kwargs: Any):
        schema = without(base.schema, {SIM_TIERS}, "SimTier")
        vectors = ItemVectors.of(schema, width, "SimTier")
        tensors = vectors.through(base, {SIM_TIERS: tiers_of(base, vectors)})
        super().__init__(
            vectors.schema, vectors.inputs, tensors["logit"], tensors, base.auxiliary_weights,
            **kwargs,
        )  # fmt: skip
        self.base = base
        self.width = width

    @classmethod
    def on(
        cls,
        model: type[CTRModel],
        schema: Schema,
        width: int,
        num_tiers: int = 20,
        projected: bool = False,
        **options: Any,
    ) -> "SimTier":
        """A base of a class, and this model on top of it.

        Args:
            model: Class of the base, such as `ck.models.DIN`.
            schema: Features of the rows, without vectors.
            width: Of the representations.
            num_tiers: How many tiers.
            projected: Whether the counts are brought to `embedding_dim`, like any vector, before
                they join the MLP's input.
            **options: Arguments of the base.
        """
        check_positive_integer("num_tiers", num_tiers)
        tiers = made_vector(SIM_TIERS, num_tiers, projected)
        return cls(model(extended(schema, tiers), **options), width)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


def tiers_of(base: CTRModel, vectors: ItemVectors) -> keras.KerasTensor:
    """Logarithm of the counts by tier: `(batch, num_tiers)`."""
    tiers = layers.SimTier(int(base.schema[SIM_TIERS].width or 0), skip_zeros=True, name="tiers")
    return ops.log1p(tiers(vectors.target, vectors.history, mask=vectors.mask))
