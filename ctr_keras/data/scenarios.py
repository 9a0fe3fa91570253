"""What a data set with scenarios holds: sizes, shared users, cold start and long tails of each."""

import collections
import dataclasses
from typing import Any

import numpy as np

from ctr_keras.columns import Columns, flat, stored_padding
from ctr_keras.data.split import SPLITS
from ctr_keras.schema import Schema

FEW_SHOT = 100


@dataclasses.dataclass(frozen=True)
class Scenario:
    """The rows of one scenario.

    Attributes:
        name: Its value in the rows.
        rows: Number of rows, by split.
        clicks: Rows with label 1, by split; empty without a label.
        users: Rows of each of its users, in descending order; empty if nothing names users.
        items: Rows of each of its items.
    """

    name: str
    rows: dict[str, int]
    clicks: dict[str, int]
    users: np.ndarray
    items: np.ndarray

    @property
    def click_rate(self) -> float | None:
        return sum(self.clicks.values()) / sum(self.rows.values()) if self.clicks else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "rows": sum(self.rows.values()),
            "clicks": sum(self.clicks.values()) if self.clicks else None,
            "click_rate": self.click_rate,
            "users": len(self.users),
            "items": len(self.items),
            "rows_by_split": self.rows,
            "clicks_by_split": self.clicks,
        }


@dataclasses.dataclass(frozen=True)
class ColdStart:
    """How much of a split is about users, or items, that training knows little of.

    Attributes:
        split: The split.
        entity: `"users"` or `"items"`.
        group: `"zero-shot"` (no training row), `"few-shot"` (fewer than `FEW_SHOT`) or `"warm"`.
        distinct: How many there are.
        rows: Their rows.
    """

    split: str
    entity: str
    group: str
    distinct: int
    rows: int


@dataclasses.dataclass(frozen=True)
class ScenarioReport:
    """What the rows tell of the scenarios.

    Attributes:
        feature: The column that names them.
        scenarios: In the order of their names.
        user_overlap: `(scenarios, scenarios)`: the share of the line's users that the column's
            scenario has too.
        cold_start: Of the splits after the training one; empty without a training split.
    """

    feature: str
    scenarios: tuple[Scenario, ...]
    user_overlap: np.ndarray
    cold_start: tuple[ColdStart, ...]

    def to_dict(self) -> dict[str, Any]:
        """A form for JSON."""
        names = [scenario.name for scenario in self.scenarios]
        return {
            "feature": self.feature,
            "scenarios": [scenario.to_dict() for scenario in self.scenarios],
            "user_overlap": {
                name: dict(zip(names, line.tolist(), strict=True))
                for name, line in zip(names, self.user_overlap, strict=True)
            },
            "cold_start": [dataclasses.asdict(found) for found in self.cold_start],
        }

    def tables(self) -> list[tuple[list[str], list[list[str]]]]:
        """Header and lines of each table for people."""
        names = [scenario.name for scenario in self.scenarios]
        splits = list(self.scenarios[0].rows)
        sizes = [
            [
                scenario.name,
                f"{sum(scenario.rows.values()):,}",
                f"{len(scenario.users):,}",
                f"{len(scenario.items):,}",
                f"{sum(scenario.clicks.values()):,}",
                _percent(scenario.click_rate),
                *(f"{scenario.rows[split]:,}" for split in splits),
            ]
            for scenario in self.scenarios
        ]
        overlap = [
            [name, *(f"{share:.2%}" for share in line)]
            for name, line in zip(names, self.user_overlap, strict=True)
        ]
        cold = [
            [found.split, found.entity, found.group, f"{found.distinct:,}", f"{found.rows:,}"]
            for found in self.cold_start
        ]
        columns = ["rows", "users", "items", "clicks", "click rate", *splits]
        tables = [([self.feature, *columns], sizes), (["users also in", *names], overlap)]
        if cold:
            tables.append((["split", "", "training rows", "distinct", "rows"], cold))
        return tables


class ScenarioCounter:
    """Counts rows by scenario, split, user and item as they stream by.

    Memory holds a count for each user and each item of each scenario and split.

    Args:
        schema: What a row is.
        feature: The column that names scenarios, see `scenario_feature`.
        user: The column that names users, or `None`.
    """

    def __init__(self, schema: Schema, feature: str, user: str | None):
        self.feature = feature
        self._label = next((feature.name for feature in schema.by_role("label")), None)
        self._entities = {"users": user, "items": schema.key("item")}
        self._missing = {
            name: stored_padding(schema, name) for name in self._entities.values() if name
        }
        self._rows: collections.Counter = collections.Counter()
        self._clicks: collections.Counter = collections.Counter()
        # By entity, split and scenario: rows of each value.
        self._values: dict = collections.defaultdict(collections.Counter)

    def add(self, split: str, columns: Columns) -> None:
        """Count a block of rows of a split."""
        scenarios, index = np.unique(flat(columns[self.feature]), return_inverse=True)
        for position, scenario in enumerate(scenarios.tolist()):
            chosen = index == position
            self._rows[split, scenario] += int(chosen.sum())
            if self._label is not None:
                self._clicks[split, scenario] += int(flat(columns[self._label])[chosen].sum())
            for entity, name in self._entities.items():
                if name is not None:
                    values = flat(columns[name])[chosen]
                    values = values[values != self._missing[name]]
                    found, counts = np.unique(values, return_counts=True)
                    counter = self._values[entity, split, scenario]
                    counter.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))

    def report(self) -> ScenarioReport:
        """What was counted."""
        splits = list(dict.fromkeys(split for split, _ in self._rows))
        names = sorted({scenario for _, scenario in self._rows})
        found, users = [], []
        for scenario in names:
            counts = {e: self._total(e, splits, [scenario]) for e in self._entities}
            users.append(counts["users"].keys())
            found.append(
                Scenario(
                    name=_text(scenario),
                    rows={split: self._rows[split, scenario] for split in splits},
                    clicks={split: self._clicks[split, scenario] for split in splits}
                    if self._label is not None
                    else {},
                    users=_descending(counts["users"]),
                    items=_descending(counts["items"]),
                )
            )
        overlap = [[len(a & b) / max(len(a), 1) for b in users] for a in users]
        cold = self._cold_start(splits, names)
        return ScenarioReport(self.feature, tuple(found), np.array(overlap), tuple(cold))

    def _cold_start(self, splits: list[str], names: list) -> list[ColdStart]:
        found: list[ColdStart] = []
        if SPLITS[0] not in splits:
            return found
        for entity, column in self._entities.items():
            if column is None:
                continue
            known = self._total(entity, SPLITS[:1], names)
            for split in splits:
                if split != SPLITS[0]:
                    judged = self._total(entity, [split], names)
                    found += _groups(split, entity, judged, known)
        return found

    def _total(self, entity: str, splits, names: list) -> collections.Counter:
        total: collections.Counter = collections.Counter()
        for split in splits:
            for name in names:
                total.update(self._values.get((entity, split, name), {}))
        return total


def scenario_feature(schema: Schema) -> str | None:
    """The id that names a row's scenario, or `None`."""
    found = schema.by_role("scenario")
    return next((f.name for f in found if f.kind == "id" and not f.is_sequence), None)


def draw(report: ScenarioReport, entity: str, axes: Any) -> None:
    """Draw how many users, or items, have how many rows, a line a scenario, log-log.

    Args:
        report: What `describe` found.
        entity: `"users"` or `"items"`.
        axes: Of matplotlib.
    """
    for scenario in report.scenarios:
        rows, number = np.unique(getattr(scenario, entity), return_counts=True)
        if len(rows):
            axes.loglog(rows, number, ".", markersize=4, label=scenario.name)
    axes.set(xlabel="rows", ylabel=entity, title=f"Frequency of {entity}")
    if axes.lines:
        axes.legend(title=report.feature)
    axes.grid(alpha=0.3)


def _groups(
    split: str, entity: str, judged: collections.Counter, known: collections.Counter
) -> list[ColdStart]:
    trained = np.fromiter((known[value] for value in judged), np.int64, len(judged))
    rows = np.fromiter(judged.values(), np.int64, len(judged))
    groups = {
        "zero-shot": trained == 0,
        "few-shot": (trained > 0) & (trained < FEW_SHOT),
        "warm": trained >= FEW_SHOT,
    }
    return [
        ColdStart(split, entity, group, int(chosen.sum()), int(rows[chosen].sum()))
        for group, chosen in groups.items()
    ]


def _descending(counts: collections.Counter) -> np.ndarray:
    return np.sort(np.fromiter(counts.values(), np.int64, len(counts)))[::-1]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"
