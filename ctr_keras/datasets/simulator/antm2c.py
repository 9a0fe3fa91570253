"""The world as AntM2C's public files would tell of it: five scenarios, texts, cold start."""

import contextlib
import dataclasses
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from scipy import special

from ctr_keras import files, metrics
from ctr_keras.datasets import truth
from ctr_keras.datasets.antm2c_raw import COLUMNS, FEATURES
from ctr_keras.datasets.simulator import antm2c_exposures
from ctr_keras.datasets.simulator.antm2c_clicks import Clicks, Users
from ctr_keras.datasets.simulator.antm2c_exposures import SCENES, AntM2CConfig, Exposures, Shelf
from ctr_keras.datasets.simulator.antm2c_texts import TOPICS, Texts
from ctr_keras.datasets.simulator.world import (
    USERS_PER_CHUNK,
    VIEW_STREAM,
    World,
    WorldConfig,
)
from ctr_keras.sources import Report, to_stderr

__all__ = ["SCENES", "AntM2CConfig", "Written", "write"]

_ROWS_STREAM, _ITEMS_STREAM = 3, 4
# From 2 to 500 values, as many more from each feature to the next.
_CARDINALITIES = np.round(2 * 250 ** (np.arange(len(FEATURES)) / (len(FEATURES) - 1))).astype(int)
# How much of a feature is the user's taste; the rest is noise.
_SIGNAL = 0.7
_CHUNKS_A_REPORT = 64


@dataclasses.dataclass(frozen=True)
class Written:
    """What `write` made.

    Attributes:
        path: The file.
        rows: Its rows.
        users: The users that have them.
        items: The items of the catalog, shown or not.
        scene_rows: Rows of each scenario.
        scene_clicks: Clicks of each scenario.
        bayes_auc: AUC of the true probabilities: by scenario, and `"all"`.
    """

    path: pathlib.Path
    rows: int
    users: int
    items: int
    scene_rows: dict[str, int]
    scene_clicks: dict[str, int]
    bayes_auc: dict[str, float]

    @property
    def click_rates(self) -> dict[str, float]:
        """Of the scenarios that have rows."""
        return {s: self.scene_clicks[s] / n for s, n in self.scene_rows.items() if n}

    def to_dict(self) -> dict[str, Any]:
        return {
            **dataclasses.asdict(self),
            "path": str(self.path),
            "click_rates": self.click_rates,
        }

    def to_text(self) -> str:
        lines = [f"{self.path}: {self.rows:,} rows of {self.users:,} users"]
        for scene, rate in self.click_rates.items():
            lines.append(
                f"  {scene}{self.scene_rows[scene]:>14,} rows   clicks {rate:6.2%}   "
                f"AUC of the true probabilities {self.bayes_auc[scene]:.4f}"
            )
        lines.append(f"  all together {self.bayes_auc['all']:.4f}")
        return "\n".join(lines)


def write(
    path: str | os.PathLike,
    config: AntM2CConfig | None = None,
    *,
    report: Report = to_stderr,
) -> Written:
    """Write a CSV of AntM2C's columns, each row with the probability of its click.

    Users come in chunks of some thousand, the rows of a chunk in the order of time. A user's
    number of rows is drawn from a power law, and so are the items' chances; see `AntM2CConfig`
    for what is calibrated to the paper and what is not. An item is drawn by its chances within
    the scenario alone, whatever the user likes: what is shown tells nothing about tastes. It is
    clicked with the probability of `simulator.antm2c_clicks`.

    `features_0` ... `features_26` are the user's: 2 to 500 values that a direction of the taste
    and noise decide. `query_entity_seq` has words of the user's interests, `item_title` of the
    item's topic and quality, `item_entity_names` words of the topic that are drawn for each row.
    Missing values are empty. The last column, `true_probability`, is no published one: `prepare
    antm2c` keeps it apart from the features.

    Memory does not grow with rows and users but with the catalog, some hundred bytes an item: a
    million rows have about 140,000 items, a hundred million rows three and a half million.

    Args:
        path: The file to write, packed if it ends with `.gz`. It appears whole or not at all.
        config: Sizes, seed and calibration.
        report: Called with lines for the user; by default they go to stderr.

    Returns:
        `Written`: the file, the scenarios' sizes, and the AUC of the true probabilities.

    Example:

    >>> simulator.antm2c.write("rows.csv", simulator.AntM2CConfig(rows=100_000, seed=7))
    """
    config = config or AntM2CConfig()
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    view = _View(config)
    totals = _Totals()
    try:
        with contextlib.ExitStack() as stack:
            packing = "gzip" if path.suffix == ".gz" else None
            file = stack.enter_context(pa.output_stream(temporary, compression=packing))
            writer = stack.enter_context(
                pyarrow.csv.CSVWriter(file, _SCHEMA, write_options=_OPTIONS)
            )
            for number, table in enumerate(view.tables(totals), 1):
                writer.write_table(table)
                if number % _CHUNKS_A_REPORT == 0:
                    report(f"{path}: {totals.rows:,} rows")
        files.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return totals.written(path, view.world.config.items)


_TEXT_COLUMNS = ("query_entity_seq", "item_entity_names", "item_title", "scene")
_TYPES = {name: pa.string() if name in _TEXT_COLUMNS else pa.int64() for name in COLUMNS}
_TYPES |= {"log_time": pa.timestamp("s"), truth.PROBABILITY: pa.float64()}
_SCHEMA = pa.schema(_TYPES)
_OPTIONS = pyarrow.csv.WriteOptions(quoting_style="none")


class _View:
    """The world as it is seen through `config`."""

    def __init__(self, config: AntM2CConfig):
        self._config = config
        shares = config.exposure_shares
        catalogs = [antm2c_exposures.find_catalog(config, share)[0] for share in shares]
        items = sum(catalogs)
        self.world = World(WorldConfig(items=items, categories=len(TOPICS), seed=config.seed))
        random = np.random.default_rng([config.seed, VIEW_STREAM, _ITEMS_STREAM])
        self._shelf = Shelf(self.world, catalogs, config, random)
        self._clicks = Clicks(self.world, config, self._shelf, random)
        self._texts = Texts(self.world, self._shelf.scene, random)
        self._has_title = random.random(items) < config.title_coverage
        width = self.world.config.width
        directions = random.standard_normal((width, len(FEATURES)))
        self._directions = directions / np.linalg.norm(directions, axis=0)

    def tables(self, totals: "_Totals") -> Iterator[pa.Table]:
        """The rows, chunk by chunk, counted in `totals`; the last user's may be cut."""
        exponent = antm2c_exposures.find_user_exponent(self._config)
        first = 1
        while totals.rows < self._config.rows:
            seed = [self._config.seed, VIEW_STREAM, _ROWS_STREAM, first]
            random = np.random.default_rng(seed)
            users = Users(self.world, first, random)
            shown = antm2c_exposures.draw_rows(
                self._config, self._shelf, USERS_PER_CHUNK, exponent, random
            )
            shown = _head(shown, self._config.rows - totals.rows)
            yield self._table(users, shown, totals, random)
            first += USERS_PER_CHUNK

    def _table(
        self, users: Users, shown: Exposures, totals: "_Totals", random: np.random.Generator
    ) -> pa.Table:
        config, rows = self._config, len(shown.user)
        probability = self._clicks.probability(users, shown.user, shown.item, shown.scene)
        clicked = random.random(rows) < probability
        totals.add(shown, clicked, probability)
        queries = self._texts.queries(users.interests, random)
        queries = _where(random.random(USERS_PER_CHUNK) < config.query_coverage, queries)
        entities = self._texts.entities(shown.item, random)
        columns = {
            "user_id": pa.array(users.id[shown.user]),
            **self._features(users, shown.user, random),
            "query_entity_seq": queries.take(pa.array(shown.user)),
            "item_id": pa.array(self.world.item_id[shown.item]),
            "item_entity_names": _where(random.random(rows) < config.entity_coverage, entities),
            "item_title": _where(self._has_title[shown.item], self._texts.titles(shown.item)),
            "log_time": pa.array(shown.time).cast(pa.timestamp("s")),
            "scene": pa.array(SCENES).take(pa.array(shown.scene)),
            "label": pa.array(clicked.astype(np.int64)),
            truth.PROBABILITY: pa.array(probability),
        }
        return pa.table(columns, schema=_SCHEMA)

    def _features(
        self, users: Users, user: np.ndarray, random: np.random.Generator
    ) -> dict[str, pa.Array]:
        """Each feature's value, from 1, or none, by row."""
        shape = (USERS_PER_CHUNK, len(FEATURES))
        noise = (1 - _SIGNAL**2) ** 0.5 * random.standard_normal(shape)
        level = special.ndtr(_SIGNAL * (users.taste @ self._directions) + noise)
        value = np.minimum((level * _CARDINALITIES).astype(np.int64) + 1, _CARDINALITIES)
        is_absent = random.random(shape) >= np.array(self._config.feature_coverage)
        return {
            name: pa.array(value[user, n], mask=is_absent[user, n])
            for n, name in enumerate(FEATURES)
        }


class _Totals:
    """What was written so far."""

    def __init__(self) -> None:
        self.rows = self.users = 0
        self._counts = np.zeros((2, len(SCENES)), np.int64)
        self._auc, self._scene_auc = metrics.AUC(), metrics.ScenarioAUC("scene", len(SCENES))

    def add(self, shown: Exposures, clicked: np.ndarray, probability: np.ndarray) -> None:
        """Count the rows of a chunk."""
        self.rows += len(clicked)
        self.users += len(np.unique(shown.user))
        for number in range(len(SCENES)):
            chosen = shown.scene == number
            self._counts[:, number] += chosen.sum(), clicked[chosen].sum()
        self._auc.update_state(clicked, probability)
        self._scene_auc.update_state(clicked, probability, groups=shown.scene)

    def written(self, path: pathlib.Path, items: int) -> Written:
        rows, clicks = (dict(zip(SCENES, line.tolist(), strict=True)) for line in self._counts)
        found = self._scene_auc.report().by_scenario
        auc = {name: found.get(number, math.nan) for number, name in enumerate(SCENES)}
        auc["all"] = float(self._auc.result())
        return Written(path, self.rows, self.users, items, rows, clicks, auc)


def _head(shown: Exposures, most: int) -> Exposures:
    """Leave out the users after those whose rows are enough, and what the last has over."""
    if len(shown.user) <= most:
        return shown
    kept = np.sort(np.argsort(shown.user, kind="stable")[:most])
    return Exposures(*(getattr(shown, f.name)[kept] for f in dataclasses.fields(shown)))


def _where(chosen: np.ndarray, values: pa.Array) -> pa.Array:
    return pc.if_else(pa.array(chosen), values, None)
