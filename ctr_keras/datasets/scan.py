"""What one pass over the files of a table tells of its columns, in bounded memory."""

import dataclasses
import os
import pathlib
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from ctr_keras.datasets.tables import (
    QUOTED,
    TAB,
    column_names,
    delimiter_of,
    is_parquet,
    unreadable,
)
from ctr_keras.schema import MISSING_INT

MEMORY_LIMIT = "1GB"

_LEAST_LIST_SHARE = 0.01


@dataclasses.dataclass(frozen=True)
class Scanned:
    """What one pass over the file tells of a column.

    Attributes:
        name: Its name.
        type: Its ibis type, of list columns that of the values, of a CSV's texts that of the
            numbers which all of them are.
        is_list: Whether a row holds a list, or a text that the separator splits.
        is_whole: Whether all values are integers, be they floats.
        is_int64: Whether all values are ids that int64 tells apart: whole and, but for the -1 of
            a missing one, not negative.
        distinct: About how many distinct values (of a list column, in all lists).
        shortest: Fewest values in a row.
        longest: Most values in a row.
        missing: How many numbers are missing.
        least: Least value of a number.
        words: Mean number of words of a text.
        has_lines: Whether a text has several lines.
    """

    name: str
    type: Any
    is_list: bool
    is_whole: bool
    is_int64: bool
    distinct: int
    shortest: int
    longest: int
    missing: int
    least: float
    words: float
    has_lines: bool


def connect(folder: str | os.PathLike | None = None) -> ibis.BaseBackend:
    """DuckDB in bounded memory; what does not fit spills to `folder`."""
    options = {} if folder is None else {"temp_directory": str(folder)}
    # Order costs memory and nothing here relies on it.
    return ibis.duckdb.connect(memory_limit=MEMORY_LIMIT, preserve_insertion_order=False, **options)


def scan(files: list[pathlib.Path], names: list[str], separator: str) -> list[Scanned]:
    """Measure columns.

    Args:
        files: CSV files or Parquet files.
        names: The columns, of those of the first file.
        separator: What separates the values of a list in a text.

    Raises:
        ValueError: a file cannot be read or lacks one of them, or there are no rows.
    """
    table = _table(files, names)
    is_csv = not is_parquet(files[0])
    measures = {}
    for position in range(len(names)):
        for what, value in _measures(table[position], separator, is_csv).items():
            measures[f"{what}_{position}"] = value
    try:
        row = table.aggregate(rows=table.count(), **measures).to_pyarrow().to_pylist()[0]
    except Exception as error:  # DuckDB's and ibis' errors have no common class.
        raise unreadable(files, error) from error
    if not row["rows"]:
        raise ValueError(f"{files[0]} has no rows")
    columns = []
    for position, name in enumerate(names):
        ending = f"_{position}"
        found = {k.removesuffix(ending): v for k, v in row.items() if k.endswith(ending)}
        column = _column(name, table[position].type(), found)
        columns.append(_of_lists(column, table[position], separator) if column.is_list else column)
    return columns


def _table(files: list[pathlib.Path], names: list[str]) -> ir.Table:
    """The columns of these names in their order, those of a CSV as texts.

    They go by their number, as DuckDB renames some, and it would guess that ids of 64 bits are
    floats, which do not tell them apart.
    """
    connection = connect()
    alike: dict[tuple, list[str]] = {}
    for file in files:
        alike.setdefault(tuple(column_names(file)), []).append(str(file))
    parts = []
    for own, paths in alike.items():
        missing = [name for name in names if name not in own]
        if missing:
            raise ValueError(
                f"{paths[0]}: missing column {missing[0]!r}, which {files[0]} has. "
                f"Received: `columns={list(own)}`"
            )
        try:
            table = _read(connection, paths, len(own))
        except Exception as error:
            raise unreadable([pathlib.Path(path) for path in paths], error) from error
        parts.append(
            table.select(**{f"_{n}": table[own.index(name)] for n, name in enumerate(names)})
        )
    return ibis.union(*parts) if len(parts) > 1 else parts[0]


def _read(connection: ibis.BaseBackend, paths: list[str], width: int) -> ir.Table:
    if is_parquet(pathlib.Path(paths[0])):
        return connection.read_parquet(paths, hive_partitioning=False)
    delimiter = delimiter_of(pathlib.Path(paths[0]))
    quote = "" if delimiter == TAB else '"'
    table = connection.read_csv(
        paths,
        auto_detect=False,
        header=True,
        columns={f"_{n}": "VARCHAR" for n in range(width)},
        delim=delimiter,
        quote=quote,
        escape=quote,
    )
    if delimiter != TAB:
        return table
    return table.mutate(**{name: _unquoted(table[name]) for name in table.columns})


def _unquoted(texts: ir.StringColumn) -> ir.Value:
    inner = texts.substr(1, texts.length() - 2).replace('""', '"')
    return ibis.ifelse(texts.re_search(QUOTED), inner, texts)


def _measures(column: ir.Column, separator: str, is_csv: bool) -> dict[str, ir.Scalar]:
    if column.type().is_array():
        lengths = column.length().fill_null(0)
        return {"shortest": lengths.min(), "longest": lengths.max()}
    if not column.type().is_string():
        return _of_values(column)
    return {
        **(_of_numbers_in(column) if is_csv else _of_values(column)),
        "longest": column.split(separator).length().max(),
        "lists": column.contains(separator).mean(),
        "words": column.split(" ").length().mean(),
        "lines": column.re_search(r"[\r\n]").any(),
    }


def _of_values(column: ir.Column) -> dict[str, ir.Scalar]:
    measures = {"distinct": column.approx_nunique()}
    if column.type().is_numeric():
        if column.type().is_floating():
            column = ibis.ifelse(column.isnan(), None, column)
        measures |= {"least": column.min(), "most": column.max()}
        measures["missing"] = column.isnull().sum()
        if not column.type().is_integer():
            measures["exact"] = (column == column.floor()).all()
    return measures


def _of_numbers_in(texts: ir.StringColumn) -> dict[str, ir.Scalar]:
    """What `_of_values` tells of numbers, and whether texts are numbers."""
    texts = texts.nullif("")
    number = texts.try_cast("float64")
    # Integers that are written as such: `007` and `7` are two ids, but pandas makes `7.0` of 7.
    digits = texts.re_replace(r"\.0+$", "")
    exact = digits.try_cast("int64").cast("string") == digits
    return {
        "distinct": texts.approx_nunique(),
        "numbers": (texts.isnull() | number.notnull()).all(),
        "integers": texts.re_search(r"^[+-]?\d+$").all(),
        "exact": (texts.isnull() | exact.fill_null(False)).all(),
        "least": number.nullif(float("nan")).min(),
        "most": number.nullif(float("nan")).max(),
        "missing": (number.isnull() | number.isnan()).sum(),
    }


def _column(name: str, type_: Any, found: dict[str, Any]) -> Scanned:
    is_list = type_.is_array() or (found.get("lists") or 0) >= _LEAST_LIST_SHARE
    type_ = type_.value_type if type_.is_array() else type_
    least, most = found.get("least"), found.get("most")
    if least is None or most is None:
        least, most, is_whole = 0, 0, False
    else:
        if found.get("numbers"):
            type_ = dt.int64 if found["integers"] else dt.float64
        is_whole = bool(type_.is_numeric() and found.get("exact", True))
    # From there on, neighbours are the same float.
    end = 2**63 if type_.is_integer() else 2**53
    return Scanned(
        name=name,
        type=type_,
        is_list=is_list,
        is_whole=is_whole,
        is_int64=is_whole and MISSING_INT <= least and most < end,
        distinct=int(found.get("distinct") or 0),
        shortest=int(found.get("shortest") or 0),
        longest=int(found.get("longest") or 1),
        missing=int(found.get("missing") or 0),
        least=float(least),
        words=float(found.get("words") or 0),
        has_lines=bool(found.get("lines")),
    )


def _of_lists(column: Scanned, lists: ir.Column, separator: str) -> Scanned:
    """What the values of a list column are, in place of what its lists are."""
    is_text = lists.type().is_string()
    values = (lists.split(separator) if is_text else lists).unnest().name("value").as_table()
    measures = (_of_numbers_in if is_text else _of_values)(values.value)
    found = values.aggregate(**measures).to_pyarrow().to_pylist()[0]
    one = _column(column.name, values.value.type(), found)
    if is_text:
        one = dataclasses.replace(one, type=dt.int64 if one.is_int64 else dt.string)
    return dataclasses.replace(
        one,
        is_list=True,
        shortest=column.shortest,
        longest=column.longest,
        has_lines=column.has_lines,
    )
