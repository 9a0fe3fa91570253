"""What the layers of a text encoder that do not learn make of texts, kept on disk."""

import dataclasses
import functools
import os
import pathlib
import shutil
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track

from ctr_keras import files
from ctr_keras.encoding import group_key
from ctr_keras.json_values import digest
from ctr_keras.pretraining.text_encoder import TextEncoder, batches_by_length
from ctr_keras.pretraining.text_head import TextHead

_STATES_FILE = "states.f32"
_TEXTS_FILE = "texts.npz"
_BATCH = 128


@dataclasses.dataclass(frozen=True)
class TokenStates:
    """The states of the tokens of some texts, made once for all epochs and trainings.

    Most of the work on a text is done by the layers that do not learn, and always comes to the
    same. What they make of it is written once, `4 * width` bytes a token, and mapped into memory.

    Attributes:
        keys: Fingerprints of the texts, ascending: int64 `(texts,)`.
        first: Row of the first token of each: int64 `(texts,)`.
        count: How many tokens each has: int64 `(texts,)`.
        states: float32 `(tokens, width)`, mapped.
    """

    keys: np.ndarray
    first: np.ndarray
    count: np.ndarray
    states: np.ndarray

    @classmethod
    def of(
        cls,
        texts: Iterable[str],
        encoder: TextEncoder,
        made_by: Mapping[str, str],
        folder: str | os.PathLike,
        *,
        progress: bool = True,
    ) -> "TokenStates":
        """Open what is kept of texts, or make it.

        Args:
            texts: Texts, of which repeated ones count once.
            encoder: Of which some layers do not learn.
            made_by: What tells the encoder from others, see `text_encoder.identity`.
            folder: Where a folder lies for each encoder and set of texts.
            progress: Whether to show progress on standard error.
        """
        distinct = sorted(set(texts))
        settings = {
            **made_by, "max_tokens": encoder.max_tokens, "layers": encoder.trained_layers
        }  # fmt: skip
        name = digest([settings, distinct])[:16]
        target, unfinished = (pathlib.Path(folder) / x for x in (name, f".{name}"))
        with files.locked(folder):  # Trainings that start together share what the first makes.
            if not target.exists():
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                _make(unfinished, distinct, encoder, progress)
                unfinished.rename(target)
                files.sync(target.parent)
        return cls._open(target, encoder.width)

    @classmethod
    def _open(cls, folder: pathlib.Path, width: int) -> "TokenStates":
        texts = np.load(folder / _TEXTS_FILE)
        count = texts["count"]
        first = np.cumsum(count) - count
        order = np.argsort(texts["keys"], kind="stable")
        shape = (int(count.sum()), width)
        states = np.zeros(shape, np.float32)
        if shape[0]:  # An empty file cannot be mapped.
            # Copy on write: nobody writes, and what is mapped to be read alone is no tensor.
            states = np.asarray(np.memmap(folder / _STATES_FILE, np.float32, "c", shape=shape))
        return cls(texts["keys"][order], first[order], count[order], states)

    def take(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """The states of texts, in a graph: float32 `(batch, any, width)`, none of an empty text.

        Args:
            texts: Strings `(batch,)`.
        """
        keys = group_key(texts)
        place = tf.minimum(tf.searchsorted(self.keys, keys), len(self.keys) - 1)
        is_there = tf.equal(tf.gather(self.keys, place), keys)
        missing = tf.boolean_mask(texts, ~is_there)[:1]
        check = tf.debugging.Assert(tf.reduce_all(is_there), ["A text has no states:", missing])
        with tf.control_dependencies([check]):
            first = tf.gather(self.first, place)
        tokens = tf.ragged.range(first, first + tf.gather(self.count, place))
        return tokens.with_values(tf.gather(self._tensor, tokens.values))

    def vectors(self, head: TextHead, texts: Sequence[str]) -> np.ndarray:
        """Vectors of texts, those of like length together: float32 `(texts, width)`."""
        vectors = np.zeros((len(texts), head.width), np.float32)
        for places in batches_by_length(texts, _BATCH):
            states = self.take(tf.constant([texts[n] for n in places]))
            vectors[places] = head.infer(states).numpy()
        return vectors

    @functools.cached_property
    def _tensor(self) -> tf.Tensor:
        """The states as a tensor over the mapped file, of which only what is read is loaded."""
        return tf.experimental.dlpack.from_dlpack(self.states.__dlpack__())


def _make(folder: pathlib.Path, texts: list[str], encoder: TextEncoder, progress: bool) -> None:
    """Write the states of texts, those of like length together."""
    states_of = tf.function(encoder.states, input_signature=[tf.TensorSpec((None,), tf.string)])
    batches = list(batches_by_length(texts, _BATCH))
    console = Console(stderr=True, quiet=not progress)
    keys, counts = [], []
    with open(folder / _STATES_FILE, "wb") as file:
        for places in track(batches, f"States of {len(texts):,} texts", console=console):
            part = tf.constant([texts[place] for place in places])
            found = states_of(part)
            file.write(found.flat_values.numpy().astype("<f4").tobytes())
            keys.append(group_key(part).numpy())
            counts.append(found.row_lengths().numpy())
    np.savez(folder / _TEXTS_FILE, keys=np.concatenate(keys), count=np.concatenate(counts))
    for name in (_STATES_FILE, _TEXTS_FILE):
        files.sync(folder / name)
