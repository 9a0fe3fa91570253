"""What people searched for and how well products fit, as pairs to learn representations from."""

import contextlib
import os
import pathlib
import zipfile
from collections.abc import Iterator

import numpy as np
import pandas as pd
import tensorflow as tf

from ctr_keras import files
from ctr_keras.data.manifest import Manifest
from ctr_keras.data.picture_files import open_pictures
from ctr_keras.data.split import SPLITS
from ctr_keras.data.write import write
from ctr_keras.datasets import prepared
from ctr_keras.encoding import group_key
from ctr_keras.json_values import digest
from ctr_keras.schema import Feature, Schema
from ctr_keras.sources import Report, to_stderr

_FORMAT = 3
# What one reads of a row: `ck.pretraining.read_pairs` makes batches of it.
SCHEMA = Schema(
    (
        Feature("query", role="user", kind="text", as_string=True),
        Feature("item", role="item", kind="text", as_string=True),
        Feature("negative", role="item", kind="text", as_string=True),
        Feature("item_id", role="group"),
        Feature("label", role="label", kind="number"),
    )
)
# The same of pictures, whose paths take the place of texts, and what is said of the item.
TITLED_SCHEMA = Schema(
    (*SCHEMA.features, Feature("title", role="item", kind="text", as_string=True))
)


def prepare(
    out: str | os.PathLike,
    raw: str | os.PathLike,
    *,
    query: str = "search_term",
    item: str = "product_title",
    item_id: str = "product_uid",
    relevance: str = "relevance",
    positive_from: float = 2.67,
    negative_up_to: float = 1.67,
    held_out: float = 0.1,
    seed: int = 0,
    report: Report = to_stderr,
) -> dict[str, int]:
    """Make pairs of a CSV with a query, an item and how relevant it is; defaults: Home Depot's.

    A row whose relevance is at least `positive_from` is a pair. Its hard negative is an item of the
    same query of at most `negative_up_to`, if there is one that is not also in a pair of the query
    by its id or its text; several take turns. All pairs of a query are in one split, so that
    held-out queries are new.

    Args:
        out: Folder to make: `schema.json`, `train/`, `valid/` and `test/`.
        raw: A CSV, or a zip with one, in UTF-8 or Latin-1.
        query: Column with what was searched for.
        item: Column with the item's text.
        item_id: Column that tells items apart, integers.
        relevance: Column with a number.
        positive_from: Least relevance of a pair.
        negative_up_to: Highest relevance of a hard negative.
        held_out: Share of the queries that are validated on, and as many to test on.
        seed: Of which queries are held out.
        report: Called with lines for the user.

    Returns:
        Pairs of each split.

    Raises:
        ValueError: an argument is out of range, a column is missing, a value is none (its row is
            named), a split would be empty, or `raw` lies where `out` would replace it.
    """
    if not negative_up_to < positive_from:
        raise ValueError(
            "`negative_up_to` must be below `positive_from`. Received: "
            f"`negative_up_to={negative_up_to}`, `positive_from={positive_from}`"
        )
    if not 0 < held_out < 0.5:
        raise ValueError(f"`held_out` must be in (0, 0.5). Received: `held_out={held_out}`")
    prepared.check_kept(out, raw=raw)
    names = {"query": query, "item": item, "item_id": item_id, "relevance": relevance}
    settings = {
        "format": _FORMAT, "raw": files.sha256(raw), **names, "positive_from": positive_from,
        "negative_up_to": negative_up_to, "held_out": held_out, "seed": seed,
    }  # fmt: skip
    key = prepared.key_of(settings)
    found = up_to_date(out, key)
    if found is not None:
        report(f"{out} is up to date")
        return found
    rows = _read(pathlib.Path(raw), names)
    pairs = _pairs(rows, positive_from, negative_up_to)
    split = split_by_query(pairs["query"], held_out, seed)
    counts = {}
    with prepared.replacing(out, key, report=report) as staging:
        schema = SCHEMA.save(staging)
        for name, part in split_parts(pairs, split, held_out):
            write(staging / name, schema, part, metadata=metadata_of(key))
            counts[name] = len(part)
            hard = int((part["negative"] != "").sum())
            report(f"{name}: {len(part):,} pairs, {hard:,} of them with a hard negative")
    return counts


def _read(path: pathlib.Path, names: dict[str, str]) -> pd.DataFrame:
    """The four columns by their roles, checked."""
    try:
        rows = _csv(path, "utf-8")
    except UnicodeDecodeError:
        rows = _csv(path, "latin-1")
    missing = [name for name in names.values() if name not in rows]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]!r}. Received: `columns={list(rows)}`")
    rows = rows[list(names.values())].set_axis(list(names), axis=1)
    relevances = pd.to_numeric(rows["relevance"], errors="coerce")
    _refuse(path, names["relevance"], rows["relevance"], ~np.isfinite(relevances), "a number")
    ids = _integers(path, names["item_id"], rows["item_id"])
    for role in ("query", "item"):
        rows[role] = rows[role].str.strip()
        _refuse(path, names[role], rows[role], rows[role] == "", "a text")
    return rows.assign(item_id=ids, relevance=relevances.astype(float))


def _integers(path: pathlib.Path, column: str, texts: pd.Series) -> pd.Series:
    # Pandas writes 7 as 7.0 where another id is missing.
    digits = texts.str.strip().str.replace(r"\.0+$", "", regex=True)
    _refuse(path, column, texts, ~digits.str.fullmatch(r"[+-]?\d+"), "an integer")
    numbers = pd.to_numeric(digits)
    _refuse(path, column, texts, ~(numbers.abs() < 2**63), "an integer of 64 bits")
    return numbers.astype(np.int64)


def _csv(path: pathlib.Path, encoding: str) -> pd.DataFrame:
    """All columns as texts: `null`, `NA` and `007` are queries too."""
    if not zipfile.is_zipfile(path):
        return pd.read_csv(path, encoding=encoding, dtype=str, keep_default_na=False)
    try:
        return _packed_csv(path, encoding)
    except files.DAMAGED as error:
        raise ValueError(f"{path} is damaged ({error}): fetch it again") from error


def _packed_csv(path: pathlib.Path, encoding: str) -> pd.DataFrame:
    with zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if name.endswith(".csv")]
        if len(members) != 1:
            raise ValueError(f"{path} must hold one CSV. Received: {members}")
        with archive.open(members[0]) as file:
            return pd.read_csv(file, encoding=encoding, dtype=str, keep_default_na=False)


def _refuse(path: pathlib.Path, column: str, values: pd.Series, bad: pd.Series, expected: str):
    if bad.any():
        row = int(np.argmax(bad.to_numpy()))
        raise ValueError(
            f"{path}, row {row + 1}, column {column!r}: expected {expected}. "
            f"Received: `value={values.iloc[row]!r}`"
        )


def _pairs(rows: pd.DataFrame, positive_from: float, negative_up_to: float) -> pd.DataFrame:
    """The pairs with their hard negatives, `""` where there is none."""
    pairs = rows[rows["relevance"] >= positive_from].drop(columns="relevance")
    pairs = pairs.reset_index(drop=True)
    low = rows[rows["relevance"] <= negative_up_to]
    # The same item may have been judged twice, and two products may have one text.
    for same in ("item_id", "item"):
        right, judged = (pd.MultiIndex.from_frame(part[["query", same]]) for part in (pairs, low))
        low = low[~judged.isin(right)]
    of_query = low.groupby("query")["item"].agg(list)
    turn = pairs.groupby("query").cumcount()
    found = pairs["query"].map(of_query)
    negatives = [
        items[n % len(items)] if isinstance(items, list) else ""
        for items, n in zip(found, turn, strict=True)
    ]
    return pairs.assign(negative=negatives, label=1.0)


def split_by_query(queries: pd.Series, held_out: float, seed: int) -> np.ndarray:
    """The number of each pair's split, by a hash of its query."""
    number = group_key(tf.constant([f"{seed}:{query}" for query in queries])).numpy()
    share = (number % 10_000) / 10_000
    return np.select([share < held_out, share < 2 * held_out], [2, 1], 0)


def split_parts(
    pairs: pd.DataFrame, split: np.ndarray, held_out: float
) -> Iterator[tuple[str, pd.DataFrame]]:
    """The pairs of each split by its name, or a `ValueError` if one has none."""
    for number, name in enumerate(SPLITS):
        part = pairs[split == number]
        if not len(part):
            raise ValueError(
                f"The {name} split would be empty. Received: `held_out={held_out}` of "
                f"{len(pairs)} pairs"
            )
        yield name, part


def metadata_of(key: str, pictures: pathlib.Path | None = None) -> dict[str, str]:
    """What manifests of pairs keep for `up_to_date`.

    Args:
        key: What decides the content of the prepared folder.
        pictures: Folder of the pictures that belong to the pairs, all of them in place.
    """
    if pictures is None:
        return {"key": key}
    with open_pictures(pictures) as found:
        content = {name: found.sha256(name) for name in found.order}
    return {"key": key, "pictures": digest(content)}


def up_to_date(
    out: str | os.PathLike, key: str, pictures: str | None = None
) -> dict[str, int] | None:
    """Pairs of each split, if `out` was prepared with the same key and is whole.

    Args:
        out: A folder that may hold pairs.
        key: As of `metadata_of`.
        pictures: Name of the folder of pictures in `out`, where the pairs have some.
    """
    folder = pathlib.Path(out)
    with contextlib.suppress(OSError, ValueError):
        if not all(prepared.is_written(folder, name, key) for name in SPLITS):
            return None
        expected = metadata_of(key, folder / pictures if pictures else None)
        fingerprint = Schema.load(folder).fingerprint
        manifests = {name: Manifest.load(folder / name) for name in SPLITS}
        if all(
            manifest.metadata == expected and manifest.schema.fingerprint == fingerprint
            for manifest in manifests.values()
        ):
            return {name: manifest.rows for name, manifest in manifests.items()}
    return None
