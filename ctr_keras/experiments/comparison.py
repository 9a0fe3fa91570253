"""Methods side by side: mean and deviation over seeds, and whether a gain is more than chance."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from ctr_keras.experiments.runs import Outcome

_NAMES = {"auc": "AUC", "gauc": "GAUC"}
_AT_CAP = "*: best at the cap of epochs, so still climbing: "


@dataclasses.dataclass(frozen=True)
class Method:
    """One line of a table.

    Attributes:
        label: What it is called.
        outcomes: One for each seed, in the order of the seeds.
        against: Label of the method it is compared with, or `None`.
    """

    label: str
    outcomes: Sequence[Outcome]
    against: str | None = None

    def values(self, metric: str) -> np.ndarray:
        return np.array([outcome.evaluation[metric] for outcome in self.outcomes], float)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A table of methods that were trained with the same seeds on the same rows.

    Attributes:
        title: What it shows.
        methods: Its lines.
        metrics: Those whose gains it shows, of `_NAMES`.
    """

    title: str
    methods: Sequence[Method]
    metrics: Sequence[str] = ("auc",)

    def to_dict(self) -> dict[str, Any]:
        return {"title": self.title, "methods": [self._line(method) for method in self.methods]}

    def to_text(self) -> str:
        width = max(len(method.label) for method in self.methods) + 2
        gains = "".join(f"{_NAMES[m] + ' gain':>11}{'p':>8}" for m in self.metrics)
        header = f"{'AUC':>16}{'GAUC':>9}{'log loss':>10}{gains}{'epoch':>7}{'s':>6}"
        lines = [self.title, f"{'':<{width}}{header}"]
        for line in map(self._line, self.methods):
            seconds = "" if line["seconds"] is None else f"{line['seconds']:.0f}"
            gauc = "" if line["gauc"] is None else f"{line['gauc']:.4f}"
            lines.append(
                f"{line['label']:<{width}}{line['auc']:>7.4f} ± {line['auc_std']:.4f}"
                f"{gauc:>9}{line['log_loss']:>10.4f}"
                f"{''.join(self._gain(line, metric) for metric in self.metrics)}"
                f"{line['best_epoch']:>7.1f}{'*' if line['seeds_at_cap'] else ' '}{seconds:>5}"
            )
        seeds = len(self.methods[0].outcomes)
        lines.append(
            f"test rows, {seeds} seeds; gain: over {self._baselines()}, p: paired t-test; "
            "epoch: the best one on the validation rows, s: seconds of a training"
        )
        return "\n".join([*lines, *self._cut_off()])

    def _cut_off(self) -> list[str]:
        """A line on the methods that might be better with more epochs, if there are any."""
        lines = [self._line(method) for method in self.methods]
        if all(line["seeds_at_cap"] == len(line["aucs"]) for line in lines):
            return [_AT_CAP + "all, for all seeds"]
        found = [
            f"{line['label'].strip()} for {line['seeds_at_cap']} of {len(line['aucs'])} seeds"
            for line in lines
            if line["seeds_at_cap"]
        ]
        return [] if not found else [_AT_CAP + ", ".join(found)]

    def _baselines(self) -> str:
        named = sorted({method.against for method in self.methods if method.against is not None})
        return named[0] if len(named) == 1 else "the line's base"

    def _line(self, method: Method) -> dict[str, Any]:
        gaucs = [outcome.evaluation["gauc"] for outcome in method.outcomes]
        line: dict[str, Any] = {
            "label": method.label,
            "against": method.against,
            "auc": float(method.values("auc").mean()),
            "auc_std": deviation(method.values("auc")),
            "aucs": method.values("auc").tolist(),
            "gauc": None if None in gaucs else float(np.mean(gaucs)),
            "log_loss": float(method.values("log_loss").mean()),
            "calibration_ratio": float(method.values("calibration_ratio").mean()),
            "best_epoch": float(np.mean([outcome.best_epoch for outcome in method.outcomes])),
            "seeds_at_cap": sum(outcome.is_at_cap for outcome in method.outcomes),
            "seconds": median_seconds(method.outcomes),
        }
        if method.against is not None:
            base = next(other for other in self.methods if other.label == method.against)
            for metric in self.metrics:
                found = paired(method.values(metric), base.values(metric))
                line |= {_key(name, metric): value for name, value in found.items()}
        return line

    def _gain(self, line: dict[str, Any], metric: str) -> str:
        """Gain and p of a line, as they are shown."""
        if line["against"] is None:
            return f"{'':>19}"
        p = line[_key("p", metric)]
        return f"{line[_key('gain', metric)]:>+11.4f}{'' if p is None else format(p, '.3f'):>8}"


def _key(name: str, metric: str) -> str:
    return name if metric == "auc" else f"{metric}_{name}"


def paired(values: np.ndarray, base: np.ndarray) -> dict[str, float | None]:
    """Mean difference and its two-sided p value by the paired t-test.

    Args:
        values: One value a seed.
        base: Those of the other method, of the same seeds.

    Returns:
        `gain`, and `p`: `None` for a single seed, or where all differences are equal.
    """
    gain = float(np.mean(values - base))
    if len(values) < 2 or np.ptp(values - base) == 0:
        return {"gain": gain, "p": None}
    p = float(stats.ttest_rel(values, base).pvalue)
    return {"gain": gain, "p": None if math.isnan(p) else p}


def median_seconds(outcomes: Sequence[Outcome]) -> float | None:
    """Of a training, of those that were not interrupted."""
    known = [outcome.seconds for outcome in outcomes if outcome.seconds is not None]
    return float(np.median(known)) if known else None


def deviation(values: np.ndarray) -> float:
    """Standard deviation over seeds, 0 for one."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
