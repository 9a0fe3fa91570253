"""From a schema to Keras inputs and field embeddings: what every model starts with."""

import dataclasses

import keras
from keras import KerasTensor, ops

from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.layers import FeatureEmbedding
from ctr_keras.models.number_scale import NumberScale
from ctr_keras.schema import Feature, Schema


@dataclasses.dataclass(frozen=True)
class Fields:
    """The embedded features of a functional model, by feature name.

    Attributes:
        ids: Id tensors: `(batch,)`, or `(batch, length)` for sequences.
        scalars: Embeddings of features with one value: `(batch, dim)`; numbers, vectors and
            encoded texts are projected to the same width.
        sequences: Embeddings of features with several values: `(batch, length, dim)`, zeros where
            padded.
        unprojected: Vectors that join the input of an MLP as they are: `(batch, width)`.
    """

    schema: Schema
    ids: dict[str, KerasTensor]
    scalars: dict[str, KerasTensor]
    sequences: dict[str, KerasTensor]
    unprojected: dict[str, KerasTensor] = dataclasses.field(default_factory=dict)

    def mask(self, name: str) -> KerasTensor:
        """Where a sequence holds values: bool `(batch, length)`."""
        return ops.not_equal(self.ids[self.schema[name].of or name], 0)

    def pooled(self, name: str) -> KerasTensor:
        """A feature as one vector `(batch, dim)`: sequences by the mean of their values."""
        if name in self.scalars:
            return self.scalars[name]
        return mean_of_values(self.sequences[name], self.mask(name))

    def all_pooled(self, without: tuple[str, ...] = ()) -> list[KerasTensor]:
        """Every embedded feature as one vector `(batch, dim)`, in the order of the schema."""
        left_out = {*without, *self.unprojected}
        return [self.pooled(f.name) for f in self.schema.inputs if f.name not in left_out]

    def deep_input(self, *more: KerasTensor, without: tuple[str, ...] = ()) -> KerasTensor:
        """What goes into an MLP: every feature, and what a model makes of them."""
        return joined([*self.all_pooled(without), *self.unprojected.values(), *more])

    def of_roles(self, *roles: str) -> list[KerasTensor]:
        """The pooled features of these roles but the crossed ones, in the order of the schema."""
        chosen = [f for f in self.schema.inputs if f.role in roles and not f.crossed]
        return [self.pooled(feature.name) for feature in chosen]


@dataclasses.dataclass(frozen=True)
class ItemHistory:
    """The user's past items, each as wide as the target item.

    Attributes:
        target: The target item's features that the histories share: `(batch, W)`.
        items: The past items' features, in the same order: `(batch, length, W)`.
        mask: Where there is a past item: bool `(batch, length)`.
        names: The history features.
    """

    target: KerasTensor
    items: KerasTensor
    mask: KerasTensor
    names: tuple[str, ...]

    @classmethod
    def of(cls, fields: Fields, model: str, crossed: bool = True) -> "ItemHistory":
        """The past items of a model that cannot do without.

        Args:
            fields: The embedded features.
            model: What to call it in errors.
            crossed: Whether features that also depend on the target item are among theirs.

        Raises:
            ValueError: the schema has none, or histories of several lengths.
        """
        pairs = _history_pairs(fields, crossed)
        if not pairs:
            raise ValueError(
                f"{model} needs a history that shares a feature of the target item, such as "
                '`Feature("history_item_id", role="history", length=50, shares="item_id")`. '
                f"Received: `features={fields.schema.names}`"
            )
        lengths = {feature.name: feature.length for feature in pairs}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"The histories describe the same past items, so they need one length. Received: "
                f"`length={lengths}`"
            )
        mask = fields.mask(pairs[0].name)
        for feature in pairs[1:]:
            mask = ops.logical_or(mask, fields.mask(feature.name))
        return cls(
            target=joined([fields.scalars[str(feature.shares)] for feature in pairs]),
            items=joined([fields.sequences[feature.name] for feature in pairs]),
            mask=mask,
            names=tuple(lengths),
        )


def auxiliary_tensors(fields: Fields) -> dict[str, KerasTensor]:
    """The tensors that auxiliary tasks build on; `CTRModel` keeps them by name.

    - `user`, `item`: all features of that role, `(batch, width)`.
    - `target`, `history`, `history_mask`: target item and past items as `ItemHistory` has them.
    - `fields`: every embedded feature as one vector, `(batch, number, dim)`.

    Crossed features are in `fields` alone, unprojected ones nowhere: in an item's tensor they would
    tell which user it is shown to, in a history's which item is ranked, and a match could be read
    off them.

    What the schema has no feature for is left out, and the three of the past items where the
    histories differ in length: a model that needs none can do with such a schema.
    """
    tensors = {"fields": ops.stack(fields.all_pooled(), axis=1)}
    for role in ("user", "item"):
        if vectors := fields.of_roles(role):
            tensors[role] = joined(vectors)
    if len({feature.length for feature in _history_pairs(fields, crossed=False)}) == 1:
        history = ItemHistory.of(fields, "An auxiliary task", crossed=False)
        tensors["target"] = history.target
        tensors["history"] = history.items
        tensors["history_mask"] = history.mask
    return tensors


def model_inputs(schema: Schema) -> dict[str, KerasTensor]:
    """A `keras.Input` for each feature that enters a model."""
    if not schema.inputs:
        raise ValueError(f"The schema has no model input. Received: `features={schema.names}`")
    strings = [feature.name for feature in schema.inputs if feature.as_string]
    if strings:
        raise ValueError(
            "Only `TunedTexts` takes texts as strings; give other models encoded ones, see "
            f"`Schema.with_encoded_texts`. Received: the feature {strings[0]!r}"
        )
    return {feature.name: _input(schema, feature) for feature in schema.inputs}


def scaled(schema: Schema, inputs: dict[str, KerasTensor]) -> dict[str, KerasTensor]:
    """The inputs with numbers as `(batch, 1)`, brought to one scale by batch statistics."""
    values = dict(inputs)
    for feature in schema.inputs:
        if feature.kind == "number":
            # Numbers come in any unit, and one epoch has to be enough to learn it.
            scale = NumberScale(name=f"{feature.name}_scale")
            values[feature.name] = scale(ops.expand_dims(inputs[feature.name], -1))
    return values


def embed(
    schema: Schema,
    inputs: dict[str, KerasTensor],
    width: int,
    name: str,
    l2: float = 0.0,
    *,
    project_all: bool = False,
) -> Fields:
    """Embed all features to vectors of one width, ids in one fused table.

    Args:
        schema: What the inputs are.
        inputs: What `scaled` returned.
        width: Width of each vector: the `embedding_dim` of a model, as an error calls it.
        name: Name of the `FeatureEmbedding` layer; other layers take it as a prefix.
        l2: Weight of the squared norm of the rows that a batch touches.
        project_all: Whether unprojected features are projected too, where there is no MLP.
    """
    check_positive_integer("embedding_dim", width)
    ids = {f.name: inputs[f.name] for f in schema.inputs if f.is_embedded}
    vectors = {}
    if ids:
        vectors = embedding_layer(schema, width, name, l2)(ids)
    scalars = {key: value for key, value in vectors.items() if len(value.shape) == 2}
    sequences = {key: value for key, value in vectors.items() if len(value.shape) == 3}
    unprojected: dict[str, KerasTensor] = {}
    projections: dict[str, keras.layers.Dense] = {}
    for feature in schema.inputs:
        if feature.unprojected and not project_all:
            unprojected[feature.name] = inputs[feature.name]
        elif not feature.is_embedded:
            owner = feature.shares or feature.name
            if owner not in projections:
                projections[owner] = keras.layers.Dense(
                    width, use_bias=False, name=f"{name}_{owner}"
                )
            fields = scalars if feature.length is None else sequences
            fields[feature.name] = projections[owner](inputs[feature.name])
    return Fields(schema, ids, scalars, sequences, unprojected)


def embedding_layer(schema: Schema, width: int, name: str, l2: float = 0.0) -> FeatureEmbedding:
    """The fused table of all ids and words."""
    features = [f for f in schema.inputs if f.is_embedded]
    return FeatureEmbedding(
        sizes={f.name: f.vocabulary.size for f in features if f.vocabulary is not None},
        width=width,
        shared={f.name: f.shares for f in features if f.shares is not None},
        l2=l2,
        name=name,
    )


def mean_of_values(vectors: KerasTensor, mask: KerasTensor) -> KerasTensor:
    """Mean over the unpadded vectors, zeros for a row without any: `(batch, dim)`.

    Args:
        vectors: `(batch, length, dim)`, zeros where padded.
        mask: Where there is a vector: bool `(batch, length)`.
    """
    count = ops.sum(ops.cast(mask, vectors.dtype), axis=1, keepdims=True)
    return ops.sum(vectors, axis=1) / ops.maximum(count, 1)


def joined(tensors: list[KerasTensor]) -> KerasTensor:
    """Concatenate along the last axis, also a single tensor."""
    return tensors[0] if len(tensors) == 1 else ops.concatenate(tensors, axis=-1)


def _history_pairs(fields: Fields, crossed: bool) -> list[Feature]:
    return [
        feature
        for feature in fields.schema.by_role("history")
        if feature.shares in fields.scalars and feature.name in fields.sequences
        and (crossed or not feature.crossed)
    ]  # fmt: skip


def _input(schema: Schema, feature: Feature) -> KerasTensor:
    if feature.kind == "number":
        return keras.Input((), dtype="float32", name=feature.name)
    if feature.width is not None:
        shape = (feature.width,) if feature.length is None else (feature.length, feature.width)
        return keras.Input(shape, dtype="float32", name=feature.name)
    vocabulary = schema.vocabulary(feature.name)
    dtype = "int32" if vocabulary is not None and vocabulary.size < 2**31 else "int64"
    return keras.Input(
        () if feature.length is None else (feature.length,), dtype=dtype, name=feature.name
    )
