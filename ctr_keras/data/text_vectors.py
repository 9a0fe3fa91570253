"""Vectors of texts on disk: encoded once, looked up whenever rows are read."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ctr_keras import files

FOLDER = "text_vectors"
_MANIFEST_FILE = "manifest.json"
_VECTORS_FILE = "vectors.f32"
_KEYS_FILE = "keys.i64"
_NOT_THERE = "A text has no vector; run `ctr-keras encode` on the data again. Received: "


@dataclasses.dataclass(frozen=True)
class TextVectors:
    """A growing table from text to vector.

    Two files of one row a text, which only ever get longer: the 63-bit fingerprints of the texts
    and their vectors. A row counts once it is whole in both, so a kill loses the last batch at
    most. The vectors are mapped into memory, not read.

    Attributes:
        folder: Where they lie.
        encoder: What made them: a name, and a digest of its weights.
        width: Of each vector.
        keys: Fingerprints, ascending: int64 `(texts,)`.
        rows: The row of each of them: int64 `(texts,)`.
        vectors: float32 `(texts, width)`, mapped. Row 0 is that of the empty text, zeros.
    """

    folder: pathlib.Path
    encoder: dict[str, str]
    width: int
    keys: np.ndarray
    rows: np.ndarray
    vectors: np.ndarray

    @classmethod
    def create(
        cls, folder: str | os.PathLike, encoder: dict[str, str], width: int
    ) -> "TextVectors":
        """Open the table in a folder, or make an empty one.

        Raises:
            ValueError: a table of another encoder lies there.
        """
        folder = pathlib.Path(folder)
        if (folder / _MANIFEST_FILE).exists():
            found = cls.open(folder)
            if (found.encoder, found.width) != (encoder, width):
                raise ValueError(
                    f"{folder} holds vectors of another encoder, {found.encoder}: remove it, or "
                    f"choose another folder. Received: `encoder={encoder}`"
                )
            return found
        folder.mkdir(parents=True, exist_ok=True)
        for name in (_KEYS_FILE, _VECTORS_FILE):
            (folder / name).write_bytes(b"")
        content = {"encoder": encoder, "width": width}
        files.write_atomic(folder / _MANIFEST_FILE, json.dumps(content, indent=1).encode())
        return cls.open(folder).extended([""], np.zeros((1, width), np.float32))

    @classmethod
    def open(cls, folder: str | os.PathLike) -> "TextVectors":
        """Open a table.

        Raises:
            ValueError: there is none, or its files are damaged.
        """
        folder = pathlib.Path(folder)
        try:
            content = json.loads((folder / _MANIFEST_FILE).read_text())
            encoder, width = content["encoder"], content["width"]
            keys = np.fromfile(folder / _KEYS_FILE, np.int64)
            size = (folder / _VECTORS_FILE).stat().st_size
        except FileNotFoundError:
            raise ValueError(
                "No vectors of texts are there; `ctr-keras encode` makes them. "
                f"Received: `path={str(folder)!r}`"
            ) from None
        except (json.JSONDecodeError, KeyError) as error:
            raise ValueError(f"{folder / _MANIFEST_FILE} is damaged: {error!r}") from error
        count = min(len(keys), size // (4 * width))
        vectors = np.zeros((0, width), np.float32)
        if count:
            vectors = np.memmap(folder / _VECTORS_FILE, np.float32, "r", shape=(count, width))
        order = np.argsort(keys[:count], kind="stable")
        found = cls(folder, encoder, width, keys[order], order, vectors)
        twice = np.flatnonzero(np.diff(found.keys) == 0)
        if len(twice):
            raise ValueError(
                f"{folder / _KEYS_FILE} is damaged: rows {order[twice[0]]} and "
                f"{order[twice[0] + 1]} are of one text"
            )
        return found

    def __len__(self) -> int:
        return len(self.keys)

    def lacks(self, texts: Sequence[str] | np.ndarray) -> np.ndarray:
        """Which texts (distinct, as strings or bytes) have no vector: bool `(texts,)`."""
        keys = fingerprint(tf.constant(texts, tf.string)).numpy()
        place = np.minimum(np.searchsorted(self.keys, keys), max(len(self.keys) - 1, 0))
        return self.keys[place] != keys if len(self.keys) else np.ones(len(keys), bool)

    def extended(self, texts: Sequence[str], vectors: np.ndarray) -> "TextVectors":
        """The table with more texts, which it must lack.

        Args:
            texts: Distinct texts.
            vectors: float32 `(texts, width)`, all finite.
        """
        if vectors.shape != (len(texts), self.width) or not np.isfinite(vectors).all():
            raise ValueError(
                f"`vectors` must be finite and of shape {(len(texts), self.width)}. "
                f"Received: `vectors.shape={vectors.shape}`"
            )
        keys = fingerprint(tf.constant(list(texts), tf.string)).numpy()
        # What a kill left behind the last whole row is cut off.
        for name, row, content in (
            (_VECTORS_FILE, 4 * self.width, vectors.astype("<f4")),
            (_KEYS_FILE, 8, keys.astype("<i8")),
        ):
            with open(self.folder / name, "r+b") as file:
                file.truncate(len(self) * row)
                file.seek(0, os.SEEK_END)
                file.write(np.ascontiguousarray(content).tobytes())
                file.flush()
                os.fsync(file.fileno())
        return TextVectors.open(self.folder)

    def rows_of(self, texts: tf.Tensor) -> tf.Tensor:
        """The row of each text, in a graph: int64 `(batch,)`. One that is not there fails."""
        keys = fingerprint(texts)
        place = tf.minimum(tf.searchsorted(self.keys, keys), len(self.keys) - 1)
        is_there = tf.equal(tf.gather(self.keys, place), keys)
        missing = tf.boolean_mask(texts, ~is_there)[:1]
        with tf.control_dependencies(
            [tf.debugging.Assert(tf.reduce_all(is_there), [_NOT_THERE, missing])]
        ):
            return tf.gather(self.rows, place)

    def take(self, rows: tf.Tensor) -> tf.Tensor:
        """Vectors of rows, in a graph: float32 `(batch, width)`."""
        found = tf.numpy_function(lambda r: self.vectors[r], [rows], tf.float32, stateful=False)
        return tf.ensure_shape(found, (*rows.shape, self.width))

    def to_dict(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "texts": len(self), "width": self.width, **self.encoder}

    def to_text(self) -> str:
        return f"{self.folder}: {len(self):,} texts, {self.width} floats each by {self.encoder}"


def fingerprint(texts: tf.Tensor) -> tf.Tensor:
    """63 bits that tell texts apart, the same on every machine."""
    return tf.strings.to_hash_bucket_fast(texts, 2**63 - 1)
