"""An id embedding from the embeddings of the features that describe what the id names."""

from typing import Any

import keras
from keras import KerasTensor, ops

from ctr_keras.api_export import export
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.features import Fields
from ctr_keras.schema import Feature

_TABLE = "embedding"


@export
class EmbeddingGenerator(keras.layers.Layer):
    """`scale * tanh(W mean_f v_f + b)`: `(batch, features, dim)` to `(batch, width)`, float32."""

    def __init__(self, width: int, scale: float, **kwargs: Any):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.width = width
        self.scale = scale
        self.dense = keras.layers.Dense(width, activation="tanh", dtype="float32", name="dense")

    def build(self, input_shape):
        self.dense.build((input_shape[0], input_shape[2]))

    def call(self, vectors):
        return self.scale * self.dense(ops.mean(vectors, axis=1))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.width)


def side_features(base: CTRModel, key: str, feature: str) -> list[Feature]:
    """The features that describe the users or items that an id feature names."""
    roles = ("item", "vector") if key == "item" else (key,)
    side = [
        f for f in base.schema.inputs if f.role in roles and f.name != feature and not f.crossed
    ]
    if not side:
        raise ValueError(
            f"The base must have a feature with role {key!r} beside {feature!r}, to generate from. "
            f"Received: `base={base.name!r}` with `features={base.schema.names}`"
        )
    return side


def side_vectors(base: CTRModel, side: list[Feature]) -> KerasTensor:
    """The base's embeddings of the features that describe an id: `(batch, features, dim)`."""
    ids = {f.name: base.input[f.name] for f in side if f.is_embedded}
    vectors = base.get_layer(_TABLE)(ids) if ids else {}
    for feature in side:
        if feature.name not in ids:
            project = base.get_layer(f"{_TABLE}_{feature.name}")
            # One that histories share has several outputs; a number has been scaled before.
            is_vector = feature.width is not None
            vectors[feature.name] = (
                project(base.input[feature.name]) if is_vector else project.output
            )
    scalars = {name: v for name, v in vectors.items() if len(v.shape) == 2}
    sequences = {name: v for name, v in vectors.items() if len(v.shape) == 3}
    fields = Fields(base.schema, ids, scalars, sequences)
    return ops.stack([fields.pooled(feature.name) for feature in side], axis=1)
