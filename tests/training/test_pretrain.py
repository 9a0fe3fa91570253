import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import ctr_keras as ck
from ctr_keras import training
from ctr_keras.datasets import simulator
from tests.pretraining import tiny_pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_pairs.write(tmp_path_factory.mktemp("pairs"))


def config(folder, out, **kwargs):
    return training.PretrainingConfig(
        **{"data": str(folder / "data"), "out": str(out), "encoder": str(folder / "bert"),
           "max_tokens": 9, "layers": 1, "epochs": 2, "batch_size": 16, "bank_size": 20,
           "learning_rate": 0.003, **kwargs}
    )  # fmt: skip


def test_interrupted_pretraining_ends_alike(folder, tmp_path):
    whole = training.pretrain(config(folder, tmp_path / "a"), progress=False)
    assert len(whole.history) == 2
    assert {"val_accuracy_at_1", "val_accuracy_at_5", "triplet"} <= set(whole.history[0])
    training.pretrain(config(folder, tmp_path / "b", epochs=1), progress=False)
    resumed = training.pretrain(config(folder, tmp_path / "b"), progress=False)
    for a, b in zip(whole.history, resumed.history, strict=True):
        assert a == pytest.approx(b, abs=1e-6)
    encoder = ck.pretraining.TextEncoder.from_preset(whole.encoder)
    assert ck.pretraining.encoder_width(whole.encoder) == encoder.width == 12
    found = training.pair_accuracy(encoder, folder / "data/test")
    assert found == whole.after and 0 <= found["acc_1"] <= found["acc_5"] <= 1
    assert "before" in whole.to_text()
    queries, items, own = ck.pretraining.pair_texts(folder / "data/test")
    scores = encoder.encode(queries) @ encoder.encode(items).T
    best = scores.argmax(axis=1) == own
    assert best.mean() == pytest.approx(found["acc_1"], abs=1e-6)
    with pytest.raises(ValueError, match="another margin"):
        training.pretrain(config(folder, tmp_path / "b", margin=0.5), progress=False)


def test_texts_are_encoded_by_a_trained_encoder(folder, tmp_path):
    settings = config(folder, tmp_path / "out", epochs=1, bank_size=0, triplet_weight=0.0)
    trained = training.pretrain(settings, progress=False)
    schema = ck.Schema(
        [ck.Feature("title", "item", kind="text"), ck.Feature("label", "label", kind="number")]
    ).save(tmp_path / "data")
    for name in ("train", "valid", "test"):
        ck.data.write(tmp_path / "data" / name, schema, {"title": ["tea", "x"], "label": [0, 1]})
    table = ck.pretraining.encode_texts(tmp_path / "data", encoder=trained.encoder, progress=False)
    expected = keras.models.load_model(trained.encoder).encode(["tea"])
    np.testing.assert_allclose(table.take(table.rows_of(tf.constant(["tea"]))), expected, atol=1e-6)


def test_an_image_encoder(tmp_path):
    world = simulator.WorldConfig(users=10, items=60, categories=4, seed=1)
    made = simulator.PicturesConfig(pairs=240, size=16)
    simulator.pictures.prepare(tmp_path / "data", world, made, report=lambda line: None)
    images = str(tmp_path / "data/pictures")
    found = training.pretrain(
        training.PretrainingConfig(
            str(tmp_path / "data"), str(tmp_path / "out"), images=images, epochs=1, bank_size=50
        ),
        progress=False,
    )
    encoder = ck.pretraining.ImageEncoder.from_preset(found.encoder)
    assert encoder.width == 128
    queries, items, own = ck.pretraining.pair_texts(tmp_path / "data/test", images)
    scores = encoder.encode(queries) @ encoder.encode(items).T
    best = (scores.argmax(axis=1) == own).mean()
    assert found.after["acc_1"] == pytest.approx(best, abs=1 / len(queries))
    # "Before" is what the training began with.
    ck.set_seed(0)
    start = ck.pretraining.ImageEncoder.small()
    assert found.before == training.pair_accuracy(start, tmp_path / "data/test", images)
    # The pictures may move.
    (tmp_path / "data/pictures").rename(tmp_path / "moved")
    moved = training.PretrainingConfig(
        str(tmp_path / "data"), str(tmp_path / "out"), images=str(tmp_path / "moved"), epochs=1,
        bank_size=50,
    )  # fmt: skip
    assert training.pretrain(moved, progress=False).history == found.history


def test_bad_settings(folder, tmp_path):
    with pytest.raises(ValueError, match="`epochs=0`"):
        training.pretrain(config(folder, tmp_path, epochs=0))
    with pytest.raises(ValueError, match="`layers=3`"):
        training.pretrain(config(folder, tmp_path, layers=3), progress=False)
    model = ck.models.FM(ck.Schema([ck.Feature("a", "user", vocabulary=ck.Vocabulary.of_size(3))]))
    model.save(tmp_path / "fm.keras")
    bad = dataclasses.replace(config(folder, tmp_path), encoder=str(tmp_path / "fm.keras"))
    with pytest.raises(ValueError, match="fm.keras holds no text encoder"):
        training.pretrain(bad, progress=False)
