import shutil

import numpy as np
import pandas as pd
import pytest

import ctr_keras as ck
from ctr_keras import serving


@pytest.fixture(scope="module")
def saved(small_schema, small_data, tmp_path_factory):
    model = ck.models.DIN(small_schema, embedding_dim=4, units=(8,), attention_units=(6, 3))
    model.compile()
    model.fit(ck.data.read(small_data, small_schema, 100), verbose=0, shuffle=False)
    folder = tmp_path_factory.mktemp("saved")
    serving.export(model, folder)
    return model, folder


@pytest.fixture(scope="module")
def items():
    rng = np.random.default_rng(0)
    count = 30
    return pd.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(count)],
            "genres": [list(range(n % 4)) for n in range(count)],
            "title": [f"Film {n}" for n in range(count)],
            "item_vector": list(rng.normal(size=(count, 5)).astype(np.float32)),
        }
    )


USER = {"user_id": 5, "age": 30.0, "history_item_id": [f"i{n}" for n in range(9)]}


def scores_of_the_model(model, tmp_path, items, user=USER, **options):
    rows = {name: list(items[name]) for name in items}
    rows["item_vector"] = np.stack(rows["item_vector"])
    count = len(items)
    rows |= {name: [value] * count for name, value in user.items()}
    rows |= {"group": ["x"] * count, "time": np.zeros(count, int), "label": np.zeros(count)}
    stored = ck.Schema([feature for feature in model.schema if feature.of is None])
    ck.data.write(tmp_path, stored, rows)
    features, _ = next(iter(ck.data.read(tmp_path, model.schema, **options)))
    return model.predict(features, verbose=0)[:, 0]


def test_best_items_first(saved, items, tmp_path):
    model, folder = saved
    expected = scores_of_the_model(model, tmp_path, items)
    ranking = serving.Ranker(folder).rank(USER, items, top=4)
    best = np.argsort(-expected, kind="stable")[:4]
    assert ranking["item_id"].tolist() == items["item_id"].iloc[best].tolist()
    np.testing.assert_allclose(ranking["probability"], expected[best], atol=1e-6)


def test_more_items_than_a_batch(saved, items, monkeypatch):
    ranker = serving.Ranker(saved[1])
    whole = ranker.score(USER, items)
    monkeypatch.setattr("ctr_keras.serving.ranker._BATCH", 7)
    np.testing.assert_allclose(ranker.score(USER, items), whole, atol=1e-6)


@pytest.fixture(scope="module")
def fused(small_schema, tmp_path_factory):
    """A model of the items' vectors, its version, and the vectors of most items."""
    folder = tmp_path_factory.mktemp("fused")
    rng = np.random.default_rng(1)
    table = ck.data.VectorTable.create(folder / "item_vectors", {"encoder": "mine"}, width=8)
    names = [f"i{n}" for n in range(25)]
    table = table.extended(names, rng.normal(size=(25, 8)), normalize=True)
    model = ck.models.VectorFusion.on(ck.models.DIN, small_schema, width=8, embedding_dim=4)
    return model, serving.export(model, folder / "saved"), table


@pytest.mark.parametrize("past", [0, 3, 9])
def test_vectors_of_items_are_looked_up(fused, items, tmp_path, past):
    model, version, table = fused
    user = {**USER, "history_item_id": USER["history_item_id"][:past]}
    expected = scores_of_the_model(model, tmp_path, items, user, item_vectors=table.folder)
    got = serving.Ranker(version, table).score(user, items)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    one_by_one = items.assign(history_item_id=[user["history_item_id"]] * len(items))
    got = serving.Ranker(version, table).score(user, one_by_one)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_vectors_that_are_not_there_are_named(fused, items, tmp_path):
    _, version, _ = fused
    with pytest.raises(ValueError, match="'item_id_vector'; `item_vectors` must have it; `ctr-ker"):
        serving.Ranker(version).score(USER, items)
    narrow = ck.data.VectorTable.create(tmp_path / "item_vectors", {"encoder": "mine"}, width=3)
    with pytest.raises(ValueError, match="8 wide.*Received: `item_vectors.width=3`"):
        serving.Ranker(version, narrow)


def test_vectors_of_another_encoder_are_refused(fused, small_data, tmp_path):
    model, _, table = fused
    made_by = {"encoder": "before/it/moved", "sha256": "12", "text": "title"}
    version = serving.export(model, tmp_path / "saved", item_vectors=made_by)

    def vectors(**encoder):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return ck.data.VectorTable.create(folder, encoder, width=8)

    serving.Ranker(version, vectors(encoder="after", sha256="12", text="title"))
    for other in ({"sha256": "34", "text": "title"}, {"sha256": "12", "text": "about"}):
        with pytest.raises(ValueError, match="learned from vectors of items made by .*'12'.*Rece"):
            serving.Ranker(version, vectors(encoder="before/it/moved", **other))
    shutil.copytree(small_data, tmp_path / "data" / "train")
    shutil.copytree(table.folder, tmp_path / "data" / "item_vectors")
    version = serving.export(model, tmp_path / "saved", data=tmp_path / "data")
    serving.Ranker(version, table)
    with pytest.raises(ValueError, match="items made by .'encoder': 'mine'"):
        serving.Ranker(version, vectors(encoder="theirs"))


def test_no_items(saved, items):
    assert len(serving.Ranker(saved[1]).rank(USER, items.iloc[:0])) == 0


def test_missing_feature_is_named(saved, items):
    with pytest.raises(ValueError, match="'age'"):
        serving.Ranker(saved[1]).rank({"user_id": 5, "history_item_id": []}, items)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"age": float("nan")}, "'age', row 0: expected a finite number"),
        ({"user_id": 999}, "'user_id', row 0: expected an id in 0 ... 29"),
        ({"history_item_id": "i3"}, "'history_item_id' is a list"),
    ],
)
def test_bad_values_are_named(saved, items, change, message):
    with pytest.raises(ValueError, match=message):
        serving.Ranker(saved[1]).rank({**USER, **change}, items)


def test_missing_values_are_padding(saved, items):
    ranker = serving.Ranker(saved[1])
    empty = ranker.score({**USER, "history_item_id": []}, items)
    np.testing.assert_array_equal(ranker.score({**USER, "history_item_id": None}, items), empty)


def test_no_saved_model(tmp_path):
    with pytest.raises(ValueError, match="No SavedModel there"):
        serving.Ranker(tmp_path)


def test_highest_version_is_loaded(saved, tmp_path):
    model, _ = saved
    for version in (9, 10):
        serving.export(model, tmp_path, version=version)
    assert serving.Ranker(tmp_path).folder.name == "10"
    assert serving.Ranker(tmp_path / "9").folder.name == "9"


def test_catalog(small_schema, items, tmp_path):
    small_schema.save(tmp_path)
    with pytest.raises(ValueError, match="items.parquet is missing"):
        serving.Catalog.load(tmp_path)
    items.to_parquet(tmp_path / "items.parquet")
    pd.DataFrame([USER, {**USER, "user_id": 6}]).to_parquet(tmp_path / "users.parquet")
    catalog = serving.Catalog.load(tmp_path)
    user = catalog.user("5")
    assert list(user["history_item_id"]) == USER["history_item_id"]
    assert catalog.new_items(user)["item_id"].tolist() == [f"i{n}" for n in range(9, 30)]
    with pytest.raises(ValueError, match="user_id='77'"):
        catalog.user("77")
    assert catalog.item_vectors is None
    ck.data.VectorTable.create(tmp_path / "item_vectors", {"encoder": "mine"}, width=3)
    assert serving.Catalog.load(tmp_path).item_vectors.width == 3


def test_text_and_json_of_a_ranking(items):
    table = items.head(2).assign(probability=[0.75, 0.5])
    ranking = serving.RankedList("5", "item_id", table)
    assert "   1  0.7500  Film 0\n   2  0.5000  Film 1" in ranking.to_text()
    assert ranking.to_dict() == {
        "user": "5",
        "items": [
            {"item": "i0", "title": "Film 0", "probability": 0.75},
            {"item": "i1", "title": "Film 1", "probability": 0.5},
        ],
    }
