"""Columns as the schema wants them: typed, checked, ragged where rows hold lists."""

import dataclasses
import datetime
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from ctr_keras.schema import Feature, Schema
from ctr_keras.utf8 import is_utf8


@dataclasses.dataclass
class Ragged:
    """Rows of different length: all values one after the other, and each row's length.

    Args:
        values: Array `(total,)`.
        lengths: Integer array `(rows,)` that sums to `total`.

    Example:

    >>> Ragged.from_lists([[1, 2], [], [3]])
    Ragged(values=array([1, 2, 3]), lengths=array([2, 0, 1], dtype=int32))
    """

    values: np.ndarray
    lengths: np.ndarray

    def __post_init__(self):
        total = int(np.sum(self.lengths))
        if np.any(np.asarray(self.lengths) < 0) or total != len(self.values):
            raise ValueError(
                f"`lengths` must not be negative and must sum to the {len(self.values)} values. "
                f"Received: `lengths` that sum to {total}"
            )

    @classmethod
    def from_lists(cls, rows: Iterable) -> "Ragged":
        rows = [() if _is_missing(row) else row for row in rows]
        lengths = np.fromiter((len(row) for row in rows), np.int32, len(rows))
        filled = [row if isinstance(row, np.ndarray) else _array(row) for row in rows if len(row)]
        dtype = object if any(row.dtype.kind == "U" for row in filled) else None
        values = np.concatenate(filled, dtype=dtype) if filled else np.zeros(0, np.int64)
        return cls(values, lengths)

    @classmethod
    def from_padded(cls, rows: np.ndarray, padding: Any) -> "Ragged":
        """Drop every value equal to `padding` from an array `(rows, length)`."""
        kept = rows != padding
        return cls(rows[kept], kept.sum(axis=1).astype(np.int32))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: slice) -> "Ragged":
        start, stop, _ = rows.indices(len(self))
        values = self.values[self.offsets[start] : self.offsets[stop]]
        return Ragged(values, self.lengths[start:stop])

    def take(self, rows: np.ndarray) -> "Ragged":
        """The rows of these numbers, in their order."""
        lengths = self.lengths[rows]
        before = np.cumsum(lengths) - lengths
        position = np.arange(lengths.sum()) + np.repeat(self.offsets[rows] - before, lengths)
        return Ragged(self.values[position], lengths)

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """Where each row starts in `values`, and where the last one ends: `(rows + 1,)`."""
        return np.concatenate([[0], np.cumsum(self.lengths)])

    def row_of(self, position: int) -> int:
        """The row that holds the value at `position` of `values`."""
        return int(np.searchsorted(self.offsets, position, side="right")) - 1

    def to_padded(self, padding: Any) -> np.ndarray:
        """An array `(rows, longest)`, at least one column, `padding` behind each row's values."""
        width = max(1, int(self.lengths.max(initial=0)))
        padded = np.full((len(self), width), padding, self.values.dtype)
        padded[np.arange(width) < np.asarray(self.lengths)[:, None]] = self.values
        return padded

    def cut(self, length: int, newest: bool) -> "Ragged":
        """Keep the last (`newest`) or first `length` values of each row."""
        if not len(self) or self.lengths.max() <= length:
            return self
        position = np.arange(len(self.values)) - np.repeat(self.offsets[:-1], self.lengths)
        if newest:
            kept = position >= np.repeat(self.lengths - length, self.lengths)
        else:
            kept = position < length
        return Ragged(self.values[kept], np.minimum(self.lengths, length))


Column: TypeAlias = np.ndarray | Ragged
Columns = dict[str, Column]


def canonical(schema: Schema, rows: Mapping[str, Any], first_row: int = 0) -> Columns:
    """Check a batch of rows and give it the schema's types.

    Args:
        schema: What a row is.
        rows: A pandas `DataFrame`, or a mapping from column name to array. A sequence is a
            `Ragged`, a list of lists, or an array `(rows, length)` in which 0 (ids that are their
            own vocabulary), -1 (other integers) or `""` stand for no value; in lists these keep
            their place. A missing id or text (`None`, NaN, NA) becomes padding, except where ids
            are their own vocabulary.
        first_row: Number of the batch's first row, for errors.

    Returns:
        By feature name, an array `(rows,)` (`(rows, width)` for vectors) or a `Ragged`.

    Raises:
        ValueError: names the column and row at fault.
    """
    unknown = [name for name in rows if name not in schema]
    if unknown:
        raise ValueError(
            f"Unknown column. The schema has {schema.names}. Received: `column={unknown[0]!r}`"
        )
    missing = [name for name in schema.names if name not in rows]
    if missing:
        raise ValueError(
            f"Missing column {missing[0]!r}. Received: `columns={[str(name) for name in rows]}`"
        )
    columns = {f.name: canonical_column(schema, f, rows[f.name], first_row) for f in schema}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"All columns need the same number of rows. Received: `{lengths}`")
    return columns


def is_table(rows: Any) -> bool:
    """Whether `rows` is one batch of rows, rather than an iterable of batches."""
    return isinstance(rows, Mapping) or hasattr(rows, "columns")


def flat(column: Column) -> np.ndarray:
    """All values of a column, those of sequences one behind the other."""
    return column.values if isinstance(column, Ragged) else column


def stored_padding(schema: Schema, name: str) -> bytes | int:
    """What stands for a missing value where strings are bytes, as on disk."""
    padding = schema.padding(name)
    return padding.encode() if isinstance(padding, str) else padding


def num_rows(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def canonical_column(schema: Schema, feature: Feature, values: Any, first_row: int = 0) -> Column:
    """One column, as `canonical` checks and converts it."""
    where = _Where(feature.name, first_row)
    if not feature.is_sequence:
        flat = _typed(schema, feature, values, where)
        if flat.ndim < 1 or flat.shape[1:] != feature.shape:
            shape = ", ".join(map(str, ("rows", *feature.shape)))
            raise ValueError(
                f"Column {feature.name!r} must have shape ({shape}{'' if feature.shape else ','}). "
                f"Received: `shape={flat.shape}`"
            )
        _check_values(schema, feature, flat, where)
        return flat
    if not isinstance(values, Ragged):
        values = _ragged(schema, feature, values, where)
    where = _Where(feature.name, first_row, values)
    ragged = Ragged(
        _typed(schema, feature, values.values, where), np.asarray(values.lengths, np.int32)
    )
    _check_values(schema, feature, ragged.values, where)
    return ragged.cut(feature.length or 0, feature.keeps_newest)


def _ragged(schema: Schema, feature: Feature, values: Any, where: "_Where") -> Ragged:
    """A sequence from a padded array or from lists."""
    # Lists that happen to have one length are no padded array: each value keeps its place.
    if getattr(values, "ndim", 1) == 2:
        return Ragged.from_padded(np.asarray(values), schema.padding(feature.name))
    rows = list(values)
    where.check(np.array([_is_list(row) or _is_missing(row) for row in rows], bool), "a list", rows)
    return Ragged.from_lists(rows)


def _is_list(row: Any) -> bool:
    is_text = isinstance(row, (str, bytes))
    return not is_text and hasattr(row, "__len__") and getattr(row, "ndim", 1) == 1


@dataclasses.dataclass
class _Where:
    """Names the column and row of a bad value."""

    column: str
    first_row: int
    ragged: Ragged | None = None

    def check(self, good: np.ndarray, expected: str, values: np.ndarray | list):
        if good.all():
            return
        bad = int(np.argmin(good if good.ndim == 1 else good.all(axis=-1)))
        row = self.first_row + (self.ragged.row_of(bad) if self.ragged is not None else bad)
        value = values[bad]
        value = value.item() if isinstance(value, np.generic) else value
        raise ValueError(
            f"Column {self.column!r}, row {row}: expected {expected}. Received: `value={value!r}`"
        )


def _typed(schema: Schema, feature: Feature, values: Any, where: _Where) -> np.ndarray:
    if feature.kind == "vector":
        values = _stacked(feature, values, where)
    values = _array(values)
    if feature.dtype == "string":
        return _strings(values, where)
    if feature.role == "time":
        values = _seconds(values, where)
    if values.dtype.kind == "O":
        missing = schema.missing(feature.name, np.nan)
        values = _numbers(values, missing, f"a value of type {feature.dtype}", where)
    if values.size == 0:
        return values.astype(feature.dtype)
    if values.dtype.kind not in "iufb":
        raise ValueError(
            f"Column {feature.name!r} must be of type {feature.dtype}. "
            f"Received: `dtype={values.dtype}`, first value {values.ravel()[0]!r}"
        )
    if feature.dtype == "float32":
        where.check(np.isfinite(values), "a finite number", values)
        where.check(np.abs(values) <= np.finfo(np.float32).max, "a number in float32", values)
    elif values.dtype.kind == "f":
        if feature.kind == "id":
            # Pandas turns integers into floats where one is missing.
            values = np.where(np.isnan(values), schema.missing(feature.name, np.nan), values)
        where.check(values == np.floor(values), "an integer", values)
        # Above, neighbours are the same float.
        bits = np.finfo(values.dtype).nmant + 1
        expected = f"an integer of 64 bits, not a float from 2**{bits} on: pass Int64 or strings"
        where.check(np.abs(values) < 2.0**bits, expected, values)
    elif values.dtype == np.uint64:
        where.check(values < 2**63, "an integer of 64 bits", values)
    return np.ascontiguousarray(values, feature.dtype)


def _array(values: Any) -> np.ndarray:
    """NumPy's array of a column, or of the values of one row."""
    dtype = getattr(values, "dtype", None)
    is_pandas = not isinstance(dtype, np.dtype) and getattr(dtype, "kind", None) in ("i", "u")
    if is_pandas and values.isna().any():
        # As an array they would become floats, of which the large ones are another integer.
        return values.to_numpy(object)
    # NumPy would make text of what stands beside text, NaN and numbers too.
    has_text = isinstance(values, (list, tuple)) and str in map(type, values)
    return np.asarray(values, object if has_text else None)


def _stacked(feature: Feature, values: Any, where: _Where) -> np.ndarray:
    """Vectors as one array, also from a column of lists."""
    if isinstance(values, np.ndarray) and values.ndim == 1 + len(feature.shape):
        return values
    rows = list(values)
    good = [np.shape(row) == feature.shape for row in rows]
    expected = " x ".join(map(str, feature.shape))
    where.check(np.array(good, bool), f"a vector of {expected} numbers", rows)
    return np.stack(rows) if rows else np.zeros((0, *feature.shape))


def _seconds(values: np.ndarray, where: _Where) -> np.ndarray:
    """Dates, with or without a time zone, as seconds since 1970; numbers stay.

    Those without are UTC, as everywhere in NumPy and pandas, whatever the machine's clock.
    """
    is_date = np.zeros(len(values), bool)
    if values.dtype.kind == "O":
        is_date = np.array([hasattr(v, "timestamp") for v in values], bool)
    if is_date.any():
        is_there = np.array([not _is_missing(v) for v in values], bool)
        where.check(is_date & is_there, "a date", values)
        return np.array([_timestamp(v) for v in values], np.int64)
    if values.dtype.kind == "M":
        where.check(~np.isnat(values), "a date", values)
        return values.astype("datetime64[s]").astype(np.int64)
    return values


def _timestamp(date: datetime.datetime) -> int:
    return int((date if date.tzinfo else date.replace(tzinfo=datetime.UTC)).timestamp())


def _numbers(values: np.ndarray, missing: float, expected: str, where: _Where) -> np.ndarray:
    """A column of Python objects as numbers, `missing` where there is none."""
    flat = [missing if _is_missing(v) else v for v in values.ravel()]
    good = np.array([isinstance(v, (int, float, np.number)) for v in flat], bool)
    where.check(good.reshape(values.shape), expected, values)
    return np.array(flat).reshape(values.shape)


def _strings(values: np.ndarray, where: _Where) -> np.ndarray:
    if values.dtype.kind == "S":
        good = [is_utf8(v) for v in values.ravel()]
        where.check(np.array(good, bool).reshape(values.shape), "text in UTF-8", values)
        return np.char.decode(values, "utf-8").astype(object)
    if values.dtype.kind in "iuU":
        return values.astype(str).astype(object)
    if values.dtype.kind != "O":
        where.check(np.zeros(len(values), bool), "text", values)
    texts = [v if isinstance(v, str) or not _is_missing(v) else "" for v in values]
    values = np.array(texts, object)
    where.check(np.array([isinstance(v, str) for v in values], bool), "text", values)
    return values


def _is_missing(value: Any) -> bool:
    """`None`, NaN, and pandas' NA and NaT."""
    if value is None or isinstance(value, float):
        return value is None or value != value
    return type(value).__name__ in ("NAType", "NaTType")


def _check_values(schema: Schema, feature: Feature, values: np.ndarray, where: _Where):
    if feature.role == "label":
        where.check((values == 0) | (values == 1), "a label of 0 or 1", values)
    if feature.kind != "id" or feature.dtype == "string":
        return
    vocabulary = schema.vocabulary(feature.name)
    if vocabulary is None:
        return
    if not vocabulary.is_encoded:
        where.check(values >= -1, "an id of 0 or more, or -1 for a missing one", values)
    else:
        good = (values >= 0) & (values < vocabulary.size)
        where.check(good, f"an id in 0 ... {vocabulary.size - 1}", values)


def rechunk(chunks: Iterable[Columns], size: int) -> Iterator[Columns]:
    """Join and split chunks so that each but the last has exactly `size` rows."""
    waiting: list[Columns] = []
    missing = size
    for chunk in chunks:
        start, rows = 0, num_rows(chunk)
        while rows - start >= missing:
            waiting.append(slice_rows(chunk, start, start + missing))
            yield concatenate(waiting)
            start, missing, waiting = start + missing, size, []
        if start < rows:
            waiting.append(slice_rows(chunk, start, rows))
            missing -= rows - start
    if waiting:
        yield concatenate(waiting)


def slice_rows(columns: Columns, start: int, stop: int) -> Columns:
    return {name: column[start:stop] for name, column in columns.items()}


def concatenate(chunks: list[Columns]) -> Columns:
    if len(chunks) == 1:
        return chunks[0]
    return {name: _concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _concatenate(parts: list[Any]) -> Column:
    if isinstance(parts[0], Ragged):
        return Ragged(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.lengths for part in parts]),
        )
    return np.concatenate(parts)
