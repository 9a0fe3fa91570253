"""The world as a log of impressions, each with the probability of its click."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.parquet

from ctr_keras import files
from ctr_keras.data.layouts import check_layout
from ctr_keras.data.split import SPLITS, check_fractions
from ctr_keras.data.write import write
from ctr_keras.datasets import drafts, prepared, staged
from ctr_keras.datasets import truth as truths
from ctr_keras.datasets.prepared import Prepared
from ctr_keras.datasets.simulator import clock, impression_log
from ctr_keras.datasets.simulator.impression_log import ImpressionsConfig
from ctr_keras.datasets.simulator.world import World, WorldConfig
from ctr_keras.datasets.truth import TRUTH_FILE
from ctr_keras.datasets.truth import read as truth
from ctr_keras.schema import Feature, Schema
from ctr_keras.sources import Report, to_stderr

__all__ = ["TRUTH_FILE", "SimulatedImpressions", "prepare", "truth"]

_FORMAT = 2
_CHUNKS_A_REPORT = 16


@dataclasses.dataclass(frozen=True)
class SimulatedImpressions:
    """What `prepare` made.

    Attributes:
        prepared: The folder and the numbers of its splits.
        bayes_auc: By split, the AUC of the true probabilities: no model's is higher but by luck.
        bayes_log_loss: By split, the log loss of the true probabilities.
    """

    prepared: Prepared
    bayes_auc: dict[str, float]
    bayes_log_loss: dict[str, float]

    @property
    def folder(self) -> pathlib.Path:
        return self.prepared.folder

    def to_dict(self) -> dict[str, Any]:
        bounds = {"bayes_auc": self.bayes_auc, "bayes_log_loss": self.bayes_log_loss}
        return {**self.prepared.to_dict(), **bounds}

    def to_text(self) -> str:
        lines = [self.prepared.to_text(), "  of the true probabilities:"]
        for name, auc in self.bayes_auc.items():
            lines.append(f"  {name:<6}AUC {auc:.4f}   log loss {self.bayes_log_loss[name]:.4f}")
        return "\n".join(lines)


def prepare(
    out: str | os.PathLike,
    world: WorldConfig | None = None,
    config: ImpressionsConfig | None = None,
    *,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    layout: str = "block",
    report: Report = to_stderr,
) -> SimulatedImpressions:
    """Simulate a log of impressions and make training data of it.

    A user has clicked some items before the log (as in the Taobao view), and is then shown one
    item a step: in half of the cases one of all in proportion to popularity, else one of the
    category at hand. It is clicked with the probability

        p = 1 / (1 + exp(-(b + s(u, i))))

    where `s` is the score of `simulator.world` and `b` one number for the whole log, found on a
    small log of its own so that the mean of `p` comes near to `click_rate`. The label is drawn
    with that `p`; a click moves the user's memory and enters the histories of later rows.

    The log lasts ten days from 2017-11-25 and is split by time: the test rows are those of the
    last of them with the default `fractions`. Each split's folder keeps `truth.parquet`, in the
    order of the rows: `impression_id`, `label` and `true_probability`. It is no feature; the rows
    carry the number as `group_impression_id`, so that a shuffled or sampled reading finds its
    probabilities again. Note that `p` depends on what no row tells, such as the interests that no
    click has shown yet: a model comes near to it, not up to it.

    Args:
        out: Folder to make. It keeps its old content until the new is whole.
        world: Sizes and seed.
        config: How the log comes about.
        fractions: Shares of the log's time of the train, valid and test rows.
        layout: Of the TFRecords, see `ck.data.write`.
        report: Called with lines for the user; by default they go to stderr.

    Returns:
        `SimulatedImpressions`.

    Raises:
        ValueError: an argument is not what it should be, or a split would be empty.
        OSError: the disk is full.

    Example:

    >>> made = simulator.impressions.prepare("tf_data/simulated", simulator.WorldConfig(seed=7))
    >>> made.bayes_auc["test"]
    """
    world, config = world or WorldConfig(), config or ImpressionsConfig()
    check_fractions(fractions, len(SPLITS))
    check_layout(layout)
    settings = {
        "simulated": "impressions",
        "format": _FORMAT,
        "world": dataclasses.asdict(world),
        "config": dataclasses.asdict(config),
        "fractions": list(fractions),
        "layout": layout,
    }
    key = prepared.key_of(settings)
    found = _up_to_date(out, key)
    if found is not None:
        report(f"{out} is up to date")
        return found
    with prepared.replacing(out, key, report=report) as staging:
        rows = staging / "rows.parquet"
        if not rows.exists():
            _simulate(World(world), config, fractions, rows, report)
        result = _write(rows, _schema(config), staging, key, layout, pathlib.Path(out), report)
        rows.unlink()
        prepared.finish(staging, key, result)
    return _with_bounds(result)


def _schema(config: ImpressionsConfig) -> Schema:
    def past(name: str) -> Feature:
        length = config.history_length
        return Feature(f"history_{name}", role="history", length=length, shares=name)

    return Schema(
        (
            Feature("user_id", role="user", vocabulary=drafts.unbuilt("user_id")),
            Feature("item_id", role="item", vocabulary=drafts.unbuilt("item_id")),
            Feature("category_id", role="item", vocabulary=drafts.unbuilt("category_id")),
            past("item_id"),
            past("category_id"),
            Feature("group_user_id", role="group"),
            Feature("group_impression_id", role="group"),
            Feature("time", role="time", kind="number"),
            Feature("label", role="label", kind="number"),
        )
    )


def _simulate(
    world: World,
    config: ImpressionsConfig,
    fractions: Sequence[float],
    target: pathlib.Path,
    report: Report,
) -> None:
    """All rows as one typed Parquet file, each with the number of its split."""
    bias = impression_log.find_bias(world, config)
    ends = np.cumsum(fractions)[:-1] * impression_log.DAYS * clock.DAY + clock.BEGIN
    temporary, schema, first = target.with_suffix(".tmp"), _schema(config), 0
    with contextlib.ExitStack() as stack:
        writer = None
        for number, users in enumerate(world.chunks(), 1):
            columns, probability = impression_log.rows_of(world, config, users, bias, first)
            batch = {f.name: staged.arrow_column(f, columns[f.name]) for f in schema}
            batch[staged.ROW] = batch["group_impression_id"]
            part = np.searchsorted(ends, np.asarray(columns["time"]), side="right").astype(np.int8)
            batch |= {staged.PART: pa.array(part), "true_probability": pa.array(probability)}
            table = pa.table(batch)
            if writer is None:
                writer = stack.enter_context(pyarrow.parquet.ParquetWriter(temporary, table.schema))
            writer.write_table(table)
            first += len(table)
            if number % _CHUNKS_A_REPORT == 0:
                report(f"simulated {int(users[-1]):,} users, {first:,} impressions")
    files.replace(temporary, target)


def _write(
    rows: pathlib.Path,
    draft: Schema,
    staging: pathlib.Path,
    key: str,
    layout: str,
    out: pathlib.Path,
    report: Report,
) -> Prepared:
    """Vocabularies, splits, probabilities and entity tables from the simulated rows."""
    with staged.connected(staging) as connection:
        table = connection.read_parquet(str(rows))
        _check_splits(table)
        schema = staged.with_built_vocabularies(draft, table, staging / "vocabularies").save(
            staging
        )
        for index, name in enumerate(SPLITS):
            known = truths.file_of(staging, name)
            if not (prepared.is_written(staging, name, key) and known.is_file()):
                part = staging / f"{name}.parquet"
                chosen = table.filter(table[staged.PART] == index)
                chosen.order_by("time", staged.ROW).to_parquet(part)
                chunks = staged.chunks(part, schema)
                manifest = write(
                    staging / name, schema, chunks, layout=layout, metadata={"key": key}
                )
                truths.copy(part, known)
                part.unlink()
                report(f"{name}: {manifest.rows:,} rows")
        staged.write_entities(table, schema, "item", staging / prepared.ITEMS_FILE)
        staged.write_entities(table, schema, "user", staging / prepared.USERS_FILE)
        return staged.summary(out, "the simulator", table, schema, "label")


def _check_splits(table: ir.Table) -> None:
    found = table[staged.PART].as_table().distinct().to_pyarrow()[staged.PART].to_pylist()
    for index, name in enumerate(SPLITS):
        if index not in found:
            raise ValueError(
                f"The {name} split would be empty: simulate more users or impressions. "
                f"Received: `rows={table.count().to_pyarrow().as_py()}`"
            )


def _up_to_date(out: str | os.PathLike, key: str) -> SimulatedImpressions | None:
    found = prepared.up_to_date(out, key)
    if found is None or not truths.is_whole(found.folder):
        return None
    return _with_bounds(found)


def _with_bounds(made: Prepared) -> SimulatedImpressions:
    return SimulatedImpressions(made, **truths.bounds(made.folder))
