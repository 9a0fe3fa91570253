"""Representations beside ids, the plainest way to use them."""

from typing import Any

from ctr_keras.api_export import export
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.wrapping_model import WrappingModel
from ctr_keras.schema import Schema


@export
class VectorFusion(WrappingModel):
    """A ranker whose target item and past items are id and representation together.

        e_item = [embedding(id), W v]          for the target item and each past item, one W for all

    It is its base, on a schema with the vectors of items (`Schema.with_item_vectors`), under a name
    of its own: the paper's baseline for `SimTier` and `MAKE`.

    Args:
        base: A model of this package whose schema has vectors of items; see `on`.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Raises:
        ValueError: the base's schema has none.

    Example:

    >>> model = ck.models.VectorFusion.on(ck.models.DIN, schema, width=128, embedding_dim=16)

    Reference:
        [Sheng et al., 2024: Enhancing Taobao Display Advertising with Multimodal
        Representations](https://arxiv.org/abs/2407.19467), the baseline Vector
    """

    def __init__(self, base: CTRModel, **kwargs: Any):
        if not any(f.of is not None for f in base.schema.inputs):
            raise ValueError(
                "The base must take vectors of items; `VectorFusion.on` builds one that does. "
                f"Received: a base with `features={base.schema.names}`"
            )
        super().__init__(
            base.schema, base.input, base.tensors["logit"], base.tensors, base.auxiliary_weights,
            **kwargs,
        )  # fmt: skip
        self.base = base

    @classmethod
    def on(
        cls, model: type[CTRModel], schema: Schema, width: int, **options: Any
    ) -> "VectorFusion":
        """A base of a class, and this model on top of it; arguments as of `SimTier.on`."""
        return cls(model(Schema.of(schema).with_item_vectors(width), **options))
