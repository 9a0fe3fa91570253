import math

import numpy as np
import pytest

from ctr_keras.metrics import (
    CalibrationError,
    CalibrationRatio,
    calibration_error,
    calibration_ratio,
)


def _streamed(metric, rows, weighted):
    for labels, probabilities, _, weights in rows.batches(130):
        metric.update_state(labels, probabilities, weights if weighted else None)
    return float(metric.result())


def test_ratio_is_above_1_where_the_model_promises_too_much():
    assert calibration_ratio([0, 1, 0, 1], [0.5, 1.0, 0.5, 1.0]) == 1.5
    assert calibration_ratio([0, 1, 0, 1], [0.25, 0.25, 0.0, 0.5]) == 0.5


def test_ratio_takes_weights():
    assert calibration_ratio([0, 1], [0.5, 1.0], [2, 1]) == 2.0


def test_ratio_without_a_click_is_not_defined():
    assert math.isnan(calibration_ratio([0, 0], [0.1, 0.2]))
    metric = CalibrationRatio()
    metric.update_state([0, 0], [0.25, 0.25])
    assert math.isnan(float(metric.result()))
    # Nothing of the batch without a click is lost.
    metric.update_state([1], [0.5])
    assert float(metric.result()) == 1.0


@pytest.mark.parametrize("weighted", [False, True])
def test_streaming_ratio_is_the_plain_function(rows, weighted):
    expected = calibration_ratio(
        rows.labels, rows.probabilities, rows.weights if weighted else None
    )
    assert _streamed(CalibrationRatio(), rows, weighted) == pytest.approx(expected, rel=1e-6)


def test_error_by_hand():
    labels = [0, 1, 0, 1, 1, 1]
    probabilities = [0.6, 0.1, 0.2, 0.9, 0.3, 0.8]
    # Sorted: (.1 .2 | .3 .6 | .8 .9), clicks (1 0 | 1 0 | 1 1): gaps -.35, -.05, -.15.
    expected = (0.35 + 0.05 + 0.15) / 3
    assert calibration_error(labels, probabilities, num_bins=3) == pytest.approx(expected)
    metric = CalibrationError(num_bins=3)
    metric.update_state(labels, probabilities)
    assert float(metric.result()) == pytest.approx(expected, abs=1e-6)


def test_error_of_distinct_scores_is_that_of_equal_slices(rows):
    order = np.argsort(rows.probabilities)
    gaps = (rows.probabilities.astype("float64") - rows.labels)[order]
    expected = sum(abs(part.sum()) for part in np.split(gaps, 20)) / len(gaps)
    actual = calibration_error(rows.labels, rows.probabilities, num_bins=20)
    assert actual == pytest.approx(expected, abs=1e-12)


def test_bins_are_of_equal_weight():
    # The first row weighs as much as the three others: it is a bin of its own.
    labels, probabilities, weights = [1, 0, 0, 0], [0.2, 0.4, 0.5, 0.6], [3, 1, 1, 1]
    expected = (3 * 0.8 + 1.5) / 6
    assert calibration_error(labels, probabilities, weights, num_bins=2) == pytest.approx(expected)
    metric = CalibrationError(num_bins=2)
    metric.update_state(labels, probabilities, weights)
    assert float(metric.result()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("probabilities", "gaps"),
    [
        # The middle of the six rows is in the first half, that of the two in the second.
        ([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.7, 0.7], [6 * 0.5 - 3, 2 * 0.7 - 2]),
        # The six rows begin in the first half; their middle is in the second.
        ([0.1, 0.1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], [2 * 0.1 - 0, 6 * 0.5 - 5]),
    ],
)
def test_ties_stay_together_in_any_order(probabilities, gaps):
    labels, probabilities = np.array([0, 0, 1, 1, 0, 1, 1, 1]), np.array(probabilities)
    expected = sum(map(abs, gaps)) / 8
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(8)
        actual = calibration_error(labels[order], probabilities[order], num_bins=2)
        assert actual == pytest.approx(expected, abs=1e-12)
        metric = CalibrationError(num_bins=2)
        metric.update_state(labels[order], probabilities[order])
        assert float(metric.result()) == pytest.approx(expected, abs=1e-6)


def test_one_score_is_one_bin():
    assert calibration_error([0, 1, 0, 0], [0.5] * 4) == 0.25
    metric = CalibrationError()
    metric.update_state([0, 1, 0, 0], [0.5] * 4)
    assert float(metric.result()) == 0.25


def test_error_without_weight_is_not_defined():
    assert math.isnan(calibration_error([0, 1], [0.5, 0.5], [0, 0]))
    assert math.isnan(float(CalibrationError().result()))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("click_rate", [0.3, 0.01])
def test_streaming_error_is_near_the_plain_function(make_rows, click_rate, weighted):
    rows = make_rows(5_000, click_rate)
    expected = calibration_error(
        rows.labels, rows.probabilities, rows.weights if weighted else None
    )
    # A row at the edge of a bin may fall on its other side: it moves the value by 2 / rows.
    assert _streamed(CalibrationError(), rows, weighted) == pytest.approx(expected, abs=1e-3)
    assert expected > 4e-3


def test_streaming_error_is_the_plain_function_where_no_bin_holds_two_scores(rows):
    rows.probabilities = np.clip(np.round(rows.probabilities, 2), 0.01, 0.99)
    expected = calibration_error(rows.labels, rows.probabilities, rows.weights, num_bins=7)
    actual = _streamed(CalibrationError(num_bins=7), rows, weighted=True)
    assert actual == pytest.approx(expected, abs=1e-6)


def test_coarse_resolution_merges():
    metric = CalibrationError(num_bins=2, resolution=2)
    metric.update_state([1, 0, 1], [0.1, 0.4, 0.9])
    assert float(metric.result()) == pytest.approx((0.5 + 0.1) / 3, abs=1e-6)


def test_arguments():
    with pytest.raises(ValueError, match="2 or more. Received: `num_bins=1`"):
        calibration_error([0, 1], [0.5, 0.5], num_bins=1)
    with pytest.raises(ValueError, match="2 or more. Received: `num_bins=0`"):
        CalibrationError(num_bins=0)
    with pytest.raises(TypeError, match="Received: `num_bins='10'`"):
        CalibrationError(num_bins="10")
    with pytest.raises(ValueError, match="`num_bins`, 50, or more. Received: `resolution=49`"):
        CalibrationError(num_bins=50, resolution=49)
