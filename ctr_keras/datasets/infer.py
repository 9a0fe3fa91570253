"""A first schema from the columns of a file, for people to edit."""

import dataclasses
import os
import pathlib
import re
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from ctr_keras.datasets import drafts
from ctr_keras.datasets.tables import (
    QUOTED,
    TAB,
    column_names,
    delimiter_of,
    is_parquet,
    table_files,
    unreadable,
)
from ctr_keras.schema import MISSING_INT, Feature, Schema, Vocabulary

MEMORY_LIMIT = "1GB"

_LABELS = ("label", "click", "clicked", "is_click", "target")
_TIMES = ("time", "timestamp", "datetime", "event_time", "date_time", "ts")
_USER = re.compile(r"(user|member|customer|uid)(_|$)")
_ITEM = re.compile(r"(item|movie|product|goods|ad|adgroup|video|article|song|book|iid)(_|$)")
_SCENARIO = re.compile(r"(scenario|domain)(_id)?$")
_HISTORY = re.compile(r"(hist|history|past|clicked|sequence|seq)_|_(hist|history|seq|sequence)$")
_ID = re.compile(r"(^|_)(id|uid|iid|code|key)$")
_CAMEL_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_FEW_VALUES = 50
_TEXT_WORDS = 3
_TEXT_LENGTH = 20
_LEAST_LIST_SHARE = 0.01


@dataclasses.dataclass(frozen=True)
class _Column:
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
        longest: Most values in a row.
        least: Least value of a number.
        words: Mean number of words of a text.
    """

    name: str
    type: Any
    is_list: bool
    is_whole: bool
    is_int64: bool
    distinct: int
    longest: int
    least: float
    words: float


def infer_schema(
    path: str | os.PathLike,
    label: str | None = None,
    *,
    time: str | None = None,
    history_length: int = 50,
    max_vocabulary: int = 100_000,
    list_separator: str = "|",
    out: str | os.PathLike | None = None,
) -> Schema:
    """Guess what the columns of a CSV or Parquet file are.

    Roles come from names (`user_*`, `item_*`, `history_*`, `label`, `click`, `time`; `userId` is
    read as `user_id`). Kinds come from values, but numbers that are called an id, a user, an item
    or a scenario are ids, as are the whole ones of a history; they are read as texts where int64
    would not tell them apart, as hashes below 0 or from 2**63 on. Ids of up to `max_vocabulary`
    distinct values get a vocabulary file, which `prepare` builds from the training rows, others
    are hashed; a history shares the feature that its name names (`history_item_id` shares
    `item_id`); texts are split into hashed words. Memory stays the same whatever the size of the
    file.

    Args:
        path: A CSV with a header, a Parquet file, or a folder of either.
        label: Column of the labels, 0 or 1; by default the one called `label`, `click`,
            `clicked`, `is_click` or `target`.
        time: Column of the times; by default one called `time`, `timestamp` and the like.
        history_length: How many values of a history a row keeps.
        max_vocabulary: Most distinct values for which a vocabulary file is built.
        list_separator: What separates the values of a list in a CSV column.
        out: Where to write the schema as JSON.

    Returns:
        `ck.Schema`; `prepare` takes it, or the edited file.

    Raises:
        ValueError: the file is empty or unreadable, or no column is the label.
    """
    files = table_files(path)
    names = column_names(files[0])
    label = _named(path, names, "label", label, _LABELS)
    if label is None:
        raise ValueError(
            f"{path}: no column is called {', '.join(_LABELS)}: name the one that holds the labels "
            f"with `label`. Received: `columns={names}`"
        )
    time = _named(path, names, "time", time, _TIMES)
    columns = _scan(files, names, list_separator)
    features = [_feature(column, label, time, history_length, max_vocabulary) for column in columns]
    schema = Schema((*_with_shares(features), *_groups(features)))
    if out is not None:
        drafts.save(schema, out)
    return schema


def connect(folder: str | os.PathLike | None = None) -> ibis.BaseBackend:
    """DuckDB in bounded memory; what does not fit spills to `folder`."""
    options = {} if folder is None else {"temp_directory": str(folder)}
    # Order costs memory and nothing here relies on it.
    return ibis.duckdb.connect(memory_limit=MEMORY_LIMIT, preserve_insertion_order=False, **options)


def _named(path, names: list[str], what: str, given: str | None, usual: tuple) -> str | None:
    if given is None:
        return next((name for name in names if name.lower() in usual), None)
    if given not in names:
        raise ValueError(
            f"{path}: there is no such column. Received: `{what}={given!r}`, `columns={names}`"
        )
    return given


def _scan(files: list[pathlib.Path], names: list[str], separator: str) -> list[_Column]:
    table = _table(files, names)
    is_csv = not is_parquet(files[0])
    measures = {}
    for position in range(len(names)):
        for what, value in _measures(table[position], separator, is_csv).items():
            measures[f"{what}_{position}"] = value
    try:
        row = table.aggregate(rows=table.count(), **measures).to_pyarrow().to_pylist()[0]
    except Exception as error:  # DuckDB's and ibis' errors have no common class.
        raise unreadable(files[0], error) from error
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
            raise unreadable(pathlib.Path(paths[0]), error) from error
        parts.append(
            table.select(**{f"_{n}": table[own.index(name)] for n, name in enumerate(names)})
        )
    return ibis.union(*parts) if len(parts) > 1 else parts[0]


def _read(connection: ibis.BaseBackend, paths: list[str], width: int) -> ir.Table:
    if is_parquet(pathlib.Path(paths[0])):
        return connection.read_parquet(paths)
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
        return {"longest": column.length().max()}
    if not column.type().is_string():
        return _of_values(column)
    return {
        **(_of_numbers_in(column) if is_csv else _of_values(column)),
        "longest": column.split(separator).length().max(),
        "lists": column.contains(separator).mean(),
        "words": column.split(" ").length().mean(),
    }


def _of_values(column: ir.Column) -> dict[str, ir.Scalar]:
    measures = {"distinct": column.approx_nunique()}
    if column.type().is_numeric():
        if column.type().is_floating():
            column = ibis.ifelse(column.isnan(), None, column)
        measures |= {"least": column.min(), "most": column.max()}
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
        "least": number.min(),
        "most": number.max(),
    }


def _column(name: str, type_: Any, found: dict[str, Any]) -> _Column:
    is_list = type_.is_array() or (found.get("lists") or 0) >= _LEAST_LIST_SHARE
    type_ = type_.value_type if type_.is_array() else type_
    least, most = found.get("least"), found.get("most")
    if least is not None and found.get("numbers"):
        type_ = dt.int64 if found["integers"] else dt.float64
    is_whole = least is not None and bool(type_.is_numeric() and found.get("exact", True))
    # From there on, neighbours are the same float.
    end = 2**63 if type_.is_integer() else 2**53
    return _Column(
        name=name,
        type=type_,
        is_list=is_list,
        is_whole=is_whole,
        is_int64=is_whole and MISSING_INT <= least and most < end,
        distinct=int(found.get("distinct") or 0),
        longest=int(found.get("longest") or 1),
        least=float(least or 0),
        words=float(found.get("words") or 0),
    )


def _of_lists(column: _Column, lists: ir.Column, separator: str) -> _Column:
    """What the values of a list column are, in place of what its lists are."""
    is_text = lists.type().is_string()
    values = (lists.split(separator) if is_text else lists).unnest().name("value").as_table()
    measures = (_of_numbers_in if is_text else _of_values)(values.value)
    found = values.aggregate(**measures).to_pyarrow().to_pylist()[0]
    one = _column(column.name, values.value.type(), found)
    if is_text:
        one = dataclasses.replace(one, type=dt.int64 if one.is_int64 else dt.string)
    return dataclasses.replace(one, is_list=True, longest=column.longest)


def _feature(
    column: _Column, label: str, time: str | None, history_length: int, max_vocabulary: int
) -> Feature:
    name = column.name
    if name == label:
        return Feature(name, role="label", kind="number")
    if name == time:
        return Feature(name, role="time", kind="number")
    role = _role(_snake(name), column.is_list)
    if column.is_list and column.type.is_floating() and not (role == "history" and column.is_whole):
        return Feature(name, role="vector", kind="vector", width=column.longest)
    length = None
    if column.is_list:
        length = history_length if role == "history" else column.longest
    if not column.is_list and _is_number(column):
        return Feature(name, role=role, kind="number")
    if not column.is_list and column.type.is_string() and column.words >= _TEXT_WORDS:
        vocabulary = Vocabulary.hashing(_buckets(column.distinct))
        return Feature(name, role=role, kind="text", vocabulary=vocabulary, length=_TEXT_LENGTH)
    return Feature(
        name,
        role=role,
        vocabulary=(
            drafts.unbuilt(name)
            if column.distinct <= max_vocabulary
            else Vocabulary.hashing(_buckets(column.distinct))
        ),
        length=length,
        dtype="int64" if column.is_int64 else "string",
    )


def _role(name: str, is_list: bool) -> str:
    if is_list and _HISTORY.search(name):
        return "history"
    if _USER.match(name):
        return "user"
    if _ITEM.match(name):
        return "item"
    return "scenario" if _SCENARIO.match(name) else "context"


def _snake(name: str) -> str:
    """`userId` as `user_id`."""
    return _CAMEL_HUMP.sub("_", name).lower()


def _is_number(column: _Column) -> bool:
    if not column.type.is_numeric() or _is_called_id(_snake(column.name)):
        return False
    # Ids are never negative; a count or an amount takes many values.
    return not column.type.is_integer() or column.least < 0 or column.distinct > _FEW_VALUES


def _is_called_id(name: str) -> bool:
    return bool(
        _ID.search(name) or _USER.fullmatch(name) or _ITEM.fullmatch(name) or _SCENARIO.match(name)
    )


def _buckets(distinct: int) -> int:
    """Room for twice the values that were seen, as a power of two."""
    return 1 << max(2 * distinct - 1, 1).bit_length()


def _with_shares(features: list[Feature]) -> list[Feature]:
    """Let a history share the feature that its name names."""
    owners = {
        _snake(f.name): f for f in features if f.role != "history" and f.vocabulary is not None
    }
    shared = []
    for feature in features:
        if feature.role == "history" and feature.kind == "id":
            rest = _HISTORY.sub("", _snake(feature.name))
            owner = next((owners[n] for n in (rest, f"{rest}_id") if n in owners), None)
            # Integers can be read as texts.
            if owner is not None and owner.dtype in (feature.dtype, "string"):
                feature = dataclasses.replace(
                    feature, vocabulary=None, shares=owner.name, dtype=owner.dtype
                )
        shared.append(feature)
    return shared


def _groups(features: list[Feature]) -> list[Feature]:
    """The user as the group that GAUC is computed by."""
    users = [f for f in features if f.role == "user" and f.kind == "id" and f.length is None]
    named = [f for f in users if _ID.search(_snake(f.name))] or users
    return [Feature(f"group_{f.name}", role="group", dtype=f.dtype) for f in named[:1]]
