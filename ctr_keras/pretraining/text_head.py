"""The last layers of a text encoder, which learn from what the others make of each token."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.extras import require
from ctr_keras.losses.info_nce import unit_vectors

_PARTS = 4


@export
class TextHead(keras.Model):
    """States of tokens to unit vectors, by the last layers of a transformer and a mean.

        h_1 ... h_T = layers(states),    e = mean_t h_t,    vector = e / |e|

    `TextEncoder.head` makes one, whose layers are those of the encoder. States are padded among
    texts of like length only, so that little of what is computed is padding.

    Args:
        layers: Of a `keras_hub.models.BertBackbone`, the last ones; none for the mean alone.
        width: Of a state, and of a vector.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Call arguments:
        states: Float `tf.RaggedTensor` `(batch, any, width)`, as `TextEncoder.states` makes it. A
            text without tokens is a vector of zeros.

    Output shape:
        `(batch, width)`, float32.

    Example:

    >>> encoder = ck.pretraining.TextEncoder.from_preset(trained_layers=2)
    >>> texts = tf.constant(["coffee beans", "espresso"])
    >>> encoder.head()(encoder.states(texts))    # As `encoder(texts)`: (2, 384)
    """

    def __init__(self, layers: Sequence[keras.layers.Layer], width: int, **kwargs: Any):
        # States come as they are: a cast would make them dense.
        super().__init__(autocast=False, **kwargs)
        self.supports_jit = False  # XLA knows no ragged tensors.
        self.transformer_layers = list(layers)
        self.width = width
        for layer in self.transformer_layers:
            if not layer.built:
                layer.build((None, None, width))
        self.built = True

    def call(self, states, training=False):
        order = tf.argsort(states.row_lengths(), stable=True)
        rows = tf.shape(order)[0]
        parts = []
        for number in range(_PARTS):
            first, last = rows * number // _PARTS, rows * (number + 1) // _PARTS
            parts.append(self.together(tf.gather(states, order[first:last]), training))
        vectors = tf.gather(tf.concat(parts, axis=0), tf.argsort(order))
        return tf.ensure_shape(vectors, (states.shape[0], self.width))

    def together(self, states: tf.RaggedTensor, training: bool = False) -> Any:
        """Vectors of texts of like length, padded to the longest.

        Args:
            states: As of a call.
            training: Whether dropout is at work.
        """
        # A transformer needs a position, also where all texts are empty.
        longest = tf.maximum(states.bounding_shape()[1], 1)
        mask = tf.sequence_mask(states.row_lengths(), longest)
        outputs = states.to_tensor(shape=tf.stack([-1, longest, self.width]))
        for layer in self.transformer_layers:
            outputs = layer(outputs, padding_mask=mask, training=training)
        return mean_vectors(outputs, mask)

    @functools.cached_property
    def infer(self) -> Callable[[tf.RaggedTensor], tf.Tensor]:
        """`together` as a graph, without dropout."""
        spec = tf.RaggedTensorSpec((None, None, self.width), tf.float32, ragged_rank=1)
        return tf.function(self.together, input_signature=[spec])

    def compute_output_spec(self, states, training=False):
        return keras.KerasTensor((states.shape[0], self.width), "float32")

    def get_config(self) -> dict[str, Any]:
        layers = [keras.saving.serialize_keras_object(layer) for layer in self.transformer_layers]
        return {
            "name": self.name,
            "trainable": self.trainable,
            "layers": layers,
            "width": self.width,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        # It registers the layers.
        require("keras_hub", extra="text", purpose="A text encoder")
        layers = [
            keras.saving.deserialize_keras_object(layer, custom_objects)
            for layer in config["layers"]
        ]
        return cls(**{**config, "layers": layers})


def mean_vectors(outputs: Any, mask: tf.Tensor) -> Any:
    """The direction of the mean over tokens: float32 `(batch, width)`, zeros for no tokens."""
    weight = ops.expand_dims(ops.cast(mask, "float32"), -1)
    total = ops.sum(ops.cast(outputs, "float32") * weight, axis=1)
    return unit_vectors(total)  # The mean and the sum have one direction.
