"""AUC within each scenario."""

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from ctr_keras.api_export import export
from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.metrics.arrays import (
    check_bins,
    check_groups,
    check_labels,
    check_scores,
    check_weights,
)
from ctr_keras.metrics.histogram import areas_of_bins, bin_sums
from ctr_keras.metrics.ranking import ordered_pairs
from ctr_keras.metrics.rows import binary_rows, check_length, one_per_row, sum_dtype


@dataclass(frozen=True)
class ScenarioAUCResult:
    """AUC by scenario.

    Attributes:
        by_scenario: Scenario -> area, in ascending order; NaN where the rows are of one class.
    """

    by_scenario: dict[Any, float]

    @property
    def value(self) -> float:
        """The mean over the scenarios that have an area, each counting alike; else NaN."""
        areas = [area for area in self.by_scenario.values() if not math.isnan(area)]
        return float(np.mean(areas)) if areas else float("nan")


def scenario_auc(
    labels: ArrayLike,
    scores: ArrayLike,
    scenarios: ArrayLike,
    sample_weight: ArrayLike | None = None,
) -> ScenarioAUCResult:
    """Exact area under the ROC curve within each scenario.

    Args:
        labels: Zeros and ones, in shape `(rows,)` or `(rows, 1)`.
        scores: Finite numbers, probabilities or logits: only their order in a scenario matters.
        scenarios: The scenario of each row: integers, strings or anything of one type that sorts.
        sample_weight: Optional weight of each row. Rows of weight 0 are left out.

    Returns:
        A `ScenarioAUCResult`.

    Example:

    >>> result = scenario_auc([0, 1, 1, 0, 1], [0.1, 0.4, 0.3, 0.3, 0.8], ["A", "A", "B", "B", "C"])
    >>> result.by_scenario, result.value
    ({'A': 1.0, 'B': 0.5, 'C': nan}, 0.75)

    Reference:
        - Huan et al., "AntM2C: A Large Scale Dataset For Multi-Scenario Multi-Modal CTR
          Prediction", 2023.
    """
    clicks = check_labels(labels)
    scores = check_scores(scores, len(clicks))
    weights = check_weights(sample_weight, len(clicks))
    scenarios = check_groups("scenarios", scenarios, len(clicks))
    present = weights > 0
    if not present.any():
        return ScenarioAUCResult({})
    clicks, scores, weights = clicks[present], scores[present], weights[present]
    names, index = np.unique(scenarios[present], return_inverse=True)
    pairs, positive, negative = ordered_pairs(
        index, scores, weights * clicks, weights * (1 - clicks)
    )
    all_pairs = positive * negative
    areas = np.divide(pairs, all_pairs, out=np.full(len(names), np.nan), where=all_pairs > 0)
    return ScenarioAUCResult(dict(zip(names.tolist(), areas.tolist(), strict=True)))


@export
class ScenarioAUC(keras.metrics.Metric):
    """Streaming AUC within each scenario: their mean, and each by `report`.

    The rows of a scenario are counted as `ck.metrics.AUC` counts all rows. The result is the mean
    over the scenarios that have rows of both classes, each counting alike; NaN where there is none,
    and, until `reset_state`, once a row had a label other than 0 and 1 or a prediction outside
    [0, 1]. Rows of weight 0 are left out, and rows whose scenario is none of
    `0, ..., num_scenarios - 1`.

    As for `ck.metrics.GAUC`, the scenarios come as `groups`, which the models of this package pass
    in evaluation to every metric with the attribute `group`.

    Args:
        group: Name of the feature that holds the scenario of a row.
        num_scenarios: How many ids that feature has: the size of its vocabulary, with padding and
            out of vocabulary, which are ids 0 and 1.
        num_bins: Number of bins a scenario, at least 2. Defaults to `16384`.
        name: Optional name of the metric instance. Defaults to `"scenario_auc"`.
        dtype: Optional dtype of the result.

    Call arguments:
        y_true: Zeros and ones, in shape `(batch,)` or `(batch, 1)`.
        y_pred: Predicted probabilities, in shape `(batch,)` or `(batch, 1)`.
        sample_weight: Optional weight of each row.
        groups: Integer ids, in shape `(batch,)` or `(batch, 1)`.

    Output: a scalar.

    Example:

    >>> metric = ScenarioAUC("scene", num_scenarios=5)
    >>> scenes = np.array([2, 2, 3, 3, 4])
    >>> metric.update_state([0, 1, 1, 0, 1], [0.1, 0.4, 0.3, 0.3, 0.8], groups=scenes)
    >>> float(metric.result())
    0.75
    >>> metric.report().by_scenario
    {2: 1.0, 3: 0.5, 4: nan}
    """

    def __init__(
        self,
        group: str,
        num_scenarios: int,
        num_bins: int = 16384,
        name: str | None = "scenario_auc",
        dtype: str | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if not isinstance(group, str) or not group:
            raise TypeError(f"`group` must be the name of a feature. Received: `group={group!r}`")
        self.group = group
        self.num_scenarios = check_positive_integer("num_scenarios", num_scenarios)
        self.num_bins = check_bins("num_bins", num_bins)
        self._counts = self.add_variable(
            (num_scenarios, self.num_bins, 2), "zeros", dtype=sum_dtype(), name="counts"
        )

    def update_state(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None, groups: Any = None
    ) -> None:
        """Add the rows of a batch; `groups` is required."""
        labels, probabilities, weights = binary_rows(y_true, y_pred, sample_weight)
        if groups is None:
            raise ValueError(
                f"`groups` must hold the scenario of each row, the feature {self.group!r}: call "
                "`update_state(y_true, y_pred, groups=x[metric.group])`. Received: `groups=None`"
            )
        scenario = one_per_row("groups", ops.convert_to_tensor(groups))
        check_length("groups", scenario, labels)
        dtype = keras.backend.standardize_dtype(scenario.dtype)
        if "int" not in dtype:
            raise TypeError(f"`groups` must hold integer ids. Received: `groups.dtype={dtype}`")
        known = ops.logical_and(scenario >= 0, scenario < self.num_scenarios)
        scenario = ops.cast(ops.where(known, scenario, 0), "int32")
        # A row of no scenario counts for nothing; its NaN, if it is not a proper one, stays.
        weights = ops.where(ops.logical_or(known, weights != weights), weights, 0.0)
        columns = [weights * labels, weights * (1 - labels)]
        sums = bin_sums(probabilities, columns, self.num_bins, scenario, self.num_scenarios)
        self._counts.assign_add(ops.reshape(sums, self._counts.shape))

    def result(self) -> Any:
        """The mean area over the rows since the last reset."""
        areas, both = areas_of_bins(self._counts.value)
        count = ops.sum(ops.cast(both, areas.dtype))
        mean = ops.sum(ops.where(both, areas, 0.0)) / ops.maximum(count, 1)
        total = ops.sum(self._counts.value)  # NaN once a row was not a proper one.
        defined = ops.logical_and(count > 0, total >= 0)
        return ops.cast(ops.where(defined, mean, float("nan")), self.dtype)

    def report(self) -> ScenarioAUCResult:
        """The area of every scenario that has rows, by its id."""
        areas, both = (ops.convert_to_numpy(part) for part in areas_of_bins(self._counts.value))
        rows = ops.convert_to_numpy(self._counts.value).sum(axis=(1, 2))
        found = np.where(both, areas, np.nan).tolist()
        return ScenarioAUCResult(
            {scenario: found[scenario] for scenario in range(self.num_scenarios) if rows[scenario]}
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments with which `from_config` makes the same metric."""
        return {
            **super().get_config(),
            "group": self.group,
            "num_scenarios": self.num_scenarios,
            "num_bins": self.num_bins,
        }
