import numpy as np
import pytest

from ctr_keras import data as ctr_data
from ctr_keras import metrics
from ctr_keras.datasets import antm2c as adapter
from ctr_keras.datasets import simulator, truth
from ctr_keras.experiments import antm2c
from ctr_keras.experiments.runs import Outcome
from ctr_keras.experiments.scenario_comparison import ScenarioComparison
from ctr_keras.schema import Schema
from ctr_keras.training import build_model


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("antm2c")
    config = simulator.AntM2CConfig(rows=3000, seed=1)
    simulator.antm2c.write(folder / "rows.csv", config, report=lambda line: None)
    adapter.prepare(folder / "data", folder / "rows.csv", report=lambda line: None)
    return folder / "data"


TINY = antm2c.Settings(
    seeds=1, epochs=1, embedding_dim=2, units=(4,), tower_units=(4,), num_experts=2
)


def test_table_5(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(antm2c, "SCENARIO_MODELS", ("ScenarioDNN", "MMoE"))  # Each takes seconds.
    lines = []
    table = antm2c.table(5, prepared, tmp_path, TINY, report=lines.append)
    assert lines[0] == "2 trainings, 0 of them done before" and len(lines) == 3
    assert table.scenarios == ["A", "B", "C", "D", "E"]
    text = table.to_text()
    for model in antm2c.SCENARIO_MODELS:
        assert f"\n{model} " in text
        for scenario in "ABCDE":
            assert 0 <= table.aucs(model, scenario)[0] <= 1
    known = truth.read(prepared, "test")
    assert set(table.best) == set("ABCDE")
    assert metrics.auc(known["label"].to_numpy(), known[truth.PROBABILITY].to_numpy()) == (
        pytest.approx(truth.bounds(prepared)["bayes_auc"]["test"])
    )
    assert "best possible" in text


def test_best_possible_is_that_of_each_scenario(prepared):
    schema = Schema.load(prepared)
    best = antm2c.best_possible(prepared, schema)
    known = truth.read(prepared, "test")
    x, y = next(iter(ctr_data.read(prepared / "test", schema, 100_000)))
    np.testing.assert_array_equal(y.numpy(), known["label"].to_numpy())
    of = x["scene"].numpy() == 3  # "B", after padding, out of vocabulary and "A"
    probability = known[truth.PROBABILITY].to_numpy()[of]
    assert best["B"] == pytest.approx(metrics.auc(y.numpy()[of], probability), abs=1e-9)


@pytest.mark.parametrize("model", antm2c.SCENARIO_MODELS)
def test_models_are_as_deep(model, prepared):
    built = build_model(model, Schema.load(prepared), antm2c.Settings().options(model))
    assert [w.shape[-1] for w in built.get_layer("towers").weights if "kernel" in w.path][-2] == 32


def test_comparison():
    def outcome(a, b):
        return Outcome({"scenario_auc": {"A": a, "B": b}}, 1, 1, 1.0, 1, 1, None)

    table = ScenarioComparison(
        "t",
        {"DNN": [outcome(0.6, 0.7), outcome(0.62, 0.7)], "X": [outcome(0.63, 0.6)] * 2},
        "DNN",
        {"A": 0.8, "B": 0.9},
    )
    cells = table.to_dict()["models"]["X"]
    assert cells["A"]["gain"] == pytest.approx(0.02) and cells["B"]["gain"] == pytest.approx(-0.1)
    assert "gain" not in table.to_dict()["models"]["DNN"]["A"]
    assert "-0.1000" in table.to_text() and "0.9000" in table.to_text()


def test_bad_arguments(prepared, tmp_path, small_schema):
    with pytest.raises(ValueError, match="`table=6`"):
        antm2c.table(6, prepared, tmp_path, TINY)
    with pytest.raises(ValueError, match="`num_experts=0`"):
        antm2c.Settings(num_experts=0)
    small_schema.save(tmp_path / "other")
    with pytest.raises(ValueError, match="role 'scenario'"):
        antm2c.table(5, tmp_path / "other", tmp_path, TINY)
