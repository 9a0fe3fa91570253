"""The probability of a click by its score, and what makes its mean a click rate."""

import numpy as np

_STEPS = 60


def sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


def bias_for(scores: np.ndarray, rate: float) -> float:
    """The number whose sum with `scores` has `rate` as its mean probability, by bisection."""
    low, high = -50.0, 50.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        is_low = sigmoid(middle + scores).mean() < rate
        low, high = (middle, high) if is_low else (low, middle)
    return (low + high) / 2
