"""A text encoder that learns with the ranker."""

from typing import Any

import keras
import tensorflow as tf

from ctr_keras.api_export import export
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.wrapping_model import WrappingModel, tensors_through


@export
class TunedTexts(WrappingModel):
    """A model with encoded texts that takes the texts themselves and tunes the encoder.

        logit = base(features, encoder(texts))

    The last layers of the encoder learn from clicks together with the base, which shares its
    weights with this model. Each distinct text of a batch is encoded once, but every batch anew:
    where the encoder need not change, vectors that are looked up (`ctr-keras encode`) are far
    cheaper. With `layers` 0 the model is the base with texts as its input.

    Its schema has the texts as strings, so that `ck.data.read` yields them and an exported
    SavedModel takes them.

    Args:
        base: A model of this package whose schema has encoded texts (`Schema.with_encoded_texts`).
        encoder: A `ck.pretraining.TextEncoder`, as wide as they are.
        layers: How many of the encoder's last layers learn.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Raises:
        ValueError: the base has no encoded text, or of another width.

    Example:

    >>> encoder = ck.pretraining.TextEncoder.from_preset()
    >>> base = ck.models.MMoE(schema.with_encoded_texts(["item_title"], encoder.width))
    >>> model = ck.models.TunedTexts(base, encoder, layers=1)
    >>> model.compile(ck.optimizers.LazyAdam(1e-4))
    >>> model.fit(ck.data.read("tf_data/antm2c/train", model.schema))

    Reference:
        [Huan et al., 2023: AntM2C](https://arxiv.org/abs/2308.16437), section on text features
    """

    parts = ("base", "encoder")

    def __init__(self, base: CTRModel, encoder: keras.Model, layers: int = 1, **kwargs: Any):
        if not isinstance(base, CTRModel):
            raise TypeError(f"`base` must be a model of ctr_keras. Received: `base={base!r}`")
        widths = {f.name: f.width for f in base.schema.inputs if f.is_encoded_text}
        if not widths:
            raise ValueError(
                "The base must have an encoded text, see `Schema.with_encoded_texts`. "
                f"Received: `base={base.name!r}` with `features={base.schema.names}`"
            )
        if set(widths.values()) != {encoder.width}:
            raise ValueError(
                f"The encoder must be as wide as the base's texts, {widths}. "
                f"Received: `encoder.width={encoder.width}`"
            )
        encoder.train_last(layers)
        encode = DistinctTexts(encoder, name="texts")
        strings = {name: keras.Input((), dtype="string", name=name) for name in widths}
        inputs = {name: strings.get(name, tensor) for name, tensor in base.input.items()}
        vectors = {name: encode(text) for name, text in strings.items()}
        tensors = tensors_through(base, {**inputs, **vectors})
        super().__init__(
            base.schema.with_texts_as_strings(),
            inputs,
            tensors["logit"],
            tensors,
            base.auxiliary_weights,
            **kwargs,
        )
        self.base = base
        self.encoder = encoder
        self.layers_tuned = layers

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layers": self.layers_tuned}


class DistinctTexts(keras.layers.Layer):
    """The vector of each text `(batch,)`, computed once for each distinct one: `(batch, width)`."""

    def __init__(self, encoder: keras.Model, **kwargs: Any):
        super().__init__(**kwargs)
        self.encoder = encoder

    def call(self, texts, training=False):
        distinct, place = tf.unique(texts)
        return tf.gather(self.encoder(distinct, training=training), place)

    def compute_output_spec(self, texts, training=False):
        return keras.KerasTensor((*texts.shape, self.encoder.width), "float32")
