import dataclasses
import pathlib

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import ctr_keras as ck
from ctr_keras import files, training
from ctr_keras.datasets import search_pairs, simulator, titled_pictures
from ctr_keras.pretraining import text_encoder
from ctr_keras.training.pair_sources import PicturePairs, TitledPictures
from ctr_keras.training.pretrain import max_tokens_of
from tests.pretraining import tiny_pairs
from tests.pretraining.image_bytes import encoded, plain


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


def test_another_start_is_another_training(folder, tmp_path):
    start = tmp_path / "start.keras"
    ck.pretraining.TextEncoder.from_preset(folder / "bert", max_tokens=9).save(start)
    settings = config(folder, tmp_path / "out", encoder=str(start), max_tokens=None, epochs=1)
    training.pretrain(settings, progress=False)
    (tmp_path / "moved").mkdir()
    moved = str(start.rename(tmp_path / "moved/start.keras"))
    again = dataclasses.replace(settings, encoder=moved)
    once = training.pretrain(again, progress=False)
    encoder = keras.models.load_model(moved)
    encoder.set_weights([weight * 0.9 for weight in encoder.get_weights()])
    encoder.save(moved)
    with pytest.raises(ValueError, match="another encoder.*--restart"):
        training.pretrain(again, progress=False)
    with pytest.raises(ValueError, match="`margin=-1.0`"):
        training.pretrain(dataclasses.replace(again, margin=-1.0), restart=True, progress=False)
    assert pathlib.Path(once.encoder).exists() and (tmp_path / "out/state.json").exists()


def test_two_at_once_in_a_folder(folder, tmp_path):
    with files.locked(tmp_path), pytest.raises(ValueError, match="Another process.*`out="):
        training.pretrain(config(folder, tmp_path), progress=False)


def test_an_epoch_that_diverges_says_what_to_do(folder, tmp_path):
    settings = config(folder, tmp_path / "out", learning_rate=1e30)
    with pytest.raises(ValueError, match=r"Epoch 1: the loss is nan.*lower `learning_rate`"):
        training.pretrain(settings, progress=False)
    assert not list((tmp_path / "out").glob("*.keras"))


def test_texts_are_encoded_by_a_trained_encoder(folder, tmp_path):
    settings = config(folder, tmp_path / "out", epochs=1, bank_size=0, triplet_weight=0.0)
    trained = training.pretrain(settings, progress=False)
    schema = ck.Schema(
        [ck.Feature("title", "item", kind="text"), ck.Feature("label", "label", kind="number")]
    ).save(tmp_path / "data")
    for name in ("train", "valid", "test"):
        ck.data.write(tmp_path / "data" / name, schema, {"title": ["tea", "x"], "label": [0, 1]})
    table = ck.pretraining.encode_texts(tmp_path / "data", encoder=trained.encoder, progress=False)
    assert table.encoder["max_tokens"] == "9"
    # It reads as much of a text where it learns on.
    settings = config(
        folder, tmp_path / "on", encoder=trained.encoder, epochs=1, bank_size=0, triplet_weight=0.0
    )
    with pytest.raises(ValueError, match="its own settings.*`max_tokens=9`"):
        training.pretrain(settings, progress=False)
    found = training.pretrain(dataclasses.replace(settings, max_tokens=None), progress=False)
    assert found.before == trained.after
    assert ck.pretraining.TextEncoder.from_preset(found.encoder).max_tokens == 9
    expected = keras.models.load_model(trained.encoder).encode(["tea"])
    np.testing.assert_allclose(table.take(table.rows_of(tf.constant(["tea"]))), expected, atol=1e-6)


def test_an_encoder_stays_itself_where_nothing_is_left_to_train(folder, tmp_path):
    settings = config(folder, tmp_path, epochs=1, bank_size=0, triplet_weight=0.0)
    file = pathlib.Path(training.pretrain(settings, progress=False).encoder)
    identity, written = text_encoder.identity(file), file.stat().st_mtime_ns
    training.pretrain(settings, progress=False)
    assert file.stat().st_mtime_ns == written
    file.unlink()
    training.pretrain(settings, progress=False)
    assert text_encoder.identity(file) == identity
    # Another epoch may better it.
    training.pretrain(dataclasses.replace(settings, epochs=2), progress=False)
    assert file.stat().st_mtime_ns >= (tmp_path / "best.keras").stat().st_mtime_ns
    assert not list(tmp_path.glob(".*.keras"))


def test_an_image_encoder(tmp_path):
    world = simulator.WorldConfig(users=10, items=60, categories=4, seed=1)
    made = simulator.PicturesConfig(pairs=240, size=16)
    simulator.pictures.prepare(tmp_path / "data", world, made, report=lambda line: None)
    images = str(tmp_path / "data/pictures")
    found = training.pretrain(
        training.PretrainingConfig(
            str(tmp_path / "data"), str(tmp_path / "out"), images=images, epochs=1
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
    # What begins with random weights learns by the batch alone, and faster.
    model = keras.models.load_model(tmp_path / "out/best.keras")
    assert model.bank is None and model.triplet_weight == 1
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-3)
    # The pictures may move.
    (tmp_path / "data/pictures").rename(tmp_path / "moved")
    moved = training.PretrainingConfig(
        str(tmp_path / "data"), str(tmp_path / "out"), images=str(tmp_path / "moved"), epochs=1
    )
    assert training.pretrain(moved, progress=False).history == found.history
    # Others, drawn anew, may not take their place.
    (tmp_path / "moved" / queries[0].removeprefix(f"{images}/")).write_bytes(plain((1, 2, 3)))
    with pytest.raises(ValueError, match="a training with another images"):
        training.pretrain(dataclasses.replace(moved, epochs=2), progress=False)


def test_corrupt_pictures(tmp_path):
    names = [f"{n}.png" for n in range(12)]
    for n, name in enumerate(names):
        content = tf.io.encode_png(tf.fill((8, 8, 3), tf.cast(20 * n, tf.uint8))).numpy()
        (tmp_path / name).write_bytes(content[:30] if n in (2, 5) else content)
    schema = search_pairs.SCHEMA.save(tmp_path / "data")
    rows = {
        "query": ["0.png", "1.png", "2.png", "2.png", "3.png"],
        "item": ["4.png", "5.png", "6.png", "5.png", "7.png"],
        "negative": ["2.png", "8.png", "", "9.png", "8.png"],
        "item_id": [1, 2, 3, 2, 4],
        "label": [1.0] * 5,
    }
    for split in ("train", "valid", "test"):
        ck.data.write(tmp_path / "data" / split, schema, rows)
    settings = training.PretrainingConfig(
        str(tmp_path / "data"), str(tmp_path / "out"), images=str(tmp_path), epochs=1,
        batch_size=2, bank_size=4,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"2.png cannot be decoded as JPEG.*`skip_corrupt`"):
        training.pretrain(settings, progress=False)
    lines = []
    pairs = PicturePairs(
        settings.data, 2, encoder=None, layers=None, views="query", images=str(tmp_path),
        skip_corrupt=True, report=lines.append,
    )  # fmt: skip
    assert lines == ["2 of 10 images cannot be decoded: 2.png, 5.png"]
    batches = list(pairs.read("train").as_numpy_iterator())
    assert [batch["item_id"].tolist() for batch in batches] == [[1], [4]]
    assert [batch["has_negative"].tolist() for batch in batches] == [[False], [True]]
    settings = dataclasses.replace(settings, skip_corrupt=True)
    found = training.pretrain(settings, progress=False)
    assert np.isfinite(found.history[0]["loss"]) and found.after["acc_5"] == 1
    # A split without any that can be decoded.
    broken = {name: values[2:4] for name, values in rows.items()}
    schema.save(tmp_path / "broken")
    for split, content in {"train": rows, "valid": rows, "test": broken}.items():
        ck.data.write(tmp_path / "broken" / split, schema, content)
    settings = dataclasses.replace(
        settings, data=str(tmp_path / "broken"), out=str(tmp_path / "other")
    )
    with pytest.raises(ValueError, match=r"broken/test has no pairs .*`left_out` with 2 texts"):
        training.pretrain(settings, progress=False)


COLORS = {"tea": (200, 30, 20), "coffee": (20, 200, 40), "green": (30, 20, 220)}


@pytest.fixture(scope="module")
def titled(folder, tmp_path_factory):
    """Items of one or two words, whose pictures have the words' colors, and no queries."""
    out = tmp_path_factory.mktemp("titled")
    titles = [" ".join([a, b]) for a in COLORS for b in COLORS] * 8
    schema = ck.Schema(
        [
            ck.Feature("item_id", "item", vocabulary=ck.Vocabulary.of_size(80)),
            ck.Feature("label", "label", kind="number"),
        ]
    ).save(out / "items")
    for split in ("train", "valid", "test"):
        ck.data.write(out / "items" / split, schema, {"item_id": [2], "label": [1.0]})
    pd.DataFrame({"item_id": range(2, 74), "title": titles}).to_parquet(out / "items/items.parquet")
    (out / "posters").mkdir()
    for n, title in enumerate(titles, start=2):
        left, right = (np.uint8(COLORS[word]) for word in title.split())
        pixels = np.broadcast_to([[left] * 4 + [right] * 4], (8, 8, 3))
        (out / f"posters/{n}.png").write_bytes(encoded(pixels))
    ck.set_seed(0)
    ck.pretraining.ImageEncoder.small(width=16, size=8).save(out / "start.keras")
    titled_pictures.prepare(
        out / "data", out / "items", out / "posters", held_out=0.2, report=lambda line: None
    )
    return out


def of_titles(titled, folder, out, **kwargs):
    return training.PretrainingConfig(
        **{"data": str(titled / "data"), "out": str(out), "images": str(titled / "data/pictures"),
           "text_encoder": str(folder / "bert"), "max_tokens": 9, "views": "text-picture",
           "encoder": str(titled / "start.keras"),
           "epochs": 6, "batch_size": 16, "learning_rate": 0.003, **kwargs}
    )  # fmt: skip


def test_titles_and_pictures(titled, folder, tmp_path):
    whole = training.pretrain(of_titles(titled, folder, tmp_path / "a"), progress=False)
    assert "triplet" not in whole.history[0]
    # Nine kinds of items, of which there are several: chance finds one in ten.
    assert whole.history[-1]["loss"] < whole.history[0]["loss"] - 0.3
    assert whole.after["acc_5"] > whole.before["acc_5"]
    training.pretrain(of_titles(titled, folder, tmp_path / "b", epochs=2), progress=False)
    resumed = training.pretrain(of_titles(titled, folder, tmp_path / "b"), progress=False)
    for a, b in zip(whole.history, resumed.history, strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    assert whole.before == resumed.before
    # Its encoder of pictures is one like any other.
    table = ck.pretraining.encode_item_images(
        titled / "items", titled / "posters", whole.encoder, progress=False
    )
    encoder = ck.pretraining.ImageEncoder.from_preset(whole.encoder)
    expected = encoder.encode([titled / "posters/5.png"])
    np.testing.assert_allclose(table.take(table.rows_of(tf.constant([5]))), expected, atol=1e-6)


def test_titles_and_pictures_of_queries(folder, tmp_path):
    world = simulator.WorldConfig(users=10, items=60, categories=4, seed=1)
    made = simulator.PicturesConfig(pairs=240, size=16)
    simulator.pictures.prepare(tmp_path / "data", world, made, report=lambda line: None)
    start = ck.pretraining.ImageEncoder.small(width=6, size=16)
    start.save(tmp_path / "start.keras")
    settings = of_titles(tmp_path, folder, tmp_path / "out", epochs=1, layers=1)
    found = training.pretrain(settings, progress=False)
    encoder = ck.pretraining.ImageEncoder.from_preset(found.encoder)
    assert encoder.width == 128 and len(encoder.trainable_variables) == 1
    # Where it learns on, all of it does by default.
    on = PicturePairs(
        settings.data, 16, encoder=found.encoder, layers=None, views="query",
        images=settings.images, skip_corrupt=False,
    )  # fmt: skip
    learning = on.encoder()
    assert learning.trained_layers is None
    assert len(learning.trainable_variables) == len(start.trainable_variables) + 1
    path, images = tmp_path / "data/test", tmp_path / "data/pictures"
    assert found.after == training.pair_accuracy(encoder, path, images)


def test_paths_of_pictures_are_no_texts(titled, folder, tmp_path):
    settings = config(folder, tmp_path / "out", data=str(titled / "data"))
    with pytest.raises(ValueError, match="train holds pairs of pictures, not texts: give `images`"):
        training.pretrain(settings, progress=False)
    with pytest.raises(ValueError, match="needs `images`.*`skip_corrupt=True`"):
        training.pretrain(config(folder, tmp_path / "out", skip_corrupt=True), progress=False)
    schema = search_pairs.SCHEMA.save(tmp_path / "data")
    for split in ("train", "valid", "test"):
        rows = {"query": [""], "item": ["tea"], "negative": [""], "item_id": [1], "label": [1.0]}
        ck.data.write(tmp_path / "data" / split, schema, rows)
    settings = config(folder, tmp_path / "out", data=str(tmp_path / "data"))
    with pytest.raises(ValueError, match="train has no queries.*`views='query'`"):
        training.pretrain(settings, progress=False)


def test_what_titles_and_pictures_need(titled, folder, tmp_path):
    settings = of_titles(titled, folder, tmp_path)
    with pytest.raises(ValueError, match="`images=None`"):
        training.pretrain(dataclasses.replace(settings, images=None), progress=False)
    with pytest.raises(ValueError, match="`triplet_weight=1.0`"):
        training.pretrain(dataclasses.replace(settings, triplet_weight=1.0), progress=False)
    with pytest.raises(ValueError, match="no queries.*Received: `views='item'`"):
        training.pretrain(
            dataclasses.replace(settings, views="item", text_encoder=None, max_tokens=None),
            progress=False,
        )
    with pytest.raises(ValueError, match="`text_encoder` goes with .*`views='item'`"):
        training.pretrain(
            dataclasses.replace(settings, views="item", max_tokens=None), progress=False
        )
    with pytest.raises(ValueError, match="of pictures have none.*`max_tokens=9`, `views='query'`"):
        training.pretrain(dataclasses.replace(settings, views="query"), progress=False)
    with pytest.raises(ValueError, match="`bank_size=9`"):
        training.pretrain(dataclasses.replace(settings, bank_size=9), progress=False)
    with pytest.raises(ValueError, match="pictures/cafe is not there. Received: `images="):
        training.pretrain(dataclasses.replace(settings, data=str(folder / "data")), progress=False)
    with pytest.raises(ValueError, match="must have the item's `title`"):
        TitledPictures(
            str(folder / "data"), 16, text_encoder=settings.text_encoder, max_tokens=9,
            encoder=settings.encoder, layers=None, images=settings.images, skip_corrupt=False,
        )  # fmt: skip


def test_default_of_max_tokens(folder):
    assert max_tokens_of(str(folder / "bert"), None) == 32
    assert max_tokens_of(str(folder / "bert"), 9) == 9
    assert max_tokens_of("encoder.keras", None) is None


def test_bad_settings(folder, tmp_path):
    with pytest.raises(ValueError, match="`epochs=0`"):
        training.pretrain(config(folder, tmp_path, epochs=0))
    with pytest.raises(ValueError, match="`layers=3`"):
        training.pretrain(config(folder, tmp_path, layers=3), progress=False)
    model = ck.models.FM(ck.Schema([ck.Feature("a", "user", vocabulary=ck.Vocabulary.of_size(3))]))
    model.save(tmp_path / "fm.keras")
    bad = config(folder, tmp_path, encoder=str(tmp_path / "fm.keras"), max_tokens=None)
    with pytest.raises(ValueError, match="fm.keras holds no text encoder"):
        training.pretrain(bad, progress=False)
