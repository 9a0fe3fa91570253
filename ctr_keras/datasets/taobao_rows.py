"""From each user's clicks in the order of time to rows: targets, histories and drawn negatives."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow.parquet

from ctr_keras.columns import Ragged
from ctr_keras.data.split import SPLITS

SPLIT_RULES = ("last", "users")
NEGATIVE_SAMPLINGS = ("frequency", "uniform")
CLICK_COLUMNS = ("user", "item", "time")
_BATCH_CLICKS = 1 << 18
_TARGETS_A_CHUNK = 8192
_SPLIT_STREAM, _NEGATIVE_STREAM = 0, 1


@dataclasses.dataclass(frozen=True)
class Rules:
    """Which clicks become rows of which split, and how.

    Args:
        split: `"last"` or `"users"`.
        fractions: Shares of the users of each split, for `"users"`.
        train_targets: How many of a user's clicks are positive training rows, the latest.
        negatives: Rows with a drawn item for each row with a clicked one.
        negative_sampling: `"frequency"` or `"uniform"`.
        history_length: How many past clicks a row keeps, the newest.
        seed: Of the users' splits and the negatives.
    """

    split: str
    fractions: tuple[float, ...]
    train_targets: int
    negatives: int
    negative_sampling: str
    history_length: int
    seed: int


@dataclasses.dataclass(frozen=True)
class Clicks:
    """Clicks of whole users, sorted by user and time: arrays `(clicks,)`.

    Attributes:
        user: Raw ids.
        item: Positions in the table of items.
        time: Seconds since 1970.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray

    @classmethod
    def read(cls, path: pathlib.Path) -> Iterator["Clicks"]:
        """Read a sorted Parquet file, never splitting a user: one user's clicks fit in memory.

        Args:
            path: It has `CLICK_COLUMNS`.
        """
        rest = None
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_CLICKS, columns=list(CLICK_COLUMNS)):
                columns = [batch[name].to_numpy() for name in CLICK_COLUMNS]
                if rest is not None:
                    columns = [np.concatenate(pair) for pair in zip(rest, columns, strict=True)]
                last_user = int(np.searchsorted(columns[0], columns[0][-1]))
                if last_user:
                    yield cls(*(column[:last_user] for column in columns))
                rest = [column[last_user:] for column in columns]
        if rest is not None:
            yield cls(*rest)

    def __len__(self) -> int:
        return len(self.user)

    def first_of_user(self) -> np.ndarray:
        """For each click, the position of its user's first."""
        return _starts(self.user[1:] != self.user[:-1])

    def first_of_time(self) -> np.ndarray:
        """For each click, the position of its user's first at the same time."""
        return _starts((self.user[1:] != self.user[:-1]) | (self.time[1:] != self.time[:-1]))

    def history(self, start: np.ndarray, stop: np.ndarray, length: int) -> Ragged:
        """The items clicked from `start` to `stop` (excluded), the newest `length` of them."""
        start = np.maximum(start, stop - length)
        lengths = stop - start
        first = np.cumsum(lengths) - lengths
        position = np.arange(lengths.sum()) + np.repeat(start - first, lengths)
        return Ragged(self.item[position], lengths.astype(np.int32))


@dataclasses.dataclass(frozen=True)
class Catalog:
    """The items that were clicked, in ascending order of their ids.

    Attributes:
        item_id: Raw ids.
        category_id: Each item's category.
        clicks: How often each item was clicked.
    """

    item_id: np.ndarray
    category_id: np.ndarray
    clicks: np.ndarray

    def __len__(self) -> int:
        return len(self.item_id)


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows: arrays `(rows,)`, items as positions in the catalog.

    Attributes:
        user: Raw ids.
        item: The target.
        time: When the row's positive was clicked.
        label: Whether `item` is what was clicked.
        history: The items clicked before, oldest first.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    label: np.ndarray
    history: Ragged


class NegativeSampler:
    """Draws items other than a given one.

    With `weight` the number of an item's clicks (`"frequency"`) or 1 (`"uniform"`), item `j` is
    drawn for the positive `i` with probability `weight_j / (sum of weights - weight_i)`, `j != i`.

    Args:
        catalog: The items; there must be two or more.
        sampling: `"frequency"` or `"uniform"`.
        seed: The draws follow each other in one stream.
    """

    def __init__(self, catalog: Catalog, sampling: str, seed: Sequence[int]):
        is_uniform = sampling == "uniform"
        self._weight = np.ones(len(catalog), np.int64) if is_uniform else catalog.clicks
        self._end = np.cumsum(self._weight)
        self._random = np.random.default_rng(list(seed))

    def draw(self, positive: np.ndarray) -> np.ndarray:
        """For each of the items, another."""
        # All weights lie in a row; the positive's own are skipped.
        own = self._weight[positive]
        place = (self._random.random(len(positive)) * (self._end[-1] - own)).astype(np.int64)
        place += np.where(place >= self._end[positive] - own, own, 0)
        return np.searchsorted(self._end, place, side="right")


def rows_of_split(path: pathlib.Path, catalog: Catalog, rules: Rules, split: int) -> Iterator[Rows]:
    """The rows of a split, in the order of users and time, each positive before its negatives.

    Args:
        path: The sorted clicks, see `Clicks.read`.
        catalog: The items.
        rules: How rows come about.
        split: Number of the split.
    """
    sampler = NegativeSampler(
        catalog, rules.negative_sampling, (rules.seed, _NEGATIVE_STREAM, split)
    )
    users = np.random.default_rng([rules.seed, _SPLIT_STREAM])
    for clicks in Clicks.read(path):
        start, stop = clicks.first_of_user(), clicks.first_of_time()
        chosen = _is_target(clicks, start, rules, split, users) & (stop > start)
        targets = np.flatnonzero(chosen)
        for first in range(0, len(targets), _TARGETS_A_CHUNK):
            target = np.repeat(targets[first : first + _TARGETS_A_CHUNK], 1 + rules.negatives)
            label = np.arange(len(target)) % (1 + rules.negatives) == 0
            item = clicks.item[target].astype(np.int64)
            item[~label] = sampler.draw(item[~label])
            yield Rows(
                user=clicks.user[target],
                item=item,
                time=clicks.time[target],
                label=label,
                history=clicks.history(start[target], stop[target], rules.history_length),
            )


def _is_target(
    clicks: Clicks, start: np.ndarray, rules: Rules, split: int, random: np.random.Generator
) -> np.ndarray:
    """Whether each click is a positive of the split, as far as it has a history."""
    is_first = start == np.arange(len(clicks))
    user = np.cumsum(is_first) - 1
    last = np.append(np.flatnonzero(is_first)[1:], len(clicks)) - 1
    from_end = last[user] - np.arange(len(clicks))
    if rules.split == "last":
        held_out = len(SPLITS) - 1
        if split:
            return from_end == held_out - split
        return (from_end >= held_out) & (from_end < held_out + rules.train_targets)
    # One draw a user, in the order of users.
    ends = np.cumsum(rules.fractions)[:-1]
    of_user = np.searchsorted(ends, random.random(len(last)), side="right")
    targets = 1 if split else rules.train_targets
    return (of_user[user] == split) & (from_end < targets)


def _starts(changes: np.ndarray) -> np.ndarray:
    """For each element, where its run began; `changes` tells whether the next is another run."""
    position = np.arange(len(changes) + 1)
    position[1:][~changes] = 0
    return np.maximum.accumulate(position)
