"""Area under the ROC curve."""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from ctr_keras.api_export import export
from ctr_keras.metrics.arrays import check_bins, check_labels, check_scores, check_weights
from ctr_keras.metrics.histogram import areas_of_bins, bin_sums
from ctr_keras.metrics.ranking import ordered_pairs
from ctr_keras.metrics.rows import binary_rows, sum_dtype


def auc(labels: ArrayLike, scores: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """Exact area under the ROC curve: how often a click is scored above a row without one.

    With `w` the weights, over the pairs of a click `i` and a row without a click `j`:

    `sum w_i w_j ([s_i > s_j] + [s_i = s_j] / 2) / sum w_i w_j`

    Args:
        labels: Zeros and ones, in shape `(rows,)` or `(rows, 1)`.
        scores: Finite numbers, probabilities or logits: only their order matters.
        sample_weight: Optional weight of each row. Rows of weight 0 are left out.

    Returns:
        The area as a float; NaN, since it is not defined, where the rows are of one class only.

    Example:

    >>> auc([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.8])
    0.875

    Reference:
        - Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27, 2006.
    """
    clicks = check_labels(labels)
    scores = check_scores(scores, len(clicks))
    weights = check_weights(sample_weight, len(clicks))
    one_group = np.zeros(len(clicks), dtype=np.int8)
    pairs, positive, negative = ordered_pairs(
        one_group, scores, weights * clicks, weights * (1 - clicks)
    )
    all_pairs = positive[0] * negative[0]
    return float(pairs[0] / all_pairs) if all_pairs > 0 else float("nan")


@export
class AUC(keras.metrics.Metric):
    """Streaming area under the ROC curve, from a fine histogram of the predicted probabilities.

    The rows are counted by class in `num_bins` bins of equal width in the logit. Rows of one bin
    count as ties, a half, so with clicks `p_b` and other rows `n_b` in bin `b`:

    `sum_b p_b (sum_{c < b} n_c + n_b / 2) / (sum_b p_b * sum_b n_b)`

    With the default `num_bins` it was within 1e-4 of the exact `ctr_keras.metrics.auc` on a million
    rows wherever the logits had a standard deviation of 0.05 or more, at click rates from 20% to
    0.1%. The 200 thresholds of `keras.metrics.AUC` are uniform in the probability and miss most
    rows of rare clicks: at 0.1% it was off by 0.1. State: `2 * num_bins` numbers, whatever the
    number of rows.

    Rows of one class only: the value is not defined and the result is NaN. It is NaN, too, until
    `reset_state`, once a row had a label other than 0 and 1 or a prediction outside [0, 1], such as
    a logit or a NaN. Rows of weight 0 are left out, whatever they hold.

    Args:
        num_bins: Number of bins, at least 2. Defaults to `16384`, each 0.002 wide in the logit.
        name: Optional name of the metric instance. Defaults to `"auc"`.
        dtype: Optional dtype of the result.

    Call arguments:
        y_true: Zeros and ones, in shape `(batch,)` or `(batch, 1)`.
        y_pred: Predicted probabilities, in shape `(batch,)` or `(batch, 1)`.
        sample_weight: Optional weight of each row.

    Output: a scalar.

    Example:

    >>> metric = AUC()
    >>> metric.update_state([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.8])
    >>> float(metric.result())
    0.875

    Reference:
        - Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27, 2006.
    """

    def __init__(
        self, num_bins: int = 16384, name: str | None = "auc", dtype: str | None = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.num_bins = check_bins("num_bins", num_bins)
        self._counts = self.add_variable(
            (self.num_bins, 2), "zeros", dtype=sum_dtype(), name="counts"
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add the rows of a batch."""
        labels, probabilities, weights = binary_rows(y_true, y_pred, sample_weight)
        columns = [weights * labels, weights * (1 - labels)]
        self._counts.assign_add(bin_sums(probabilities, columns, self.num_bins))

    def result(self) -> Any:
        """The value over the rows since the last reset."""
        area, both = areas_of_bins(self._counts.value)
        return ops.cast(ops.where(both, area, float("nan")), self.dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments with which `from_config` makes the same metric."""
        return {**super().get_config(), "num_bins": self.num_bins}
