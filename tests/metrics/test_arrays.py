"""What the plain functions refuse, and how they say so."""

import math

import numpy as np
import pytest

from ctr_keras.metrics import auc, calibration_error, calibration_ratio, gauc, log_loss


def _gauc(labels, scores, sample_weight=None):
    return gauc(labels, scores, np.zeros(np.shape(labels)[0], int), sample_weight)


ON_SCORES = {"auc": auc, "gauc": _gauc}
ON_PROBABILITIES = {
    "log_loss": log_loss,
    "calibration_ratio": calibration_ratio,
    "calibration_error": calibration_error,
}
every_function = pytest.mark.parametrize(
    "function", [*ON_SCORES.values(), *ON_PROBABILITIES.values()]
)


@every_function
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 2], ValueError, r"0 or 1. Received: `labels\[1\]=2.0`"),
        ([0, -1], ValueError, r"0 or 1. Received: `labels\[1\]=-1.0`"),
        ([0.5, 1], ValueError, r"0 or 1. Received: `labels\[0\]=0.5`"),
        ([math.nan, 1], ValueError, r"0 or 1. Received: `labels\[0\]=nan`"),
        ([], ValueError, r"at least one row. Received: `len\(labels\)=0`"),
        ([[0, 1], [1, 0]], ValueError, r"Received: `labels.shape=\(2, 2\)`"),
        (["0", "1"], TypeError, r"numbers. Received: `labels.dtype=<U1`"),
        ([None, 1], TypeError, r"numbers. Received: `labels.dtype=object`"),
    ],
)
def test_labels(function, labels, error, message):
    with pytest.raises(error, match=message):
        function(labels, [0.1, 0.2])


@every_function
def test_lengths(function):
    with pytest.raises(ValueError, match=r"as many rows as `labels`, 2. Received: `len\(.*\)=1`"):
        function([0, 1], [0.5])
    with pytest.raises(ValueError, match=r"`labels`, 2. Received: `len\(sample_weight\)=3`"):
        function([0, 1], [0.5, 0.5], [1, 1, 1])


@every_function
@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_weights(function, weight):
    with pytest.raises(ValueError, match=rf"not negative. Received: `sample_weight\[1\]={weight}`"):
        function([0, 1], [0.1, 0.2], [1.0, weight])


@pytest.mark.parametrize("function", ON_SCORES.values(), ids=ON_SCORES)
@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_scores(function, score):
    with pytest.raises(ValueError, match=rf"finite. Received: `scores\[1\]={score}`"):
        function([0, 1], [0.1, score])


@pytest.mark.parametrize("function", ON_PROBABILITIES.values(), ids=ON_PROBABILITIES)
@pytest.mark.parametrize("value", [math.nan, -0.01, 1.01, 7.0])
def test_probabilities(function, value):
    with pytest.raises(ValueError, match=rf"\[0, 1\].*Received: `probabilities\[1\]={value}`"):
        function([0, 1], [0.1, value])


@every_function
def test_columns_lists_and_half_precision(function):
    expected = function(np.array([0, 1, 1]), np.array([0.25, 0.125, 0.5]), np.array([1, 2, 1]))
    column = np.array([[0.25], [0.125], [0.5]], "float16")
    assert function([[False], [True], [True]], column, [[1], [2], [1]]) == expected
