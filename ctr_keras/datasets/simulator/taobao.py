"""The world as Taobao's public UserBehavior file tells of it."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from ctr_keras import files
from ctr_keras.datasets.simulator import clock
from ctr_keras.datasets.simulator.world import (
    VIEW_STREAM,
    Journey,
    World,
    WorldConfig,
    by_user,
)
from ctr_keras.sources import Report, to_stderr

DAYS = 9
BEHAVIOURS = ("pv", "cart", "fav", "buy")
# What follows a click about as often as in the public file.
_FOLLOW_UPS = (0.062, 0.032, 0.022)
_FOLLOW_UP_SECONDS = 120.0
_STREAM = 0
_CHUNKS_A_REPORT = 16


@dataclasses.dataclass(frozen=True)
class Written:
    """What `write` made.

    Attributes:
        path: The file.
        rows: Its lines.
        clicks: Those with the behaviour `pv`.
    """

    path: pathlib.Path
    rows: int
    clicks: int

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "path": str(self.path)}

    def to_text(self) -> str:
        return f"{self.path}: {self.rows:,} rows, {self.clicks:,} of them clicks"


def write(
    path: str | os.PathLike,
    world: WorldConfig | None = None,
    *,
    mean_clicks: float = 100.0,
    report: Report = to_stderr,
) -> Written:
    """Write a file of the format of Taobao's UserBehavior.

    A line is `user,item,category,behaviour,timestamp`, without a header, the lines of a user
    together and in the order of time, nine days from 2017-11-25. A user clicks (`pv`) at least
    once; each click is one of eight items that the user sees (of the category at hand, one in ten
    of all), chosen by the softmax of their scores, see `simulator.world`. An item clicked goes to
    the cart, to the favourites or is bought with fixed probabilities of 6.2, 3.2 and 2.2 %,
    some minutes later. Users are simulated some thousand at a time, so memory does not grow with
    their number.

    Args:
        path: The file to write. It appears whole or not at all.
        world: Sizes and seed.
        mean_clicks: Mean number of clicks a user.
        report: Called with lines for the user; by default they go to stderr.

    Example:

    >>> simulator.taobao.write("clicks.csv", simulator.WorldConfig(users=1000, seed=7))
    """
    if not mean_clicks >= 1:
        raise ValueError(
            f"`mean_clicks` must be at least 1. Received: `mean_clicks={mean_clicks!r}`"
        )
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    built = World(world or WorldConfig())
    rows = clicks = 0
    try:
        with pyarrow.csv.CSVWriter(temporary, _SCHEMA, write_options=_OPTIONS) as writer:
            for number, users in enumerate(built.chunks(), 1):
                table = _lines(built, users, mean_clicks)
                writer.write_table(table)
                rows += len(table)
                clicks += int((table["behaviour"].to_numpy() == BEHAVIOURS[0]).sum())
                if number % _CHUNKS_A_REPORT == 0:
                    report(f"{path}: {int(users[-1]):,} users, {rows:,} rows")
        files.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return Written(path, rows, clicks)


_SCHEMA = pa.schema(
    {
        "user": pa.int64(),
        "item": pa.int64(),
        "category": pa.int64(),
        "behaviour": pa.string(),
        "time": pa.int64(),
    }
)
_OPTIONS = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")


def _lines(world: World, users: np.ndarray, mean_clicks: float) -> pa.Table:
    """The lines of a chunk of users."""
    random = np.random.default_rng([world.config.seed, VIEW_STREAM, _STREAM, int(users[0])])
    lengths = clock.counts(mean_clicks, len(users), random)
    items, breaks = Journey(world, users, random).walk(lengths)
    times = clock.times(breaks, lengths, clock.BEGIN, DAYS * clock.DAY, random)
    made = np.arange(len(items))[:, None] < lengths
    user, item, time = by_user(made, items, times)
    events = _events(user, item, time, random)
    user, item, behaviour, time = map(np.concatenate, zip(*events, strict=True))
    order = np.lexsort((time, user))
    item = item[order]
    values = (
        users[user[order]],
        world.item_id[item],
        world.category_id[world.item_category[item]],
        np.array(BEHAVIOURS, object)[behaviour[order]],
        time[order],
    )
    return pa.table([pa.array(column) for column in values], schema=_SCHEMA)


def _events(
    user: np.ndarray, item: np.ndarray, time: np.ndarray, random: np.random.Generator
) -> Iterator[tuple[np.ndarray, ...]]:
    """User, item, number of the behaviour and time of the clicks, and of what follows them."""
    yield user, item, np.zeros(len(user), np.int64), time
    end = clock.BEGIN + DAYS * clock.DAY - 1
    for behaviour, share in enumerate(_FOLLOW_UPS, 1):
        chosen = np.flatnonzero(random.random(len(user)) < share)
        delay = random.standard_exponential(len(chosen)) * _FOLLOW_UP_SECONDS
        later = np.minimum(time[chosen] + 1 + delay.astype(np.int64), end)
        yield user[chosen], item[chosen], np.full(len(chosen), behaviour), later
