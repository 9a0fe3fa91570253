"""Knowledge from representations that was learned apart, as a feature of any ranker (MAKE)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from ctr_keras import layers
from ctr_keras.api_export import export
from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.layers.mlp import check_units
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.inference_graph import InferenceGraph
from ctr_keras.models.multimodal.item_vectors import (
    ItemVectors,
    extended,
    history_of,
    made_vector,
    without,
)
from ctr_keras.models.multimodal.sim_tier import SIM_TIERS, tiers_of
from ctr_keras.models.wrapping_model import WrappingModel
from ctr_keras.schema import Schema

KNOWLEDGE = "knowledge"


@export
class KnowledgeExtractor(CTRModel):
    """Click probability by item representations alone: phase one of MAKE.

        logit = MultimodalKnowledgeExtractor(v_target, v_1 ... v_L)

    It has no ids, so it can learn over several epochs where rankers overfit in their second. Its
    knowledge then enters a ranker, see `MAKE`. Past items without a representation (a vector of
    zeros) are left out.

    Args:
        schema: `ck.Schema` of the rows, without vectors; of it only the target item and the past
            items matter.
        width: Of the representations.
        units: Widths of the hidden layers of its MLP.
        projection: Width that representations are brought to first, or `None`.
        attention_units: Widths of the activation unit's layers.
        attention_normalize: `None` or `"softmax"`, as of `DIN`.
        dropout: Share of the MLP's outputs dropped in training.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Example:

    >>> extractor = ck.models.KnowledgeExtractor(schema, width=128)
    >>> extractor.compile(ck.optimizers.LazyAdam(1e-3))
    >>> extractor.fit(ck.data.read("tf_data/movielens/train", extractor.schema), epochs=5)

    Reference:
        [Sheng et al., 2024: Enhancing Taobao Display Advertising with Multimodal
        Representations](https://arxiv.org/abs/2407.19467), section on MAKE
    """

    def __init__(
        self,
        schema: Schema,
        width: int,
        units: Sequence[int] = (128, 64, 32),
        projection: int | None = None,
        attention_units: Sequence[int] = (80, 40),
        attention_normalize: str | None = None,
        dropout: float = 0.0,
        **kwargs: Any,
    ):
        rows = _items_alone(Schema.of(schema))
        vectors = ItemVectors.of(rows, width, "KnowledgeExtractor")
        extract = layers.MultimodalKnowledgeExtractor(
            units,
            projection,
            attention_units,
            attention_normalize=attention_normalize,
            dropout=dropout,
            stop_gradient=False,
            name="extractor",
        )
        logit, knowledge = extract(vectors.target, vectors.history, mask=vectors.known)
        super().__init__(vectors.schema, vectors.inputs, logit, {KNOWLEDGE: knowledge}, **kwargs)
        self.rows = rows
        self.width = width
        self.units = tuple(check_units(units))
        self.projection = projection
        self.attention_units = tuple(check_units(attention_units, "attention_units"))
        self.attention_normalize = attention_normalize
        self.dropout = dropout

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            # Of `schema`, which knows where its vocabulary files lie after loading.
            "schema": Schema(tuple(f for f in self.schema if f.name in self.rows)).to_config(),
            "width": self.width,
            "units": list(self.units),
            "projection": self.projection,
            "attention_units": list(self.attention_units),
            "attention_normalize": self.attention_normalize,
            "dropout": self.dropout,
        }


@export
class MAKE(WrappingModel):
    """A ranker with the knowledge of an extractor that was trained apart: phase two of MAKE.

        logit = base(features, v_make, h_1, ..., h_n of the extractor)

    `v_make` and the hidden outputs join the input of the base's MLP; a base without one, such as
    `FM`, projects them to `embedding_dim`.

    The extractor is frozen and computes as in inference, unless `joint`: then the ranker's loss
    trains it too, which the paper shows to be worse, as both then learn for the one epoch that ids
    can bear.

    Args:
        base: A model of this package with a feature `knowledge`; see `on`.
        extractor: A `KnowledgeExtractor`, trained.
        joint: Whether the extractor learns with the ranker.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Raises:
        ValueError: the base has no such feature, or one of another width, or the rows lack what the
            extractor takes.

    Example:

    >>> model = ck.models.MAKE.on(ck.models.DIN, schema, extractor, embedding_dim=16)

    Reference:
        [Sheng et al., 2024: Enhancing Taobao Display Advertising with Multimodal
        Representations](https://arxiv.org/abs/2407.19467), section on MAKE
    """

    parts = ("base", "extractor")
    takes_tiers: ClassVar[bool] = False

    def __init__(
        self,
        base: CTRModel,
        extractor: KnowledgeExtractor,
        joint: bool = False,
        **kwargs: Any,
    ):
        name = type(self).__name__
        made = {KNOWLEDGE, *([SIM_TIERS] if self.takes_tiers else [])}
        vectors = ItemVectors.of(without(base.schema, made, name), extractor.width, name)
        missing = sorted(set(extractor.input) - set(vectors.inputs))
        if missing:
            raise ValueError(
                f"The extractor takes {missing[0]!r}, which the rows of the base lack. Received: "
                f"a base with `features={base.schema.names}`"
            )
        tensors = {KNOWLEDGE: _knowledge_of(extractor, vectors, joint)}
        if base.schema[KNOWLEDGE].width != tensors[KNOWLEDGE].shape[-1]:
            raise ValueError(
                f"The extractor's knowledge is {tensors[KNOWLEDGE].shape[-1]} wide. Received: a "
                f"base with `{KNOWLEDGE}` of `width={base.schema[KNOWLEDGE].width}`"
            )
        if self.takes_tiers:
            tensors[SIM_TIERS] = tiers_of(base, vectors)
        tensors = vectors.through(base, tensors)
        super().__init__(
            vectors.schema, vectors.inputs, tensors["logit"], tensors, base.auxiliary_weights,
            **kwargs,
        )  # fmt: skip
        self.base = base
        self.extractor = extractor
        self.joint = joint

    @classmethod
    def on(
        cls,
        model: type[CTRModel],
        schema: Schema,
        extractor: KnowledgeExtractor,
        *,
        joint: bool = False,
        num_tiers: int | None = None,
        projected: bool = False,
        **options: Any,
    ) -> "MAKE":
        """A base of a class, and this model on top of it.

        Args:
            model: Class of the base, such as `ck.models.DIN`.
            schema: Features of the rows, without vectors.
            extractor: A `KnowledgeExtractor`, trained.
            joint: Whether the extractor learns with the ranker.
            num_tiers: How many tiers, of `SimTierMAKE` alone, which has 20 by default.
            projected: Whether knowledge and tiers are each brought to `embedding_dim`, like any
                vector, before they join the MLP's input.
            **options: Arguments of the base.
        """
        width = extractor.tensors[KNOWLEDGE].shape[-1]
        features = [made_vector(KNOWLEDGE, width, projected)]
        if cls.takes_tiers:
            tiers = 20 if num_tiers is None else num_tiers
            check_positive_integer("num_tiers", tiers)
            features.append(made_vector(SIM_TIERS, tiers, projected))
        elif num_tiers is not None:
            raise ValueError(
                f"`SimTierMAKE` has tiers, `MAKE` has none. Received: `num_tiers={num_tiers}`"
            )
        return cls(model(extended(schema, *features), **options), extractor, joint)

    def _learned(self, variables: list) -> list:
        """Without the layer of the extractor's own logit: the ranker's loss does not reach it."""
        unreached = {id(v) for v in self.extractor.get_layer("extractor").score.variables}
        return [v for v in super()._learned(variables) if id(v) not in unreached]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "joint": self.joint}


@export
class SimTierMAKE(MAKE):
    """A ranker with the tiers of `SimTier` and the knowledge of `MAKE`.

        logit = base(features, log(1 + SimTier(v_target, v_1 ... v_L)), knowledge)

    Args:
        base: A model of this package with features `sim_tiers` and `knowledge`; see `on`.
        extractor: A `KnowledgeExtractor`, trained.
        joint: Whether the extractor learns with the ranker.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Example:

    >>> model = ck.models.SimTierMAKE.on(ck.models.DIN, schema, extractor, embedding_dim=16)

    Reference:
        [Sheng et al., 2024: Enhancing Taobao Display Advertising with Multimodal
        Representations](https://arxiv.org/abs/2407.19467)
    """

    takes_tiers = True


def _knowledge_of(
    extractor: KnowledgeExtractor, vectors: ItemVectors, joint: bool
) -> keras.KerasTensor:
    # A frozen one gives the ranker what it gives in inference, without dropout.
    kind = keras.Model if joint else InferenceGraph
    graph = kind(extractor.input, extractor.tensors[KNOWLEDGE], name=KNOWLEDGE)
    knowledge = graph({name: vectors.inputs[name] for name in extractor.input})
    return knowledge if joint else ops.stop_gradient(knowledge)


def _items_alone(schema: Schema) -> Schema:
    """The target item, the past items, and what training and evaluation need."""
    names = set(history_of(schema, "KnowledgeExtractor"))
    others = ("label", "group", "time")
    return Schema(tuple(f for f in schema if f.name in names or f.role in others))
