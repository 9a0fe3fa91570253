"""Taobao's UserBehavior as click data: histories, a target a user, and sampled negatives."""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from ctr_keras import files
from ctr_keras.columns import Columns, Ragged
from ctr_keras.data.layouts import check_layout
from ctr_keras.data.split import SPLITS, check_fractions
from ctr_keras.data.write import write
from ctr_keras.datasets import drafts, prepared, taobao_raw
from ctr_keras.datasets.prepared import Prepared
from ctr_keras.datasets.taobao_clicks import Choice, read_catalog, sorted_clicks
from ctr_keras.datasets.taobao_raw import BEHAVIOURS
from ctr_keras.datasets.taobao_rows import (
    NEGATIVE_SAMPLINGS,
    SPLIT_RULES,
    Catalog,
    Clicks,
    Rows,
    Rules,
    rows_of_split,
)
from ctr_keras.schema import Feature, Schema, Vocabulary
from ctr_keras.sources import Report, to_stderr

# The days that the public file is of, in its time zone: from 2017-11-25 to 2017-12-03.
PUBLISHED_PERIOD = (1_511_539_200, 1_512_316_800)
HISTORY_LENGTH = 100
MIN_CLICKS = 10
_FORMAT = 1


def prepare(
    out: str | os.PathLike,
    raw: str | os.PathLike,
    *,
    split: str = "last",
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    train_targets: int = 1,
    history_length: int = HISTORY_LENGTH,
    negatives: int = 1,
    negative_sampling: str = "frequency",
    behaviours: Sequence[str] = ("pv",),
    min_clicks: int = MIN_CLICKS,
    period: tuple[int, int] | None = None,
    seed: int = 0,
    layout: str = "block",
    report: Report = to_stderr,
) -> Prepared:
    """Make training data of Taobao's UserBehavior file.

    A line is `user,item,category,behaviour,timestamp`, without a header. Lines with one of
    `behaviours` are clicks; users with fewer than `min_clicks` of them are left out. A user's
    clicks are in the order of time, and of lines where times are equal.

    As CAN and DIEN do it, a target click gives one positive row, and `negatives` rows that differ
    from it in label, item and category. Its history is what the user clicked strictly before the
    target's time, so clicks of the same second are in no history of each other; a click without a
    history is no target. Which clicks are targets is the matter of `split`:

    - `"last"`: a user's last click is a test row, the one before a validation row, and the
      `train_targets` before those are training rows. Users are known from training, and no target
      lies before those of the same user that were learned from; clicks of one second, of which the
      file's order decides, may stand on both sides. Across users there is no such order, as in
      every leave-last split.
    - `"users"`: users are held out. `fractions` of them are of each split; the target is the last
      click, and in training the last `train_targets`. All test users are out of vocabulary.

    A negative is the item of a click drawn from all that were kept (`"frequency"`, as in DIEN's
    code), or any item clicked at all (`"uniform"`); never the positive itself, but it may be
    an item that the user clicked at another time, as there. Clicks of all splits are drawn from:
    were it those of training alone, an item without any would give its label away. An item's
    category is the same in every row: of several in the file the smallest, which is reported.

    Vocabularies hold what training rows hold, histories included, the most frequent first. The
    rows of a split are sorted by user. DuckDB sorts in bounded memory, and what it cannot hold
    goes to the disk beside `out`; otherwise memory grows with the number of distinct users and
    items alone.

    Args:
        out: Folder to make. It keeps its old content until the new is whole.
        raw: The raw file, a `.gz` or `.zip` of it, or the folder of `UserBehavior.csv`.
        split: `"last"` or `"users"`.
        fractions: Shares of the users of each split, for `"users"`.
        train_targets: How many clicks of each user are positive training rows.
        history_length: How many past clicks a row keeps, the newest.
        negatives: Negative rows for each positive one.
        negative_sampling: `"frequency"` or `"uniform"`.
        behaviours: Which of `pv`, `buy`, `cart` and `fav` are clicks.
        min_clicks: Clicks that a user needs.
        period: First and last time (excluded) of what is kept, seconds since 1970. The public file
            has a few lines of other years: `PUBLISHED_PERIOD` leaves them out.
        seed: Of the negatives and the users' splits.
        layout: Of the TFRecords, see `ck.data.write`.
        report: Called with lines for the user; by default they go to stderr.

    Returns:
        `Prepared`: the folder and the numbers of its splits. Users and items are unseen if no
        training row holds them, be it in a history.

    Raises:
        ValueError: an argument or a line (named with its column) is not what it should be, no user
            has enough clicks, or a split would be empty.
        OSError: the disk is full.

    Example:

    >>> taobao.prepare("tf_data/taobao", "UserBehavior.csv", period=taobao.PUBLISHED_PERIOD)
    """
    rules = Rules(
        split=split,
        fractions=tuple(fractions),
        train_targets=train_targets,
        negatives=negatives,
        negative_sampling=negative_sampling,
        history_length=history_length,
        seed=seed,
    )
    choice = Choice(tuple(behaviours), min_clicks, None if period is None else tuple(period))
    _check(rules, choice)
    check_layout(layout)
    path = taobao_raw.find(raw)
    prepared.check_kept(out, raw=path)
    report(f"Using {path}")
    settings = {
        "taobao": _FORMAT,
        "raw": files.sha256(path),
        "rules": dataclasses.asdict(rules),
        "choice": dataclasses.asdict(choice),
        "layout": layout,
    }
    key = prepared.key_of(settings)
    found = prepared.up_to_date(out, key)
    if found is not None:
        report(f"{out} is up to date")
        return found
    with prepared.replacing(out, key, report=report) as staging:
        clicks = sorted_clicks(path, choice, staging / "clicks", report)
        result = _write(clicks, rules, staging, key, layout, report)
        result = dataclasses.replace(result, folder=pathlib.Path(out), origin=str(path))
        shutil.rmtree(clicks.parent)
        prepared.finish(staging, key, result)
    return result


def _check(rules: Rules, choice: Choice) -> None:
    check_fractions(rules.fractions, len(SPLITS))
    for name, allowed in (("split", SPLIT_RULES), ("negative_sampling", NEGATIVE_SAMPLINGS)):
        if getattr(rules, name) not in allowed:
            _fail(name, f"one of {', '.join(allowed)}", getattr(rules, name))
    for name in ("train_targets", "history_length", "negatives"):
        _check_integer(name, getattr(rules, name), 1)
    _check_integer("seed", rules.seed, 0)
    # A target and a click before it; with "last" one of each split.
    _check_integer("min_clicks", choice.min_clicks, 4 if rules.split == "last" else 2)
    unknown = [name for name in choice.behaviours if name not in BEHAVIOURS]
    if unknown or not choice.behaviours:
        _fail("behaviours", f"some of {', '.join(BEHAVIOURS)}", choice.behaviours)
    if choice.period is not None and not (
        len(choice.period) == 2 and choice.period[0] < choice.period[1]
    ):
        _fail("period", "a first time and a later one", choice.period)


def _check_integer(name: str, value, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        _fail(name, f"an integer of at least {least}", value)


def _fail(name: str, expected: str, value) -> None:
    raise ValueError(f"`{name}` must be {expected}. Received: `{name}={value!r}`")


def draft_schema(history_length: int = HISTORY_LENGTH) -> Schema:
    """The features of a row; `prepare` builds the vocabularies."""

    def past(name: str) -> Feature:
        return Feature(f"history_{name}", role="history", length=history_length, shares=name)

    return Schema(
        (
            Feature("user_id", role="user", vocabulary=drafts.unbuilt("user_id")),
            Feature("item_id", role="item", vocabulary=drafts.unbuilt("item_id")),
            Feature("category_id", role="item", vocabulary=drafts.unbuilt("category_id")),
            past("item_id"),
            past("category_id"),
            Feature("group_user_id", role="group"),
            Feature("time", role="time", kind="number"),
            Feature("label", role="label", kind="number"),
        )
    )


def _write(
    clicks: pathlib.Path,
    rules: Rules,
    staging: pathlib.Path,
    key: str,
    layout: str,
    report: Report,
) -> Prepared:
    """Vocabularies, splits and entity tables from the sorted clicks."""
    catalog = read_catalog(clicks.parent)
    seen = _Seen.of(clicks, catalog, rules)
    schema = seen.schema(staging / "vocabularies", rules.history_length).save(staging)
    for index, name in enumerate(SPLITS):
        if not prepared.is_written(staging, name, key):
            rows = rows_of_split(clicks, catalog, rules, index)
            chunks = (_columns(catalog, chunk) for chunk in rows)
            write(staging / name, schema, chunks, layout=layout, metadata={"key": key})
        report(f"{name}: {seen.rows[index]:,} rows")
    _write_items(catalog, staging / prepared.ITEMS_FILE)
    _write_users(clicks, catalog, rules.history_length, staging / prepared.USERS_FILE)
    return seen.summary(staging, rules.negatives)


def _columns(catalog: Catalog, rows: Rows) -> Columns:
    return {
        "user_id": rows.user,
        "item_id": catalog.item_id[rows.item],
        "category_id": catalog.category_id[rows.item],
        **_history_columns(catalog, rows.history),
        "group_user_id": rows.user,
        "time": rows.time,
        "label": rows.label.astype(np.float32),
    }


def _history_columns(catalog: Catalog, history: Ragged) -> dict[str, Ragged]:
    return {
        "history_item_id": Ragged(catalog.item_id[history.values], history.lengths),
        "history_category_id": Ragged(catalog.category_id[history.values], history.lengths),
    }


@dataclasses.dataclass(frozen=True)
class _Seen:
    """What the rows hold.

    Attributes:
        catalog: The items.
        users: The users of training rows, ascending, and `user_rows`, how many rows each has.
        user_rows: See `users`.
        item_counts: How often training rows hold each item of the catalog, histories included.
        rows: Rows of each split.
        unseen: Rows of each split whose user, and whose item, no training row holds.
    """

    catalog: Catalog
    users: np.ndarray
    user_rows: np.ndarray
    item_counts: np.ndarray
    rows: list[int]
    unseen: list[tuple[int, int]]

    @classmethod
    def of(cls, clicks: pathlib.Path, catalog: Catalog, rules: Rules) -> "_Seen":
        users, user_rows = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        item_counts = np.zeros(len(catalog), np.int64)
        rows, unseen = [0] * len(SPLITS), [(0, 0)] * len(SPLITS)
        for chunk in rows_of_split(clicks, catalog, rules, 0):
            rows[0] += len(chunk.user)
            found, counts = np.unique(chunk.user, return_counts=True)
            users.append(found)
            user_rows.append(counts)
            for items in (chunk.item, chunk.history.values):
                item_counts += np.bincount(items, minlength=len(catalog))
        # A user's targets may lie in two chunks.
        known, of_known = np.unique(np.concatenate(users), return_inverse=True)
        known_rows = np.bincount(of_known, np.concatenate(user_rows)).astype(np.int64)
        for index in range(1, len(SPLITS)):
            for chunk in rows_of_split(clicks, catalog, rules, index):
                rows[index] += len(chunk.user)
                new_users = int((~np.isin(chunk.user, known)).sum())
                new_items = int((item_counts[chunk.item] == 0).sum())
                unseen[index] = unseen[index][0] + new_users, unseen[index][1] + new_items
        for name, count in zip(SPLITS, rows, strict=True):
            if not count:
                raise ValueError(
                    f"The {name} split would be empty: no user has a click after an earlier one "
                    f"for it. Received: `rows={dict(zip(SPLITS, rows, strict=True))}`"
                )
        return cls(catalog, known, known_rows, item_counts, rows, unseen)

    def schema(self, folder: pathlib.Path, history_length: int) -> Schema:
        """The features with their vocabularies, the most frequent first."""
        categories, of_category = np.unique(self.catalog.category_id, return_inverse=True)
        counts = {
            "user_id": (self.users, self.user_rows),
            "item_id": (self.catalog.item_id, self.item_counts),
            "category_id": (categories, np.bincount(of_category, self.item_counts)),
        }
        vocabularies = {}
        for name, (values, count) in counts.items():
            order = np.argsort(-count, kind="stable")
            known = values[order[count[order] > 0]]
            vocabularies[name] = Vocabulary.write(folder / f"{name}.txt", known)
        return drafts.with_vocabularies(draft_schema(history_length), vocabularies)

    def summary(self, folder: pathlib.Path, negatives: int) -> Prepared:
        shares = [
            (users / rows, items / rows)
            for rows, (users, items) in zip(self.rows, self.unseen, strict=True)
        ]
        return Prepared(
            folder=folder,
            origin="",
            rows=dict(zip(SPLITS, self.rows, strict=True)),
            click_rate=dict.fromkeys(SPLITS, 1 / (1 + negatives)),
            unseen_users={name: share[0] for name, share in zip(SPLITS, shares, strict=True)},
            unseen_items={name: share[1] for name, share in zip(SPLITS, shares, strict=True)},
        )


def _write_items(catalog: Catalog, target: pathlib.Path) -> None:
    table = pa.table({"item_id": catalog.item_id, "category_id": catalog.category_id})
    pyarrow.parquet.write_table(table, target)


def _write_users(
    clicks: pathlib.Path, catalog: Catalog, history_length: int, target: pathlib.Path
) -> None:
    """Every user with the newest clicks as of the end of the data."""
    ids = pa.list_(pa.int64())
    schema = pa.schema({"user_id": pa.int64(), "history_item_id": ids, "history_category_id": ids})
    with pyarrow.parquet.ParquetWriter(target, schema) as writer:
        for user, history in _last_histories(clicks, history_length):
            columns = [pa.array(user)]
            for column in _history_columns(catalog, history).values():
                offsets = pa.array(column.offsets, pa.int32())
                columns.append(pa.ListArray.from_arrays(offsets, pa.array(column.values)))
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _last_histories(path: pathlib.Path, history_length: int) -> Iterator[tuple[np.ndarray, Ragged]]:
    for clicks in Clicks.read(path):
        start = np.unique(clicks.first_of_user())
        stop = np.append(start[1:], len(clicks))
        yield clicks.user[start], clicks.history(start, stop, history_length)
