"""The linear part that FM, DeepFM and Wide & Deep have in common."""

from collections.abc import Sequence

import keras
from keras import KerasTensor, ops

from ctr_keras.api_export import export
from ctr_keras.layers import FeatureEmbedding
from ctr_keras.models.features import embed
from ctr_keras.schema import RESERVED_IDS, Schema


def linear_logit(schema: Schema, values: dict[str, KerasTensor], l2: float = 0.0) -> KerasTensor:
    """`w0 + sum_i w_i x_i`, a feature of several values by their mean: `(batch, 1)`."""
    fields = embed(schema, values, 1, "linear", l2, project_all=True)
    terms = ops.stack(fields.all_pooled(), axis=-1)
    return Bias(name="linear_bias")(ops.sum(terms, axis=-1))


def crossed_logit(
    schema: Schema,
    values: dict[str, KerasTensor],
    crosses: Sequence[Sequence[str]],
    buckets: int,
    l2: float = 0.0,
) -> KerasTensor:
    """One weight for each hashed combination of ids, summed over the crosses: `(batch, 1)`."""
    ids = {}
    for names in crosses:
        for name in names:
            if name not in schema or schema[name].kind != "id" or schema[name].length is not None:
                raise ValueError(
                    "A cross takes id features of one value. Received: `crosses` with "
                    f"{name!r}, the schema has {schema.names}"
                )
        key = "_x_".join(names)
        bucket = keras.layers.HashedCrossing(buckets, name=key)([values[name] for name in names])
        ids[key] = ops.cast(bucket, "int32") + RESERVED_IDS
    sizes = {key: buckets + RESERVED_IDS for key in ids}
    weights = FeatureEmbedding(sizes, width=1, l2=l2, name="crosses")(ids)
    return ops.sum(ops.stack(list(weights.values()), axis=-1), axis=-1)


@export
class Bias(keras.layers.Layer):
    """Adds one trained number to its input, of any shape; the shape stays."""

    def build(self, input_shape):
        self.bias = self.add_weight(name="bias", shape=(), initializer="zeros")

    def call(self, inputs):
        return inputs + self.bias

    def compute_output_shape(self, input_shape):
        return input_shape
