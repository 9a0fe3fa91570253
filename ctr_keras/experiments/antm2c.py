"""The tables of the AntM2C benchmark, on any prepared data with scenarios.

- table 5: models of several scenarios, by scenario

Reference:
    [Huan et al., 2023: AntM2C](https://arxiv.org/abs/2308.16437)
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ctr_keras import data as ctr_data
from ctr_keras import metrics
from ctr_keras.datasets import truth
from ctr_keras.experiments.runs import run_all
from ctr_keras.experiments.scenario_comparison import ScenarioComparison
from ctr_keras.experiments.settings import check_positive, runs_of
from ctr_keras.schema import Schema
from ctr_keras.training.evaluate import scenario_names

TABLES = (5,)
SCENARIO_MODELS = ("ScenarioDNN", "SharedBottom", "MMoE", "PLE")


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
        dropout: Of all layers.
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

    def __post_init__(self) -> None:
        check_positive(
            self, "seeds", "epochs", "batch_size", "patience", "embedding_dim", "num_experts"
        )

    def options(self, model: str) -> dict[str, Any]:
        """Arguments of a model of several scenarios."""
        options: dict[str, Any] = {"embedding_dim": self.embedding_dim, "dropout": self.dropout}
        if model == "ScenarioDNN":  # As deep and wide as the others.
            return {**options, "tower_units": [*self.units, *self.tower_units]}
        options |= {"units": list(self.units), "tower_units": list(self.tower_units)}
        return options | ({"num_experts": self.num_experts} if model == "MMoE" else {})


def table(
    number: int,
    data: str | os.PathLike,
    out: str | os.PathLike,
    settings: Settings,
    *,
    jobs: int = 1,
    report: Callable[[str], Any] = lambda line: None,
) -> ScenarioComparison:
    """A table of the paper.

    Args:
        number: Of `TABLES`.
        data: Prepared folder whose schema has a scenario.
        out: Folder that keeps what was trained, so that an interrupted reproduction goes on.
        settings: What the trainings have in common.
        jobs: How many to train at a time.
        report: Told of each training.

    Raises:
        ValueError: there is no such table, or the data has no scenario.
    """
    if number not in TABLES:
        raise ValueError(f"`table` must be one of {TABLES}. Received: `table={number}`")
    schema = Schema.load(data)
    if not schema.by_role("scenario"):
        raise ValueError(
            f"The data needs a feature of role 'scenario'. Received: {data} with {schema.names}"
        )
    runs = {m: runs_of(settings, data, m, settings.options(m)) for m in SCENARIO_MODELS}
    outcomes = run_all(
        [run for of_model in runs.values() for run in of_model], out, jobs=jobs, report=report
    )
    return ScenarioComparison(
        title=f"Table 5: models of several scenarios, {data}",
        outcomes={model: [outcomes[run.key] for run in found] for model, found in runs.items()},
        baseline=SCENARIO_MODELS[0],
        best=best_possible(data, schema),
    )


def best_possible(data: str | os.PathLike, schema: Schema) -> dict[str, float] | None:
    """AUC by scenario of the test rows' true probabilities, `None` where nobody knows them."""
    if not truth.file_of(data, "test").is_file():
        return None
    known = truth.read(data, "test")
    scenario = schema.by_role("scenario")[0]
    rows = ctr_data.read(pathlib.Path(data) / "test", schema, 65_536)
    scenes = np.concatenate([x[scenario.name].numpy() for x, _ in rows])
    return metrics.scenario_auc(
        known["label"].to_numpy(),
        known[truth.PROBABILITY].to_numpy(),
        scenario_names(scenario.vocabulary, scenes),
    ).by_scenario
