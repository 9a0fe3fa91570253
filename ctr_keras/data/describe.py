"""What a data set holds: rows, clicks, coverage, and how uneven its users and items are."""

import collections
import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from ctr_keras.columns import Column, Ragged, flat, num_rows, stored_padding
from ctr_keras.data import scenarios as scenario_reports
from ctr_keras.data.manifest import MANIFEST_FILE, Manifest, schema_beside
from ctr_keras.data.raw_columns import raw_columns
from ctr_keras.data.scenarios import ScenarioCounter, ScenarioReport, scenario_feature
from ctr_keras.data.split import SPLITS
from ctr_keras.schema import Feature, Schema

FEW_ROWS = (2, 5, 10, 20, 50, 100)


@dataclasses.dataclass(frozen=True)
class Frequencies:
    """How many rows each user, or each item, has.

    Attributes:
        feature: The column that names them.
        counts: Rows of each, in descending order.
    """

    feature: str
    counts: np.ndarray

    @property
    def distinct(self) -> int:
        return len(self.counts)

    def share_with_fewer_than(self, rows: int) -> float:
        """Share of the users or items that have fewer than `rows` rows."""
        return float((self.counts < rows).mean())

    @property
    def top_percent_share(self) -> float:
        """Share of all rows that belong to the most frequent 1 % (at least one)."""
        top = max(round(len(self.counts) / 100), 1)
        return float(self.counts[:top].sum() / self.counts.sum())

    def to_dict(self) -> dict[str, Any]:
        return {
            "feature": self.feature,
            "distinct": self.distinct,
            "median_rows": float(np.median(self.counts)),
            "most_rows": int(self.counts[0]),
            "top_percent_share": self.top_percent_share,
            "share_with_fewer_rows_than": {n: self.share_with_fewer_than(n) for n in FEW_ROWS},
        }


@dataclasses.dataclass(frozen=True)
class Split:
    """One folder of TFRecords.

    Attributes:
        rows: Number of rows.
        click_rate: Share of rows with label 1, or `None` without a label.
        first_time: Least time, in seconds since 1970, or `None` without times.
        last_time: Greatest time.
        negative_ratio: Share of the negatives that were kept before writing.
    """

    rows: int
    click_rate: float | None
    first_time: int | None
    last_time: int | None
    negative_ratio: float = 1.0


@dataclasses.dataclass(frozen=True)
class Coverage:
    """One column over all rows.

    Attributes:
        name: Name of the feature.
        role: Its role.
        kind: Its kind.
        coverage: Share of rows that hold a value: an id that is no padding, a text that is not
            empty, a sequence of at least one value. Numbers and vectors are always there.
        cardinality: Distinct values of ids and texts, else `None`.
        out_of_vocabulary: Share of an id's values that its vocabulary file lacks, else `None`.
        mean_length: Mean number of values of a sequence, else `None`.
        mean: Mean of a number, else `None`.
    """

    name: str
    role: str
    kind: str
    coverage: float
    cardinality: int | None
    out_of_vocabulary: float | None
    mean_length: float | None
    mean: float | None


@dataclasses.dataclass(frozen=True)
class Description:
    """What `describe` found.

    Attributes:
        path: The folder.
        splits: By name; one named `"all"` for a single folder of TFRecords.
        features: In the order of the schema.
        users: Rows by user, or `None` where no column names users.
        items: Rows by target item, or `None`.
        scenarios: Sizes, shared users and cold start of the scenarios, or `None` where no column
            names scenarios.
    """

    path: str
    splits: dict[str, Split]
    features: tuple[Coverage, ...]
    users: Frequencies | None
    items: Frequencies | None
    scenarios: ScenarioReport | None = None

    @property
    def rows(self) -> int:
        return sum(split.rows for split in self.splits.values())

    @property
    def click_rate(self) -> float | None:
        rates = [(split.rows, split.click_rate) for split in self.splits.values()]
        if any(rate is None for _, rate in rates):
            return None
        return sum(rows * rate for rows, rate in rates if rate is not None) / self.rows

    def to_dict(self) -> dict[str, Any]:
        """A form for JSON."""
        return {
            "path": self.path,
            "rows": self.rows,
            "click_rate": self.click_rate,
            "splits": {name: dataclasses.asdict(split) for name, split in self.splits.items()},
            "features": [dataclasses.asdict(feature) for feature in self.features],
            "users": self.users.to_dict() if self.users else None,
            "items": self.items.to_dict() if self.items else None,
            "scenarios": self.scenarios.to_dict() if self.scenarios else None,
        }

    def to_text(self) -> str:
        """A form for people."""
        lines = [f"{self.path}: {self.rows:,} rows, clicks {_percent(self.click_rate)}", ""]
        lines += _table(
            ["split", "rows", "clicks", "from", "to", "negatives"],
            [
                [
                    name,
                    f"{s.rows:,}",
                    _percent(s.click_rate),
                    _day(s.first_time),
                    _day(s.last_time),
                    "all" if s.negative_ratio == 1 else f"{_percent(s.negative_ratio)} kept",
                ]
                for name, s in self.splits.items()
            ],
        )
        lines += ["", *_table(
            ["feature", "role", "kind", "coverage", "distinct", "unknown", "length", "mean"],
            [
                [
                    f.name,
                    f.role,
                    f.kind,
                    _percent(f.coverage),
                    "" if f.cardinality is None else f"{f.cardinality:,}",
                    _percent(f.out_of_vocabulary),
                    _number(f.mean_length),
                    _number(f.mean),
                ]
                for f in self.features
            ],
        )]  # fmt: skip
        entities = [("users", self.users), ("items", self.items)]
        lines += ["", *_table(
            ["", "distinct", "median rows", "top 1% has", *(f"<{n} rows" for n in FEW_ROWS)],
            [
                [
                    name,
                    f"{found.distinct:,}",
                    _number(float(np.median(found.counts))),
                    _percent(found.top_percent_share),
                    *(_percent(found.share_with_fewer_than(n)) for n in FEW_ROWS),
                ]
                for name, found in entities
                if found is not None
            ],
        )]  # fmt: skip
        for header, rows in self.scenarios.tables() if self.scenarios else ():
            lines += ["", *_table(header, rows)]
        return "\n".join(lines)


def describe(path: str | os.PathLike, schema: Schema | None = None) -> Description:
    """Describe a prepared folder, or one folder of TFRecords.

    The rows are streamed: memory holds one block, and a count for each distinct value.

    Args:
        path: Folder with `train/`, `valid/` and `test/`, or one that `ck.data.write` made.
        schema: For the shares out of vocabulary; by default the one saved in or beside `path`.

    Raises:
        ValueError: there is no data, or a shard is missing or damaged (it is named).
    """
    folder = pathlib.Path(path)
    parts = {name: folder / name for name in SPLITS if (folder / name / MANIFEST_FILE).is_file()}
    if (folder / MANIFEST_FILE).is_file() or not parts:
        parts = {"all": folder}
    totals: dict[str, _Total] = {}
    splits, counter = {}, None
    for name, part in parts.items():
        manifest = Manifest.load(part)
        manifest.verify(part)
        scenario = scenario_feature(manifest.schema)
        if counter is None and scenario is not None:
            counter = ScenarioCounter(manifest.schema, scenario, user_feature(manifest.schema))
        splits[name] = _scan(part, manifest, totals, name, counter)
    stored = manifest.schema
    schema = schema_beside(folder) if schema is None else schema
    return Description(
        path=str(folder),
        splits=splits,
        features=tuple(totals[f.name].coverage(_vocabulary(schema, f)) for f in stored),
        users=_frequencies(totals, user_feature(stored)),
        items=_frequencies(totals, stored.key("item")),
        scenarios=counter.report() if counter is not None else None,
    )


def plot(description: Description, file: str | os.PathLike) -> None:
    """Draw the long tail of users and items, and the click rate of each split.

    Where there are scenarios, two more panels show how many items, and how many users, of each
    scenario have how many rows.

    Args:
        description: What `describe` returned.
        file: Image to write; its suffix is the format (`.png`, `.svg`, `.pdf`).
    """
    from matplotlib.figure import Figure

    panels = 1 if description.scenarios is None else 2
    figure = Figure(figsize=(9, 3.6 * panels), layout="constrained")
    tail, clicks, *others = figure.subplots(panels, 2, width_ratios=(3, 2)).ravel()
    if description.scenarios is not None:
        for entity, axes in zip(("items", "users"), others, strict=True):
            scenario_reports.draw(description.scenarios, entity, axes)
    for name, found in (("items", description.items), ("users", description.users)):
        if found is not None:
            rank = np.arange(1, found.distinct + 1)
            tail.loglog(rank, found.counts, label=f"{found.distinct:,} {name}")
    tail.set(xlabel="rank by number of rows", ylabel="rows", title="Long tail")
    if tail.lines:
        tail.legend()
    tail.grid(alpha=0.3)
    names = list(description.splits)
    rates = [100 * (description.splits[name].click_rate or 0) for name in names]
    bars = clicks.bar(names, rates, color="tab:gray")
    clicks.bar_label(bars, [f"{rate:.1f} %" for rate in rates])
    clicks.set(ylabel="click rate, %", title="Clicks", ylim=(0, max(*rates, 1) * 1.15))
    figure.savefig(file, dpi=150)


class _Total:
    """What is known of one column so far."""

    def __init__(self, schema: Schema, feature: Feature):
        self.feature = feature
        self.missing = stored_padding(schema, feature.name)
        self.counts: collections.Counter = collections.Counter()
        self.rows = self.covered = self.values = 0
        self.sum = 0.0

    def add(self, column: Column) -> None:
        found = flat(column)
        self.rows += len(column)
        self.values += len(found)
        if self.feature.kind in ("id", "text"):
            present = found != self.missing
            self.covered += _covered_rows(column, present)
            values, counts = np.unique(found[present], return_counts=True)
            self.counts.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
            return
        self.covered += _covered_rows(column, np.ones(len(found), bool))
        if self.feature.kind == "number":
            self.sum += float(np.sum(found, dtype=np.float64))

    def coverage(self, vocabulary: set | None) -> Coverage:
        feature = self.feature
        counted = feature.kind in ("id", "text")
        unknown = None
        if vocabulary is not None and self.counts:
            absent = sum(count for value, count in self.counts.items() if value not in vocabulary)
            unknown = absent / self.counts.total()
        is_number = feature.kind == "number" and feature.role != "time" and self.values
        return Coverage(
            name=feature.name,
            role=feature.role,
            kind=feature.kind,
            coverage=self.covered / self.rows,
            cardinality=len(self.counts) if counted else None,
            out_of_vocabulary=unknown,
            mean_length=self.values / self.rows if feature.is_sequence else None,
            mean=self.sum / self.values if is_number else None,
        )


def _covered_rows(column: Column, present: np.ndarray) -> int:
    if not isinstance(column, Ragged):
        return int(present.sum())
    rows = np.repeat(np.arange(len(column)), column.lengths)
    return len(np.unique(rows[present]))


def _scan(
    folder: pathlib.Path,
    manifest: Manifest,
    totals: dict[str, _Total],
    name: str,
    counter: ScenarioCounter | None,
) -> Split:
    schema = manifest.schema
    label = schema.by_role("label")
    time = schema.by_role("time")
    rows, clicks, times = 0, 0.0, []
    for columns in raw_columns(folder, manifest):
        rows += num_rows(columns)
        for feature in schema:
            if feature.name not in totals:
                totals[feature.name] = _Total(schema, feature)
            totals[feature.name].add(columns[feature.name])
        if counter is not None:
            counter.add(name, columns)
        if label:
            clicks += float(np.sum(flat(columns[label[0].name])))
        if time:
            found = flat(columns[time[0].name])
            times += [int(found.min()), int(found.max())]
    return Split(
        rows=rows,
        click_rate=clicks / rows if label else None,
        first_time=min(times) if times else None,
        last_time=max(times) if times else None,
        negative_ratio=manifest.negative_ratio,
    )


def _vocabulary(schema: Schema | None, feature: Feature) -> set | None:
    """The values that the feature's vocabulary file holds, in the type they have on disk."""
    if schema is None or feature.kind != "id" or feature.name not in schema:
        return None
    vocabulary = schema.vocabulary(feature.name)
    if vocabulary is None or vocabulary.file is None:
        return None
    lines = pathlib.Path(vocabulary.file).read_bytes().splitlines()
    return set(lines) if feature.dtype == "string" else {int(line) for line in lines}


def user_feature(schema: Schema) -> str | None:
    """The column that tells users apart."""
    # The group holds the user itself, also where the model's user id is hashed.
    return next((f.name for f in schema.by_role("group")), schema.key("user"))


def _frequencies(totals: dict[str, _Total], name: str | None) -> Frequencies | None:
    if name is None or not totals[name].counts:
        return None
    counts = np.fromiter(totals[name].counts.values(), np.int64)
    return Frequencies(name, np.sort(counts)[::-1])


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in [header, *rows]:
        cells = [cell.rjust(w) for cell, w in zip(row, widths, strict=True)]
        cells[0] = row[0].ljust(widths[0])
        lines.append("  ".join(cells).rstrip())
    return lines


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}"


def _day(seconds: int | None) -> str:
    return "" if seconds is None else str(np.datetime64(seconds, "s").astype("datetime64[m]"))
