"""Models side by side, one part of the test rows after the other."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ctr_keras import metrics
from ctr_keras.experiments.comparison import deviation, paired


@dataclasses.dataclass(frozen=True)
class SliceComparison:
    """AUC by slice of the test rows, of models that were trained with the same seeds.

    Attributes:
        title: What it shows.
        aucs: Model -> slice -> AUC for each seed, in the order of the seeds; NaN where it is not
            defined.
        baseline: The model that the others are compared with.
        best: AUC of the true probabilities by slice, or `None`.
    """

    title: str
    aucs: Mapping[str, Mapping[str, Sequence[float]]]
    baseline: str
    best: Mapping[str, float] | None = None

    @property
    def slices(self) -> list[str]:
        """In the order of the baseline's."""
        return list(self.aucs[self.baseline])

    def to_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "baseline": self.baseline,
            "models": {
                model: {name: self._cell(model, name) for name in self.slices}
                for model in self.aucs
            },
            "best": None if self.best is None else dict(self.best),
        }

    def _cell(self, model: str, name: str) -> dict[str, Any]:
        values, base = (np.array(self.aucs[m][name], float) for m in (model, self.baseline))
        cell: dict[str, Any] = {
            "auc": float(values.mean()),
            "auc_std": deviation(values),
            "aucs": values.tolist(),
        }
        if model != self.baseline:
            cell |= paired(values, base)
            cell["relative"] = metrics.relative_improvement(values.mean(), base.mean())
        return cell

    def to_text(self) -> str:
        width = max(len(model) for model in self.aucs) + 2
        lines = [self.title, f"{'':<{width}}" + "".join(f"{name:>18}" for name in self.slices)]
        for model in self.aucs:
            cells = [self._cell(model, name) for name in self.slices]
            areas = [f"{cell['auc']:.4f} ± {cell['auc_std']:.4f}" for cell in cells]
            lines.append(f"{model:<{width}}" + "".join(f"{area:>18}" for area in areas))
            if model != self.baseline:
                lines.append(f"{'':<{width}}" + "".join(f"{_gain(cell):>18}" for cell in cells))
        if self.best is not None:
            areas = [f"{self.best[name]:.4f}" for name in self.slices]
            lines.append(f"{'best possible':<{width}}" + "".join(f"{area:>18}" for area in areas))
        seeds = len(self.aucs[self.baseline][self.slices[0]])
        lines.append(
            f"AUC of the test rows, {seeds} seeds; below it the gain over {self.baseline} and p of "
            "a paired t-test"
        )
        return "\n".join(lines)


def _gain(cell: dict[str, Any]) -> str:
    p = "" if cell["p"] is None else f" p {cell['p']:.3f}"
    return f"{cell['gain']:+.4f}{p}"
