import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import ctr_keras as ck
from ctr_keras.data import VectorTable
from tests.pretraining import tiny_bert


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    tiny_bert.write(folder)
    return folder


@pytest.fixture
def prepared(tmp_path):
    features = [
        ck.Feature("item_id", "item", vocabulary=ck.Vocabulary.of_size(9)),
        ck.Feature("title", "item", kind="text"),
        ck.Feature("query", "user", kind="text"),
        ck.Feature("label", "label", kind="number"),
    ]
    schema = ck.Schema(features).save(tmp_path)
    texts = ["tea", "green tea", "", "coffee"]
    for n, name in enumerate(("train", "valid", "test")):
        rows = {
            "item_id": np.arange(2, 9),
            "title": [texts[(n + m) % 4] for m in range(7)],
            "query": [f"tea {n}"] * 7,
            "label": np.arange(7) % 2,
        }
        ck.data.write(tmp_path / name, schema, rows, layout="row" if n else "block")
    return tmp_path


def encode(data, bert, *args, **kwargs):
    return ck.pretraining.encode_texts(
        data, *args, encoder=bert, max_tokens=9, progress=False, **kwargs
    )


def test_each_distinct_text_once(prepared, bert, monkeypatch):
    seen = []
    plain = ck.pretraining.TextEncoder.encode

    def counted(self, texts, *args):
        seen.extend(texts)
        return plain(self, texts, *args)

    monkeypatch.setattr(ck.pretraining.TextEncoder, "encode", counted)
    encode(prepared, bert, ["title"], batch_size=2)
    assert sorted(seen) == ["coffee", "green tea", "tea"]
    seen.clear()
    table = encode(prepared, bert)  # All texts: what is there stays.
    assert sorted(seen) == ["tea 0", "tea 1", "tea 2"]
    expected = ck.pretraining.TextEncoder.from_preset(bert, 9).encode(["coffee", "tea 1", ""])
    found = table.take(table.rows_of(tf.constant(["coffee", "tea 1", ""])))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(found[2], 0)


def test_an_interrupted_job_goes_on(prepared, bert, monkeypatch):
    plain = ck.pretraining.TextEncoder.encode
    calls = []

    def cut(self, texts, *args):
        calls.append(texts)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(self, texts, *args)

    monkeypatch.setattr("ctr_keras.pretraining.text_encoding._SAVE_EVERY", 1)
    monkeypatch.setattr(ck.pretraining.TextEncoder, "encode", cut)
    with pytest.raises(KeyboardInterrupt):
        encode(prepared, bert, batch_size=1)
    assert len(VectorTable.open(prepared / "text_vectors")) == 3  # The empty one, and two.
    table = encode(prepared, bert, batch_size=1)
    assert len(table) == 7 and len(calls) == 3 + 4


def test_the_saved_model_takes_the_texts(prepared, bert, tmp_path):
    table = encode(prepared, bert)
    schema = ck.Schema.load(prepared).with_encoded_texts(["title", "query"], table.width)
    model = ck.models.DNN(schema, embedding_dim=4, units=(5,))
    x, _ = next(iter(ck.data.read(prepared / "valid", schema, 7)))
    expected = model.predict(x, verbose=0)[:, 0]
    encoder = ck.pretraining.TextEncoder.from_preset(bert, max_tokens=9)
    path, warmup = tmp_path / "saved", prepared / "valid"
    version = ck.serving.export(model, path, text_encoder=encoder, warmup=warmup)
    ranker = ck.serving.Ranker(version)
    texts = {"title": ["green tea", "", "coffee", "tea"] * 2, "query": ["tea 1"] * 8}
    columns = {name: tf.constant(values[:7]) for name, values in texts.items()}
    found = ranker._score(item_id=tf.range(2, 9, dtype=tf.int64), **columns)["probability"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    records = tf.constant(
        [r.numpy() for p in (prepared / "valid").glob("part-*") for r in tf.data.TFRecordDataset(p)]
    )
    by_examples = tf.saved_model.load(str(version)).signatures["serving_examples"](examples=records)
    np.testing.assert_allclose(by_examples["probability"], expected, atol=1e-5)
    found = ck.serving.check(version)
    assert not found.problems
    assert "of tensorflow_text: FastBertNormalize, Fast" in found.passed["operations"]
    with pytest.raises(ValueError, match="`text_encoder.width=12`"):
        narrow = ck.Schema.load(prepared).with_encoded_texts(["title"], 5)
        ck.serving.export(ck.models.DNN(narrow), tmp_path / "x", text_encoder=encoder)


def test_items_by_their_titles(prepared, bert):
    items = pd.DataFrame({"item_id": range(2, 9), "title": ["tea", "coffee", None] + ["cafe"] * 4})
    with pytest.raises(ValueError, match="items.parquet must hold the items"):
        ck.pretraining.encode_items(prepared, "title", bert, max_tokens=9, progress=False)
    items.to_parquet(prepared / "items.parquet", index=False)
    with pytest.raises(ValueError, match="one of .'title'.. Received: `text='item_id'`"):
        ck.pretraining.encode_items(prepared, "item_id", bert, max_tokens=9, progress=False)
    lines = []
    table = ck.pretraining.encode_items(
        prepared, "title", bert, max_tokens=9, progress=False, report=lines.append
    )
    assert lines == ["1 of 7 items have no 'title' and get no vector, such as 4"]
    assert table.lacks(np.arange(2, 9)).tolist() == [False, False, True] + [False] * 4
    found = table.take(table.rows_of(tf.constant([3, 4, 8, 77], tf.int64), required=False))
    encoder = ck.pretraining.TextEncoder.from_preset(bert, 9)
    np.testing.assert_allclose(found, encoder.encode(["coffee", "", "cafe", ""]), atol=1e-6)
    schema = ck.Schema.load(prepared).with_item_vectors(12)
    x, _ = next(iter(ck.data.read(prepared / "train", schema, 7)))
    np.testing.assert_allclose(x["item_id_vector"][1:3], found[:2], atol=1e-6)


def test_items_by_the_texts_of_a_catalog(prepared, bert, tmp_path):
    items = pd.DataFrame({"item_id": range(2, 9), "title": ["tea"] * 7})
    items.to_parquet(prepared / "items.parquet", index=False)
    catalog = tmp_path / "goods.csv"
    catalog.write_text("item_id,sku,about\n3,8,green tea\n2,3,coffee\n")

    def by_catalog(**options):
        return ck.pretraining.encode_items(
            prepared, "about", bert, catalog=catalog, max_tokens=9,
            **{"progress": False, **options},
        )  # fmt: skip

    lines = []
    table = by_catalog(report=lines.append)
    assert lines == ["5 of 7 items have no 'about' and get no vector, such as 4, 5, 6, 7, 8"]
    by_catalog(report=lines.append, progress=True)
    assert lines[-1].startswith("2 of 7 items have a vector already, which stays as it is; to make")
    found = table.take(table.rows_of(tf.constant([2, 3], tf.int64)))
    encoder = ck.pretraining.TextEncoder.from_preset(bert, 9)
    np.testing.assert_allclose(found, encoder.encode(["coffee", "green tea"]), atol=1e-6)
    with pytest.raises(ValueError, match="vectors of another encoder"):  # Those of titles.
        ck.pretraining.encode_items(prepared, "title", bert, max_tokens=9, progress=False)
    shutil.rmtree(prepared / "item_vectors")
    table = by_catalog(catalog_key="sku", report=lines.append)
    assert table.lacks(np.arange(2, 9)).tolist() == [True, False] + [True] * 4 + [False]


def test_a_file_settles_how_much_of_a_text_is_read(prepared, bert, tmp_path):
    file = tmp_path / "encoder.keras"
    ck.pretraining.TextEncoder.from_preset(bert, 9).save(file)
    items = pd.DataFrame({"item_id": range(2, 9), "title": ["tea"] * 7})
    items.to_parquet(prepared / "items.parquet", index=False)
    table = ck.pretraining.encode_texts(prepared, encoder=file, progress=False)
    assert table.encoder["max_tokens"] == "9"
    table = ck.pretraining.encode_items(prepared, "title", file, progress=False)
    assert table.encoder["max_tokens"] == "9"
    with pytest.raises(ValueError, match="its own settings.*`max_tokens=5`"):
        ck.pretraining.encode_texts(prepared, encoder=file, max_tokens=5, progress=False)


def test_bad_arguments(prepared, bert):
    with pytest.raises(ValueError, match="must be a text.*`item_id`"):
        encode(prepared, bert, ["item_id"])
    encode(prepared, bert)
    with pytest.raises(ValueError, match="vectors of another encoder"):
        ck.pretraining.encode_texts(prepared, encoder=bert, max_tokens=5, progress=False)
