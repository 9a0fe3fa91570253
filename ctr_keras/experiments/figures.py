"""Figures of an experiment: their numbers, and a plot of them."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ctr_keras.experiments.comparison import Comparison, deviation, median_seconds
from ctr_keras.experiments.relevance import BINS
from ctr_keras.experiments.runs import Outcome


@dataclasses.dataclass(frozen=True)
class Figure:
    """What a figure shows.

    Attributes:
        text: Its numbers, readable.
        content: Its numbers.
        draw: Draws it on Matplotlib axes.
    """

    text: str
    content: dict[str, Any]
    draw: Callable[[Any], Any] = dataclasses.field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        return self.content

    def to_text(self) -> str:
        return self.text

    def save(self, file: str | os.PathLike) -> None:
        """Draw it to a .png, .svg or .pdf file."""
        from matplotlib.figure import Figure as Canvas

        canvas = Canvas(figsize=(6, 4), layout="constrained")
        self.draw(canvas.add_subplot())
        canvas.savefig(file, dpi=150)


def weight_figure(comparison: Comparison, name: str, weights: Sequence[float]) -> Figure:
    """AUC by the weight of a loss."""
    means, spreads = _means(comparison)

    def draw(axes):
        axes.errorbar([f"{w:g}" for w in weights], means, yerr=spreads, marker="o", capsize=3)
        axes.set(xlabel=name, ylabel="test AUC", title=comparison.title)

    return Figure(comparison.to_text(), comparison.to_dict(), draw)


def cost_figure(comparison: Comparison, ratios: Sequence[float]) -> Figure:
    """AUC of a base and of it with the tasks by the share of negatives, and what each costs.

    All seeds share one sample of the negatives, so the spread is that of training alone. The
    methods alternate: the base and, after it, the base with the tasks, at each ratio.
    """
    means, spreads = _means(comparison)
    outcomes = [method.outcomes for method in comparison.methods]
    costs: list[dict[str, Any]] = [
        {
            "label": method.label,
            "rows": found[0].rows,
            "bytes": found[0].train_bytes,
            "seconds": median_seconds(found),
        }
        for method, found in zip(comparison.methods, outcomes, strict=True)
    ]
    width = max(len(cost["label"]) for cost in costs) + 2
    lines = [comparison.to_text(), "", f"{'':<{width}}{'rows':>12}{'MB':>9}{'minutes':>9}"]
    lines += [
        f"{cost['label']:<{width}}{cost['rows']:>12,}{cost['bytes'] / 1e6:>9.1f}"
        f"{'' if cost['seconds'] is None else format(cost['seconds'] / 60, '.2f'):>9}"
        for cost in costs
    ]

    def draw(axes):
        for first, label in ((0, "base"), (1, "with both tasks")):
            axes.errorbar(
                ratios, means[first::2], yerr=spreads[first::2], marker="o", capsize=3, label=label
            )
        axes.set(xscale="log", xlabel="share of the negatives", ylabel="test AUC")
        axes.set_title(comparison.title)
        axes.legend()

    return Figure("\n".join(lines), {**comparison.to_dict(), "costs": costs}, draw)


def relevance_figure(title: str, outcomes: dict[str, list[Outcome]]) -> Figure:
    """Distribution of the cosine of past items and the clicked item, for each method."""
    shares, content, lines = {}, {}, [title, f"{'':<16}{'clicked':>9}{'other':>9}{'gap':>9}"]
    for label, found in outcomes.items():
        relevances = [outcome.relevance for outcome in found if outcome.relevance is not None]
        if not relevances:
            raise ValueError(
                "Figure 5 needs test rows with a history, clicked ones and others. "
                f"Received: none of {label}"
            )
        counts = np.sum([relevance["clicked_counts"] for relevance in relevances], axis=0)
        shares[label] = counts / counts.sum()
        clicked, other = (
            np.array([relevance[name] for relevance in relevances]) for name in ("clicked", "other")
        )
        content[label] = {
            "clicked": float(clicked.mean()),
            "other": float(other.mean()),
            "gap": float((clicked - other).mean()),
            "gap_std": deviation(clicked - other),
            "clicked_shares": shares[label].tolist(),
        }
        lines.append(
            f"{label:<16}{clicked.mean():>9.4f}{other.mean():>9.4f}"
            f"{(clicked - other).mean():>9.4f} ± {deviation(clicked - other):.4f}"
        )
    lines.append("mean cosine of the mean past item and the target item, test rows")

    def draw(axes):
        edges = np.linspace(-1, 1, BINS + 1)
        for label, share in shares.items():
            axes.stairs(share, edges, label=label)
        axes.set(xlabel="cosine, clicked rows", ylabel="share of the rows", title=title)
        axes.legend()

    return Figure("\n".join(lines), {"title": title, **content}, draw)


def _means(comparison: Comparison) -> tuple[list[float], list[float]]:
    values = [method.values("auc") for method in comparison.methods]
    return [float(value.mean()) for value in values], [deviation(value) for value in values]
