import math

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ctr_keras.metrics import ScenarioAUC, auc, scenario_auc


@pytest.fixture
def scenes(rows):
    return np.arange(500) % 4 + 2


def expected(rows, scenes, weights=None):
    found = {}
    for scene in np.unique(scenes).tolist():
        of = scenes == scene
        found[scene] = roc_auc_score(
            rows.labels[of], rows.probabilities[of],
            sample_weight=None if weights is None else weights[of],
        )  # fmt: skip
    return found


def test_equals_scikit_learn(rows, scenes):
    for weights in (None, rows.weights):
        result = scenario_auc(rows.labels, rows.probabilities, scenes, weights)
        want = expected(rows, scenes, weights)
        assert result.by_scenario == pytest.approx(want, abs=1e-9)
        assert result.value == pytest.approx(np.mean(list(want.values())), abs=1e-9)


def test_streaming_equals_the_exact_one(rows, scenes):
    metric = ScenarioAUC("scene", 6)
    for start in range(0, 500, 130):
        part = slice(start, start + 130)
        metric.update_state(
            rows.labels[part], rows.probabilities[part], rows.weights[part], groups=scenes[part]
        )
    exact = scenario_auc(rows.labels, rows.probabilities, scenes, rows.weights)
    assert metric.report().by_scenario == pytest.approx(exact.by_scenario, abs=2e-3)
    assert float(metric.result()) == pytest.approx(exact.value, abs=2e-3)


def test_one_scenario_is_all_rows(rows):
    result = scenario_auc(rows.labels, rows.probabilities, ["A"] * 500)
    assert result.value == result.by_scenario["A"] == auc(rows.labels, rows.probabilities)


def test_scenarios_of_one_class_have_no_area_and_do_not_count(rows, scenes):
    labels = np.where(scenes == 3, 0, rows.labels)
    result = scenario_auc(labels, rows.probabilities, scenes)
    assert math.isnan(result.by_scenario[3])
    assert result.value == pytest.approx(np.mean([result.by_scenario[s] for s in (2, 4, 5)]))
    assert math.isnan(scenario_auc([1, 1], [0.1, 0.2], ["A", "B"]).value)
    assert scenario_auc([1], [0.1], ["A"], [0]).by_scenario == {}


def test_rows_of_no_scenario_are_left_out(rows, scenes):
    metric = ScenarioAUC("scene", 5)  # scene 5 is beyond
    odd = np.where(np.arange(500) < 50, -1, scenes)
    metric.update_state(rows.labels, rows.probabilities, groups=odd)
    inside = (odd >= 0) & (odd < 5)
    exact = scenario_auc(rows.labels[inside], rows.probabilities[inside], odd[inside])
    assert metric.report().by_scenario == pytest.approx(exact.by_scenario, abs=2e-3)
    if keras.backend.backend() == "tensorflow":  # JAX has no ids of 64 bits.
        metric.update_state([1, 0], [0.9, 0.1], groups=np.array([2**32 + 2, 2**32 + 2]))
        assert metric.report().by_scenario == pytest.approx(exact.by_scenario, abs=2e-3)


def test_bad_arguments():
    with pytest.raises(ValueError, match="`num_scenarios=0`"):
        ScenarioAUC("scene", 0)
    with pytest.raises(TypeError, match="`group=3`"):
        ScenarioAUC(3, 4)
    with pytest.raises(TypeError, match="`num_bins` must be an integer"):
        ScenarioAUC("scene", 4, num_bins=2.5)
    metric = ScenarioAUC("scene", 4)
    with pytest.raises(ValueError, match="feature 'scene'.*`groups=None`"):
        metric.update_state([1], [0.5])
    with pytest.raises(TypeError, match="`groups.dtype=float32`"):
        metric.update_state([1], [0.5], groups=np.ones(1, "float32"))
    with pytest.raises(ValueError, match=r"`y_true`, 1. Received: `groups.shape=\(2,\)`"):
        metric.update_state([1], [0.5], groups=np.ones(2, "int32"))
    with pytest.raises(ValueError, match="`scenarios` must have as many rows as `labels`, 2"):
        scenario_auc([1, 0], [0.5, 0.5], ["A"])
