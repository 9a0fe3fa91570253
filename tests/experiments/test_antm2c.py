import json
import shutil

import numpy as np
import pytest

from ctr_keras import data as ctr_data
from ctr_keras import metrics
from ctr_keras.data import cold_slices
from ctr_keras.datasets import antm2c as adapter
from ctr_keras.datasets import simulator, truth
from ctr_keras.experiments import antm2c
from ctr_keras.experiments.slice_comparison import SliceComparison
from ctr_keras.schema import OUT_OF_VOCABULARY_ID, Feature, Schema, Vocabulary
from ctr_keras.training import build_model


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("antm2c")
    config = simulator.AntM2CConfig(rows=3000, seed=1)
    simulator.antm2c.write(folder / "rows.csv", config, report=lambda line: None)
    adapter.prepare(folder / "data", folder / "rows.csv", report=lambda line: None)
    return folder / "data"


@pytest.fixture(scope="module")
def tiny_data(tmp_path_factory):
    """A handful of features, so that trainings take little more than their start."""
    folder = tmp_path_factory.mktemp("tiny")
    schema = Schema(
        [
            Feature("user_id", "user", vocabulary=Vocabulary.of_size(20)),
            Feature("gender", "user", vocabulary=Vocabulary.of_size(4)),
            Feature("item_id", "item", vocabulary=Vocabulary.of_size(20)),
            Feature("genre", "item", vocabulary=Vocabulary.of_size(6)),
            Feature("scene", "scenario", vocabulary=Vocabulary.of_size(4)),
            Feature("title", "item", kind="text"),
            Feature("label", "label", kind="number"),
        ]
    ).save(folder)
    for seed, name in enumerate(("train", "valid", "test")):
        rng = np.random.default_rng(seed)
        rows = {f.name: rng.integers(2, f.vocabulary.size, 300) for f in schema.inputs}
        if name != "train":  # Some ids are out of vocabulary.
            rows |= {key: rng.integers(1, 20, 300) for key in ("user_id", "item_id")}
        rows |= {"title": [f"item {n}" for n in rows["item_id"]], "label": rows["genre"] % 2}
        ctr_data.write(folder / name, schema, rows)
    titles = [f"item {n}" for n in range(1, 20)]
    vectors = np.eye(19, dtype=np.float32)
    table = ctr_data.VectorTable.create(folder / "text_vectors", {"encoder": "by hand"}, 19)
    table.extended(titles, vectors)
    return folder


TINY = antm2c.Settings(
    seeds=1, epochs=1, embedding_dim=2, units=(4,), tower_units=(4,), num_experts=2
)


def test_table_5(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(antm2c, "SCENARIO_MODELS", ("ScenarioDNN", "MMoE"))  # Each takes seconds.
    lines = []
    table = antm2c.Reproduction(tiny_data, tmp_path, TINY, report=lines.append).table(5)
    assert lines[0] == "2 trainings, 0 of them done before" and len(lines) == 3
    assert table.slices == ["2", "3"] and table.best is None
    for model in antm2c.SCENARIO_MODELS:
        assert f"\n{model} " in table.to_text()
        assert all(0 <= table.aucs[model][scenario][0] <= 1 for scenario in table.slices)


def test_best_possible_is_that_of_each_slice(prepared):
    scenes = antm2c.scenes_of(prepared, Schema.load(prepared))
    cold = cold_slices(prepared / "train", prepared / "test")["item_zero_shot"]
    every = np.ones(len(scenes), bool)
    best = antm2c.best_possible(prepared, {"B": scenes == "B", "cold": cold, "all": every})
    known = truth.read(prepared, "test")
    x, y = next(iter(ctr_data.read(prepared / "test", Schema.load(prepared), 100_000)))
    np.testing.assert_array_equal(y.numpy(), known["label"].to_numpy())
    of = x["scene"].numpy() == 3  # "B", after padding, out of vocabulary and "A"
    probability = known[truth.PROBABILITY].to_numpy()
    assert best["B"] == pytest.approx(metrics.auc(y.numpy()[of], probability[of]), abs=1e-9)
    assert best["all"] == pytest.approx(truth.bounds(prepared)["bayes_auc"]["test"])
    new = x["item_id"].numpy() == OUT_OF_VOCABULARY_ID
    assert best["cold"] == pytest.approx(metrics.auc(y.numpy()[new], probability[new]), abs=1e-9)
    nothing = {"none": np.zeros(len(scenes), bool)}
    assert np.isnan(antm2c.best_possible(prepared, nothing)["none"])


@pytest.mark.parametrize("model", antm2c.SCENARIO_MODELS)
def test_models_are_as_deep(model, prepared):
    built = build_model(model, Schema.load(prepared), antm2c.Settings().options(model))
    assert [w.shape[-1] for w in built.get_layer("towers").weights if "kernel" in w.path][-2] == 32


def test_table_7(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(antm2c, "COLD_METHODS", ("DNN", "MetaEmb"))
    lines = []
    table = antm2c.Reproduction(tiny_data, tmp_path, TINY, report=lines.append).table(7)
    # A base is the same for users and items.
    assert lines[0] == "3 trainings, 0 of them done before"
    assert table.slices == ["item_zero_shot", "item_few_shot", "user_zero_shot", "user_few_shot"]
    for method in antm2c.COLD_METHODS:
        assert all(0 <= table.aucs[method][name][0] <= 1 for name in table.slices)
    assert table.aucs["MetaEmb"]["item_zero_shot"] != table.aucs["DNN"]["item_zero_shot"]


def test_table_7_describes_items_by_their_titles_where_nothing_else_does(
    tiny_data, tmp_path, monkeypatch
):
    monkeypatch.setattr(antm2c, "COLD_METHODS", ("DNN", "MetaEmb"))
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    schema = Schema([f for f in Schema.load(data) if f.name != "genre"])
    schema.save(data)
    table = antm2c.Reproduction(data, tmp_path, TINY).table(7)
    assert table.aucs["MetaEmb"]["item_zero_shot"] != table.aucs["DNN"]["item_zero_shot"]
    encoded = [
        json.loads(path.read_text())["job"]["texts"] for path in tmp_path.glob("*/result.json")
    ]
    assert encoded == [["title"]] * 3


def test_table_7_needs_what_describes_cold_ids_before_any_training(tiny_data, tmp_path):
    schema = Schema([f for f in Schema.load(tiny_data) if f.name not in ("genre", "title")])
    schema.save(tmp_path / "data")
    with pytest.raises(ValueError, match="role 'item' beside 'item_id': nothing describes cold"):
        antm2c.Reproduction(tmp_path / "data", tmp_path / "out", TINY).table(7)
    assert not (tmp_path / "out").exists()


def test_table_8(tiny_data, tmp_path):
    table = antm2c.Reproduction(tiny_data, tmp_path, TINY).table(8)
    assert list(table.aucs) == ["MMoE", "MMoE + BERT"] and table.slices == ["2", "3"]
    assert "Table 8: MMoE without and with title" in table.to_text()
    assert table.aucs["MMoE"] != table.aucs["MMoE + BERT"]


def test_comparison():
    table = SliceComparison(
        "t",
        {"DNN": {"A": [0.6, 0.62], "B": [0.7, 0.7]}, "X": {"A": [0.63, 0.63], "B": [0.6, 0.6]}},
        "DNN",
        {"A": 0.8, "B": 0.9},
    )
    cells = table.to_dict()["models"]["X"]
    assert cells["A"]["gain"] == pytest.approx(0.02) and cells["B"]["gain"] == pytest.approx(-0.1)
    assert cells["A"]["relative"] == pytest.approx(0.13 / 0.11 - 1)
    assert "gain" not in table.to_dict()["models"]["DNN"]["A"]
    assert "-0.1000" in table.to_text() and "0.9000" in table.to_text()


def test_bad_arguments(prepared, tmp_path, small_schema):
    with pytest.raises(ValueError, match="`table=6`"):
        antm2c.Reproduction(prepared, tmp_path, TINY).table(6)
    with pytest.raises(ValueError, match="`num_experts=0`"):
        antm2c.Settings(num_experts=0)
    with pytest.raises(ValueError, match="`tower_units` must be .*`tower_units=0`"):
        antm2c.Settings(tower_units=0)
    with pytest.raises(ValueError, match="`texts` must be a list.*`texts='item_title'`"):
        antm2c.Settings(texts="item_title")
    assert antm2c.Settings(units=16).options("MMoE")["units"] == [16]
    small_schema.save(tmp_path / "other")
    with pytest.raises(ValueError, match="role 'scenario'"):
        antm2c.Reproduction(tmp_path / "other", tmp_path, TINY).table(5)
    Schema([f for f in small_schema if f.role not in ("item", "history")]).save(
        tmp_path / "no_items"
    )
    with pytest.raises(ValueError, match="an id of users and one of items"):
        antm2c.Reproduction(tmp_path / "no_items", tmp_path, TINY).table(7)
