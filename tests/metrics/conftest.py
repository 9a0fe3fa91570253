"""Rows as a click model sees them: rare clicks, skewed scores, few rows a user."""

from dataclasses import dataclass

import numpy as np
import pytest


@dataclass
class Rows:
    labels: np.ndarray
    probabilities: np.ndarray
    groups: np.ndarray
    weights: np.ndarray

    def batches(self, size):
        for start in range(0, len(self.labels), size):
            part = slice(start, start + size)
            yield (
                self.labels[part],
                self.probabilities[part],
                self.groups[part],
                self.weights[part],
            )


def make_rows(count, click_rate, seed=0, users=40):
    rng = np.random.default_rng(seed)
    logits = rng.normal(np.log(click_rate / (1 - click_rate)), 1.0, count)
    probabilities = (1 / (1 + np.exp(-logits))).astype("float32")
    # A wrong calibration, so that no metric has its ideal value.
    labels = (rng.random(count) < 0.7 * probabilities + 0.01).astype("float32")
    groups = rng.integers(0, users, count) * 7 - 50
    weights = rng.uniform(0.5, 2.0, count).astype("float32")
    return Rows(labels, probabilities, groups, weights)


@pytest.fixture(name="make_rows")
def make_rows_fixture():
    return make_rows


@pytest.fixture
def rows():
    return make_rows(500, 0.3)
