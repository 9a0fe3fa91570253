"""Taobao's UserBehavior file as checked, typed rows: memory does not grow with the file."""

import contextlib
import gzip
import itertools
import os
import pathlib
import re
import zipfile
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from ctr_keras import files
from ctr_keras.sources import Report

COLUMNS = ("user", "item", "category", "behaviour", "timestamp")
BEHAVIOURS = ("pv", "buy", "cart", "fav")
# Number of the line, from 1; the last column of the typed rows.
LINE = "line"
_FILE = "UserBehavior.csv"
_TYPES = {name: pa.string() if name == "behaviour" else pa.int64() for name in COLUMNS}
_TYPED = pa.schema({**_TYPES, "behaviour": pa.int8(), LINE: pa.int64()})
_BLOCK_BYTES = 1 << 24
_REPORT_ROWS = 10_000_000
_ONE_BEHAVIOUR = f"one of {', '.join(BEHAVIOURS)}"
_INTEGER = re.compile(r"\s*[+-]?\d+\s*\Z")


def find(raw: str | os.PathLike) -> pathlib.Path:
    """The raw file that `raw` names: itself, or `UserBehavior.csv` of a folder.

    Raises:
        ValueError: there is none.
    """
    path = pathlib.Path(raw)
    if path.is_dir():
        for name in (_FILE, f"{_FILE}.gz", f"{_FILE}.zip"):
            if (path / name).is_file():
                return path / name
    if not path.is_file():
        raise ValueError(
            f"There is no such file, nor a folder with {_FILE}. Received: `raw={str(raw)!r}`"
        )
    return path


def copy_checked(
    path: pathlib.Path, target: pathlib.Path, report: Report, allow_negative_times: bool = False
) -> int:
    """Write the lines of the raw file as typed rows, with the number of each line.

    Args:
        path: The raw file: text, a `.gz` of it, or a zip that holds it alone.
        target: Parquet file to write; it appears whole or not at all. It holds `COLUMNS`,
            behaviours as their position in `BEHAVIOURS`, and `LINE`.
        report: Called with lines for the user.
        allow_negative_times: Whether a time may lie before 1970.

    Returns:
        How many rows there are.

    Raises:
        ValueError: names the file, the line and the column at fault.
    """
    temporary = target.with_suffix(".tmp")
    rows = 0
    with pyarrow.parquet.ParquetWriter(temporary, _TYPED, compression="zstd") as writer:
        for batch in _batches(path):
            writer.write_batch(_typed(path, batch, rows, allow_negative_times))
            before, rows = rows, rows + batch.num_rows
            if before // _REPORT_ROWS != rows // _REPORT_ROWS:
                report(f"read {rows:,} lines")
    files.replace(temporary, target)
    return rows


def _batches(path: pathlib.Path) -> Iterator[pa.RecordBatch]:
    """The lines as they are, in their order."""
    read = pyarrow.csv.ReadOptions(column_names=COLUMNS, block_size=_BLOCK_BYTES)
    parse = pyarrow.csv.ParseOptions(quote_char=False, ignore_empty_lines=False)
    convert = pyarrow.csv.ConvertOptions(
        column_types=_TYPES, null_values=[], strings_can_be_null=False
    )
    rows = 0
    with _open(path) as file:
        try:
            for batch in pyarrow.csv.open_csv(file, read, parse, convert):
                yield batch
                rows += batch.num_rows
        except pa.ArrowInvalid as error:
            raise ValueError(_first_fault(path, rows, str(error))) from error
        except (OSError, *files.DAMAGED) as error:
            raise ValueError(f"{path} cannot be read after line {rows}: {error}") from error


def _typed(
    path: pathlib.Path, batch: pa.RecordBatch, first: int, allow_negative_times: bool
) -> pa.RecordBatch:
    behaviour = pc.index_in(batch["behaviour"], pa.array(BEHAVIOURS))
    if behaviour.null_count:
        position = int(np.argmax(behaviour.is_null().to_numpy(zero_copy_only=False)))
        value = batch["behaviour"][position].as_py()
        fault = _fault(first + position, "behaviour", _ONE_BEHAVIOUR, value)
        raise ValueError(f"{path}{fault}")
    for name in COLUMNS:
        if name == "behaviour" or (name == "timestamp" and allow_negative_times):
            continue
        values = batch[name].to_numpy()
        if len(values) and values.min() < 0:
            position = int(np.argmax(values < 0))
            expected = "an integer of 0 or more"
            if name == "timestamp":
                expected = (
                    "seconds since 1970, 0 or more (to leave out what is not, give a `period`; "
                    "--since on the command line)"
                )
            raise ValueError(f"{path}{_fault(first + position, name, expected, values[position])}")
    lines = pa.array(np.arange(first + 1, first + 1 + batch.num_rows))
    columns = [behaviour.cast(pa.int8()) if n == "behaviour" else batch[n] for n in COLUMNS]
    return pa.record_batch([*columns, lines], schema=_TYPED)


def _fault(row: int, column: str, expected: str, value) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    return f", line {row + 1}, column {column!r}: expected {expected}. Received: `value={value!r}`"


def _first_fault(path: pathlib.Path, first: int, otherwise: str) -> str:
    """Name the first line, not before row `first`, that is not as it should be."""
    row = -1
    with _open(path) as file:
        for row, line in enumerate(itertools.islice(file, first, None), first):
            fault = _fault_of(row, line.decode("utf-8", "replace").rstrip("\r\n").split(","))
            if fault is not None:
                return f"{path}{fault}"
    if row < 0 and first == 0:
        return f"The file has no lines. Received: `raw={str(path)!r}`"
    return f"{path} cannot be read: {otherwise}"


def _fault_of(row: int, values: Sequence[str]) -> str | None:
    if len(values) != len(COLUMNS):
        return (
            f", line {row + 1}: expected the {len(COLUMNS)} columns {', '.join(COLUMNS)}. "
            f"Received: `columns={list(values)}`"
        )
    for name, value in zip(COLUMNS, values, strict=True):
        if name == "behaviour":
            if value not in BEHAVIOURS:
                return _fault(row, name, _ONE_BEHAVIOUR, value)
        elif not (_INTEGER.match(value) and -(2**63) <= int(value) < 2**63):
            return _fault(row, name, "an integer", value)
    return None


@contextlib.contextmanager
def _open(path: pathlib.Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".csv")]
            names = [name for name in names if not name.startswith("__MACOSX/")]
            if len(names) != 1:
                raise ValueError(f"{path} must hold one .csv file. Received: `files={names}`")
            with archive.open(names[0]) as file:
                yield file
    elif path.suffix == ".gz":
        with gzip.open(path, "rb") as file:
            yield file
    else:
        with open(path, "rb") as file:
            yield file
