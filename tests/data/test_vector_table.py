import json
from concurrent import futures

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import ctr_keras as ck
from ctr_keras import files
from ctr_keras.data import VectorTable
from ctr_keras.data.raw_rows import raw_rows
from tests.conftest import make_rows

MADE_BY = {"encoder": "test", "sha256": "0"}


def vector_of(text):
    """A unit vector that tells texts apart."""
    vector = np.random.default_rng(list(text.encode())).normal(size=3)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def table_of(folder, texts):
    vectors = np.stack([vector_of(text) for text in texts])
    return VectorTable.create(folder, MADE_BY, 3).extended(texts, vectors)


def in_graph(table, texts):
    return tf.function(lambda x: table.take(table.rows_of(x)))(tf.constant(texts))


def test_texts_are_found_again(tmp_path):
    table = table_of(tmp_path, ["tea", "coffee", "Ünder"])
    table = table.extended(["milk"], vector_of("milk")[None])
    for found in (table, VectorTable.open(tmp_path)):
        asked = ["milk", "tea", "", "tea", "Ünder"]
        expected = [np.zeros(3) if not text else vector_of(text) for text in asked]
        np.testing.assert_array_equal(in_graph(found, asked), expected)
        assert len(found) == 5
        assert found.lacks(["tea", "rum", ""]).tolist() == [False, True, False]
    assert "5 vectors" in table.to_text() and table.to_dict()["encoder"] == "test"


def test_what_a_kill_left_is_cut_off(tmp_path):
    table = table_of(tmp_path, ["tea"])
    with open(tmp_path / "vectors.f32", "ab") as file:
        file.write(b"12345678901234567890")  # One row and a half, without a key.
    again = VectorTable.open(tmp_path)
    assert len(again) == len(table)
    again = again.extended(["rum"], vector_of("rum")[None])
    np.testing.assert_array_equal(again.take(again.rows_of(tf.constant(["rum"])))[0],
                                  vector_of("rum"))  # fmt: skip


def test_handles_that_do_not_know_of_each_other(tmp_path):
    first, second = table_of(tmp_path, ["tea"]), VectorTable.open(tmp_path)
    for handle, text in ((first, "milk"), (second, "rum"), (first, "ale")):
        assert not handle.extended([text], vector_of(text)[None]).lacks([text])[0]
    with pytest.raises(ValueError, match="not there yet.*'rum'"):
        first.extended(["rum"], vector_of("rum")[None])
    asked = ["tea", "milk", "rum", "ale"]
    expected = np.stack([vector_of(text) for text in asked])
    np.testing.assert_array_equal(in_graph(VectorTable.open(tmp_path), asked), expected)
    with futures.ThreadPoolExecutor() as pool:
        with files.locked(tmp_path):
            waiting = pool.submit(first.extended, ["gin"], vector_of("gin")[None])
            with pytest.raises(futures.TimeoutError):
                waiting.result(timeout=0.3)
            assert VectorTable.open(tmp_path).lacks(["gin"])[0]
        assert not waiting.result().lacks(["gin"])[0]


def test_bad_tables(tmp_path):
    with pytest.raises(ValueError, match="encode` makes those of items, with `--items` and `--t"):
        VectorTable.of_items(tmp_path)
    with pytest.raises(ValueError, match="`ctr-keras encode` makes those of texts"):
        VectorTable.open(tmp_path)
    table = table_of(tmp_path, ["tea"])
    with pytest.raises(ValueError, match="another encoder, .*'test'.*`encoder="):
        VectorTable.create(tmp_path, {"encoder": "other"}, 3)
    with pytest.raises(ValueError, match=r"shape \(1, 3\)"):
        table.extended(["rum"], np.zeros((1, 4), np.float32))
    with pytest.raises(ValueError, match="must be finite. Received: row 1 of `vectors`.*'ale'"):
        table.extended(["rum", "ale"], np.array([[1, 0, 0], [np.nan, 0, 0]]))
    with pytest.raises(ValueError, match="must have length one; see `normalize`.*row 0 "):
        table.extended(["rum"], np.array([[1, 1, 0]]))
    with pytest.raises(ValueError, match="not there yet.*'tea'"):
        table.extended(["tea"], np.array([[1, 0, 0]]))
    with pytest.raises(ValueError, match="key of its own. Received: row 2 of `vectors`.*'rum'"):
        table.extended(["rum", "ale", "rum"], np.eye(3))
    assert len(VectorTable.open(tmp_path)) == 2
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="(?s)`ctr-keras encode` on the data.*rum"
    ):
        table.rows_of(tf.constant(["tea", "rum"]))
    keys = np.fromfile(tmp_path / "keys.i64", np.int64)
    keys[0] = keys[1]
    keys.tofile(tmp_path / "keys.i64")
    with pytest.raises(ValueError, match="keys.i64 is damaged: rows 0 and 1"):
        VectorTable.open(tmp_path)
    (tmp_path / "keys.i64").write_bytes(b"")
    with pytest.raises(ValueError, match="is damaged: its files hold not even the first row"):
        VectorTable.open(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"width": 3}))
    with pytest.raises(ValueError, match="manifest.json is damaged"):
        VectorTable.open(tmp_path)


def test_ids_and_what_has_no_vector(tmp_path):
    table = VectorTable.create(tmp_path, MADE_BY, 2)
    table = table.extended(np.array([7, -5, 0]), np.array([[3, 4], [0, 0], [0, 9]]), normalize=True)
    rows = table.rows_of(tf.constant([0, 7, 8, -5], tf.int64), required=False)
    expected = [[0, 1], [0.6, 0.8], [0, 0], [0, 0]]
    np.testing.assert_allclose(table.take(rows), expected, atol=1e-6)
    assert table.lacks([8, 7]).tolist() == [True, False]


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


ITEMS = ck.Schema(
    [
        ck.Feature("user_id", "user", vocabulary=ck.Vocabulary.of_size(9)),
        ck.Feature("item_id", "item", vocabulary=ck.Vocabulary.hashing(50), dtype="string"),
        ck.Feature("history_item_id", "history", length=4, shares="item_id", dtype="string"),
        ck.Feature("label", "label", kind="number"),
    ]
)


@pytest.fixture(scope="module")
def with_items(tmp_path_factory):
    """Rows of items of which the last has no vector."""
    folder = tmp_path_factory.mktemp("items")
    schema = ITEMS.save(folder)
    rng = np.random.default_rng(0)
    rows = {
        "user_id": rng.integers(2, 9, 200),
        "item_id": [f"i{n}" for n in rng.integers(0, 9, 200)],
        "history_item_id": [
            [f"i{n}" for n in rng.integers(0, 9, size)] for size in rng.integers(0, 7, 200)
        ],
    }
    rows["label"] = [int(item[1:]) % 2 for item in rows["item_id"]]
    for name in ("train", "valid", "test"):
        ck.data.write(folder / name, schema, rows, block_rows=64)
    table_of(folder / "item_vectors", [f"i{n}" for n in range(8)])
    return folder, schema.with_item_vectors(3), rows


def item_vector(item):
    return np.zeros(3, np.float32) if item == "i8" else vector_of(item)


def test_read_joins_the_vectors_of_items(with_items):
    folder, schema, rows = with_items
    x, _ = next(iter(ck.data.read(folder / "train", schema, 200)))
    assert x["history_item_id_vector"].shape == (200, 4, 3)
    expected = np.stack([item_vector(item) for item in rows["item_id"]])
    np.testing.assert_array_equal(x["item_id_vector"], expected)
    for row, past in enumerate(rows["history_item_id"]):
        vectors = [item_vector(item) for item in past[-4:]]
        padded = np.stack(vectors + [np.zeros(3, np.float32)] * (4 - len(vectors)))
        np.testing.assert_array_equal(x["history_item_id_vector"][row], padded)


@pytest.mark.parametrize("role", ["history", "vector"])
def test_vectors_stay_with_their_ids_where_a_history_is_cut(with_items, role):
    folder, _, rows = with_items
    past = ck.Feature("history_item_id", "history", length=2, shares="item_id", dtype="string")
    vectors = ck.Feature("looks", role, kind="vector", width=3, length=2, of=past.name)
    schema = ck.Schema([*(f for f in ITEMS if f.name != past.name), past, vectors])
    x, _ = next(iter(ck.data.read(folder / "train", schema, 200)))
    sent = raw_rows(folder / "train", schema, 200)
    for row, items in enumerate(rows["history_item_id"]):
        for place, item in enumerate(items[-2:]):
            np.testing.assert_array_equal(x["looks"][row, place], item_vector(item))
            np.testing.assert_array_equal(sent["looks"][row, place], item_vector(item))


@pytest.mark.parametrize("model", ["DIN", "DeepFM"])
def test_models_of_item_vectors(with_items, model, tmp_path):
    folder, schema, _ = with_items
    built = getattr(ck.models, model)(schema, embedding_dim=4, units=(5,))
    projection = built.get_layer("embedding_item_id_vector")
    assert len(projection._inbound_nodes) == 2  # One for the target and for past items.
    built.compile(ck.optimizers.LazyAdam(0.02))
    rows = ck.data.read(folder / "train", schema, 50)
    losses = built.fit(rows, epochs=3, verbose=0, shuffle=False).history["loss"]
    assert losses[-1] < losses[0]
    x, _ = next(iter(rows))
    expected = built.predict(x, verbose=0)[:, 0]
    built.save(tmp_path / "model.keras")
    loaded = ck.training.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0)[:, 0], expected)
    # A server is sent the vectors.
    saved = tf.saved_model.load(str(ck.serving.export(built, tmp_path / "saved")))
    raw = next(iter(ck.data.read(folder / "train", schema, 50)))[0]
    stored = pd.DataFrame(with_items[2]).iloc[:50]
    past = tf.ragged.constant(stored["history_item_id"].tolist(), dtype=tf.string)
    found = saved.signatures["serving_default"](
        user_id=tf.constant(stored["user_id"], tf.int64),
        item_id=tf.constant(stored["item_id"].tolist()),
        history_item_id=past.to_tensor(""),
        item_id_vector=raw["item_id_vector"],
        history_item_id_vector=raw["history_item_id_vector"],
    )["probability"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_bad_item_vectors(with_items):
    folder, schema, _ = with_items
    assert ck.Schema.from_dict(schema.to_dict()).to_dict() == schema.to_dict()
    with pytest.raises(ValueError, match="needs an id of items"):
        ck.Schema([f for f in ITEMS if f.role == "user"]).with_item_vectors(3)
    with pytest.raises(ValueError, match="only vectors are `of`"):
        ck.Feature("a", "item", kind="number", of="item_id")
    with pytest.raises(ValueError, match="must be of an id feature with `length=None`"):
        ck.Schema([*ITEMS, ck.Feature("v", "item", kind="vector", width=3, of="history_item_id")])
    with pytest.raises(ValueError, match="must be `of` a feature with as many ids"):
        ck.Feature("v", "history", kind="vector", width=3, length=4)
    with pytest.raises(ValueError, match="must share another vector of width 3"):
        shared = {"width": 3, "length": 4, "of": "history_item_id", "shares": "item_id"}
        ck.Schema([*ITEMS, ck.Feature("v", "history", kind="vector", **shared)])
    with pytest.raises(ValueError, match="are 3 wide. Received: the feature 'item_id_vector'"):
        ck.data.read(folder / "train", ITEMS.with_item_vectors(4))


def test_digest_tells_tables_apart(tmp_path):
    def made(folder, encoder, vectors):
        table = VectorTable.create(tmp_path / folder, {"encoder": encoder}, 2)
        return table.extended(["a", "b"], np.array(vectors, "float32")).digest

    first = made("1", "mine", [[1, 0], [0, 1]])
    assert made("2", "mine", [[1, 0], [0, 1]]) == first
    assert made("3", "mine", [[1, 0], [1, 0]]) != first
    assert made("4", "another", [[1, 0], [0, 1]]) != first
