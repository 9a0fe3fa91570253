"""Who uses which expert: the mean gates of a model of several scenarios."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ctr_keras import data
from ctr_keras.models import CTRModel
from ctr_keras.models.inference import inference_function
from ctr_keras.schema import RESERVED_IDS
from ctr_keras.training.evaluate import model_for, scenario_names

_READ_ROWS = 8192


@dataclasses.dataclass(frozen=True)
class GateUsage:
    """Mean gates of the rows of each scenario, by that scenario's own gate.

    Attributes:
        scenarios: Names of the scenarios that have rows.
        experts: What each expert is called. Those of `PLE` are a scenario's own and the shared.
        shares: `(scenarios, experts)`; each row sums to 1.
        rows: Rows of each scenario.
    """

    scenarios: Sequence[str]
    experts: Sequence[str]
    shares: np.ndarray
    rows: Sequence[int]

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "shares": self.shares.tolist()}

    def to_text(self) -> str:
        width = max(map(len, self.scenarios)) + 2
        lines = [f"{'':<{width}}{'rows':>12}" + "".join(f"{name:>10}" for name in self.experts)]
        for name, rows, shares in zip(self.scenarios, self.rows, self.shares, strict=True):
            lines.append(f"{name:<{width}}{rows:>12,}" + "".join(f"{s:>10.1%}" for s in shares))
        return "\n".join(lines)

    def save(self, file: str | os.PathLike) -> None:
        """Draw it to a .png, .svg or .pdf file."""
        from matplotlib.figure import Figure

        canvas = Figure(figsize=(2 + 0.8 * len(self.experts), 1.5 + 0.5 * len(self.scenarios)),
                        layout="constrained")  # fmt: skip
        axes = canvas.add_subplot()
        image = axes.imshow(self.shares, vmin=0, cmap="Blues", aspect="auto")
        axes.set_xticks(range(len(self.experts)), self.experts)
        axes.set_yticks(range(len(self.scenarios)), self.scenarios)
        for (scenario, expert), share in np.ndenumerate(self.shares):
            shade = "white" if share > 0.6 * self.shares.max() else "black"
            axes.text(expert, scenario, f"{share:.0%}", ha="center", va="center", color=shade)
        axes.set(xlabel="expert", ylabel="scenario", title="mean gate")
        canvas.colorbar(image)
        canvas.savefig(file, dpi=150)


def gate_usage(model: CTRModel | str | os.PathLike, path: str | os.PathLike) -> GateUsage:
    """Read a model's gates out over the rows of a split.

    Args:
        model: An `MMoE` or `PLE`, or its `.keras` file.
        path: The rows, a folder that `ck.data.write` made. Those of unknown scenarios have no
            part.

    Raises:
        ValueError: the model has no gates, or no row is of a scenario that it knows.
    """
    model = model_for(model, path)
    if "gates" not in model.tensors:
        raise ValueError(
            f"The model must have gates, as MMoE and PLE have. Received: `model={model.name!r}`"
        )
    feature = model.schema.by_role("scenario")[0]
    gates = inference_function(model, model.tensors["gates"])
    _, scenarios, experts = model.tensors["gates"].shape
    total, rows = np.zeros((scenarios, experts)), np.zeros(scenarios, np.int64)
    for x, _ in data.read(path, model.schema, _READ_ROWS):
        tower = x[feature.name].numpy() - RESERVED_IDS
        kept = np.flatnonzero(tower >= 0)
        np.add.at(total, tower[kept], gates(x).numpy()[kept, tower[kept]])
        rows += np.bincount(tower[kept], minlength=scenarios)
    found = np.flatnonzero(rows)
    if not len(found):
        raise ValueError(f"No row is of a scenario that the model knows. Received: `path={path}`")
    names = scenario_names(model.schema.vocabulary(feature.name), found + RESERVED_IDS)
    shares = total[found] / rows[found, None]
    return GateUsage(names.tolist(), _experts(model, experts), shares, rows[found].tolist())


def _experts(model: CTRModel, count: int) -> list[str]:
    shared = getattr(model, "num_shared_experts", None)
    if shared is None:
        return [str(number + 1) for number in range(count)]
    own = [f"own {number + 1}" for number in range(count - shared)]
    return own + [f"shared {number + 1}" for number in range(shared)]
