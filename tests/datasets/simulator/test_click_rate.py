import numpy as np
import pytest

from ctr_keras.datasets.simulator.click_rate import bias_for, sigmoid


@pytest.mark.parametrize("rate", [0.001, 0.3, 0.99])
def test_the_mean_probability_is_the_rate(rate):
    scores = np.random.default_rng(0).normal(1.0, 2.0, 1000)
    assert sigmoid(bias_for(scores, rate) + scores).mean() == pytest.approx(rate, rel=1e-9)


def test_of_equal_scores_it_is_the_log_of_the_odds():
    assert bias_for(np.full(3, 0.5), 0.2) == pytest.approx(np.log(0.2 / 0.8) - 0.5)
