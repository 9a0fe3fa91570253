import keras
import numpy as np
import pytest

import ctr_keras as ck
from ctr_keras.models.inference import inference_function
from tests.conftest import make_rows
from tests.models.conformance import run_model_conformance

MODELS = {
    "ScenarioDNN": {"tower_units": (8, 4)},
    "SharedBottom": {"units": (8,), "tower_units": (4,)},
    "MMoE": {"num_experts": 3, "units": (8,), "tower_units": (4,)},
    "PLE": {"num_levels": 2, "units": (8,), "tower_units": (4,)},
}


FEATURES = ("user_id", "age", "item_id", "history_item_id", "label")


@pytest.fixture(scope="module")
def schema(tmp_path_factory, small_schema):
    folder = tmp_path_factory.mktemp("scenes")
    scenes = ck.Vocabulary.write(folder / "scenes.txt", "ABC")
    scene = ck.Feature("scene", "scenario", vocabulary=scenes, dtype="string")
    few = [small_schema[name] for name in FEATURES]
    return ck.Schema([*few, scene]).save(folder)


@pytest.fixture(scope="module")
def rows():
    every = make_rows(600)
    scenes = ["ABCD"[n % 4] for n in range(600)]  # D is unknown
    return {**{name: every[name] for name in FEATURES}, "scene": scenes}


@pytest.fixture(scope="module")
def data(tmp_path_factory, schema, rows):
    folder = tmp_path_factory.mktemp("rows")
    ck.data.write(folder, schema, rows)
    return folder


def model_of(name, schema):
    return getattr(ck.models, name)(schema, embedding_dim=4, **MODELS[name])


@pytest.mark.parametrize("name", MODELS)
def test_conformance(name, schema, data, rows, tmp_path):
    run_model_conformance(
        lambda schema: model_of(name, schema), schema, data, tmp_path, rows, continues=False
    )


@pytest.mark.parametrize("name", MODELS)
def test_a_row_is_scored_by_its_own_tower(name, schema, data):
    model = model_of(name, schema)
    x, _ = next(iter(ck.data.read(data, schema, 100)))
    before = model.predict(x, verbose=0)
    bias = next(w for w in model.get_layer("towers").weights if w.path.endswith("logits/bias_0"))
    bias.assign([0, 5, 0])
    after = model.predict(x, verbose=0)
    scene = x["scene"].numpy()
    for number, letter in enumerate("ABC", start=2):
        changed = after[scene == number] != before[scene == number]
        assert changed.all() if letter == "B" else not changed.any()
    logit = np.log(after / (1 - after)) - np.log(before / (1 - before))
    np.testing.assert_allclose(logit[scene == 1], 5 / 3, rtol=1e-3)  # the mean of all towers


@pytest.mark.parametrize(("name", "experts"), [("MMoE", 3), ("PLE", 2)])
def test_gates_can_be_read(name, experts, schema, data):
    model = model_of(name, schema)
    x, _ = next(iter(ck.data.read(data, schema, 10)))
    gates = inference_function(model, {"gates": model.tensors["gates"]})(x)["gates"].numpy()
    assert gates.shape == (10, 3, experts)
    np.testing.assert_allclose(gates.sum(axis=-1), 1, atol=1e-5)


def test_evaluation_by_scenario(schema, data):
    model = model_of("MMoE", schema)
    model.compile(metrics=[ck.metrics.ScenarioAUC("scene", num_scenarios=5)])
    x, y = next(iter(ck.data.read(data, schema, 600)))
    scores, scene = model.predict(x, verbose=0)[:, 0], x["scene"].numpy()
    evaluation = ck.training.evaluate(model, data)
    assert list(evaluation.scenario_auc) == ["(unknown)", "A", "B", "C"]
    for number, area in enumerate(evaluation.scenario_auc.values(), start=1):
        of = scene == number
        assert area == pytest.approx(ck.metrics.auc(y.numpy()[of], scores[of]), abs=1e-6)
    assert "AUC in A" in evaluation.to_text()
    logs = model.evaluate(ck.data.read(data, schema, 100), verbose=0, return_dict=True)
    mean = np.mean(list(evaluation.scenario_auc.values()))
    assert logs["scenario_auc"] == pytest.approx(mean, abs=2e-3)


def test_layer_and_model_of_one_name_are_registered_apart():
    registered = keras.saving.get_registered_name
    for name in ("SharedBottom", "MMoE", "PLE"):
        assert registered(getattr(ck.layers, name)) == f"ctr_keras>{name}"
        assert registered(getattr(ck.models, name)) == f"ctr_keras.models>{name}"
    # Files that were saved earlier name the others so.
    for name in ("FM", "WideDeep", "DeepFM", "DIN", "DIEN", "DBPMaN", "AT4CTR", "ScenarioDNN"):
        assert registered(getattr(ck.models, name)) == f"ctr_keras>{name}"


@pytest.mark.parametrize("name", MODELS)
def test_needs_scenarios(name, schema, small_schema):
    with pytest.raises(ValueError, match=rf"{name} needs one feature of role 'scenario'.*\[\]"):
        model_of(name, small_schema)
    hashed = ck.Feature("scene", "scenario", vocabulary=ck.Vocabulary.hashing(5))
    with pytest.raises(ValueError, match=rf"{name} needs a vocabulary of the scenarios"):
        model_of(name, ck.Schema([*small_schema, hashed]))


def test_auxiliary_tasks_on_a_model_of_several_scenarios(schema, data):
    model = ck.models.AT4CTR(model_of("MMoE", schema), rows=32)
    model.compile(ck.optimizers.LazyAdam(0.01))
    history = model.fit(ck.data.read(data, schema, 100), epochs=1, verbose=0, shuffle=False).history
    assert np.isfinite(history["uim_loss"]) and np.isfinite(history["nip_loss"])
