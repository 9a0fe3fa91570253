"""A first schema from the columns of a file, for people to edit."""

import dataclasses
import os
import pathlib
import re

from ctr_keras.datasets import drafts, truth
from ctr_keras.datasets.scan import Scanned, scan
from ctr_keras.datasets.tables import column_names, table_files, unreadable_columns
from ctr_keras.schema import FEATURE_NAME, Feature, Schema, Vocabulary
from ctr_keras.sources import Report, to_stderr

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


def infer_schema(
    path: str | os.PathLike,
    label: str | None = None,
    *,
    time: str | None = None,
    history_length: int = 50,
    max_vocabulary: int = 100_000,
    list_separator: str = "|",
    out: str | os.PathLike | None = None,
    report: Report = to_stderr,
) -> Schema:
    """Guess what the columns of a CSV or Parquet file are.

    Roles come from names (`user_*`, `item_*`, `history_*`, `label`, `click`, `time`; `userId` is
    read as `user_id`). Kinds come from values, but numbers that are called an id, a user, an item
    or a scenario are ids, as are the whole ones of a history; they are read as texts where int64
    would not tell them apart, as hashes below 0 or from 2**63 on. Ids of up to `max_vocabulary`
    distinct values, each on one line, get a vocabulary file, which `prepare` builds from the
    training rows, others are hashed; a history shares the feature that its name names
    (`history_item_id` shares `item_id`); texts are split into hashed words. Memory stays the same
    whatever the size of the file.

    A column that cannot be a feature is left out with a line that says why: one without a name,
    or of structs, or of numbers of which some are missing. Those that only the folders' names of a
    partitioned table hold, as `day=1`, are not read.

    Args:
        path: A CSV with a header, a Parquet file, or a folder of either.
        label: Column of the labels, 0 or 1; by default the one called `label`, `click`,
            `clicked`, `is_click` or `target`.
        time: Column of the times; by default one called `time`, `timestamp` and the like.
        history_length: How many values of a history a row keeps.
        max_vocabulary: Most distinct values for which a vocabulary file is built.
        list_separator: What separates the values of a list in a CSV column.
        out: Where to write the schema as JSON.
        report: Called with lines for the user; by default they go to stderr.

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
    reasons = _unfit(files[0], [name for name in names if name not in (label, time)])
    features = []
    for column in scan(files, [name for name in names if name not in reasons], list_separator):
        feature = _feature(column, label, time, history_length, max_vocabulary)
        reason = _lacking(column, feature)
        if reason is None:
            features.append(feature)
        else:
            reasons[column.name] = reason
    for name, reason in reasons.items():
        report(f"Column {name!r} is left out: {reason}")
    schema = Schema((*_with_shares(features), *_groups(features)))
    if out is not None:
        drafts.save(schema, out)
    return schema


def _named(path, names: list[str], what: str, given: str | None, usual: tuple) -> str | None:
    if given is None:
        return next((name for name in names if name.lower() in usual), None)
    if given not in names:
        raise ValueError(
            f"{path}: there is no such column. Received: `{what}={given!r}`, `columns={names}`"
        )
    return given


def _unfit(file: pathlib.Path, names: list[str]) -> dict[str, str]:
    """Why columns cannot be features, by name, as far as names and types tell."""
    reasons = {
        name: f"values of type {kind} cannot be features"
        for name, kind in unreadable_columns(file).items()
        if name in names
    }
    first: dict[str, str] = {}
    for name in names:
        same = first.setdefault(name.lower(), name)
        if name == truth.PROBABILITY:
            reasons[name] = "it is the simulator's probability of a click, which data does not tell"
        elif not name:
            reasons[name] = "it has no name"
        elif not FEATURE_NAME.match(name):
            reasons[name] = "its name must be letters, digits and underscores, a letter first"
        elif same != name:
            reasons[name] = f"its name and {same!r} differ in case alone"
    return reasons


def _lacking(column: Scanned, feature: Feature) -> str | None:
    """Why a column cannot be the feature that it looks like."""
    if feature.role in ("label", "time"):
        return None
    if feature.kind == "number" and column.missing:
        return f"{column.missing:,} of its numbers are missing: fill them in to use it"
    if feature.kind == "vector" and column.shortest != column.longest:
        return f"its lists hold {column.shortest} to {column.longest} numbers, vectors all as many"
    return None


def _feature(
    column: Scanned, label: str, time: str | None, history_length: int, max_vocabulary: int
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
            if column.distinct <= max_vocabulary and not column.has_lines
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


def _is_number(column: Scanned) -> bool:
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
