import json

import numpy as np
import pytest
import tensorflow as tf

import ctr_keras as ck
from ctr_keras.data import TextVectors
from tests.conftest import make_rows

MADE_BY = {"encoder": "test", "sha256": "0"}


def vector_of(text):
    """A vector that tells texts apart."""
    return np.random.default_rng(list(text.encode())).normal(size=3).astype(np.float32)


def table_of(folder, texts):
    vectors = np.stack([vector_of(text) for text in texts])
    return TextVectors.create(folder, MADE_BY, 3).extended(texts, vectors)


def in_graph(table, texts):
    return tf.function(lambda x: table.take(table.rows_of(x)))(tf.constant(texts))


def test_texts_are_found_again(tmp_path):
    table = table_of(tmp_path, ["tea", "coffee", "Ünder"])
    table = table.extended(["milk"], vector_of("milk")[None])
    for found in (table, TextVectors.open(tmp_path)):
        asked = ["milk", "tea", "", "tea", "Ünder"]
        expected = [np.zeros(3) if not text else vector_of(text) for text in asked]
        np.testing.assert_array_equal(in_graph(found, asked), expected)
        assert len(found) == 5
        assert found.lacks(["tea", "rum", ""]).tolist() == [False, True, False]
    assert "5 texts" in table.to_text() and table.to_dict()["encoder"] == "test"


def test_what_a_kill_left_is_cut_off(tmp_path):
    table = table_of(tmp_path, ["tea"])
    with open(tmp_path / "vectors.f32", "ab") as file:
        file.write(b"12345678901234567890")  # One row and a half, without a key.
    again = TextVectors.open(tmp_path)
    assert len(again) == len(table)
    again = again.extended(["rum"], vector_of("rum")[None])
    np.testing.assert_array_equal(again.take(again.rows_of(tf.constant(["rum"])))[0],
                                  vector_of("rum"))  # fmt: skip


def test_bad_tables(tmp_path):
    with pytest.raises(ValueError, match="`ctr-keras encode` makes them"):
        TextVectors.open(tmp_path)
    table = table_of(tmp_path, ["tea"])
    with pytest.raises(ValueError, match="another encoder, .*'test'.*`encoder="):
        TextVectors.create(tmp_path, {"encoder": "other"}, 3)
    with pytest.raises(ValueError, match=r"shape \(1, 3\)"):
        table.extended(["rum"], np.zeros((1, 4), np.float32))
    with pytest.raises(ValueError, match="must be finite"):
        table.extended(["rum"], np.full((1, 3), np.nan, np.float32))
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="(?s)`ctr-keras encode` on the data.*rum"
    ):
        table.rows_of(tf.constant(["tea", "rum"]))
    keys = np.fromfile(tmp_path / "keys.i64", np.int64)
    keys[0] = keys[1]
    keys.tofile(tmp_path / "keys.i64")
    with pytest.raises(ValueError, match="keys.i64 is damaged: rows 0 and 1"):
        TextVectors.open(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"width": 3}))
    with pytest.raises(ValueError, match="manifest.json is damaged"):
        TextVectors.open(tmp_path)


@pytest.fixture(scope="module")
def with_text(tmp_path_factory):
    """Rows whose titles are kept as they are, and their schema."""
    folder = tmp_path_factory.mktemp("texts")
    features = [
        ck.Feature("user_id", "user", vocabulary=ck.Vocabulary.of_size(30)),
        ck.Feature("title", "item", kind="text"),
        ck.Feature("label", "label", kind="number"),
    ]
    schema = ck.Schema(features).save(folder)
    rows = make_rows(300)
    rows = {name: rows[name] for name in schema.names}
    rows["title"][7] = ""
    for name in ("train", "valid", "test"):
        ck.data.write(folder / name, schema, rows, block_rows=64)
    table_of(folder / "text_vectors", sorted({text for text in rows["title"] if text}))
    return folder, schema, rows


@pytest.mark.parametrize("shuffle", [False, True])
def test_read_joins_the_vectors_of_texts(with_text, shuffle):
    folder, schema, rows = with_text
    encoded = schema.with_encoded_texts(["title"], 3)
    batches = list(ck.data.read(folder / "train", encoded, 50, shuffle=shuffle))
    assert {x["title"].shape[1:] for x, _ in batches} == {(3,)}
    found = np.concatenate([x["title"].numpy() for x, _ in batches])
    expected = np.stack([vector_of(t) if t else np.zeros(3, np.float32) for t in rows["title"]])
    if shuffle:
        found, expected = (x[np.lexsort(x.T)] for x in (found, expected))
    np.testing.assert_array_equal(found, expected)
    # What is no input of a schema is not read, with or without vectors.
    assert set(next(iter(ck.data.read(folder / "train", schema, 5)))[0]) == {"user_id"}


def test_models_train_on_encoded_texts(with_text, tmp_path):
    folder, schema, _ = with_text
    config = ck.training.TrainingConfig(
        data=str(folder), out=str(tmp_path), model="DNN", options={"embedding_dim": 4},
        epochs=1, batch_size=50, texts=("title",),
    )  # fmt: skip
    trained = ck.training.train(config, progress=False)
    model = ck.training.load_model(trained.model)
    assert model.input["title"].shape == (None, 3)
    assert ck.training.evaluate(model, folder / "test").rows == 300
    with pytest.raises(ValueError, match="the encoder that made them. Received"):
        ck.serving.export(model, tmp_path / "saved")


def test_bad_encoded_texts(with_text):
    folder, schema, _ = with_text
    with pytest.raises(ValueError, match="a text: one of .'title'.. Received: `label`"):
        schema.with_encoded_texts(["label"], 3)
    with pytest.raises(ValueError, match=r"are 3 wide. Received: the feature 'title' with"):
        ck.data.read(folder / "train", schema.with_encoded_texts(["title"], 4))
    with pytest.raises(ValueError, match="encoded or split into words, not both"):
        words = ck.Vocabulary.hashing(9)
        ck.Feature("title", "item", kind="text", width=3, vocabulary=words, length=3)
    with pytest.raises(ValueError, match="`width` of an encoded text must be positive"):
        ck.Feature("title", "item", kind="text", width=0)
    again = ck.Schema.from_dict(schema.with_encoded_texts(["title"], 3).to_dict())
    assert again["title"].is_encoded_text and not again["title"].is_embedded
