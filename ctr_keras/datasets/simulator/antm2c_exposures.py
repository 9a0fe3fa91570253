"""Who is shown what in the AntM2C view, where and when: long tails, scenarios, newcomers."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ctr_keras.datasets.simulator import clock
from ctr_keras.datasets.simulator.world import World

SCENES = ("A", "B", "C", "D", "E")
# 2023-07-09.
BEGIN = 1_688_860_800
# The head of the long tail is flat: so many ranks have like chances.
_FLAT_RANKS = 10
# Ranks from here on are summed in bins, so many in all.
_EXACT_RANKS, _BINS = 200, 4000
# Of a scenario in a small log.
_LEAST_ITEMS = 50
_STEPS = 60


@dataclasses.dataclass(frozen=True)
class AntM2CConfig:
    """What the AntM2C view is calibrated to.

    Published (arXiv 2308.16437) are the click rates, that 80 % of the items have fewer than five
    exposures (Figure 2), and that a billion rows are of 200 million users and 6 million items. So
    a user has 5 rows in the mean; and the exponent of the items' long tail is the one with which
    80 % of 6 million items have fewer than five of a billion exposures. For fewer rows the
    catalogs shrink so that it stays 80 %, in each scenario.

    The paper's other tables could not be read when this was written: exposure shares, user
    overlaps (Table 2), coverage (Table 3), numbers of cold users and items (Table 6), the form of
    the users' long tail and the days are plain values, set before any model saw the rows. Whoever
    has the tables can give theirs.

    Args:
        rows: How many rows.
        seed: Of everything random.
        click_rates: Mean click probability of each scenario, `SCENES`.
        exposure_shares: Share of each scenario in the rows; C, D and E are the sparse ones.
        few_share: Share of the items shown at all that have fewer than `few` exposures.
        few: See `few_share`.
        tail_exponent: Of the items' chances by popularity rank.
        rows_per_user: Mean rows of a user.
        most_rows: Most rows of a user.
        scene_spread: How evenly a user's rows spread over scenarios: users' shares are drawn from
            a Dirichlet distribution of this concentration, so few users are shared where it is
            near 0, and nearly all who have enough rows where it is great.
        new_users: Share of the users whose rows are all of the last day.
        new_items: Share of the items that are shown on the last day alone.
        days: How many days there are.
        feature_coverage: Share of the users that have `features_0` ... `features_26`.
        query_coverage: Share of the users that have queries.
        entity_coverage: Share of the rows that have names of entities.
        title_coverage: Share of the items that have a title.
    """

    rows: int = 1_000_000
    seed: int = 0
    click_rates: tuple[float, ...] = (0.0369, 0.4788, 0.0566, 0.3644, 0.1075)
    exposure_shares: tuple[float, ...] = (0.4, 0.4, 0.1, 0.05, 0.05)
    few_share: float = 0.8
    few: int = 5
    tail_exponent: float = 1.434
    rows_per_user: float = 5.0
    most_rows: int = 1000
    scene_spread: float = 1.0
    new_users: float = 0.05
    new_items: float = 0.05
    days: int = 9
    feature_coverage: tuple[float, ...] = tuple(round(1 - 0.02 * n, 2) for n in range(27))
    query_coverage: float = 0.6
    entity_coverage: float = 0.9
    title_coverage: float = 0.95

    def __post_init__(self):
        for name, least in (("rows", 1), ("seed", 0), ("few", 2), ("most_rows", 2), ("days", 3)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                self._fail(name, f"an integer of at least {least}")
        for name in ("click_rates", "exposure_shares"):
            value = getattr(self, name)
            if len(value) != len(SCENES) or not all(0 < share < 1 for share in value):
                self._fail(name, f"{len(SCENES)} numbers between 0 and 1")
        if abs(sum(self.exposure_shares) - 1) > 1e-6:
            self._fail("exposure_shares", "numbers that sum to 1")
        if not all(0 <= share <= 1 for share in self.feature_coverage) or (
            len(self.feature_coverage) != 27
        ):
            self._fail("feature_coverage", "27 numbers in [0, 1]")
        for name in ("query_coverage", "entity_coverage", "title_coverage"):
            if not 0 <= getattr(self, name) <= 1:
                self._fail(name, "in [0, 1]")
        for name in ("new_users", "new_items"):
            if not 0 <= getattr(self, name) < 1:
                self._fail(name, "in [0, 1)")
        if not 0.1 <= self.few_share <= 0.8:
            self._fail("few_share", "in [0.1, 0.8]")
        if not 1 < self.rows_per_user < self.most_rows / 2:
            self._fail("rows_per_user", "above 1, below half of `most_rows`")
        # Steeper tails have too many items in their heads for any share but a small one.
        if not 1 <= self.tail_exponent <= 1.6:
            self._fail("tail_exponent", "in [1, 1.6]")
        if not 0 < self.scene_spread < np.inf:
            self._fail("scene_spread", "above 0")

    def _fail(self, name: str, expected: str):
        raise ValueError(f"`{name}` must be {expected}. Received: `{name}={getattr(self, name)!r}`")


@dataclasses.dataclass(frozen=True)
class Exposures:
    """Rows before their clicks: arrays `(rows,)`, in the order of time.

    Attributes:
        user: Position of the user in its chunk.
        scene: Number of the scenario.
        item: Position of the item in the world.
        time: Seconds since 1970.
    """

    user: np.ndarray
    scene: np.ndarray
    item: np.ndarray
    time: np.ndarray


class Shelf:
    """The items of all scenarios, to be drawn in proportion to popularity.

    An item of popularity rank `r` in its scenario has the weight `(r + 10)^-exponent`; the rank is
    that of its quality and as much noise. New items have no weight before the last day.

    Args:
        world: Its items.
        catalogs: How many of them each scenario has.
        config: The exponent, and how many are new.
        random: What noise and new items are drawn from.

    Attributes:
        scene: Number of each item's scenario.
        is_new: Whether an item is shown on the last day alone.
    """

    def __init__(
        self,
        world: World,
        catalogs: Sequence[int],
        config: AntM2CConfig,
        random: np.random.Generator,
    ):
        items = world.config.items
        noise = random.standard_normal(items, dtype=np.float32)
        order = np.argsort(-(world.item_quality + noise), kind="stable")
        # The scenarios take turns along the order, each evenly.
        ranks = [np.arange(size) for size in catalogs]
        place = np.concatenate([(rank + 0.5) / len(rank) for rank in ranks])
        turns = np.argsort(place, kind="stable")
        self.scene = np.empty(items, np.int8)
        self.scene[order] = np.repeat(np.arange(len(catalogs)), catalogs)[turns]
        weight = np.empty(items)
        weight[order] = _weight(np.concatenate(ranks)[turns] + 1.0, config)
        self.is_new = random.random(items) < config.new_items
        self._item = np.argsort(self.scene, kind="stable")
        self._first = np.searchsorted(self.scene[self._item], np.arange(len(SCENES) + 1))
        sorted_weight = weight[self._item]
        known = np.where(self.is_new[self._item], 0, sorted_weight)
        self._before = {
            False: np.concatenate([[0.0], np.cumsum(known)]),
            True: np.concatenate([[0.0], np.cumsum(sorted_weight)]),
        }

    def draw(self, scene: np.ndarray, last: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """An item of each row's scenario; `last` tells whether the row is of the last day."""
        found = np.empty(len(scene), np.int64)
        for is_last, before in self._before.items():
            rows = np.flatnonzero(last == is_last)
            first, stop = self._first[scene[rows]], self._first[scene[rows] + 1]
            low, high = before[first], before[stop]
            place = low + random.random(len(rows)) * (high - low)
            index = np.searchsorted(before, place, side="right") - 1
            found[rows] = self._item[np.clip(index, first, stop - 1)]
        return found


def find_catalog(config: AntM2CConfig, share: float) -> tuple[int, float]:
    """The catalog of a scenario of which `few_share` of the items shown have few exposures.

    Exposures are independent given an item's weight, so their number is nearly a Poisson's. The
    more items there are, the rarer are the last of them, and the greater is the share of few.

    Args:
        config: Number of rows, and what the catalog is fit to.
        share: Of the rows, the scenario's.

    Returns:
        Number of items, and how many of them are to be expected to be shown at all.
    """
    rows = share * config.rows
    low, high = 1.0, 100.0 * rows + 1
    for _ in range(_STEPS):
        middle = (low * high) ** 0.5
        few, shown = _few_and_shown(config, rows, round(middle))
        low, high = (middle, high) if few < config.few_share * shown else (low, middle)
    items = max(round(high), _LEAST_ITEMS)
    return items, _few_and_shown(config, rows, items)[1]


def _few_and_shown(config: AntM2CConfig, rows: float, items: int) -> tuple[float, float]:
    """How many items have few exposures but some, and how many have any."""
    bins = np.geomspace(min(_EXACT_RANKS, items), items + 1, _BINS)
    edges = np.unique([*range(1, min(_EXACT_RANKS, items)), *np.round(bins).astype(np.int64)])
    edges = np.union1d(edges, [items + 1])
    number, rank = np.diff(edges), (edges[:-1] + edges[1:] - 1) / 2
    weight = _weight(rank, config)
    mean = rows * weight / (number * weight).sum()
    none = term = np.exp(-mean)
    few = np.zeros(len(mean))
    for count in range(1, config.few):
        term = term * mean / count
        few += term
    return float((number * few).sum()), float((number * (1 - none)).sum())


def _weight(rank: np.ndarray, config: AntM2CConfig) -> np.ndarray:
    return (rank + _FLAT_RANKS) ** -config.tail_exponent


def find_user_exponent(config: AntM2CConfig) -> float:
    """The `a` for which a user's rows, `P(rows >= k) = k^-a` up to the most, have the mean."""
    count = np.arange(1, config.most_rows + 1.0)
    low, high = 1e-3, 20.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if (count**-middle).sum() > config.rows_per_user else (low, middle)
        )
    return (low + high) / 2


def draw_rows(
    config: AntM2CConfig,
    shelf: Shelf,
    users: int,
    exponent: float,
    random: np.random.Generator,
) -> Exposures:
    """What a chunk of users is shown.

    Args:
        config: What the view is calibrated to.
        shelf: The items.
        users: How many users the chunk has.
        exponent: Of the users' long tail.
        random: What everything is drawn from.
    """
    # The complement is in (0, 1], so that no user has endless rows.
    counts = np.minimum((1 - random.random(users)) ** (-1 / exponent), config.most_rows)
    user = np.repeat(np.arange(users), counts.astype(np.int64))
    spread = random.gamma(config.scene_spread * np.array(config.exposure_shares), size=(users, 5))
    ends = np.cumsum(spread, axis=1)
    place = random.random(len(user)) * ends[user, -1]
    scene = (ends[user, :-1] <= place[:, None]).sum(axis=1)
    day = random.integers(0, config.days, len(user))
    day[(random.random(users) < config.new_users)[user]] = config.days - 1
    time = BEGIN + day * clock.DAY + random.integers(0, clock.DAY, len(user))
    order = np.argsort(time, kind="stable")
    scene, last = scene[order], (day == config.days - 1)[order]
    return Exposures(user[order], scene, shelf.draw(scene, last, random), time[order])
