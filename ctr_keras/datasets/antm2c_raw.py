"""AntM2C's raw files: their columns, and their rows as one checked, typed Parquet file."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from ctr_keras import files
from ctr_keras.datasets import staged, truth
from ctr_keras.sources import Report
from ctr_keras.utf8 import is_utf8

FEATURES = tuple(f"features_{number}" for number in range(27))
IDS = ("user_id", *FEATURES, "item_id", "scene")
# As published; other columns are left out, but for those of `OPTIONAL_TEXTS` and the simulator's.
COLUMNS = (
    "user_id",
    *FEATURES,
    "query_entity_seq",
    "item_id",
    "item_entity_names",
    "item_title",
    "log_time",
    "scene",
    "label",
)
TEXTS = ("query_entity_seq", "item_entity_names", "item_title")
OPTIONAL_TEXTS = ("bill_entity_seq", "service_entity_seq")
# How exports of tables write that there is no value, beside nothing at all.
MISSING_VALUES = ("\\N", "null", "NULL", "None", "nan", "NaN")
# Where a row was read: the number of its file, and of the row in it (the header is row 1).
FILE, FILE_ROW = "__file__", "__file_row__"
_NEVER_MISSING = ("user_id", "item_id", "scene")
_BLOCK_BYTES = 1 << 24
_REPORT_ROWS = 5_000_000
_SUFFIXES = (".csv", ".csv.gz")
# So many digits always fit into 64 bits.
_MOST_DIGITS = 18


def find(raw: str | os.PathLike | Sequence[str | os.PathLike]) -> list[pathlib.Path]:
    """The files that `raw` names: one path or several, each a file or a folder of CSV files.

    Raises:
        ValueError: there is no such file, a folder holds none, or a file is named twice.
    """
    given = [raw] if isinstance(raw, (str, os.PathLike)) else list(raw)
    found: list[pathlib.Path] = []
    for path in map(pathlib.Path, given):
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.name.endswith(_SUFFIXES))
        else:
            inside = [path] if path.is_file() else []
        if not inside:
            raise ValueError(
                f"There is no such file, nor a folder of .csv or .csv.gz. Received: "
                f"`raw={str(path)!r}`"
            )
        found += inside
    if not found or len({path.resolve() for path in found}) < len(found):
        raise ValueError(
            "`raw` must name one file or several, each once. Received: "
            f"`raw={[str(path) for path in found]}`"
        )
    return found


def optional_columns(paths: Sequence[pathlib.Path], report: Report) -> list[str]:
    """The columns of `OPTIONAL_TEXTS`, and the true probabilities, that all files have.

    Raises:
        ValueError: a file is empty, lacks one of `COLUMNS`, or names a column twice.
    """
    headers = [_header(path) for path in paths]
    for path, names in zip(paths, headers, strict=True):
        missing = [name for name in COLUMNS if name not in names]
        twice = [name for name in names if names.count(name) > 1]
        if missing or twice:
            what = "missing" if missing else "repeated"
            raise ValueError(
                f"{path}: {what} column {(missing or twice)[0]!r}. Expected the columns "
                f"{', '.join(COLUMNS)} in any order. Received: `columns={names}`"
            )
    wanted = (*OPTIONAL_TEXTS, truth.PROBABILITY)
    taken = [name for name in wanted if all(name in names for names in headers)]
    every = sorted({name for names in headers for name in names} - {*COLUMNS, *taken})
    if every:
        report(f"Columns that are left out: {', '.join(every)}")
    return taken


def copy_checked(
    paths: Sequence[pathlib.Path],
    target: pathlib.Path,
    optional: Sequence[str],
    scenes: Sequence[str] | None,
    time_format: str | None,
    report: Report,
) -> int:
    """Write the rows of all files as one typed file.

    Args:
        paths: The raw files; a `.gz` is unpacked on the way.
        target: Parquet file to write; it appears whole or not at all. It holds `COLUMNS` and
            `optional`, missing values as `""`, `log_time` as seconds since 1970, the number of
            each row, and where it was read. A file beside it tells `integer_columns`.
        optional: The further columns.
        scenes: The scenes that there may be, or `None` for any.
        time_format: Of `log_time` as `strptime` takes it, or `None` for ISO 8601.
        report: Called with lines for the user.

    Returns:
        How many rows there are.

    Raises:
        ValueError: names the file, the row and the column at fault.
    """
    temporary, first = target.with_suffix(".tmp"), 0
    integers = {name for name in IDS if name != "scene"}
    with contextlib.ExitStack() as stack:
        writer = None
        for number, path in enumerate(paths):
            checker = _Checker(path, scenes, time_format)
            for batch, file_row in _batches(path, [*COLUMNS, *optional]):
                columns = checker.typed(batch, file_row)
                integers = {name for name in integers if _are_integers(columns[name])}
                rows = batch.num_rows
                columns[staged.ROW] = pa.array(np.arange(first, first + rows))
                columns[FILE] = pa.array(np.full(rows, number, np.int32))
                columns[FILE_ROW] = pa.array(np.arange(file_row, file_row + rows))
                table = pa.table(columns)
                if writer is None:
                    writer = stack.enter_context(
                        pyarrow.parquet.ParquetWriter(temporary, table.schema, compression="zstd")
                    )
                writer.write_table(table)
                if first // _REPORT_ROWS != (first + rows) // _REPORT_ROWS:
                    report(f"read {first + rows:,} rows")
                first += rows
    _integers_file(target).write_text(json.dumps(sorted(integers)))
    files.replace(temporary, target)
    return first


def integer_columns(target: pathlib.Path) -> set[str]:
    """The ids of a typed file whose values are all integers of 0 or more, or missing."""
    return set(json.loads(_integers_file(target).read_text()))


def _integers_file(target: pathlib.Path) -> pathlib.Path:
    return target.with_suffix(".integers.json")


def _header(path: pathlib.Path) -> list[str]:
    with _reading(path) as reader:
        return reader.schema.names


def _batches(path: pathlib.Path, names: list[str]) -> Iterator[tuple[pa.RecordBatch, int]]:
    """The rows as they are, with the number of each batch's first."""
    row = 2  # The header is the first.
    with _reading(path, names) as reader:
        for batch in reader:
            if batch.num_rows:
                yield batch, row
            row += batch.num_rows
    if row == 2:
        raise ValueError(f"The file has no rows. Received: `raw={str(path)!r}`")


@contextlib.contextmanager
def _reading(
    path: pathlib.Path, names: list[str] | None = None
) -> Iterator[pyarrow.csv.CSVStreamingReader]:
    """All columns as bytes, so that each bad value can be named with its row."""
    faults: list[pyarrow.csv.InvalidRow] = []

    def on_fault(row: pyarrow.csv.InvalidRow) -> str:
        faults.append(row)
        return "error"

    read = pyarrow.csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES)
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=on_fault)
    convert = pyarrow.csv.ConvertOptions(
        column_types={name: pa.binary() for name in names or ()},
        include_columns=names,
        null_values=[],
        strings_can_be_null=False,
    )
    try:
        with pyarrow.csv.open_csv(path, read, parse, convert) as reader:
            yield reader
    except (pa.ArrowInvalid, OSError) as error:
        if faults:
            raise ValueError(
                f"{path}, row {faults[0].number}: expected {faults[0].expected_columns} columns. "
                f"Received: `columns={faults[0].actual_columns}`"
            ) from error
        if "Empty CSV" in str(error):
            raise ValueError(f"The file is empty. Received: `raw={str(path)!r}`") from error
        raise ValueError(f"{path} cannot be read: {error}") from error


class _Checker:
    """Gives the columns of a file their types, or says which value is at fault."""

    def __init__(
        self, path: pathlib.Path, scenes: Sequence[str] | None, time_format: str | None
    ) -> None:
        self._path, self._time_format = path, time_format
        self._scenes = None if scenes is None else pa.array(list(scenes), pa.string())
        self._missing = pa.array(MISSING_VALUES, pa.string())

    def typed(self, batch: pa.RecordBatch, first: int) -> dict[str, pa.Array]:
        """The columns of a batch whose first row has the number `first`."""
        columns = {}
        for name in batch.schema.names:
            values = self._text(name, batch[name], first)
            if name == "log_time":
                columns[name] = self._seconds(name, values, first)
            elif name == "label":
                self._check(pc.is_in(values, pa.array(["0", "1"])), name, "0 or 1", values, first)
                columns[name] = values.cast(pa.float32())
            elif name == truth.PROBABILITY:
                columns[name] = self._probability(name, values, first)
            else:
                columns[name] = pc.if_else(pc.is_in(values, self._missing), "", values)
            if name in _NEVER_MISSING:
                self._check(pc.not_equal(columns[name], ""), name, "a value", values, first)
        if self._scenes is not None:
            expected = f"one of {', '.join(self._scenes.to_pylist())}"
            known = pc.is_in(columns["scene"], self._scenes)
            self._check(known, "scene", expected, columns["scene"], first)
        return columns

    def _text(self, name: str, values: pa.Array, first: int) -> pa.Array:
        text = self._cast(values, pa.string())
        if text is None:
            good = pa.array([is_utf8(value) for value in values.to_pylist()])
            self._check(good, name, "text in UTF-8", values, first)
        return text

    def _seconds(self, name: str, values: pa.Array, first: int) -> pa.Array:
        if self._time_format is not None:
            found = pc.strptime(values, self._time_format, "s", error_is_null=True)
            expected = f"a time of the form {self._time_format!r}"
            self._check(pc.is_valid(found), name, expected, values, first)
            return found.cast(pa.int64())
        # Fractions of a second are dropped.
        found = self._cast(values, pa.timestamp("us"))
        if found is None:
            good = [self._cast(value, pa.timestamp("us")) is not None for value in values]
            self._check(pa.array(good), name, "a time such as 2023-07-09 21:05:30", values, first)
        return pc.floor_temporal(found, unit="second").cast(pa.timestamp("s")).cast(pa.int64())

    def _probability(self, name: str, values: pa.Array, first: int) -> pa.Array:
        number = self._cast(values, pa.float64())
        if number is None:
            good = pa.array([self._cast(value, pa.float64()) is not None for value in values])
        else:
            good = pc.and_(pc.greater_equal(number, 0), pc.less_equal(number, 1))
        self._check(good, name, "a probability", values, first)
        return number

    @staticmethod
    def _cast(values: pa.Array | pa.Scalar, kind: pa.DataType):
        try:
            return values.cast(kind)
        except pa.ArrowInvalid:
            return None

    def _check(self, good: pa.Array, name: str, expected: str, values: pa.Array, first: int):
        if pc.all(good, min_count=0).as_py():
            return
        position = int(np.argmin(good.to_numpy(zero_copy_only=False)))
        raise ValueError(
            f"{self._path}, row {first + position}, column {name!r}: expected {expected}. "
            f"Received: `value={values[position].as_py()!r}`"
        )


def _are_integers(values: pa.Array) -> bool:
    """Whether text can be kept as integers without loss: digits, no zero in front."""
    length = pc.utf8_length(values)
    digits = pc.and_(pc.ascii_is_decimal(values), pc.less_equal(length, _MOST_DIGITS))
    plain = pc.or_(pc.invert(pc.starts_with(values, "0")), pc.equal(length, 1))
    good = pc.or_(pc.and_(digits, plain), pc.equal(length, 0))
    return bool(pc.all(good, min_count=0).as_py())
