"""Logarithmic loss."""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from ctr_keras.api_export import export
from ctr_keras.metrics.arrays import check_labels, check_probabilities, check_weights
from ctr_keras.metrics.rows import binary_rows, sum_dtype


def log_loss(
    labels: ArrayLike, probabilities: ArrayLike, sample_weight: ArrayLike | None = None
) -> float:
    """Mean negative log likelihood of the labels, in nats.

    `-sum_i w_i (y_i log p_i + (1 - y_i) log(1 - p_i)) / sum_i w_i`

    Probabilities are first clipped to `[eps, 1 - eps]`, as scikit-learn does, where `eps` is the
    machine epsilon of float32 for float32 and of float64 for all else.

    Args:
        labels: Zeros and ones, in shape `(rows,)` or `(rows, 1)`.
        probabilities: Predicted probabilities, in [0, 1].
        sample_weight: Optional weight of each row.

    Returns:
        The loss as a float; NaN where all weights are 0.

    Example:

    >>> round(log_loss([0, 1], [0.25, 0.5]), 4)
    0.4904
    """
    clicks = check_labels(labels)
    probabilities = check_probabilities(probabilities, len(clicks))
    weights = check_weights(sample_weight, len(clicks))
    eps = np.finfo(probabilities.dtype).eps
    clipped = np.clip(probabilities, eps, 1 - eps).astype(np.float64)
    losses = -np.where(clicks == 1, np.log(clipped), np.log1p(-clipped))
    total = weights.sum()
    return float(weights @ losses / total) if total > 0 else float("nan")


@export
class LogLoss(keras.metrics.Metric):
    """Streaming logarithmic loss, in nats.

    `-sum_i w_i (y_i log p_i + (1 - y_i) log(1 - p_i)) / sum_i w_i`

    It differs from `keras.metrics.BinaryCrossentropy` in three ways: the sums are kept in float64
    on TensorFlow, so that a billion rows do not stop it; labels `(batch,)` go with predictions
    `(batch, 1)`, which Keras' own would silently broadcast against each other; and a bad row is not
    averaged away. Probabilities are clipped to `[eps, 1 - eps]`, `eps` being the machine epsilon of
    float32.

    The result is NaN before the first row and, until `reset_state`, once a row had a label other
    than 0 and 1 or a prediction outside [0, 1]. Rows of weight 0 are left out, whatever they hold.

    Args:
        name: Optional name of the metric instance. Defaults to `"log_loss"`.
        dtype: Optional dtype of the result.

    Call arguments:
        y_true: Zeros and ones, in shape `(batch,)` or `(batch, 1)`.
        y_pred: Predicted probabilities, in shape `(batch,)` or `(batch, 1)`.
        sample_weight: Optional weight of each row.

    Output: a scalar.

    Example:

    >>> metric = LogLoss()
    >>> metric.update_state([0, 1], [0.25, 0.5])
    >>> round(float(metric.result()), 4)
    0.4904
    """

    def __init__(self, name: str | None = "log_loss", dtype: str | None = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self._total = self.add_variable((), "zeros", dtype=sum_dtype(), name="total")
        self._weight = self.add_variable((), "zeros", dtype=sum_dtype(), name="weight")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add the rows of a batch."""
        labels, probabilities, weights = binary_rows(y_true, y_pred, sample_weight)
        eps = float(np.finfo(np.float32).eps)
        clipped = ops.clip(probabilities, eps, 1 - eps)
        losses = -ops.where(labels == 1, ops.log(clipped), ops.log1p(-clipped))
        self._total.assign_add(ops.sum(ops.cast(weights * losses, sum_dtype())))
        self._weight.assign_add(ops.sum(ops.cast(weights, sum_dtype())))

    def result(self) -> Any:
        """The value over the rows since the last reset."""
        weight = self._weight.value
        mean = self._total.value / ops.where(weight > 0, weight, 1)
        return ops.cast(ops.where(weight > 0, mean, float("nan")), self.dtype)
