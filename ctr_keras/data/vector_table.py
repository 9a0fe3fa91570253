"""Vectors of texts or items on disk: made once, looked up whenever rows are read."""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ctr_keras import files
from ctr_keras.encoding import group_key
from ctr_keras.json_values import digest

TEXT_VECTORS = "text_vectors"
ITEM_VECTORS = "item_vectors"
_MANIFEST_FILE = "manifest.json"
_VECTORS_FILE = "vectors.f32"
_KEYS_FILE = "keys.i64"
_NOT_THERE = "A text has no vector; run `ctr-keras encode` on the data again. Received: "
_UNIT_TOLERANCE = 1e-2


@dataclasses.dataclass(frozen=True)
class VectorTable:
    """A growing table from text, or from the id of an item, to a unit vector.

    Two files of one row a key, which only ever get longer: integers that name the keys (an integer
    id itself, or the 63-bit fingerprint of a string) and their vectors. A row counts once it is
    whole in both, so a kill loses the last batch at most. The vectors are mapped into memory, not
    read.

    Attributes:
        folder: Where they lie.
        encoder: What made them: a name, and a digest of its weights.
        width: Of each vector.
        keys: Integers, ascending: int64 `(keys,)`.
        rows: The row of each of them: int64 `(keys,)`.
        vectors: float32 `(keys, width)`, mapped. Row 0 is zeros: that of the empty text, and of
            what has no vector.
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
    ) -> "VectorTable":
        """Open the table in a folder, or make an empty one.

        Raises:
            ValueError: a table of another encoder lies there.
        """
        folder = pathlib.Path(folder)
        with files.locked(folder):
            if (folder / _MANIFEST_FILE).exists():
                return cls._open_made_by(folder, encoder, width)
            files.write_atomic(folder / _KEYS_FILE, _key_of([""]).astype("<i8").tobytes())
            files.write_atomic(folder / _VECTORS_FILE, np.zeros(width, "<f4").tobytes())
            content = {"encoder": encoder, "width": width}
            files.write_atomic(folder / _MANIFEST_FILE, json.dumps(content, indent=1).encode())
            return cls.open(folder)

    @classmethod
    def _open_made_by(
        cls, folder: pathlib.Path, encoder: dict[str, str], width: int
    ) -> "VectorTable":
        found = cls.open(folder)
        if (found.encoder, found.width) != (encoder, width):
            raise ValueError(
                f"{folder} holds vectors of another encoder, {found.encoder}: remove it, or "
                f"choose another folder. Received: `encoder={encoder}`"
            )
        return found

    @classmethod
    def open(cls, folder: str | os.PathLike) -> "VectorTable":
        """Open a table.

        Raises:
            ValueError: there is none, or its files are damaged.
        """
        folder = pathlib.Path(folder)
        try:
            encoder, width = _encoder_and_width(folder)
            keys = np.fromfile(folder / _KEYS_FILE, np.int64)
            size = (folder / _VECTORS_FILE).stat().st_size
        except FileNotFoundError:
            what = "those of texts"
            if folder.name == ITEM_VECTORS:
                what = "those of items, with `--items` and `--text` or `--images`"
            raise ValueError(
                f"No vectors are there; `ctr-keras encode` makes {what}. "
                f"Received: `path={str(folder)!r}`"
            ) from None
        count = min(len(keys), size // (4 * width))
        if not count:
            raise ValueError(f"{folder} is damaged: its files hold not even the first row")
        # Copy on write: nobody writes, and what is mapped to be read alone is no tensor.
        file = np.memmap(folder / _VECTORS_FILE, np.float32, "c", shape=(count, width))
        vectors = np.asarray(file)
        order = np.argsort(keys[:count], kind="stable")
        found = cls(folder, encoder, width, keys[order], order, vectors)
        twice = np.flatnonzero(np.diff(found.keys) == 0)
        if len(twice):
            raise ValueError(
                f"{folder / _KEYS_FILE} is damaged: rows {order[twice[0]]} and "
                f"{order[twice[0] + 1]} are of one key"
            )
        return found

    @classmethod
    def of_texts(cls, data: str | os.PathLike) -> "VectorTable":
        """The vectors of the texts of a prepared folder."""
        return cls.open(pathlib.Path(data) / TEXT_VECTORS)

    @classmethod
    def of_items(cls, data: str | os.PathLike) -> "VectorTable":
        """The vectors of the items of a prepared folder."""
        return cls.open(pathlib.Path(data) / ITEM_VECTORS)

    def __len__(self) -> int:
        return len(self.keys)

    def lacks(self, keys: Sequence | np.ndarray) -> np.ndarray:
        """Which keys (distinct) have no vector: bool `(keys,)`."""
        numbers = _key_of(keys)
        place = np.minimum(np.searchsorted(self.keys, numbers), len(self.keys) - 1)
        return self.keys[place] != numbers

    def extended(
        self, keys: Sequence | np.ndarray, vectors: np.ndarray, *, normalize: bool = False
    ) -> "VectorTable":
        """The table with more keys, which it must lack.

        This handle stays as it is: go on with the one that is returned. Other handles and processes
        may extend the same folder: each adds to what lies there, one after the other.

        Args:
            keys: Distinct texts, or ids: strings or integers.
            vectors: Finite `(keys, width)`, of length one or zeros.
            normalize: Whether to bring them to length one; otherwise others are refused.

        Raises:
            ValueError: shapes do not fit, a key repeats or is there already, or a vector is not
                usable (its row is named).
        """
        vectors = np.asarray(vectors, np.float32)
        if vectors.shape != (len(keys), self.width):
            raise ValueError(
                f"`vectors` must have shape {(len(keys), self.width)}. "
                f"Received: `vectors.shape={vectors.shape}`"
            )
        self._refuse(~np.isfinite(vectors).all(axis=1), "must be finite", keys)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if normalize:
            vectors = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
        else:
            is_unit = (np.abs(norms[:, 0] - 1) < _UNIT_TOLERANCE) | (norms[:, 0] == 0)
            self._refuse(~is_unit, "must have length one; see `normalize`", keys)
        numbers = _key_of(keys)
        is_first = np.zeros(len(keys), bool)
        is_first[np.unique(numbers, return_index=True)[1]] = True
        self._refuse(~is_first, "must be of a key of its own", keys)
        with files.locked(self.folder):
            there = VectorTable._open_made_by(self.folder, self.encoder, self.width)
            self._refuse(~there.lacks(keys), "must be of a key that is not there yet", keys)
            return there._appended(numbers, vectors)

    @property
    def digest(self) -> str:
        """Of who made the vectors, the keys and the vectors: another table has another one."""
        parts = [files.sha256(self.folder / name) for name in (_KEYS_FILE, _VECTORS_FILE)]
        return digest([self.encoder, *parts])

    def _refuse(self, bad: np.ndarray, expected: str, keys: Sequence | np.ndarray) -> None:
        if bad.any():
            row = int(np.argmax(bad))
            raise ValueError(
                f"A vector {expected}. Received: row {row} of `vectors`, that of {keys[row]!r}"
            )

    def _appended(self, keys: np.ndarray, vectors: np.ndarray) -> "VectorTable":
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
        return VectorTable.open(self.folder)

    def rows_of(self, keys: tf.Tensor, *, required: bool = True) -> tf.Tensor:
        """The row of each key, in a graph: int64 `(batch,)`.

        Args:
            keys: Strings or integers `(batch,)`.
            required: Whether one that is not there is an error; otherwise its row is 0.
        """
        numbers = group_key(keys)
        place = tf.minimum(tf.searchsorted(self.keys, numbers), len(self.keys) - 1)
        is_there = tf.equal(tf.gather(self.keys, place), numbers)
        rows = tf.gather(self.rows, place)
        if not required:
            return tf.where(is_there, rows, tf.zeros_like(rows))
        missing = tf.boolean_mask(keys, ~is_there)[:1]
        check = tf.debugging.Assert(tf.reduce_all(is_there), [_NOT_THERE, missing])
        with tf.control_dependencies([check]):
            return tf.identity(rows)

    def take(self, rows: tf.Tensor) -> tf.Tensor:
        """Vectors of rows of any shape, in a graph: float32 `(..., width)`."""
        return tf.gather(self._tensor, rows)

    @functools.cached_property
    def _tensor(self) -> tf.Tensor:
        """The vectors as a tensor over the mapped file, of which only what is read is loaded."""
        return tf.experimental.dlpack.from_dlpack(self.vectors.__dlpack__())

    def to_dict(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "keys": len(self), "width": self.width, **self.encoder}

    def to_text(self) -> str:
        return f"{self.folder}: {len(self):,} vectors of {self.width} floats by {self.encoder}"


def encoder_of(folder: str | os.PathLike) -> dict[str, str] | None:
    """What made the vectors in a folder, without reading them; `None` where there are none.

    Raises:
        ValueError: the file that tells it is damaged.
    """
    try:
        return _encoder_and_width(pathlib.Path(folder))[0]
    except FileNotFoundError:
        return None


def _encoder_and_width(folder: pathlib.Path) -> tuple[dict[str, str], int]:
    try:
        content = json.loads((folder / _MANIFEST_FILE).read_text())
        return content["encoder"], content["width"]
    except (json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"{folder / _MANIFEST_FILE} is damaged: {error!r}") from error


def beside(split: str | os.PathLike, kind: str) -> pathlib.Path:
    """Where the vectors lie that go with a split: `TEXT_VECTORS` or `ITEM_VECTORS`."""
    # A split may be a link to that of other data, beside which other vectors lie.
    return pathlib.Path(os.path.abspath(split)).parent / kind


def _key_of(keys: Sequence | np.ndarray) -> np.ndarray:
    """Integers that name strings or ids, the same on every machine."""
    values = np.asarray(keys)
    is_integer = values.dtype.kind in "iu"
    values = values.astype(np.int64) if is_integer else tf.constant(list(keys), tf.string)
    return group_key(tf.convert_to_tensor(values)).numpy()
