import json
import os
import shutil
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

import ctr_keras as ck
from ctr_keras.serving.deadline import Deadline
from ctr_keras.serving.errors import DeadlineExceededError, InvalidArgumentError
from ctr_keras.serving.server import LoadedModel
from ctr_keras.serving.server.warmup import warm_up
from ctr_keras.serving.versions import SCHEMA_FILE
from tests.serving.server import saved


@pytest.fixture(scope="module")
def model(versions):
    model = LoadedModel(versions[1])
    yield model
    model.close()


def test_answers_like_tensorflows_own_loader(model, versions):
    inputs = saved.make_inputs(5)
    got = model.run("serving_default", inputs)["probability"]
    loaded = tf.saved_model.load(str(versions[1])).signatures["serving_default"]
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    np.testing.assert_allclose(got, loaded(**tensors)["probability"], atol=1e-7)
    np.testing.assert_allclose(got, saved.expected(inputs), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"age": None}, r"'age' is missing, float32 \[\?\]"),
        ({"price": np.zeros(4)}, "no input 'price'"),
        ({"age": np.zeros(4)}, r"'age' must be float32 \[\?\]. Received: float64 \[4\]"),
        ({"age": np.array(["1"] * 4, object)}, "'age' must be float32.*string"),
        ({"word": np.zeros(4)}, "'word' must be string.*float64"),
        ({"ids": np.zeros((4, 2), np.int32)}, "'ids' must be int64.*int32"),
        ({"ids": np.zeros(4, np.int64)}, r"'ids' must have the shape of int64 \[\?, \?\].*\(4,\)"),
        ({"age": np.zeros(3, np.float32)}, "'age' must have as many rows.*Received: 3"),
    ],
)
def test_wrong_inputs_are_named(model, change, message):
    inputs = {k: v for k, v in (saved.make_inputs(4) | change).items() if v is not None}
    if "age" in change and change["age"] is not None and len(change["age"]) == 3:
        inputs = {"word": inputs["word"], "ids": inputs["ids"], "age": inputs["age"]}
    with pytest.raises(InvalidArgumentError, match=message):
        model.run("serving_default", inputs)


def test_shape_of_one_is_not_any_shape(model):
    inputs = saved.make_inputs(4)
    with pytest.raises(InvalidArgumentError, match=r"'rank'.*'age'.*\[1\].*Received: \(4,\)"):
        model.run("rank", inputs)


def test_unknown_names(model):
    inputs = saved.make_inputs(1)
    with pytest.raises(InvalidArgumentError, match="'score' not found.*serving_default"):
        model.run("score", inputs)
    with pytest.raises(InvalidArgumentError, match="no output 'click'.*probability"):
        model.run("serving_default", inputs, ["click"])


def test_an_error_inside_the_graph_keeps_its_code(model):
    with pytest.raises(InvalidArgumentError, match="(?i)assert"):
        model.run("checked", {"ids": np.array([1, 200])})


def test_a_run_ends_at_its_deadline(model):
    started = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        model.run("slow", {"steps": np.array([100_000_000])}, deadline=Deadline.after(0.05))
    assert time.monotonic() - started < 20  # all of it would take a quarter of an hour


def test_only_columns_are_of_independent_rows(model):
    independent = {name for name, s in model.signatures.items() if s.rows_are_independent}
    assert independent == {"serving_default", "bytes", "checked"}


def test_warm_up_replays_every_record(versions, tmp_path):
    folder = saved.publish(versions[1], tmp_path, 1)
    model = LoadedModel(folder)
    assert warm_up(model) == 0
    saved.add_warmup(folder, saved.make_inputs(2), saved.make_inputs(3))
    assert warm_up(model) == 2
    saved.add_warmup(folder, {"age": np.zeros(2, np.float32)})
    with pytest.raises(InvalidArgumentError, match="'ids' is missing"):
        warm_up(model)
    saved.add_warmup(folder, *[{"steps": [0]}] * 1001, signature="slow")
    with pytest.raises(ValueError, match="At most 1000"):
        warm_up(model)
    model.close()


def test_closed_models_give_their_memory_back(versions):
    """What is left of a model would show after six of them: one takes 16 MB."""
    _load_and_run(versions["large"], 1)
    before = _resident()
    _load_and_run(versions["large"], 6)
    assert _resident() - before < 48 << 20


def _load_and_run(folder, count):
    inputs = saved.make_inputs(2)
    for _ in range(count):
        model = LoadedModel(folder)
        model.run("serving_default", inputs)
        model.close()


def _resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_no_saved_model(tmp_path):
    with pytest.raises(tf.errors.NotFoundError, match="Could not find SavedModel"):
        LoadedModel(tmp_path)


def test_missing_variables_are_no_model_without_variables(versions, tmp_path):
    shutil.copy(versions[1] / "saved_model.pb", tmp_path)
    with pytest.raises(tf.errors.NotFoundError, match="variables are missing"):
        LoadedModel(tmp_path)


@pytest.mark.parametrize("how", [{"width": 8}, {"as_string": True}])
def test_a_model_with_texts_gets_their_operations(versions, tmp_path, monkeypatch, how):
    folder = saved.publish(versions[1], tmp_path, 1)
    schema = ck.Schema((ck.Feature("title", "item", kind="text", **how),))
    (folder / SCHEMA_FILE).parent.mkdir(exist_ok=True)
    (folder / SCHEMA_FILE).write_text(json.dumps(schema.to_dict()))
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    with pytest.raises(ImportError, match=r"tensorflow_text.*ctr-keras\[text\]"):
        LoadedModel(folder)
