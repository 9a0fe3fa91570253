"""Clicks from checked lines: filtered, counted and sorted by DuckDB in bounded memory."""

import dataclasses
import pathlib

import ibis
import ibis.expr.types as ir
import pyarrow.parquet

from ctr_keras import files
from ctr_keras.datasets import staged, taobao_raw
from ctr_keras.datasets.taobao_raw import BEHAVIOURS, LINE
from ctr_keras.datasets.taobao_rows import Catalog
from ctr_keras.sources import Report

ITEMS_FILE = "items.parquet"


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which lines of the raw file are clicks, and whose are kept.

    Args:
        behaviours: The behaviours that are clicks.
        min_clicks: Clicks that a user needs.
        period: First and last time (excluded) of what is kept; `None` for all.
    """

    behaviours: tuple[str, ...]
    min_clicks: int
    period: tuple[int, ...] | None


def sorted_clicks(
    path: pathlib.Path, choice: Choice, folder: pathlib.Path, report: Report
) -> pathlib.Path:
    """The kept clicks, in the order of users, times and lines, as a Parquet file.

    A call that was interrupted goes on with what it had.

    Args:
        path: The raw file.
        choice: What to keep.
        folder: Folder for it. `ITEMS_FILE` in it tells the items.
        report: Called with lines for the user.

    Returns:
        Path of the file, as `Clicks.read` takes it; items are positions in `ITEMS_FILE`.
    """
    folder.mkdir(exist_ok=True)
    raw, items, clicks = (folder / name for name in ("raw.parquet", ITEMS_FILE, "sorted.parquet"))
    if clicks.exists():
        return clicks
    if not raw.exists():
        rows = taobao_raw.copy_checked(path, raw, report, choice.period is not None)
        report(f"checked {rows:,} lines")
    with staged.connected(folder) as connection:
        kept = _kept(connection.read_parquet(str(raw)), choice)
        _replace_parquet(_items(kept), items)
        _check_items(connection.read_parquet(str(items)), path, choice, report)
        numbered = connection.read_parquet(str(items)).select("item", "position")
        joined = kept.join(numbered, "item")
        found = joined.select("user", LINE, item="position", time="timestamp")
        _replace_parquet(found.order_by("user", "time", LINE), clicks)
    raw.unlink()
    report(f"sorted the clicks by user and time: {_rows_in(clicks):,} are kept")
    return clicks


def read_catalog(folder: pathlib.Path) -> Catalog:
    """The items of the clicks in a folder of `sorted_clicks`."""
    table = pyarrow.parquet.read_table(folder / ITEMS_FILE)
    return Catalog(*(table[name].to_numpy() for name in ("item", "category", "clicks")))


def _kept(lines: ir.Table, choice: Choice) -> ir.Table:
    """The clicks of users who have enough of them."""
    codes = [BEHAVIOURS.index(name) for name in choice.behaviours]
    clicks = lines.filter(lines["behaviour"].isin(codes))
    if choice.period is not None:
        time = clicks["timestamp"]
        clicks = clicks.filter((time >= choice.period[0]) & (time < choice.period[1]))
    counts = clicks.group_by("user").agg(clicks=ibis._.count())
    return clicks.semi_join(counts.filter(counts["clicks"] >= choice.min_clicks), "user")


def _items(clicks: ir.Table) -> ir.Table:
    """The items with their categories and frequencies, numbered in the order of their ids."""
    category = clicks["category"]
    items = clicks.group_by("item").agg(
        category=category.min(), other_category=category.max(), clicks=ibis._.count()
    )
    position = ibis.row_number().over(ibis.window(order_by="item"))
    return items.mutate(position=position.cast("int32")).order_by("item")


def _check_items(items: ir.Table, path: pathlib.Path, choice: Choice, report: Report) -> None:
    several = (items["category"] != items["other_category"]).sum()
    found = items.aggregate(items=items.count(), several=several).to_pyarrow().to_pylist()[0]
    if not found["items"]:
        raise ValueError(
            f"{path}: no user has so many clicks ({', '.join(choice.behaviours)}). Received: "
            f"`min_clicks={choice.min_clicks}`, `period={choice.period}`"
        )
    if found["items"] == 1:
        raise ValueError(f"{path}: all clicks are of one item, so there is no other to sample")
    if found["several"]:
        report(f"{found['several']:,} items have several categories; the smallest is used")


def _replace_parquet(table: ir.Table, target: pathlib.Path) -> None:
    temporary = target.with_suffix(".tmp")
    table.to_parquet(temporary)
    files.replace(temporary, target)


def _rows_in(path: pathlib.Path) -> int:
    return pyarrow.parquet.read_metadata(path).num_rows
