"""The tables of the AntM2C benchmark, on any prepared data with scenarios or cold users and items.

- table 5: models of several scenarios, by scenario
- table 7: methods of cold start, on users and items that training has never or seldom seen
- table 8: MMoE with and without texts, by scenario

Reference:
    [Huan et al., 2023: AntM2C](https://arxiv.org/abs/2308.16437)
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ctr_keras import data as ctr_data
from ctr_keras import metrics
from ctr_keras.argument_checks import check_positive_integers
from ctr_keras.data.describe import user_feature
from ctr_keras.datasets import truth
from ctr_keras.experiments.jobs import run_labelled
from ctr_keras.experiments.runs import Outcome, Run
from ctr_keras.experiments.settings import runs_of, set_widths
from ctr_keras.experiments.slice_comparison import SliceComparison
from ctr_keras.schema import Schema
from ctr_keras.training.evaluate import scenario_names

TABLES = (5, 7, 8)
SCENARIO_MODELS = ("ScenarioDNN", "SharedBottom", "MMoE", "PLE")
COLD_METHODS = ("DNN", "DropoutNet", "MAML", "MeLU", "MetaEmb")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all trainings have in common; by default the paper's, but for the width of embeddings.

    Args:
        seeds: How many seeds each model is trained with.
        epochs: Epochs at most.
        batch_size: Rows a batch.
        learning_rate: Of `LazyAdam`.
        patience: Epochs without a better validation AUC before training stops.
        embedding_dim: Width of the embeddings.
        units: Widths of an expert's layers, or of the shared bottom's.
        tower_units: Widths of a tower's layers.
        num_experts: Experts of MMoE.
        dropout: Of all layers; the networks of MAML and MeLU have none.
        few: From how many training rows on a user or an item is no longer cold.
        texts: Those that enter by their vectors (`ctr-keras encode`). By default in table 8 all of
            the data, in table 7 those of users or of items that nothing else describes.
    """

    seeds: int = 5
    epochs: int = 5
    batch_size: int = 512
    learning_rate: float = 1e-3
    patience: int = 1
    embedding_dim: int = 16
    units: tuple[int, ...] = (128,)
    tower_units: tuple[int, ...] = (32,)
    num_experts: int = 6
    dropout: float = 0.0
    few: int = 100
    texts: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_positive_integers(
            self, "seeds", "epochs", "batch_size", "patience", "embedding_dim", "num_experts",
            "few",
        )  # fmt: skip
        set_widths(self, "units", "tower_units")
        if isinstance(self.texts, str):
            raise ValueError(
                '`texts` must be a list of names, such as `["item_title"]`. '
                f"Received: `texts={self.texts!r}`"
            )

    def options(self, model: str) -> dict[str, Any]:
        """Arguments of a model."""
        options: dict[str, Any] = {"embedding_dim": self.embedding_dim}
        deep = [*self.units, *self.tower_units]
        if model in ("MAML", "MeLU"):
            return {**options, "units": deep}
        options["dropout"] = self.dropout
        if model == "DNN":
            return {**options, "units": deep}
        if model == "ScenarioDNN":  # As deep and wide as the others.
            return {**options, "tower_units": deep}
        options |= {"units": list(self.units), "tower_units": list(self.tower_units)}
        return options | ({"num_experts": self.num_experts} if model == "MMoE" else {})


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """The tables on one data set.

    Args:
        data: Prepared folder.
        out: Folder that keeps what was trained, so that an interrupted reproduction goes on.
        settings: What the trainings have in common.
        jobs: How many to train at a time.
        report: Told of each training.
    """

    data: str | os.PathLike
    out: str | os.PathLike
    settings: Settings
    jobs: int = 1
    report: Callable[[str], Any] = lambda line: None

    def table(self, number: int) -> SliceComparison:
        """A table of the paper.

        Raises:
            ValueError: there is no such table, or the data has no feature that it needs.
        """
        if number not in TABLES:
            raise ValueError(f"`table` must be one of {TABLES}. Received: `table={number}`")
        return {5: self._scenarios, 7: self._cold_start, 8: self._texts}[number]()

    def _scenarios(self) -> SliceComparison:
        settings = self.settings
        runs = {
            model: runs_of(settings, self.data, model, settings.options(model))
            for model in SCENARIO_MODELS
        }
        return self._by_scenario("Table 5: models of several scenarios", runs)

    def _texts(self) -> SliceComparison:
        settings, schema = self.settings, Schema.load(self.data)
        texts = settings.texts or schema.plain_texts
        if not texts:
            raise ValueError(f"The data needs a text. Received: {self.data} with {schema.names}")
        options = settings.options("MMoE")
        runs = {
            "MMoE": runs_of(settings, self.data, "MMoE", options),
            "MMoE + BERT": runs_of(settings, self.data, "MMoE", options, texts=tuple(texts)),
        }
        return self._by_scenario(f"Table 8: MMoE without and with {', '.join(texts)}", runs)

    def _by_scenario(self, title: str, runs: dict[str, list[Run]]) -> SliceComparison:
        """Models by scenario, the first of them the baseline."""
        schema = Schema.load(self.data)
        if not schema.by_role("scenario"):
            raise ValueError(
                "The data needs a feature of role 'scenario'. "
                f"Received: {self.data} with {schema.names}"
            )
        outcomes = self._trained(runs)
        scenes = scenes_of(self.data, schema)
        return SliceComparison(
            title=f"{title}, {self.data}",
            aucs={model: _scenario_aucs(found) for model, found in outcomes.items()},
            baseline=next(iter(runs)),
            best=best_possible(self.data, {s: scenes == s for s in np.unique(scenes).tolist()}),
        )

    def _cold_start(self) -> SliceComparison:
        schema = Schema.load(self.data)
        keys = {role: schema.key(role) for role in ("item", "user")}
        if None in keys.values():
            raise ValueError(
                "The data needs an id of users and one of items. "
                f"Received: {self.data} with {schema.names}"
            )
        # A user's rows are a task, also where the vocabulary lacks the user.
        tasks = {**keys, "user": user_feature(schema)}
        texts = self.settings.texts or _describing_texts(schema, self.data)
        runs = {
            (method, role): self._cold_runs(method, role, str(key), str(tasks[role]), texts)
            for method in COLD_METHODS
            for role, key in keys.items()
        }
        outcomes = self._trained(runs)
        slices = ctr_data.cold_slices(f"{self.data}/train", f"{self.data}/test", self.settings.few)
        names = [f"{role}_{kind}" for role in keys for kind in ("zero_shot", "few_shot")]
        return SliceComparison(
            title=f"Table 7: methods of cold start, {self.data}",
            aucs={
                method: {
                    name: _of_slice(outcomes[method, name.split("_")[0]], name) for name in names
                }
                for method in COLD_METHODS
            },
            baseline=COLD_METHODS[0],
            best=best_possible(self.data, {name: slices[name] for name in names}),
        )

    def _cold_runs(
        self, method: str, role: str, key: str, task: str, texts: tuple[str, ...]
    ) -> list[Run]:
        """The trainings of a method, for cold users or items.

        Args:
            method: Of `COLD_METHODS`.
            role: `"user"` or `"item"`.
            key: The id whose embeddings `MetaEmb` generates.
            task: The feature whose values are the tasks of MAML and MeLU.
            texts: Those that enter by their vectors.
        """
        settings = self.settings
        wrapped = {"base": "DNN", "base_options": settings.options("DNN")}
        others: dict[str, Any] = {"few": settings.few, "texts": texts}
        if method == "DropoutNet":
            return runs_of(settings, self.data, method, wrapped, **others)
        if method == "MetaEmb":
            # An id with training rows has learned its embedding from all of them.
            others |= {"task": key, "adapts": False, "every_row": True}
            return runs_of(settings, self.data, method, {**wrapped, "key": role}, **others)
        if method in ("MAML", "MeLU"):
            others |= {"task": task, "every_row": True}
        return runs_of(settings, self.data, method, settings.options(method), **others)

    def _trained(self, runs: Mapping[Any, list[Run]]) -> dict[Any, list[Outcome]]:
        """The outcomes of several lists of runs."""
        return run_labelled(runs, self.out, jobs=self.jobs, report=self.report)


def _describing_texts(schema: Schema, data: str | os.PathLike) -> tuple[str, ...]:
    """The texts of users or of items that nothing else describes: cold ones are known by these."""
    found: list[str] = []
    for role in ("item", "user"):
        of_role = [f for f in schema.by_role(role) if f.name != schema.key(role)]
        if any(f in schema.inputs for f in of_role):
            continue
        texts = [f.name for f in of_role if f.name in schema.plain_texts]
        if not texts:
            raise ValueError(
                f"The data needs a feature with role {role!r} beside {schema.key(role)!r}: nothing "
                f"describes cold ones. Received: {data} with {schema.names}"
            )
        found += texts
    return tuple(found)


def _scenario_aucs(outcomes: list[Outcome]) -> dict[str, list[float]]:
    areas = [outcome.evaluation["scenario_auc"] for outcome in outcomes]
    return {scenario: [found[scenario] for found in areas] for scenario in areas[0]}


def _of_slice(outcomes: list[Outcome], name: str) -> list[float]:
    found = [(outcome.cold_start or {})["slices"][name]["auc"] for outcome in outcomes]
    return [float("nan") if auc is None else auc for auc in found]


def scenes_of(data: str | os.PathLike, schema: Schema) -> np.ndarray:
    """The name of each test row's scenario."""
    scenario = schema.by_role("scenario")[0]
    rows = ctr_data.read(pathlib.Path(data) / "test", schema, 65_536)
    scenes = np.concatenate([x[scenario.name].numpy() for x, _ in rows])
    return scenario_names(scenario.vocabulary, scenes)


def best_possible(
    data: str | os.PathLike, slices: Mapping[str, np.ndarray]
) -> dict[str, float] | None:
    """AUC by slice of the test rows' true probabilities, `None` where nobody knows them.

    Args:
        data: Prepared folder.
        slices: Which test rows, bool `(rows,)`.

    Returns:
        By the name of a slice; NaN where it has no rows.
    """
    if not truth.file_of(data, "test").is_file():
        return None
    known = truth.read(data, "test")
    label, probability = known["label"].to_numpy(), known[truth.PROBABILITY].to_numpy()
    return {
        name: float(metrics.auc(label[kept], probability[kept])) if kept.any() else math.nan
        for name, kept in slices.items()
    }
