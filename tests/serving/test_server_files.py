"""What TensorFlow's own server is started with, and what it finds in a version."""

import concurrent.futures
import dataclasses
import json
import shutil
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2

import ctr_keras as ck
from ctr_keras import serving
from ctr_keras.data.raw_rows import raw_rows
from ctr_keras.serving.batching_parameters import BatchingParameters
from ctr_keras.serving.server_files import with_model, write_server_files

pytest.importorskip("tensorflow_serving", reason="needs the extra `serving`")

from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from ctr_keras.serving.loaded_model import LoadedModel
from ctr_keras.serving.server import BatchingConfig
from ctr_keras.serving.server.gate import Gate
from ctr_keras.serving.server.servable import Servable
from tests.conftest import make_rows

WARMUP = "assets.extra/tf_serving_warmup_requests"


@pytest.fixture(scope="module")
def model(small_schema):
    return ck.models.DIN(small_schema, embedding_dim=4, units=(8,), attention_units=(6, 3))


@pytest.fixture(scope="module")
def version(model, small_data, tmp_path_factory):
    base = tmp_path_factory.mktemp("models") / "din"
    metrics = {"auc": 0.7, "scenario_auc": {"A": float("nan")}}
    return serving.export(model, base, warmup=small_data, data=small_data, metrics=metrics)


@pytest.fixture
def copy(version, tmp_path):
    """A copy of the folder of models, to be damaged; the path of its version."""
    shutil.copytree(version.parents[1], tmp_path / "models")
    return tmp_path / "models" / "din" / "1"


def listed(text):
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    return {model.name: model.base_path for model in config.model_config_list.config}


def test_models_config_lists_each_model_once():
    text = with_model("", "din")
    assert listed(text) == {"din": "/models/din"}
    assert with_model(text, "din") == text
    assert listed(with_model(text, "mmoe")) == {"din": "/models/din", "mmoe": "/models/mmoe"}


def test_models_config_stays_as_it_was_edited():
    edited = (
        "# ours; name: \"mmoe\" is to come\nmodel_config_list: {\n  config {\n    name: 'din'\n"
        '    base_path: "/data/din"  # { elsewhere }\n    model_version_policy { all {} }\n  }\n}\n'
    )
    assert with_model(edited, "din") == edited
    more = with_model(edited, "mmoe")
    assert listed(more) == {"din": "/data/din", "mmoe": "/models/mmoe"}
    assert "# { elsewhere }" in more and "model_version_policy { all {} }" in more


def test_models_config_of_another_kind_is_named(model, tmp_path):
    (tmp_path / "models.config").write_text("custom_model_config {}")
    with pytest.raises(ValueError, match="models.config: expected a `model_config_list"):
        serving.export(model, tmp_path / "din")
    assert list((tmp_path / "din").iterdir()) == []
    assert (tmp_path / "models.config").read_text() == "custom_model_config {}"


def test_exports_at_once_are_all_listed(tmp_path):
    names = [f"model_{n}" for n in range(20)]
    threads = [threading.Thread(target=write_server_files, args=(tmp_path, n)) for n in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(listed((tmp_path / "models.config").read_text())) == set(names)


def test_batching_config_is_there_once_and_theirs(tmp_path):
    write_server_files(tmp_path, "din")
    path = tmp_path / "batching.config"
    parameters = text_format.Parse(path.read_text(), BatchingParameters())
    assert parameters.max_batch_size.value == 1024 and not parameters.pad_variable_length_inputs
    path.write_text("max_batch_size { value: 7 }")
    write_server_files(tmp_path, "mmoe")
    assert path.read_text() == "max_batch_size { value: 7 }"


def test_warmup_is_made_of_real_rows(version, small_rows):
    requests = []
    for record in tf.data.TFRecordDataset(str(version / WARMUP)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        assert request.model_spec.name == "din"
        requests.append((request.model_spec.signature_name, request.inputs))
    assert len(requests) == 300
    assert [name for name, _ in requests[:3]] == ["serving_default", "serving_examples", "rank"]
    for row in (0, 42, 99):
        for name, inputs in requests[3 * row : 3 * row + 3]:
            arrays = {key: tf.make_ndarray(value) for key, value in inputs.items()}
            # With one row in all of them a server that batches takes them too.
            assert {len(x) for x in arrays.values()} == {1}
            if name == "serving_examples":
                example = tf.train.Example.FromString(arrays["examples"][0])
                values = example.features.feature["history_item_id"].bytes_list.value
            else:
                values = [v for v in arrays["history_item_id"][0] if v]
                assert arrays["age"][0] == small_rows["age"][row]
            assert [v.decode() for v in values] == small_rows["history_item_id"][row][-7:]


@pytest.mark.parametrize("layout", ["block", "row"])
def test_raw_rows_are_those_that_were_written(layout, small_schema, small_rows, tmp_path):
    ck.data.write(tmp_path, small_schema, small_rows, layout=layout, rows_per_shard=70)
    columns = raw_rows(tmp_path, small_schema, 150)
    assert set(columns) == {feature.name for feature in small_schema.inputs}
    np.testing.assert_array_equal(columns["user_id"], small_rows["user_id"][:150])
    np.testing.assert_array_equal(columns["item_vector"], small_rows["item_vector"][:150])
    genres = [values[:3] for values in small_rows["genres"][:150]]
    assert columns["genres"].to_list() == genres and columns["genres"].dtype == tf.int64
    assert len(raw_rows(tmp_path, small_schema, 10_000)["age"]) == 600


def test_without_the_extra_only_warmup_fails(model, small_data, tmp_path):
    """In a process where TF Serving's messages cannot be imported."""
    model.save(tmp_path / "din.keras")
    script = (
        "import sys\nsys.modules['tensorflow_serving'] = None\n"
        "import keras, ctr_keras as ck\n"
        f"model = keras.models.load_model({str(tmp_path / 'din.keras')!r})\n"
        f"print(ck.serving.export(model, {str(tmp_path / 'models' / 'din')!r}))\n"
        f"ck.serving.export(model, {str(tmp_path / 'x')!r}, warmup={str(small_data)!r})\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == str(tmp_path / "models" / "din" / "1"), result.stderr
    assert "ImportError: A warm-up needs tensorflow_serving" in result.stderr
    assert "pip install 'ctr-keras[serving]'" in result.stderr
    assert listed((tmp_path / "models" / "models.config").read_text()) == {"din": "/models/din"}
    assert not (tmp_path / "x").exists()


def test_model_card(version, small_schema, small_data):
    card = json.loads((version / "assets.extra" / "model_card.json").read_text())
    manifest = ck.data.Manifest.load(small_data)
    assert (card["name"], card["version"], card["model"]) == ("din", 1, "DIN")
    assert card["schema"] == small_schema.fingerprint
    (split,) = card["data"].values()
    assert (split["rows"], split["sha256"]) == (600, manifest.digest)
    assert card["metrics"] == {"auc": 0.7, "scenario_auc": {"A": None}}
    assert card["versions"]["tensorflow"] == tf.__version__


def test_model_card_of_data_with_vectors(model, small_data, tmp_path):
    """Tables of vectors lie beside the splits and are none."""
    shutil.copytree(small_data, tmp_path / "data" / "train")
    for name in ("text_vectors", "item_vectors"):
        ck.data.VectorTable.create(tmp_path / "data" / name, {"encoder": "mine"}, width=3)
    version = serving.export(model, tmp_path / "din", data=tmp_path / "data")
    card = json.loads((version / "assets.extra" / "model_card.json").read_text())
    assert list(card["data"]) == ["train"] and card["text_encoder"] is None


def test_data_that_the_model_cannot_have_learned_from(model, small_schema, tmp_path):
    words = ck.Vocabulary.write(tmp_path / "v.txt", ["other"])
    features = {f.name: f for f in small_schema}
    item = dataclasses.replace(features["item_id"], vocabulary=words)
    for name, schema, message in (
        ("other", ck.Schema([item, features["label"]]), "has no column 'user_id'"),
        ("words", ck.Schema({**features, "item_id": item}.values()), "'item_id' with another voc"),
    ):
        rows = {column: make_rows(4)[column] for column in schema.names}
        ck.data.write(tmp_path / name / "train", schema, rows)
        for data in (tmp_path / name, tmp_path / name / "train"):
            with pytest.raises(ValueError, match=message):
                serving.export(model, tmp_path / "din", data=data)
    assert list((tmp_path / "din").iterdir()) == []


@pytest.mark.parametrize("argument", ["warmup", "data"])
def test_data_that_is_not_there_leaves_no_version(argument, model, tmp_path):
    with pytest.raises(ValueError, match="No data set there"):
        serving.export(model, tmp_path / "din", **{argument: tmp_path / "nowhere"})
    assert list((tmp_path / "din").iterdir()) == []
    assert not (tmp_path / "models.config").exists()


def test_check_of_a_good_version(version):
    found = serving.check(version.parent)
    assert found.folder == version and not found.problems
    assert list(found.passed) == ["loader", "operations", "signatures", "warm-up", "server"]
    assert found.passed["warm-up"].startswith("300 requests answered, rank of 100 items")
    assert found.passed["warm-up"].endswith("(1e-06 may be, in float32)")
    assert "ok      loader" in found.to_text() and found.to_dict()["problems"] == {}


@pytest.mark.parametrize(("kind", "tolerance"), [("float16", "1e-02"), ("bfloat16", "5e-02")])
def test_check_of_half_precision(kind, tolerance, small_schema, small_data, tmp_path):
    """What the order of operations changes is more than in float32."""
    keras.config.set_dtype_policy(f"mixed_{kind}")
    model = ck.models.DIN(small_schema, embedding_dim=8)
    version = serving.export(model, tmp_path / "din", warmup=small_data)
    found = serving.check(version)
    assert not found.problems
    assert found.passed["warm-up"].endswith(f"({tolerance} may be, in {kind})")


def test_check_finds_missing_variables(copy):
    """Of which TensorFlow's loader itself only logs, and which no request asks for here."""
    shutil.rmtree(copy / "variables")
    (copy / WARMUP).unlink()
    problems = serving.check(copy).problems
    assert list(problems) == ["loader"] and "variables are missing" in problems["loader"]


def test_check_finds_damaged_variables(copy):
    file = copy / "variables" / "variables.data-00000-of-00001"
    file.write_bytes(file.read_bytes()[:100])
    assert set(serving.check(copy).problems) == {"loader", "warm-up"}


def test_check_finds_another_schema(copy):
    file = copy / "assets.extra" / "schema.json"
    config = json.loads(file.read_text())
    config["features"] = [f for f in config["features"] if f["name"] != "age"]
    file.write_text(json.dumps(config))
    problems = serving.check(copy).problems
    assert "`age` as None. Received: ('float32', [None])" in problems["signatures"]


def test_check_finds_warmup_to_another_signature(copy):
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.signature_name = "score"
    with tf.io.TFRecordWriter(str(copy / WARMUP)) as writer:
        writer.write(log.SerializeToString())
    assert "'score', which is not there" in serving.check(copy).problems["warm-up"]


def test_check_finds_damaged_messages(copy):
    with tf.io.TFRecordWriter(str(copy / WARMUP)) as writer:
        writer.write(b"\xff no log")
    file = copy / "saved_model.pb"
    assert "PredictionLog" in serving.check(copy).problems["warm-up"]
    file.write_bytes(file.read_bytes()[:-100])
    problems = serving.check(copy).problems
    assert set(problems) == {"loader", "operations", "signatures", "warm-up"}
    assert "SavedModel" in problems["operations"]


def test_check_finds_answers_that_are_no_probabilities(copy):
    """The output has another name in the signature to which the warm-up asks first."""
    file = copy / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    outputs = saved.meta_graphs[0].signature_def["serving_default"].outputs
    outputs["click"].CopyFrom(outputs.pop("probability"))
    file.write_bytes(saved.SerializeToString())
    assert "no output 'probability'" in serving.check(copy).problems["warm-up"]


def test_check_finds_unusable_server_files(copy):
    folder = copy.parents[1]
    (folder / "batching.config").write_text("max_batch_size: 3")
    assert "max_batch_size" in serving.check(copy).problems["server"]
    (folder / "models.config").write_text(with_model("", "mmoe"))
    assert "must list the model 'din'" in serving.check(copy).problems["server"]


def test_check_finds_padding_of_the_server(copy):
    (copy.parents[1] / "batching.config").write_text("pad_variable_length_inputs: true")
    assert (
        "pads a sequence with the request's first value" in serving.check(copy).problems["server"]
    )


def test_padded_batches_answer_as_requests_alone(version):
    """Sequences of every length at once in the embedded server."""
    config = BatchingConfig(8, 60_000_000, num_batch_threads=1, pad_variable_length_inputs=True)
    servable = Servable(LoadedModel(version), Gate(1, 1), config)
    requests = [
        {
            "user_id": np.full(2, n), "age": np.full(2, 20.0 + n, "float32"),
            "item_id": np.array([b"i1", b"i9"], object), "title": np.array([b"a b", b""], object),
            "genres": np.full((2, n), 3), "item_vector": np.full((2, 5), n / 4, "float32"),
            "history_item_id": np.full((2, 3 * n), b"i5", object),
        }
        for n in range(4)
    ]  # fmt: skip
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda one: servable.run("serving_default", one), requests))
    for one, got in zip(requests, answers, strict=True):
        expected = servable.model.run("serving_default", one)["probability"]
        np.testing.assert_allclose(got["probability"], expected, rtol=0, atol=1e-6)
    servable.close()


def test_check_finds_operations_that_tensorflow_lacks(copy):
    file = copy / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    saved.meta_graphs[0].graph_def.node.add(name="mine", op="MyOwnOperation")
    file.write_bytes(saved.SerializeToString())
    problems = serving.check(copy).problems
    assert "MyOwnOperation" in problems["operations"] and "loader" in problems


def test_saved_model_cli(version, tmp_path):
    """TensorFlow's own tool runs `rank`."""
    values = {
        "user_id": "[5]", "age": "[30.0]", "item_id": '["i1", "i2", "i3"]',
        "genres": "[[1], [2], [-1]]", "title": '["a", "b c", ""]',
        "item_vector": str([[0.1] * 5] * 3), "history_item_id": '[["i1", "i7"]]',
    }  # fmt: skip
    kinds = {"user_id": "int64", "age": "float32", "genres": "int64", "item_vector": "float32"}
    inputs = {n: np.array(json.loads(v), kinds.get(n, "S")) for n, v in values.items()}
    np.savez(tmp_path / "inputs.npz", **inputs)
    given = ";".join(f"{name}={tmp_path / 'inputs.npz'}[{name}]" for name in inputs)
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "run"]
    command += ["--dir", str(version), "--tag_set", "serve", "--signature_def", "rank"]
    command += ["--inputs", given, "--outdir", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    got = np.load(tmp_path / "probability.npy")
    rank = tf.saved_model.load(str(version)).signatures["rank"]
    expected = rank(
        **{
            name: tf.constant(x.tolist(), rank.structured_input_signature[1][name].dtype)
            for name, x in inputs.items()
        }
    )["probability"]
    np.testing.assert_allclose(got, expected, atol=1e-6)
