import math

import keras
import numpy as np
import pytest
from sklearn.metrics import log_loss as sklearn_log_loss

from ctr_keras.metrics import LogLoss, log_loss


def test_log_loss_is_that_of_scikit_learn(rows):
    expected = sklearn_log_loss(rows.labels, rows.probabilities.astype("float64"))
    actual = log_loss(rows.labels, rows.probabilities.astype("float64"))
    assert actual == pytest.approx(expected, abs=1e-12)


def test_weighted_log_loss_is_that_of_scikit_learn(rows):
    probabilities = rows.probabilities.astype("float64")
    expected = sklearn_log_loss(rows.labels, probabilities, sample_weight=rows.weights)
    assert log_loss(rows.labels, probabilities, rows.weights) == pytest.approx(expected, abs=1e-9)


def test_closed_form():
    expected = -(math.log(0.25) + math.log(0.9)) / 2
    assert log_loss([1, 0], [0.25, 0.1]) == pytest.approx(expected, abs=1e-12)
    metric = LogLoss()
    metric.update_state([1, 0], [0.25, 0.1])
    assert float(metric.result()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_certain_and_wrong_is_clipped_as_in_scikit_learn(dtype):
    labels, probabilities = [1, 0, 1], np.array([0, 1, 1], dtype)
    expected = sklearn_log_loss(labels, probabilities)
    assert log_loss(labels, probabilities) == pytest.approx(expected, rel=1e-6)
    assert log_loss(labels, probabilities) == pytest.approx(
        -2 / 3 * math.log(np.finfo(dtype).eps), rel=1e-6
    )


def test_streaming_is_clipped_as_float32():
    metric = LogLoss()
    metric.update_state([1, 0], [0.0, 1.0])
    expected = -math.log(np.finfo("float32").eps)
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


def test_all_weights_0_is_not_defined():
    assert math.isnan(log_loss([1, 0], [0.5, 0.5], [0, 0]))
    metric = LogLoss()
    metric.update_state([1, 0], [0.5, 0.5], [0, 0])
    assert math.isnan(float(metric.result()))


@pytest.mark.parametrize("weighted", [False, True])
def test_streaming_is_the_plain_function(rows, weighted):
    metric = LogLoss()
    for labels, probabilities, _, weights in rows.batches(130):
        metric.update_state(labels, probabilities, weights if weighted else None)
    expected = log_loss(rows.labels, rows.probabilities, rows.weights if weighted else None)
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX has no float64 by default")
def test_a_single_row_counts_after_many():
    metric = LogLoss()
    metric.update_state([1], [0.5], [2.0**24])
    metric.update_state([1], [0.5])
    assert float(metric._weight) == 2**24 + 1
