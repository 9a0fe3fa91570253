"""From a schema to Keras inputs and field embeddings: what every model starts with."""

import dataclasses

import keras
from keras import KerasTensor, ops

from ctr_keras.layers import FeatureEmbedding
from ctr_keras.schema import Feature, Schema


@dataclasses.dataclass(frozen=True)
class Fields:
    """The embedded features of a functional model, by feature name.

    Attributes:
        ids: Id tensors: `(batch,)`, or `(batch, length)` for sequences.
        scalars: Embeddings of features with one value: `(batch, dim)`; numbers and vectors are
            projected to the same width.
        sequences: Embeddings of features with several values: `(batch, length, dim)`, zeros where
            padded.
    """

    schema: Schema
    ids: dict[str, KerasTensor]
    scalars: dict[str, KerasTensor]
    sequences: dict[str, KerasTensor]

    def mask(self, name: str) -> KerasTensor:
        """Where a sequence holds values: bool `(batch, length)`."""
        return ops.not_equal(self.ids[name], 0)

    def pooled(self, name: str) -> KerasTensor:
        """A feature as one vector `(batch, dim)`: sequences by the mean of their values."""
        if name in self.scalars:
            return self.scalars[name]
        return mean_of_values(self.sequences[name], self.ids[name])

    def all_pooled(self, without: tuple[str, ...] = ()) -> list[KerasTensor]:
        """Every feature as one vector, in the order of the schema."""
        return [self.pooled(f.name) for f in self.schema.inputs if f.name not in without]

    def of_roles(self, *roles: str) -> list[KerasTensor]:
        """The pooled features of these roles, in the order of the schema."""
        return [self.pooled(f.name) for f in self.schema.inputs if f.role in roles]


def model_inputs(schema: Schema) -> dict[str, KerasTensor]:
    """A `keras.Input` for each feature that enters a model."""
    if not schema.inputs:
        raise ValueError(f"The schema has no model input. Received: `features={schema.names}`")
    return {feature.name: _input(schema, feature) for feature in schema.inputs}


def scaled(schema: Schema, inputs: dict[str, KerasTensor]) -> dict[str, KerasTensor]:
    """The inputs with numbers as `(batch, 1)`, brought to one scale by batch statistics."""
    values = dict(inputs)
    for feature in schema.inputs:
        if feature.kind == "number":
            # Numbers come in any unit, and one epoch has to be enough to learn it.
            scale = keras.layers.BatchNormalization(momentum=0.9, name=f"{feature.name}_scale")
            values[feature.name] = scale(ops.expand_dims(inputs[feature.name], -1))
    return values


def embed(
    schema: Schema, inputs: dict[str, KerasTensor], width: int, name: str, l2: float = 0.0
) -> Fields:
    """Embed all features to vectors of one width, ids in one fused table.

    Args:
        schema: What the inputs are.
        inputs: What `scaled` returned.
        width: Width of each vector.
        name: Name of the `FeatureEmbedding` layer; other layers take it as a prefix.
        l2: Weight of the squared norm of the rows that a batch touches.
    """
    ids = {f.name: inputs[f.name] for f in schema.inputs if f.kind in ("id", "text")}
    vectors = {}
    if ids:
        vectors = embedding_layer(schema, width, name, l2)(ids)
    scalars = {key: value for key, value in vectors.items() if len(value.shape) == 2}
    sequences = {key: value for key, value in vectors.items() if len(value.shape) == 3}
    for feature in schema.inputs:
        if feature.kind in ("number", "vector"):
            project = keras.layers.Dense(width, use_bias=False, name=f"{name}_{feature.name}")
            scalars[feature.name] = project(inputs[feature.name])
    return Fields(schema, ids, scalars, sequences)


def embedding_layer(schema: Schema, width: int, name: str, l2: float = 0.0) -> FeatureEmbedding:
    """The fused table of all id and text features."""
    features = [f for f in schema.inputs if f.kind in ("id", "text")]
    return FeatureEmbedding(
        sizes={f.name: f.vocabulary.size for f in features if f.vocabulary is not None},
        width=width,
        shared={f.name: f.shares for f in features if f.shares is not None},
        l2=l2,
        name=name,
    )


def mean_of_values(vectors: KerasTensor, ids: KerasTensor) -> KerasTensor:
    """Mean over the unpadded values, zeros for a row without any: `(batch, dim)`."""
    count = ops.sum(ops.cast(ops.not_equal(ids, 0), vectors.dtype), axis=1, keepdims=True)
    return ops.sum(vectors, axis=1) / ops.maximum(count, 1)


def joined(tensors: list[KerasTensor]) -> KerasTensor:
    """Concatenate along the last axis, also a single tensor."""
    return tensors[0] if len(tensors) == 1 else ops.concatenate(tensors, axis=-1)


def _input(schema: Schema, feature: Feature) -> KerasTensor:
    if feature.kind == "number":
        return keras.Input((), dtype="float32", name=feature.name)
    if feature.kind == "vector":
        return keras.Input((feature.width,), dtype="float32", name=feature.name)
    vocabulary = schema.vocabulary(feature.name)
    dtype = "int32" if vocabulary is not None and vocabulary.size < 2**31 else "int64"
    shape = () if feature.length is None else (feature.length,)
    return keras.Input(shape, dtype=dtype, name=feature.name)
