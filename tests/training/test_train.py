import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

import ctr_keras as ck
from ctr_keras import files, training
from ctr_keras.training.checkpoint import Checkpoint
from ctr_keras.training.evaluate import Predictions, _evaluation, scenario_names
from tests.conftest import make_rows


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, small_schema):
    folder = tmp_path_factory.mktemp("prepared")
    small_schema.save(folder)
    for seed, name in enumerate(("train", "valid", "test")):
        ck.data.write(folder / name, small_schema, make_rows(300, seed), block_rows=64)
    return folder


def config(prepared, out, **kwargs):
    options = {"embedding_dim": 4, "units": [8], "attention_units": [6, 3], "dropout": 0.3}
    return training.TrainingConfig(
        **{"data": str(prepared), "out": str(out), "options": options, "epochs": 4,
           "batch_size": 50, "seed": 5, **kwargs}
    )  # fmt: skip


def quick(prepared, out, **kwargs):
    """Of a model that takes least to build."""
    return config(
        prepared, out, **{"model": "FM", "options": {"embedding_dim": 4}, "epochs": 1, **kwargs}
    )


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory):
    """A quick training, not to be changed."""
    return training.train(quick(prepared, tmp_path_factory.mktemp("trained")), progress=False)


@pytest.fixture
def trained_copy(trained, tmp_path):
    """The folder of a quick training."""
    folder = pathlib.Path(trained.model).parent
    return pathlib.Path(shutil.copytree(folder, tmp_path / "trained"))


@pytest.fixture(scope="module")
def uninterrupted(prepared, tmp_path_factory):
    return training.train(config(prepared, tmp_path_factory.mktemp("out")), progress=False)


def weights(file):
    return keras.models.load_model(file).get_weights()


def test_history_and_best_model(uninterrupted, prepared):
    assert len(uninterrupted.history) == 4
    scores = [logs["val_auc"] for logs in uninterrupted.history]
    assert uninterrupted.best_epoch == int(np.argmax(scores))
    model = training.load_model(uninterrupted.model)
    logs = model.evaluate(
        ck.data.read(prepared / "valid", model.schema, 50), verbose=0, return_dict=True
    )
    assert logs["auc"] == pytest.approx(max(scores), abs=1e-6)


def test_killed_training_ends_like_an_uninterrupted_one(uninterrupted, prepared, tmp_path):
    first = config(prepared, tmp_path)
    script = (
        "import os, signal, keras\n"
        "from tests.conftest import optimize_graphs; optimize_graphs(False)\n"  # As in this one.
        "from ctr_keras import training\n"
        "from ctr_keras.training import checkpoint\n"
        "class Kill(checkpoint.Checkpoint):\n"
        "    def on_train_batch_end(self, batch, logs=None):\n"
        "        if len(self.history) == 2 and batch == 3:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "from ctr_keras.training import train\n"
        "import sys; sys.modules['ctr_keras.training.train'].Checkpoint = Kill\n"
        f"training.train(training.TrainingConfig(**{first.__dict__!r}), progress=False)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=pathlib.Path(__file__).parents[2],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert len(json.loads((tmp_path / "state.json").read_text())["history"]) == 2
    resumed = training.train(first, progress=False)
    assert resumed.history == uninterrupted.history
    assert resumed.best_epoch == uninterrupted.best_epoch
    for mine, theirs in zip(weights(resumed.model), weights(uninterrupted.model), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_finished_training_is_not_repeated(prepared, trained, trained_copy):
    again = training.train(quick(prepared, trained_copy), progress=False)
    assert again == dataclasses.replace(trained, model=str(trained_copy / "best.keras"))
    more = training.train(quick(prepared, trained_copy, epochs=2), progress=False)
    assert len(more.history) == 2 and more.history[0] == trained.history[0]


def test_a_restart_keeps_what_is_there_until_its_settings_are_checked(prepared, trained_copy):
    before = {path.name: path.read_bytes() for path in trained_copy.iterdir()}
    for wrong in ({"options": {"dropuot": 0.5}}, {"seed": -1}):
        with pytest.raises(ValueError, match="dropuot|seed"):
            training.train(quick(prepared, trained_copy, **wrong), restart=True, progress=False)
    assert {path.name: path.read_bytes() for path in trained_copy.iterdir()} == before


@pytest.mark.parametrize("content", ["cut", "empty"])
def test_a_damaged_checkpoint_is_named(content, prepared, trained_copy):
    (file,) = trained_copy.glob("checkpoint-*.keras")
    if content == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        with zipfile.ZipFile(file, "w"):
            pass
    with pytest.raises(ValueError, match=f"{file.name} could not be loaded .*--restart"):
        training.train(quick(prepared, trained_copy), progress=False)
    with pytest.raises(ValueError, match="could not be loaded as a Keras model"):
        training.load_model(file)


def test_two_at_once_in_a_folder(prepared, tmp_path):
    with files.locked(tmp_path), pytest.raises(ValueError, match="Another process.*`out="):
        training.train(quick(prepared, tmp_path), progress=False)


def test_patience_ends_training(prepared, tmp_path):
    # At a learning rate of zero, statistics move the AUC a little and by chance.
    settings = config(prepared, tmp_path, epochs=30, patience=2, learning_rate=0.0)
    trained = training.train(settings, progress=False)
    assert len(trained.history) == trained.best_epoch + 1 + 2 < 30
    assert training.train(settings, progress=False).history == trained.history


def test_an_epoch_that_diverges_is_an_error_and_not_kept(prepared, tmp_path):
    settings = quick(prepared, tmp_path, learning_rate=1e30)
    with pytest.raises(ValueError, match=r"Epoch 1: the loss is nan.*`learning_rate`.*loss=nan"):
        training.train(settings, progress=False)
    assert not list(tmp_path.iterdir())


def test_what_was_kept_before_an_epoch_that_diverges_stays(trained_copy):
    before = {path.name: path.read_bytes() for path in trained_copy.iterdir()}
    checkpoint = Checkpoint(trained_copy, {})
    checkpoint.history = json.loads(before["state.json"])["history"]
    with pytest.raises(ValueError, match="Epoch 2: the val_loss is inf"):
        checkpoint.on_epoch_end(1, {"loss": 0.5, "val_loss": float("inf"), "val_auc": 0.9})
    assert {path.name: path.read_bytes() for path in trained_copy.iterdir()} == before


def test_a_base_that_is_not_there_is_named(prepared, tmp_path):
    for wrong in ({"base": "Foo"}, {"base": "DIN", "base_options": 3}):
        name, value = list(wrong.items())[-1]
        with pytest.raises(ValueError, match=f"Received: `{name}={value!r}`"):
            training.train(config(prepared, tmp_path, model="AT4CTR", options=wrong))


def test_options_may_be_tuples(prepared, tmp_path):
    options = {"units": (8,), "embedding_dim": 4}
    settings = config(prepared, tmp_path, model="DNN", epochs=1, options=options)
    once = training.train(settings, progress=False)
    assert training.train(settings, progress=False) == once


def test_other_rows_are_refused(prepared, small_schema, tmp_path):
    data = tmp_path / "data"
    small_schema.save(data)
    for name in ("train", "valid"):
        ck.data.write(data / name, small_schema, make_rows(60))
    training.train(quick(data, tmp_path / "out"), progress=False)
    ck.data.write(data / "train", small_schema, make_rows(60, seed=9))
    with pytest.raises(ValueError, match="another rows"):
        training.train(quick(data, tmp_path / "out"), progress=False)


def test_undefined_auc_falls_back_to_the_loss(prepared, small_schema, tmp_path):
    data = tmp_path / "data"
    small_schema.save(data)
    ck.data.write(data / "train", small_schema, make_rows(100))
    ck.data.write(data / "valid", small_schema, {**make_rows(50), "label": np.zeros(50)})
    result = training.train(quick(data, tmp_path / "out", epochs=3), progress=False)
    losses = [logs["val_loss"] for logs in result.history]
    assert result.best_epoch == int(np.argmin(losses))


def test_damaged_state_is_named(prepared, tmp_path):
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(ValueError, match="state.json.*--restart"):
        training.train(config(prepared, tmp_path), progress=False)


def test_other_settings_are_refused_until_restart(prepared, trained_copy):
    (trained_copy / "mine.txt").write_text("kept")
    other = quick(prepared, trained_copy, batch_size=60)
    with pytest.raises(ValueError, match="another batch_size.*--restart.*batch_size=60"):
        training.train(other, progress=False)
    training.train(other, restart=True, progress=False)
    assert (trained_copy / "mine.txt").read_text() == "kept"


def test_changed_vocabulary_is_refused(trained, small_schema, tmp_path):
    data = tmp_path / "data"
    words = ck.Vocabulary.write(tmp_path / "v.txt", [f"i{n}" for n in range(39)])
    features = [
        ck.Feature("item_id", "item", vocabulary=words, dtype="string")
        if f.name == "item_id"
        else f
        for f in small_schema
    ]
    schema = ck.Schema(features).save(data)
    for name in ("train", "valid"):
        ck.data.write(data / name, schema, make_rows(60))
    with pytest.raises(ValueError, match="another rows, schema"):
        training.train(quick(data, pathlib.Path(trained.model).parent, epochs=2), progress=False)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"model": "Dinn"}, "one of .*DIN.*model='Dinn'"),
        ({"options": {"width": 3}}, "does not take the option 'width'"),
        ({"epochs": 0}, "epochs=0"),
        ({"seed": -1}, "`seed` must be from 0 .*`seed=-1`"),
        ({"model": "TunedTexts"}, r"TunedTexts .* needs `texts` .*`encoder`.*`texts=\(\)`"),
        ({"model": "MeLU", "task": "hour"}, "`key` must be an id of one value.*key='hour'"),
        ({"data": "nowhere"}, "No schema there"),
        ({"negative_ratio": 0}, r"in \(0, 1\].*negative_ratio=0"),
    ],
)
def test_bad_settings(prepared, tmp_path, kwargs, message):
    with pytest.raises(ValueError, match=message):
        training.train(config(prepared, tmp_path, **kwargs), progress=False)


def test_a_file_in_place_of_a_folder_is_named(prepared, tmp_path):
    file = tmp_path / "clicks.csv"
    file.write_text("user_id,label\n")
    expected = "clicks.csv is a file; expected the folder that `ctr-keras prepare` made"
    with pytest.raises(ValueError, match=expected):
        training.train(quick(file, tmp_path / "out"), progress=False)
    with pytest.raises(ValueError, match=expected):
        ck.data.read(file)
    for out in (file, file / "out"):
        with pytest.raises(ValueError, match="clicks.csv is a file; expected a folder to write"):
            training.train(quick(prepared, out), progress=False)
    with pytest.raises(ValueError, match="is a folder; expected a `.keras` file, such as the `b"):
        training.load_model(tmp_path)


def test_progress_goes_to_stderr(prepared, tmp_path, capsys):
    training.train(quick(prepared, tmp_path))
    captured = capsys.readouterr()
    assert "epoch 1/1" in captured.err and "val_auc" in captured.err
    assert captured.out == ""


def test_negative_ratio_is_the_models(prepared, tmp_path, capsys):
    settings = quick(prepared, tmp_path, epochs=2, negative_ratio=0.5)
    result = training.train(settings)
    assert training.load_model(result.model).negative_ratio == 0.5
    bars = capsys.readouterr().err
    assert "epoch 2/2" in bars and "val_auc" in bars
    again = training.train(quick(prepared, tmp_path, epochs=2, negative_ratio=0.5))
    assert again.history == result.history
    with pytest.raises(ValueError, match="another negative_ratio.*negative_ratio=0.25`, there 0.5"):
        training.train(quick(prepared, tmp_path, negative_ratio=0.25))


def test_resumed_training_reads_the_same_negatives(prepared, tmp_path):
    options = {"epochs": 2, "negative_ratio": 0.3}
    whole = training.train(quick(prepared, tmp_path / "a", **options), progress=False)
    training.train(quick(prepared, tmp_path / "b", **{**options, "epochs": 1}), progress=False)
    resumed = training.train(quick(prepared, tmp_path / "b", **options), progress=False)
    assert resumed.history == whole.history


def test_ratio_of_the_manifest_counts(prepared, small_schema, tmp_path):
    data = tmp_path / "data"
    small_schema.save(data)
    rows = ck.data.down_sample_negatives(small_schema, make_rows(300), 0.5)
    ck.data.write(data / "train", small_schema, rows, negative_ratio=0.5)
    ck.data.write(data / "valid", small_schema, make_rows(100, 1))
    settings = quick(data, tmp_path / "out", negative_ratio=0.5)
    result = training.train(settings, progress=False)
    assert training.load_model(result.model).negative_ratio == 0.25
    evaluation = training.evaluate(result.model, data / "train")
    assert evaluation.negative_ratio == 0.5 and "negatives kept" in evaluation.to_text()
    assert "negatives kept" not in training.evaluate(result.model, data / "valid").to_text()
    # The same rows under another ratio are another training.
    ck.data.write(data / "train", small_schema, rows)
    with pytest.raises(ValueError, match="another negative_ratio"):
        training.train(settings, progress=False)


def test_evaluation_is_that_of_scikit_learn(uninterrupted, prepared):
    from sklearn.metrics import log_loss, roc_auc_score

    model = training.load_model(uninterrupted.model)
    result = training.evaluate(model, prepared / "test", batch_size=64)
    batches = list(ck.data.read(prepared / "test", model.schema, 64))
    label = np.concatenate([y for _, y in batches])
    score = np.concatenate([model.predict_on_batch(x)[:, 0] for x, _ in batches])
    assert result.rows == 300
    assert result.auc == pytest.approx(roc_auc_score(label, score), abs=1e-6)
    assert result.log_loss == pytest.approx(log_loss(label, score.astype(float)), abs=1e-6)
    assert result.calibration_ratio == pytest.approx(score.sum() / label.sum(), abs=1e-5)
    assert 0 < result.gauc < 1 and 0 < result.gauc_row_share <= 1
    assert f"{result.auc:.4f}" in result.to_text()


def test_rows_without_a_group_are_no_group():
    rng = np.random.default_rng(0)
    labels, scores, groups = rng.integers(0, 2, 90), rng.random(90), rng.integers(0, 4, 90)
    whole = _evaluation(Predictions(labels[:60], scores[:60], groups[:60], None))
    groups[60:] = -1
    found = _evaluation(Predictions(labels, scores, groups, None))
    assert found.gauc == whole.gauc
    assert (whole.gauc_row_share, found.gauc_row_share) == (1, pytest.approx(2 / 3))


def test_scenarios_are_named_whatever_their_names_hold(tmp_path):
    names = ["home\u2028page", "search", "cart\x0cone"]
    vocabulary = ck.Vocabulary.write(tmp_path / "scenes.txt", names)
    found = scenario_names(vocabulary, np.arange(5))
    assert found.tolist() == ["(none)", "(unknown)", *names]


def test_foreign_model_files_are_named(tmp_path, prepared):
    with pytest.raises(ValueError, match="nothing.keras"):
        training.evaluate(tmp_path / "nothing.keras", prepared / "test")
    (tmp_path / "broken.keras").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="broken.keras"):
        training.evaluate(tmp_path / "broken.keras", prepared / "test")
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    other.save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="no model of ctr_keras"):
        training.evaluate(tmp_path / "other.keras", prepared / "test")


def test_model_of_another_schema_is_refused(uninterrupted, tmp_path):
    schema = ck.Schema(
        [
            ck.Feature("id", "item", vocabulary=ck.Vocabulary.of_size(9)),
            ck.Feature("label", "label", kind="number"),
        ]
    )
    ck.data.write(tmp_path, schema, {"id": [1], "label": [0]})
    with pytest.raises(ValueError, match="no column 'user_id'"):
        training.evaluate(uninterrupted.model, tmp_path)


def test_models_that_learn_from_tasks(prepared, tmp_path):
    options = {"embedding_dim": 4, "units": (4,)}
    by_user = config(prepared, tmp_path / "a", model="MeLU", options=options, epochs=1)
    trained = training.train(by_user, progress=False)
    # Validated as it is used: adapted to each user.
    adapted, shared = (
        training.evaluate_cold_start(
            trained.model, prepared / "train", prepared / "valid", adapt=adapt
        )
        .slices["all"]
        .auc
        for adapt in ("user_id", None)
    )
    assert trained.history[0]["val_auc"] == pytest.approx(adapted, abs=1e-6) != shared
    assert training.train(by_user, progress=False).history == trained.history
    by_item = dataclasses.replace(by_user, out=str(tmp_path / "b"), task="item_id", tasks=8)
    assert training.train(by_item, progress=False).history != trained.history
    for name, value in {"task": "user_id", "tasks": 8, "every_row": True}.items():
        message = f"FM learns from rows, not from tasks. Received: `{name}="
        with pytest.raises(ValueError, match=message):
            training.train(quick(prepared, tmp_path / name, **{name: value}), progress=False)


def test_meta_emb_is_validated_on_new_items_by_a_base_that_is_trained_first(prepared, tmp_path):
    base = {"base": "DNN", "base_options": {"embedding_dim": 4, "units": [4]}}
    settings = config(
        prepared, tmp_path, model="MetaEmb", options=base, epochs=1, tasks=4, every_row=True
    )
    trained = training.train(settings, progress=False)
    model = training.load_model(trained.model)
    x, y = next(iter(ck.data.read(prepared / "valid", model.schema, 300)))
    new = model.predict({**x, "item_id": np.ones(300, "int32")}, verbose=0)
    assert trained.history[0]["val_auc"] == pytest.approx(ck.metrics.auc(y, new), abs=1e-3)
    assert ck.metrics.auc(y, model.predict(x, verbose=0)) != pytest.approx(
        ck.metrics.auc(y, new), abs=1e-3
    )
    with pytest.raises(ValueError, match="embeddings for, 'item_id'. Received: `'user_id'`"):
        training.train(
            dataclasses.replace(settings, out=str(tmp_path / "b"), task="user_id"), progress=False
        )
    assert not (tmp_path / "b").exists()  # Refused before the base is trained.
    for mine, theirs in zip(model.base.weights, weights(tmp_path / "base/best.keras"), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    alone = config(
        prepared, tmp_path / "alone", model="DNN", options=base["base_options"], epochs=1
    )
    expected = weights(training.train(alone, progress=False).model)
    for mine, theirs in zip(model.base.weights, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
