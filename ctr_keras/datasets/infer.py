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
    column_names,
    delimiter_of,
    is_parquet,
    table_files,
)
from ctr_keras.datasets.utf8 import check_utf8
from ctr_keras.schema import Feature, Schema, Vocabulary

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
        type: Its ibis type, of list columns that of the values: integers where all of them are.
        is_list: Whether a row holds a list, or a text that the separator splits.
        distinct: About how many distinct values (of a list column, in all lists).
        longest: Most values in a row.
        least: Least value of a number.
        words: Mean number of words of a text.
    """

    name: str
    type: Any
    is_list: bool
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
    read as `user_id`). Kinds come from values, but integers that are called an id, a user or an
    item are ids: those of up to `max_vocabulary` distinct values get a vocabulary file, which
    `prepare` builds from the training rows, others are hashed; a history shares the feature that
    its name names (`history_item_id` shares `item_id`); texts are split into hashed words. Memory
    stays the same whatever the size of the file.

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
    columns = _scan(files, list_separator)
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


def _scan(files: list[pathlib.Path], separator: str) -> list[_Column]:
    table = _table(files)
    types = table.schema()
    measures = {}
    for position, name in enumerate(types.names):
        for what, value in _measures(table[name], separator).items():
            measures[f"{what}_{position}"] = value
    try:
        row = table.aggregate(rows=table.count(), **measures).to_pyarrow().to_pylist()[0]
    except Exception as error:  # DuckDB's and ibis' errors have no common class.
        raise ValueError(f"{files[0]} cannot be read: {error}") from error
    if not row["rows"]:
        raise ValueError(f"{files[0]} has no rows")
    columns = [_column(types[name], name, n, row) for n, name in enumerate(types.names)]
    return [_with_values(c, table[c.name], separator) if c.is_list else c for c in columns]


def _with_values(column: _Column, lists: ir.Column, separator: str) -> _Column:
    """What the values of a list column are, in place of what its lists are."""
    is_text = lists.type().is_string()
    values = (lists.split(separator) if is_text else lists).unnest().name("value").as_table()
    if is_text:
        values = values.filter(values.value != "")
    measures = {"distinct": values.value.approx_nunique()}
    if is_text:
        # Integers that are written as such: `007` and `7` are two ids.
        number = values.value.try_cast("int64")
        measures["integers"] = (number.cast("string") == values.value).fill_null(False).all()
        measures["least"] = number.min()
    row = values.aggregate(**measures).to_pyarrow().to_pylist()[0]
    found = dataclasses.replace(column, distinct=int(row["distinct"] or 0))
    if row.get("integers") and row["least"] >= 0:
        found = dataclasses.replace(found, type=dt.int64)
    return found


def _table(files: list[pathlib.Path]) -> ir.Table:
    connection = connect()
    paths = [str(path) for path in files]
    try:
        if is_parquet(files[0]):
            return connection.read_parquet(paths)
        # The whole file decides on the types, not its first rows.
        return connection.read_csv(
            paths, header=True, delim=delimiter_of(files[0]), sample_size=-1, quote='"'
        )
    except Exception as error:
        if not is_parquet(files[0]):
            for path in files:
                check_utf8(path)
        raise ValueError(f"{files[0]} cannot be read: {error}") from error


def _measures(column: ir.Column, separator: str) -> dict[str, ir.Scalar]:
    if column.type().is_array():
        return {"longest": column.length().max()}
    if column.type().is_string():
        parts = column.split(separator).length()
        return {
            "distinct": column.approx_nunique(),
            "longest": parts.max(),
            "lists": column.contains(separator).mean(),
            "words": column.split(" ").length().mean(),
        }
    if column.type().is_numeric():
        return {"distinct": column.approx_nunique(), "least": column.min()}
    return {"distinct": column.approx_nunique()}


def _column(type_: Any, name: str, position: int, row: dict[str, Any]) -> _Column:
    def of(what: str, default: float = 0) -> Any:
        value = row.get(f"{what}_{position}")
        return default if value is None else value

    is_list = type_.is_array() or of("lists") >= _LEAST_LIST_SHARE
    return _Column(
        name=name,
        type=type_.value_type if type_.is_array() else type_,
        is_list=is_list,
        distinct=int(of("distinct")),
        longest=int(of("longest", 1)),
        least=float(of("least")) if type_.is_numeric() else 0.0,
        words=float(of("words")),
    )


def _feature(
    column: _Column, label: str, time: str | None, history_length: int, max_vocabulary: int
) -> Feature:
    name = column.name
    if name == label:
        return Feature(name, role="label", kind="number")
    if name == time:
        return Feature(name, role="time", kind="number")
    role = _role(_snake(name), column.is_list)
    if column.is_list and column.type.is_floating():
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
        dtype="int64" if column.type.is_integer() else "string",
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
    if column.type.is_floating() or column.type.is_decimal():
        return True
    if not column.type.is_integer():
        return False
    # Ids are never negative; a count or an amount takes many values.
    name = _snake(column.name)
    is_id = _ID.search(name) or _USER.fullmatch(name) or _ITEM.fullmatch(name)
    return column.least < 0 or (column.distinct > _FEW_VALUES and not is_id)


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
