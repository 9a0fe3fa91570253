"""The tables and figures of Taobao's multimodal representations, on any data with item vectors.

- table 3: ways to use representations in a ranker, against the ranker of ids alone
- figure 3: rankers of ids, of representations and of both, epoch after epoch
- figure 6b: what representations bring to rare and to frequent items
- figure 6c: epochs that MAKE learns before the ranker

Reference:
    [Sheng et al., 2024: Enhancing Taobao Display Advertising with Multimodal
    Representations](https://arxiv.org/abs/2407.19467)
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

from ctr_keras.experiments.comparison import Comparison, Method
from ctr_keras.experiments.figures import Figure
from ctr_keras.experiments.multimodal_figures import (
    epochs_figure,
    frequency_figure,
    sweep_figure,
)
from ctr_keras.experiments.runs import Outcome, Run, run_labelled
from ctr_keras.experiments.settings import check_positive, runs_of

TABLES = ("3",)
FIGURES = ("3", "6b", "6c")
IDS = "ids alone"
METHODS = {
    "Vector": "VectorFusion",
    "SimScore": "SimScore",
    "SimTier": "SimTier",
    "MAKE": "MAKE",
    "SimTier + MAKE": "SimTierMAKE",
}
BEST = "SimTier + MAKE"
REPRESENTATIONS = "representations alone"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all trainings of the experiments have in common.

    Args:
        seeds: How many seeds each method is trained with.
        epochs: Epochs at most.
        batch_size: Rows a batch.
        learning_rate: Of `LazyAdam`.
        patience: Epochs without a better validation AUC before training stops.
        base: The ranker of ids.
        embedding_dim: Width of the embeddings.
        units: Widths of the ranker's layers.
        dropout: Of those layers.
        make_units: Widths of the layers of MAKE's extractor.
        make_projection: Width that MAKE brings representations to first, or `None`.
        make_epochs: Epochs that MAKE's extractor learns before the ranker, at most.
        make_sweep: Those of figure 6c; with 0 the extractor learns with the ranker alone.
        curve_epochs: Epochs of figure 3, which never stops early.
        item_groups: Groups of items of figure 6b.
    """

    seeds: int = 5
    epochs: int = 20
    batch_size: int = 1024
    learning_rate: float = 1e-3
    patience: int = 3
    base: str = "DIN"
    embedding_dim: int = 16
    units: tuple[int, ...] = (128, 64)
    dropout: float = 0.5
    make_units: tuple[int, ...] = (128, 64, 32)
    make_projection: int | None = 64
    make_epochs: int = 5
    make_sweep: tuple[int, ...] = (0, 1, 2, 3, 5)
    curve_epochs: int = 8
    item_groups: int = 8

    def __post_init__(self) -> None:
        check_positive(
            self, "seeds", "epochs", "batch_size", "patience", "embedding_dim", "make_epochs",
            "curve_epochs", "item_groups",
        )  # fmt: skip

    def options(self, model: str, make_epochs: int | None = None) -> dict[str, Any]:
        """Arguments of a model, `make_epochs` other than usual where it is given."""
        if model == "KnowledgeExtractor":
            return {"units": list(self.make_units), "projection": self.make_projection}
        options = {
            "embedding_dim": self.embedding_dim,
            "units": list(self.units),
            "dropout": self.dropout,
        }
        if model == self.base:
            return options
        wrapped: dict[str, Any] = {"base": self.base, "base_options": options}
        if model in ("MAKE", "SimTierMAKE"):
            epochs = self.make_epochs if make_epochs is None else make_epochs
            wrapped["extractor"] = self.options("KnowledgeExtractor")
            wrapped["extractor_epochs"] = epochs
            wrapped["joint"] = epochs == 0
        return wrapped


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """The tables and figures on one data set.

    Args:
        data: Prepared folder with the vectors of its items.
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

    def table(self, number: str) -> Comparison:
        """A table of the paper."""
        if number not in TABLES:
            raise ValueError(f"`table` must be one of {TABLES}. Received: `table={number!r}`")
        return {"3": self._methods}[number]()

    def figure(self, number: str) -> Figure:
        """A figure of the paper."""
        if number not in FIGURES:
            raise ValueError(f"`figure` must be one of {FIGURES}. Received: `figure={number!r}`")
        return {"3": self._epochs, "6b": self._frequency, "6c": self._make_epochs}[number]()

    def _methods(self) -> Comparison:
        runs = {label: self._runs(model) for label, model in METHODS.items()}
        outcomes = self._trained({IDS: self._runs(self.settings.base), **runs})
        methods = [Method(IDS, outcomes[IDS]), *(Method(m, outcomes[m], IDS) for m in METHODS)]
        title = f"Table 3: representations in {self.settings.base}, {self.data}"
        return Comparison(title, methods, metrics=("gauc", "auc"))

    def _epochs(self) -> Figure:
        changes = {"epochs": self.settings.curve_epochs, "patience": None}
        models = {
            IDS: self.settings.base,
            REPRESENTATIONS: "KnowledgeExtractor",
            BEST: METHODS[BEST],
        }
        runs = {label: self._runs(model, **changes) for label, model in models.items()}
        return epochs_figure(f"Figure 3: epoch after epoch, {self.data}", self._trained(runs))

    def _frequency(self) -> Figure:
        outcomes = self._trained(
            {IDS: self._runs(self.settings.base), BEST: self._runs(METHODS[BEST])}
        )
        title = f"Figure 6b: {BEST} against {IDS}, by training rows of the item, {self.data}"
        return frequency_figure(title, outcomes[IDS], outcomes[BEST])

    def _make_epochs(self) -> Figure:
        sweep = self.settings.make_sweep
        runs = {f"{epochs} epochs": self._runs("MAKE", make_epochs=epochs) for epochs in sweep}
        outcomes = self._trained({IDS: self._runs(self.settings.base), **runs})
        methods = [Method(IDS, outcomes[IDS]), *(Method(m, outcomes[m], IDS) for m in runs)]
        title = f"Figure 6c: epochs that MAKE learns before the ranker, {self.data}"
        comparison = Comparison(title, methods, metrics=("gauc", "auc"))
        return sweep_figure(comparison, "epochs of MAKE alone", sweep)

    def _runs(self, model: str, *, make_epochs: int | None = None, **changes: Any) -> list[Run]:
        options = self.settings.options(model, make_epochs)
        others = {"item_groups": self.settings.item_groups, **changes}
        return runs_of(self.settings, self.data, model, options, **others)

    def _trained(self, runs: Mapping[str, list[Run]]) -> dict[str, list[Outcome]]:
        return run_labelled(runs, self.out, jobs=self.jobs, report=self.report)
