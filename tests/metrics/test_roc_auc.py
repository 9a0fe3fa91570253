import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ctr_keras.metrics import AUC, auc


def _streamed(metric, rows, size, weighted=False):
    for labels, probabilities, _, weights in rows.batches(size):
        metric.update_state(labels, probabilities, weights if weighted else None)
    return float(metric.result())


def test_auc_is_that_of_scikit_learn(rows):
    expected = roc_auc_score(rows.labels, rows.probabilities)
    assert auc(rows.labels, rows.probabilities) == pytest.approx(expected, abs=1e-12)


def test_weighted_auc_is_that_of_scikit_learn(rows):
    expected = roc_auc_score(rows.labels, rows.probabilities, sample_weight=rows.weights)
    assert expected != pytest.approx(roc_auc_score(rows.labels, rows.probabilities), abs=1e-4)
    actual = auc(rows.labels, rows.probabilities, rows.weights)
    assert actual == pytest.approx(expected, abs=1e-12)


def test_auc_of_many_ties_is_that_of_scikit_learn(rows):
    scores = np.round(rows.probabilities, 1)
    expected = roc_auc_score(rows.labels, scores, sample_weight=rows.weights)
    assert auc(rows.labels, scores, rows.weights) == pytest.approx(expected, abs=1e-12)


def test_auc_takes_logits_of_any_size():
    assert auc([0, 1, 0, 1], [-1e30, -3.0, 2.0, 1e30]) == 0.75


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], 1.0),
        ([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4], 0.0),
        ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5], 0.5),
        ([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.8], 0.875),
    ],
)
def test_closed_forms(labels, scores, expected):
    assert auc(labels, scores) == expected
    metric = AUC()
    metric.update_state(labels, scores)
    assert float(metric.result()) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_not_defined(label):
    assert math.isnan(auc([label, label], [0.2, 0.7]))
    metric = AUC()
    metric.update_state([label, label], [0.2, 0.7])
    assert math.isnan(float(metric.result()))
    # A batch of one class loses nothing of the rows around it.
    metric.update_state([1 - label], [0.5])
    assert float(metric.result()) == pytest.approx(0.5)


@pytest.mark.parametrize("click_rate", [0.2, 0.01, 0.001])
def test_streaming_is_near_scikit_learn_where_clicks_are_rare(make_rows, click_rate):
    rows = make_rows(20_000, click_rate)
    expected = roc_auc_score(rows.labels, rows.probabilities)
    assert _streamed(AUC(), rows, 7_000) == pytest.approx(expected, abs=1e-4)


def test_streaming_takes_weights(make_rows):
    rows = make_rows(5_000, 0.1)
    expected = roc_auc_score(rows.labels, rows.probabilities, sample_weight=rows.weights)
    assert _streamed(AUC(), rows, 1_300, weighted=True) == pytest.approx(expected, abs=1e-4)


def test_streaming_orders_probabilities_at_both_ends():
    metric = AUC()
    metric.update_state([0, 1, 0, 1], [1e-7, 2e-7, 1 - 1e-6, 1 - 1e-7])
    assert float(metric.result()) == 0.75
    metric.reset_state()
    metric.update_state([0, 1, 0, 1], [0.0, 1e-3, 0.9, 1.0])
    assert float(metric.result()) == 0.75


def test_coarse_bins_tie():
    metric = AUC(num_bins=2)
    metric.update_state([0, 1, 1], [0.1, 0.2, 0.9])
    assert float(metric.result()) == 0.75


@pytest.mark.parametrize("value", [1, 0, -5])
def test_too_few_bins(value):
    with pytest.raises(ValueError, match=f"2 or more. Received: `num_bins={value}`"):
        AUC(num_bins=value)


def test_bins_that_are_no_integer():
    with pytest.raises(TypeError, match=r"Received: `num_bins=200.0`"):
        AUC(num_bins=200.0)


def test_auc_of_probabilities_that_stream_by():
    random = np.random.default_rng(0)
    probability = random.beta(0.5, 2, 20_000)
    label = random.random(20_000) < probability
    streamed = AUC()
    for part in range(0, 20_000, 5000):
        streamed.update_state(label[part : part + 5000], probability[part : part + 5000])
    assert float(streamed.result()) == pytest.approx(auc(label, probability), abs=1e-4)
    streamed = AUC()
    streamed.update_state(np.array([True, False]), np.array([1.0, 0.0]))
    assert float(streamed.result()) == 1
    assert np.isnan(float(AUC().result()))
