"""Figures of item representations in rankers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ctr_keras.experiments.comparison import Comparison, deviation, paired
from ctr_keras.experiments.figures import Figure
from ctr_keras.experiments.runs import Outcome

_HELD_OUT = "val_auc"


def epochs_figure(title: str, outcomes: Mapping[str, Sequence[Outcome]]) -> Figure:
    """AUC of the validation rows after each epoch, of models that were trained equally long."""
    areas = {
        label: np.array([[logs[_HELD_OUT] for logs in outcome.history] for outcome in found])
        for label, found in outcomes.items()
    }
    width = max(map(len, areas)) + 2
    epochs = next(iter(areas.values())).shape[1]
    lines = [title, f"{'epoch':<{width}}" + "".join(f"{n:>9}" for n in range(1, epochs + 1))]
    for label, found in areas.items():
        lines.append(f"{label:<{width}}" + "".join(f"{x:>9.4f}" for x in found.mean(axis=0)))
    seeds = len(next(iter(areas.values())))
    lines.append(f"AUC of the validation rows after each epoch, mean of {seeds} seeds")

    def draw(axes):
        for label, found in areas.items():
            spread = [deviation(values) for values in found.T]
            axes.errorbar(
                range(1, epochs + 1), found.mean(axis=0), yerr=spread, marker="o", capsize=3,
                label=label,
            )  # fmt: skip
        axes.set(xlabel="epoch", ylabel="validation AUC", title=title)
        axes.legend()

    content = {"title": title, "aucs": {label: found.tolist() for label, found in areas.items()}}
    return Figure("\n".join(lines), content, draw)


def frequency_figure(title: str, base: Sequence[Outcome], other: Sequence[Outcome]) -> Figure:
    """Change of AUC and log loss by group of items, from rare to frequent."""
    before, after = (
        {name: _by_group(found, name) for name in ("rows", "auc", "log_loss")}
        for found in (base, other)
    )
    groups = before["auc"].shape[1]
    content: dict[str, Any] = {"title": title, "groups": []}
    lines = [
        title,
        f"{'items':<8}{'rows':>9}"
        + "".join(f"{name}{'change':>9}{'p':>8}" for name in (f"{'AUC':>9}", f"{'log loss':>10}")),
    ]
    for group in range(groups):
        cells: dict[str, Any] = {"rows": int(before["rows"][0, group])}
        text = f"{group + 1:<8}{cells['rows']:>9,}"
        for name, digits in (("auc", 9), ("log_loss", 10)):
            old, new = before[name][:, group], after[name][:, group]
            change, p = float((new / old - 1).mean()), paired(new, old)["p"]
            cells |= {name: float(old.mean()), f"{name}_change": change, f"{name}_p": p}
            shown = "" if p is None else f"{p:.3f}"
            text += f"{old.mean():>{digits}.4f}{change:>+9.2%}{shown:>8}"
        content["groups"].append(cells)
        lines.append(text)
    lines.append(
        f"{groups} groups of equally many items, 1: the fewest training rows; test rows, "
        f"{len(base)} seeds; p: paired t-test"
    )

    def draw(axes):
        places = np.arange(groups)
        for shift, name, label in ((-0.2, "auc", "AUC"), (0.2, "log_loss", "log loss")):
            changes = [100 * cells[f"{name}_change"] for cells in content["groups"]]
            axes.bar(places + shift, changes, 0.4, label=label)
        axes.set_xticks(places, [str(n + 1) for n in places])
        axes.set(xlabel="items, from rare to frequent", ylabel="change in %", title=title)
        axes.axhline(0, color="black", linewidth=0.5)
        axes.legend()

    return Figure("\n".join(lines), content, draw)


def accuracy_figure(comparison: Comparison, accuracies: Mapping[str, float]) -> Figure:
    """GAUC of rankers by the Acc@1 of the encoder whose vectors they have.

    The first method of the comparison has none.
    """
    base, *methods = comparison.methods
    lines = [comparison.to_text(), ""]
    lines += [f"{method.label:<32}Acc@1 {accuracies[method.label]:.4f}" for method in methods]

    def draw(axes):
        for method in methods:
            values = method.values("gauc")
            place = accuracies[method.label]
            axes.errorbar(place, values.mean(), yerr=deviation(values), marker="o", capsize=3)
            axes.annotate(method.label, (place, values.mean()), fontsize=7)
        axes.axhline(base.values("gauc").mean(), linestyle="--", label=base.label)
        axes.set(xlabel="Acc@1 of the encoder", ylabel="test GAUC", title=comparison.title)
        axes.legend()

    content = {**comparison.to_dict(), "accuracies": dict(accuracies)}
    return Figure("\n".join(lines), content, draw)


def sweep_figure(comparison: Comparison, name: str, values: Sequence[float]) -> Figure:
    """GAUC by a setting, beside that of the first method, which lacks it."""
    base, *found = [method.values("gauc") for method in comparison.methods]

    def draw(axes):
        means, spreads = ([measure(x) for x in found] for measure in (np.mean, deviation))
        axes.errorbar(range(len(values)), means, yerr=spreads, marker="o", capsize=3)
        axes.axhline(base.mean(), linestyle="--", label=comparison.methods[0].label)
        axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axes.set(xlabel=name, ylabel="test GAUC", title=comparison.title)
        axes.legend()

    return Figure(comparison.to_text(), comparison.to_dict(), draw)


def _by_group(outcomes: Sequence[Outcome], name: str) -> np.ndarray:
    """A metric of each seed and group: `(seeds, groups)`."""
    return np.array([(outcome.by_frequency or {})[name] for outcome in outcomes], float)
