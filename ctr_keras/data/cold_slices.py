"""Which rows are about users and items that training hardly knows, or not at all."""

import collections
import os
import pathlib
from typing import Any

import numpy as np

from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.columns import stored_padding
from ctr_keras.data.describe import user_feature
from ctr_keras.data.manifest import Manifest
from ctr_keras.data.raw_columns import raw_columns
from ctr_keras.schema import Schema


def exposure_counts(path: str | os.PathLike, feature: str) -> collections.Counter:
    """How many rows each value of a column has.

    Values are counted as they were written, not by their ids: all that a vocabulary lacks would
    be one id, and so would two values of one hash bucket. The shards are streamed: memory holds
    one block, and a count for each distinct value.

    Args:
        path: Folder that `ck.data.write` made.
        feature: Name of an id of one value a row.

    Returns:
        A `collections.Counter` from raw value (strings as bytes) to its number of rows. Rows
        without a value are not counted.

    Raises:
        ValueError: there is no data, a shard is damaged, or `feature` is no such column.

    Example:

    >>> counts = ck.data.exposure_counts("tf_data/movielens/train", "item_id")
    >>> most_shown = counts.most_common(10)
    """
    folder, manifest = _opened(path)
    missing = _missing(manifest.schema, feature)
    found: collections.Counter = collections.Counter()
    for columns in raw_columns(folder, manifest, [feature]):
        values, counts = np.unique(np.asarray(columns[feature]), return_counts=True)
        found.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    found.pop(missing, None)
    return found


def cold_slices(
    train: str | os.PathLike,
    path: str | os.PathLike,
    few: int = 100,
    *,
    user: str | None = None,
    item: str | None = None,
) -> dict[str, np.ndarray]:
    """Which rows of a split are zero-shot and few-shot, by user and by item.

        zero-shot:  count(value) == 0
        few-shot:   0 < count(value) < few          count: rows of the training data

    A row without a user (item) is in no slice of users (items).

    Args:
        train: The training rows, a folder that `ck.data.write` made. They are streamed.
        path: The rows to be told apart, such as those of the test split.
        few: From how many training rows on a user or an item is no longer cold.
        user: Column that tells users apart; by default the first one of role `group`, else the
            user's id.
        item: Column that tells items apart; by default the item's id.

    Returns:
        `user_zero_shot`, `user_few_shot`, `item_zero_shot`, `item_few_shot`: bool `(rows,)` each,
        in the order in which `ck.data.read` yields the rows unshuffled. Without a column for users
        (items) theirs are left out.

    Raises:
        ValueError: `few` is not positive, there is no data, or no column tells users or items
            apart.

    Example:

    >>> slices = ck.data.cold_slices("tf_data/movielens/train", "tf_data/movielens/test")
    >>> {name: int(rows.sum()) for name, rows in slices.items()}
    """
    check_positive_integer("few", few)
    folder, manifest = _opened(path)
    wanted = {
        "user": user or user_feature(manifest.schema),
        "item": item or manifest.schema.key("item"),
    }
    names = {role: name for role, name in wanted.items() if name is not None}
    if not names:
        raise ValueError(
            "No column tells users or items apart: pass `user` or `item`. "
            f"Received: `features={manifest.schema.names}`"
        )
    missing = {role: _missing(manifest.schema, name) for role, name in names.items()}
    counts = {role: exposure_counts(train, name) for role, name in names.items()}
    parts: dict[str, list] = collections.defaultdict(list)
    for columns in raw_columns(folder, manifest, list(dict.fromkeys(names.values()))):
        for role, name in names.items():
            values = np.asarray(columns[name])
            exposures = _count_of_each(values, counts[role], missing[role])
            parts[f"{role}_zero_shot"].append(exposures == 0)
            parts[f"{role}_few_shot"].append((exposures > 0) & (exposures < few))
    return {name: np.concatenate(found) for name, found in parts.items()}


def _count_of_each(column: np.ndarray, counts: collections.Counter, missing: Any) -> np.ndarray:
    """Training rows of each row's value, -1 where it has none."""
    values, places = np.unique(column, return_inverse=True)
    found = [-1 if value == missing else counts[value] for value in values.tolist()]
    return np.array(found, np.int64)[places]


def _opened(path: str | os.PathLike) -> tuple[pathlib.Path, Manifest]:
    manifest = Manifest.load(path)
    manifest.verify(path)
    return pathlib.Path(path), manifest


def _missing(schema: Schema, name: str) -> Any:
    """The raw value of a row without one; refuses a column that names nobody."""
    ids = [f.name for f in schema if f.kind == "id" and not f.is_sequence]
    if name not in ids:
        raise ValueError(
            f"The feature must be an id of one value a row: one of {ids}. "
            f"Received: `feature={name!r}`"
        )
    return stored_padding(schema, name)
