"""A base model's graph with the embeddings of one id feature replaced."""

from collections.abc import Callable

import keras
from keras import KerasTensor

from ctr_keras.layers import FeatureEmbedding
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.recalibration import share_recalibration


def id_tables(base: CTRModel, feature: str) -> dict[str, FeatureEmbedding]:
    """The layers of a base in which a feature has embeddings, by name."""
    return {
        layer.name: layer
        for layer in base.layers
        if isinstance(layer, FeatureEmbedding) and feature in layer.sizes
    }


def check_base(base: CTRModel, role: str) -> str:
    """The id feature of a base that tells users or items apart."""
    if not isinstance(base, CTRModel):
        raise TypeError(f"`base` must be a model of ctr_keras. Received: `base={base!r}`")
    feature = base.schema.key(role)
    if feature is None or not id_tables(base, feature):
        raise ValueError(
            f"The base must embed an id of one value with role {role!r}. "
            f"Received: `base={base.name!r}` with `features={base.schema.names}`"
        )
    return feature


def with_id_vectors(
    base: CTRModel,
    replace: dict[str, Callable[[str, KerasTensor], KerasTensor]],
    inputs: dict[str, KerasTensor] | None = None,
) -> dict[str, KerasTensor]:
    """The tensors of a base, computed once more by the same layers from other id embeddings.

    Args:
        base: The model. It stays as it is.
        replace: Feature name -> function from the name of a `FeatureEmbedding` and the embeddings
            `(batch, width)` that it found to those that are used.
        inputs: `base.input`, and further inputs that the replacements need.

    Returns:
        `base.tensors`, of the new graph.
    """
    inputs = dict(base.input) if inputs is None else inputs

    def call(operation, *args, **kwargs):
        outputs = operation(*args, **kwargs)
        if isinstance(operation, FeatureEmbedding):
            for name in set(replace) & set(outputs):
                outputs[name] = replace[name](operation.name, outputs[name])
        return outputs

    graph = keras.models.clone_model(
        keras.Model(inputs, base.tensors),
        input_tensors=inputs,
        clone_function=lambda layer: layer,
        call_function=call,
    )
    tensors = dict(graph.output)
    share_recalibration(tensors["logit"], base.tensors["logit"])
    return tensors
