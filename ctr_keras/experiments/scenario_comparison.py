"""Models side by side, scenario by scenario."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ctr_keras.experiments.comparison import deviation, paired
from ctr_keras.experiments.runs import Outcome


@dataclasses.dataclass(frozen=True)
class ScenarioComparison:
    """AUC by scenario of models that were trained with the same seeds on the same rows.

    Attributes:
        title: What it shows.
        outcomes: Model -> one outcome for each seed, in the order of the seeds.
        baseline: The model that the others are compared with.
        best: AUC of the true probabilities by scenario, or `None`.
    """

    title: str
    outcomes: dict[str, Sequence[Outcome]]
    baseline: str
    best: dict[str, float] | None = None

    @property
    def scenarios(self) -> list[str]:
        """Those of the test rows."""
        return list(self.outcomes[self.baseline][0].evaluation["scenario_auc"])

    def aucs(self, model: str, scenario: str) -> np.ndarray:
        """One for each seed."""
        found = [outcome.evaluation["scenario_auc"] for outcome in self.outcomes[model]]
        return np.array([areas[scenario] for areas in found], float)

    def to_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "baseline": self.baseline,
            "models": {
                model: {scenario: self._cell(model, scenario) for scenario in self.scenarios}
                for model in self.outcomes
            },
            "best": self.best,
        }

    def _cell(self, model: str, scenario: str) -> dict[str, Any]:
        values = self.aucs(model, scenario)
        cell: dict[str, Any] = {
            "auc": float(values.mean()),
            "auc_std": deviation(values),
            "aucs": values.tolist(),
        }
        if model != self.baseline:
            cell |= paired(values, self.aucs(self.baseline, scenario))
        return cell

    def to_text(self) -> str:
        lines = [self.title, f"{'':<16}" + "".join(f"{name:>18}" for name in self.scenarios)]
        for model in self.outcomes:
            cells = [self._cell(model, scenario) for scenario in self.scenarios]
            areas = [f"{cell['auc']:.4f} ± {cell['auc_std']:.4f}" for cell in cells]
            lines.append(f"{model:<16}" + "".join(f"{area:>18}" for area in areas))
            if model != self.baseline:
                lines.append(f"{'':<16}" + "".join(f"{_gain(cell):>18}" for cell in cells))
        if self.best is not None:
            areas = [f"{self.best[name]:.4f}" for name in self.scenarios]
            lines.append(f"{'best possible':<16}" + "".join(f"{area:>18}" for area in areas))
        seeds = len(self.outcomes[self.baseline])
        lines.append(
            f"AUC of the test rows by scenario, {seeds} seeds; below it the gain over "
            f"{self.baseline} and p of a paired t-test"
        )
        return "\n".join(lines)


def _gain(cell: dict[str, Any]) -> str:
    p = "" if cell["p"] is None else f" p {cell['p']:.3f}"
    return f"{cell['gain']:+.4f}{p}"
