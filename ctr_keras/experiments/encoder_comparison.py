"""Encoders side by side: how often the item of a held-out query is the nearest of all."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ctr_keras.experiments.comparison import deviation, paired


@dataclasses.dataclass(frozen=True)
class EncoderComparison:
    """Acc@1 and Acc@5 of encoders that were trained with the same seeds on the same pairs.

    Attributes:
        title: What it shows.
        accuracies: Encoder -> one dict a seed with `acc_1` and `acc_5`.
        baseline: The encoder that the others are compared with.
    """

    title: str
    accuracies: Mapping[str, Sequence[Mapping[str, float]]]
    baseline: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "baseline": self.baseline,
            "encoders": {label: self._line(label) for label in self.accuracies},
        }

    def _line(self, label: str) -> dict[str, Any]:
        line: dict[str, Any] = {}
        for name in ("acc_1", "acc_5"):
            values, base = (
                np.array([found[name] for found in self.accuracies[which]])
                for which in (label, self.baseline)
            )
            line |= {name: float(values.mean()), f"{name}_std": deviation(values)}
            if label != self.baseline:
                line |= {f"{name}_{key}": value for key, value in paired(values, base).items()}
        return line

    def to_text(self) -> str:
        width = max(map(len, self.accuracies)) + 2
        columns = "".join(f"{name:>17}{'gain':>9}{'p':>7}" for name in ("Acc@1", "Acc@5"))
        lines = [self.title, f"{'':<{width}}{columns}"]
        for label in self.accuracies:
            line = self._line(label)
            text = f"{label:<{width}}"
            for name in ("acc_1", "acc_5"):
                text += f"{line[name]:>8.4f} ± {line[f'{name}_std']:.4f}"
                gain, p = line.get(f"{name}_gain"), line.get(f"{name}_p")
                text += f"{'' if gain is None else format(gain, '+.4f'):>9}"
                text += f"{'' if p is None else format(p, '.3f'):>7}"
            lines.append(text.rstrip())
        seeds = len(self.accuracies[self.baseline])
        lines.append(
            f"test queries against all items of the test pairs, {seeds} seeds; gain: over "
            f"{self.baseline}, p: paired t-test"
        )
        return "\n".join(lines)
