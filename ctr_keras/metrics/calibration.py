"""Calibration: whether predicted click rates are those that come true."""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from ctr_keras.api_export import export
from ctr_keras.metrics.arrays import (
    check_bins,
    check_labels,
    check_probabilities,
    check_weights,
)
from ctr_keras.metrics.histogram import bin_sums
from ctr_keras.metrics.rows import binary_rows, sum_dtype


def calibration_ratio(
    labels: ArrayLike, probabilities: ArrayLike, sample_weight: ArrayLike | None = None
) -> float:
    """Predicted clicks over actual clicks: above 1 the model promises too much.

    `sum_i w_i p_i / sum_i w_i y_i`

    Args:
        labels: Zeros and ones, in shape `(rows,)` or `(rows, 1)`.
        probabilities: Predicted probabilities, in [0, 1].
        sample_weight: Optional weight of each row.

    Returns:
        The ratio as a float; NaN, since it is not defined, where there is no click.

    Example:

    >>> calibration_ratio([0, 1, 0, 0], [0.25, 0.75, 0.25, 0.25])
    1.5

    Reference:
        - He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014.
    """
    clicks = check_labels(labels)
    probabilities = check_probabilities(probabilities, len(clicks))
    weights = check_weights(sample_weight, len(clicks))
    actual = weights @ clicks
    return float(weights @ probabilities / actual) if actual > 0 else float("nan")


@export
class CalibrationRatio(keras.metrics.Metric):
    """Streaming predicted clicks over actual clicks: above 1 the model promises too much.

    `sum_i w_i p_i / sum_i w_i y_i`

    Without a click the value is not defined and the result is NaN. It is NaN, too, until
    `reset_state`, once a row had a label other than 0 and 1 or a prediction outside [0, 1]. Rows of
    weight 0 are left out, whatever they hold.

    Args:
        name: Optional name of the metric instance. Defaults to `"calibration_ratio"`.
        dtype: Optional dtype of the result.

    Call arguments:
        y_true: Zeros and ones, in shape `(batch,)` or `(batch, 1)`.
        y_pred: Predicted probabilities, in shape `(batch,)` or `(batch, 1)`.
        sample_weight: Optional weight of each row.

    Output: a scalar.

    Example:

    >>> metric = CalibrationRatio()
    >>> metric.update_state([0, 1, 0, 0], [0.25, 0.75, 0.25, 0.25])
    >>> float(metric.result())
    1.5

    Reference:
        - He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014.
    """

    def __init__(self, name: str | None = "calibration_ratio", dtype: str | None = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self._predicted = self.add_variable((), "zeros", dtype=sum_dtype(), name="predicted")
        self._actual = self.add_variable((), "zeros", dtype=sum_dtype(), name="actual")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add the rows of a batch."""
        labels, probabilities, weights = binary_rows(y_true, y_pred, sample_weight)
        self._predicted.assign_add(ops.sum(ops.cast(weights * probabilities, sum_dtype())))
        self._actual.assign_add(ops.sum(ops.cast(weights * labels, sum_dtype())))

    def result(self) -> Any:
        """The value over the rows since the last reset."""
        actual = self._actual.value
        ratio = self._predicted.value / ops.where(actual > 0, actual, 1)
        return ops.cast(ops.where(actual > 0, ratio, float("nan")), self.dtype)


def calibration_error(
    labels: ArrayLike,
    probabilities: ArrayLike,
    sample_weight: ArrayLike | None = None,
    num_bins: int = 10,
) -> float:
    """Expected calibration error over bins of equal count.

    The rows, sorted by probability, are cut into `num_bins` bins of equal weight. With `W_b` the
    weight of bin `b`, `p_b` its mean probability and `y_b` its click rate:

    `sum_b W_b |p_b - y_b| / sum_b W_b`

    Rows of equal probability are never cut apart: all go to the bin in which the middle of their
    weight lies. So the value does not depend on the order of the rows, and bins are of equal
    count only as far as ties allow.

    Args:
        labels: Zeros and ones, in shape `(rows,)` or `(rows, 1)`.
        probabilities: Predicted probabilities, in [0, 1].
        sample_weight: Optional weight of each row.
        num_bins: Number of bins, at least 2. Defaults to `10`.

    Returns:
        The error as a float, in [0, 1]; NaN where all weights are 0.

    Example:

    >>> calibration_error([0, 0, 1, 0], [0.25, 0.25, 0.5, 0.5], num_bins=2)
    0.125

    Reference:
        - Nguyen and O'Connor, "Posterior calibration and exploratory analysis for natural language
          processing models", EMNLP 2015 (bins of equal count).
    """
    num_bins = check_bins("num_bins", num_bins)
    clicks = check_labels(labels)
    probabilities = check_probabilities(probabilities, len(clicks)).astype(np.float64)
    weights = check_weights(sample_weight, len(clicks))

    _, ties = np.unique(probabilities, return_inverse=True)
    weight = np.bincount(ties, weights)
    excess = np.bincount(ties, weights * (probabilities - clicks))
    total = weight.sum()
    if total == 0:
        return float("nan")
    middle = np.cumsum(weight) - weight / 2
    bins = np.minimum((num_bins * middle / total).astype(np.int64), num_bins - 1)
    return float(np.abs(np.bincount(bins, excess)).sum() / total)


@export
class CalibrationError(keras.metrics.Metric):
    """Streaming expected calibration error over bins of equal count.

    With `W_b` the weight of bin `b`, `p_b` its mean probability and `y_b` its click rate:

    `sum_b W_b |p_b - y_b| / sum_b W_b`

    Where the bins of equal count begin is known only at the end. So the rows are first summed in a
    fine histogram of `resolution` bins of equal width in the logit, and `result` merges these into
    `num_bins` bins of equal count: rows of one fine bin stay together, as rows of equal probability
    do in `ctr_keras.metrics.calibration_error`. It differs from that exact value only by the rows
    next to the edges of the bins.

    The result is NaN before the first row and, until `reset_state`, once a row had a label other
    than 0 and 1 or a prediction outside [0, 1]. Rows of weight 0 are left out, whatever they hold.

    Args:
        num_bins: Number of bins of equal count, at least 2. Defaults to `10`.
        resolution: Number of fine bins, at least `num_bins`. Defaults to `16384`, each 0.002 wide
            in the logit.
        name: Optional name of the metric instance. Defaults to `"calibration_error"`.
        dtype: Optional dtype of the result.

    Call arguments:
        y_true: Zeros and ones, in shape `(batch,)` or `(batch, 1)`.
        y_pred: Predicted probabilities, in shape `(batch,)` or `(batch, 1)`.
        sample_weight: Optional weight of each row.

    Output: a scalar in [0, 1].

    Example:

    >>> metric = CalibrationError(num_bins=2)
    >>> metric.update_state([0, 0, 1, 0], [0.25, 0.25, 0.5, 0.5])
    >>> float(metric.result())
    0.125

    Reference:
        - Nguyen and O'Connor, "Posterior calibration and exploratory analysis for natural language
          processing models", EMNLP 2015 (bins of equal count).
    """

    def __init__(
        self,
        num_bins: int = 10,
        resolution: int = 16384,
        name: str | None = "calibration_error",
        dtype: str | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.num_bins = check_bins("num_bins", num_bins)
        self.resolution = check_bins("resolution", resolution)
        if self.resolution < self.num_bins:
            raise ValueError(
                f"`resolution` must be `num_bins`, {num_bins}, or more. "
                f"Received: `resolution={resolution}`"
            )
        self._sums = self.add_variable(
            (self.resolution, 2), "zeros", dtype=sum_dtype(), name="sums"
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add the rows of a batch."""
        labels, probabilities, weights = binary_rows(y_true, y_pred, sample_weight)
        columns = [weights, weights * (probabilities - labels)]
        self._sums.assign_add(bin_sums(probabilities, columns, self.resolution))

    def result(self) -> Any:
        """The value over the rows since the last reset."""
        sums = self._sums.value
        weight, excess = sums[:, 0], sums[:, 1]
        total = ops.sum(weight)
        some = ops.where(total > 0, total, 1)
        middle = ops.cumsum(weight) - weight / 2
        # A NaN has no bin; it reaches the result through `total`.
        place = ops.where(total > 0, self.num_bins * middle / some, 0)
        bins = ops.clip(ops.cast(place, "int32"), 0, self.num_bins - 1)
        merged = ops.segment_sum(excess, bins, num_segments=self.num_bins)
        error = ops.sum(ops.abs(merged)) / some
        return ops.cast(ops.where(total > 0, error, float("nan")), self.dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments with which `from_config` makes the same metric."""
        return {**super().get_config(), "num_bins": self.num_bins, "resolution": self.resolution}
