import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import ctr_keras as ck
from ctr_keras import serving


@pytest.fixture(scope="module")
def trained(small_schema, small_data):
    model = ck.models.DIN(small_schema, embedding_dim=4, units=(8,), attention_units=(6, 3))
    model.compile()
    model.fit(ck.data.read(small_data, small_schema, 100), verbose=0, shuffle=False)
    return model


@pytest.fixture(scope="module")
def version(trained, tmp_path_factory):
    return serving.export(trained, tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def expected(trained, small_data):
    features, _ = next(iter(ck.data.read(small_data, trained.schema, 600)))
    return trained.predict(features, verbose=0)[:, 0]


def padded(rows, value):
    width = max(map(len, rows))
    return [[*row, *[value] * (width - len(row))] for row in rows]


def columns(rows):
    """`rows` as the `serving_default` signature takes them."""
    return {
        "user_id": tf.constant(rows["user_id"], tf.int64),
        "age": tf.constant(rows["age"]),
        "item_id": tf.constant(rows["item_id"]),
        "genres": tf.constant(padded(rows["genres"], -1), tf.int64),
        "title": tf.constant(rows["title"]),
        "item_vector": tf.constant(rows["item_vector"]),
        "history_item_id": tf.constant(padded(rows["history_item_id"], "")),
    }


def test_raw_columns_give_the_models_probabilities(version, small_rows, expected):
    model = tf.saved_model.load(str(version))
    got = model.signatures["serving_default"](**columns(small_rows))["probability"]
    assert got.dtype == tf.float32 and got.shape == (600,)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_tensorflow_alone_is_enough(version, small_rows, expected, tmp_path):
    """In a process where `ctr_keras` and Keras cannot be imported, from a moved folder."""
    moved = tmp_path / "model"
    os.rename(version, moved)
    one = {name: value[:1] for name, value in small_rows.items()}
    np.savez(tmp_path / "x.npz", **{k: v.numpy() for k, v in columns(one).items()})
    script = (
        "import sys, numpy as np\n"
        "sys.modules['ctr_keras'] = sys.modules['keras'] = None\n"
        "import tensorflow as tf\n"
        f"f = tf.saved_model.load({str(moved)!r}).signatures['serving_default']\n"
        f"x = np.load({str(tmp_path / 'x.npz')!r}, allow_pickle=True)\n"
        "x = {k: tf.constant(x[k].tolist(), f.structured_input_signature[1][k].dtype) for k in x}\n"
        "print(float(f(**x)['probability'][0]))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    os.rename(moved, version)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) == pytest.approx(float(expected[0]), abs=1e-6)
    assert "unsaved custom gradients" not in result.stderr


def test_vocabularies_are_assets(version, small_schema):
    assets = [path.read_text() for path in (version / "assets").iterdir()]
    assert assets == [pathlib.Path(small_schema["item_id"].vocabulary.file).read_text()]
    config = json.loads((version / "assets.extra" / "schema.json").read_text())
    assert ck.Schema.from_dict(config).fingerprint == small_schema.fingerprint


def test_unknown_and_missing_values_have_an_answer(version):
    model = tf.saved_model.load(str(version))
    answer = model.signatures["serving_default"](
        user_id=tf.constant([0], tf.int64),
        age=tf.constant([40.0]),
        item_id=tf.constant(["never seen"]),
        genres=tf.zeros((1, 0), tf.int64),
        title=tf.constant([""]),
        item_vector=tf.zeros((1, 5)),
        history_item_id=tf.constant([[""]]),
    )["probability"]
    assert 0 < float(answer[0]) < 1


def test_history_of_any_length_keeps_the_newest(version, small_rows):
    score = tf.saved_model.load(str(version)).signatures["serving_default"]
    rows = {name: value[:1] for name, value in small_rows.items()}
    newest = [f"i{n}" for n in range(7)]
    rows["history_item_id"] = [newest]
    expected = score(**columns(rows))["probability"]
    rows["history_item_id"] = [["i30", "i31", "i32", *newest]]
    np.testing.assert_array_equal(score(**columns(rows))["probability"], expected)


def test_versions_count_up_and_are_never_overwritten(trained, tmp_path):
    assert serving.export(trained, tmp_path).name == "1"
    assert serving.export(trained, tmp_path, version=7).name == "7"
    assert serving.export(trained, tmp_path).name == "8"
    with pytest.raises(ValueError, match="version=7"):
        serving.export(trained, tmp_path, version=7)
    os.rename(tmp_path / "7", tmp_path / "007")
    with pytest.raises(ValueError, match="version=7"):
        serving.export(trained, tmp_path, version=7)
    with pytest.raises(ValueError, match="version=0"):
        serving.export(trained, tmp_path, version=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["007", "1", "8"]


@pytest.mark.parametrize("version", [None, 1])
def test_exports_at_once_each_have_a_number(small_schema, tmp_path, monkeypatch, version):
    """Another one begins later and is done first."""
    model = ck.models.FM(small_schema, embedding_dim=4)
    inside = serving.export.__globals__
    write_server_files = inside["write_server_files"]

    def overtaken(*arguments):
        monkeypatch.undo()
        assert serving.export(model, tmp_path).name == "1"
        write_server_files(*arguments)

    monkeypatch.setitem(inside, "write_server_files", overtaken)
    if version is not None:
        with pytest.raises(ValueError, match="not there yet.*Received: `version=1`"):
            serving.export(model, tmp_path, version=version)
        assert [path.name for path in tmp_path.iterdir()] == ["1"]
        return
    second = serving.export(model, tmp_path)
    card = json.loads((second / "assets.extra" / "model_card.json").read_text())
    assert (second.name, card["version"]) == ("2", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_only_models_of_the_package(tmp_path):
    with pytest.raises(TypeError, match="model='din'"):
        serving.export("din", tmp_path)


def test_dropout_stays_out(small_schema, tmp_path):
    model = ck.models.DeepFM(small_schema, embedding_dim=4, units=(8,), dropout=0.5)
    saved = tf.saved_model.load(str(serving.export(model, tmp_path)))
    score = saved.signatures["serving_default"]
    functions = score.graph.as_graph_def().library.function
    nodes = [node.op for function in functions for node in function.node_def]
    assert nodes and not [op for op in nodes if "Random" in op]


def test_failed_export_leaves_nothing(small_schema, tmp_path, monkeypatch):
    model = ck.models.FM(small_schema, embedding_dim=4)
    base = tmp_path / "saved"
    # What a full disk looks like from here.
    monkeypatch.setattr(ck.serving.export.__globals__["files"], "sync", _no_space)
    with pytest.raises(OSError, match="No space"):
        ck.serving.export(model, base)
    assert list(base.iterdir()) == []


def _no_space(path):
    raise OSError(28, "No space left on device")


def test_ranker_names_a_foreign_saved_model(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "1"))
    with pytest.raises(ValueError, match=r"no assets.extra/schema.json.*Received: `path="):
        ck.serving.Ranker(tmp_path)
