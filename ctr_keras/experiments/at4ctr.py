"""The tables and figures of AT4CTR, on any prepared data.

- table 2: all models
- table 3: what each of the two tasks brings to DIN
- table 4: every base model with and without both
- figure 2: DIN with and without, on shares of the negatives, and what each share costs
- figures 3 and 4: weights of the user-item match and of the next-item prediction
- figure 5: cosine of past items and clicked item, with and without

Reference:
    [Liu et al., 2023: AT4CTR](https://arxiv.org/abs/2312.06683)
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from ctr_keras.argument_checks import check_positive_integers
from ctr_keras.experiments.comparison import Comparison, Method
from ctr_keras.experiments.down_sampled import down_sampled
from ctr_keras.experiments.figures import Figure, cost_figure, relevance_figure, weight_figure
from ctr_keras.experiments.jobs import run_labelled
from ctr_keras.experiments.runs import Outcome, Run
from ctr_keras.experiments.settings import base_options, runs_of, set_widths
from ctr_keras.negative_ratio import check_negative_ratio

TABLES = (2, 3, 4)
FIGURES = (2, 3, 4, 5)
BASES = ("FM", "WideDeep", "DeepFM", "DIN", "DIEN", "DBPMaN")
RIVALS = ("DeepMCP", "DMR", "CL4CTR")
RATIOS = (1.0, 0.5, 0.2, 0.1, 0.05)
UIM_WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)
NIP_WEIGHTS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all trainings of the experiments have in common.

    Args:
        seeds: How many seeds each method is trained with.
        epochs: Epochs at most.
        batch_size: Rows a batch.
        learning_rate: Of `LazyAdam`.
        patience: Epochs without a better validation AUC before training stops.
        embedding_dim: Width of the embeddings.
        units: Widths of the MLP's layers.
        attention_units: Widths of DIN's activation unit.
        dropout: Of the MLP.
        uim_weight: Weight of the user-item match.
        nip_weight: Weight of the next-item prediction.
        rows: Rows of a batch that the two tasks use.
        bases: Base models of table 4.
        negative_ratio: Share of the training negatives to train on; figure 2 has its own shares.
    """

    seeds: int = 5
    epochs: int = 20
    batch_size: int = 1024
    learning_rate: float = 1e-3
    patience: int = 3
    embedding_dim: int = 16
    units: tuple[int, ...] = (128, 64)
    attention_units: tuple[int, ...] = (32, 16)
    dropout: float = 0.5
    uim_weight: float = 0.05
    nip_weight: float = 0.01
    rows: int | None = 96
    bases: tuple[str, ...] = BASES
    negative_ratio: float = 1.0

    def __post_init__(self) -> None:
        check_positive_integers(self, "seeds", "epochs", "batch_size", "patience", "embedding_dim")
        set_widths(self, "units", "attention_units")
        is_list = isinstance(self.bases, (list, tuple)) and self.bases
        if not is_list or not set(self.bases) <= set(BASES):
            raise ValueError(
                f"`bases` must be a list of {', '.join(BASES)}. Received: `bases={self.bases!r}`"
            )
        check_negative_ratio("negative_ratio", self.negative_ratio)

    def runs(self, data: str | os.PathLike, model: str, **options: Any) -> list[Run]:
        """A run a seed."""
        return runs_of(self, data, model, options)

    def options(self, model: str) -> dict[str, Any]:
        """Arguments of a base model or rival."""
        if model == "CL4CTR":
            return {"base": "DIN", "base_options": self.options("DIN")}
        return base_options(self, model)

    def at4ctr(self, base: str = "DIN", **changes: Any) -> dict[str, Any]:
        """Arguments of AT4CTR on a base."""
        return {
            "base": base,
            "base_options": self.options(base),
            "uim_weight": self.uim_weight,
            "nip_weight": self.nip_weight,
            "rows": self.rows,
            **changes,
        }


class Reproduction:
    """The tables and figures on one data set.

    Args:
        data: Prepared folder.
        out: Folder that keeps what was trained, so that an interrupted reproduction goes on.
        settings: What the trainings have in common.
        jobs: How many to train at a time.
        report: Told of each training.
    """

    def __init__(
        self,
        data: str | os.PathLike,
        out: str | os.PathLike,
        settings: Settings,
        *,
        jobs: int = 1,
        report: Callable[[str], Any] = lambda line: None,
    ):
        self.source = data
        self.out = pathlib.Path(out)
        self.settings = settings
        self.data = self._with_negatives(settings.negative_ratio)
        share = (
            "" if settings.negative_ratio == 1 else f" ({settings.negative_ratio:g} of negatives)"
        )
        self.title = f"{data}{share}"
        self.jobs = jobs
        self.report = report

    def table(self, number: int) -> Comparison:
        """A table of the paper as a `Comparison`."""
        if number not in TABLES:
            raise ValueError(f"`table` must be one of {TABLES}. Received: `table={number}`")
        return {2: self._all_models, 3: self._ablation, 4: self._every_base}[number]()

    def figure(self, number: int) -> Figure:
        """A figure of the paper."""
        if number not in FIGURES:
            raise ValueError(f"`figure` must be one of {FIGURES}. Received: `figure={number}`")
        return {
            2: self._ratios,
            3: lambda: self._weights("uim_weight", UIM_WEIGHTS),
            4: lambda: self._weights("nip_weight", NIP_WEIGHTS),
            5: self._relevance,
        }[number]()

    def _all_models(self) -> Comparison:
        runs = {model: self._base(model) for model in (*BASES, *RIVALS)}
        runs["AT4CTR (DIN)"] = self._with_tasks("DIN")
        outcomes = self._trained(runs)
        methods = [
            Method(label, outcomes[label], None if label == "DIN" else "DIN") for label in runs
        ]
        return Comparison(f"Table 2: all models, {self.title}", methods)

    def _ablation(self) -> Comparison:
        outcomes = self._trained(
            {
                "DIN": self._base("DIN"),
                "DIN + UIM": self._with_tasks("DIN", nip_weight=0.0),
                "DIN + NIP": self._with_tasks("DIN", uim_weight=0.0),
                "DIN + UIM + NIP": self._with_tasks("DIN"),
            }
        )
        methods = [
            Method(label, found, None if label == "DIN" else "DIN")
            for label, found in outcomes.items()
        ]
        return Comparison(f"Table 3: what each task brings, {self.title}", methods)

    def _every_base(self) -> Comparison:
        runs = {}
        for base in self.settings.bases:
            runs[base] = self._base(base)
            runs[f"  + AT4CTR ({base})"] = self._with_tasks(base)
        outcomes = self._trained(runs)
        methods = []
        for base in self.settings.bases:
            label = f"  + AT4CTR ({base})"
            methods += [Method(base, outcomes[base]), Method(label, outcomes[label], base)]
        return Comparison(f"Table 4: every base with and without, {self.title}", methods)

    def _ratios(self) -> Figure:
        runs = {}
        for ratio in RATIOS:
            folder = self._with_negatives(ratio)
            runs[f"DIN, {ratio:g}"] = self._base("DIN", folder)
            runs[f"AT4CTR, {ratio:g}"] = self._with_tasks("DIN", folder)
        outcomes = self._trained(runs)
        methods = []
        for ratio in RATIOS:
            base, label = f"DIN, {ratio:g}", f"AT4CTR, {ratio:g}"
            methods += [Method(base, outcomes[base]), Method(label, outcomes[label], base)]
        title = f"Figure 2: shares of the negatives, {self.source}"
        return cost_figure(Comparison(title, methods), RATIOS)

    def _weights(self, name: str, weights: Iterable[float]) -> Figure:
        number, other = (3, "nip_weight") if name == "uim_weight" else (4, "uim_weight")
        runs = {}
        for weight in weights:
            changes: dict[str, Any] = {name: weight, other: 0.0}
            with_task = self._with_tasks("DIN", **changes)
            runs[f"{name} {weight:g}"] = with_task if weight else self._base("DIN")
        outcomes = self._trained(runs)
        base = next(iter(runs))
        methods = [
            Method(label, found, None if label == base else base)
            for label, found in outcomes.items()
        ]
        title = f"Figure {number}: {name} (the other task left out), {self.title}"
        return weight_figure(Comparison(title, methods), name, list(weights))

    def _relevance(self) -> Figure:
        outcomes = self._trained(
            {"DIN": self._base("DIN"), "AT4CTR (DIN)": self._with_tasks("DIN")}
        )
        return relevance_figure(f"Figure 5: past items and target, {self.title}", outcomes)

    def _with_negatives(self, ratio: float) -> pathlib.Path:
        return down_sampled(self.source, self.out / "down_sampled", ratio)

    def _base(self, model: str, data: str | os.PathLike | None = None) -> list[Run]:
        return self.settings.runs(data or self.data, model, **self.settings.options(model))

    def _with_tasks(
        self, base: str, data: str | os.PathLike | None = None, **changes: Any
    ) -> list[Run]:
        options = self.settings.at4ctr(base, **changes)
        return self.settings.runs(data or self.data, "AT4CTR", **options)

    def _trained(self, runs: dict[str, list[Run]]) -> dict[str, list[Outcome]]:
        return run_labelled(runs, self.out, jobs=self.jobs, report=self.report)
