import os
import pathlib

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from ctr_keras import data
from ctr_keras.data import layouts
from ctr_keras.data.manifest import Manifest
from ctr_keras.datasets import movielens
from ctr_keras.datasets.movielens_raw import parse
from ctr_keras.schema import Schema
from ctr_keras.sources import RawFiles
from tests.datasets import movielens_files as raw_files

ROOT = pathlib.Path(__file__).parents[2]
SHARED = pathlib.Path(os.environ.get("CTR_KERAS_SHARED_DATA", ROOT / ".." / "shared" / "data"))
ROWS = raw_files.ratings()
SPLITS = ("train", "valid", "test")
USER_ROWS = movielens.MIN_USER_ROWS


def quiet(_):
    pass


@pytest.fixture(autouse=True, scope="module")
def few_rows():
    """The small data has users of a few rows each."""
    patch = pytest.MonkeyPatch()
    patch.setattr(movielens, "MIN_USER_ROWS", 1)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A prepared folder and the raw tables it came from."""
    folder = tmp_path_factory.mktemp("movielens")
    raw = raw_files.write_100k(folder / "raw", ROWS)
    prepared = movielens.prepare(folder / "out", raw=raw, history_length=5, report=quiet)
    return prepared, parse(RawFiles(raw, "", "raw"))


@pytest.fixture(scope="module")
def ml_100k(tmp_path_factory):
    """The real MovieLens-100k, prepared as its defaults say."""
    out = tmp_path_factory.mktemp("ml-100k") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(movielens, "MIN_USER_ROWS", USER_ROWS)
        try:
            return movielens.prepare(out, report=quiet)
        except OSError as error:
            pytest.skip(f"MovieLens-100k cannot be fetched: {error}")


def stored(folder: pathlib.Path, name: str) -> pd.DataFrame:
    """The raw columns of a split as they lie on disk; sequences as lists."""
    manifest = Manifest.load(folder / name)
    decode = layouts.decode_block if manifest.layout == "block" else layouts.decode_rows
    tables = []
    for shard in manifest.shards:
        records = tf.data.TFRecordDataset(str(folder / name / shard.file))
        for record in records if manifest.layout == "block" else records.batch(1000):
            columns = decode(manifest.schema, manifest.schema.names, record)
            tables.append({key: _plain(value) for key, value in columns.items()})
    return pd.concat([pd.DataFrame(table) for table in tables], ignore_index=True)


def _plain(values):
    if isinstance(values, tf.RaggedTensor):
        return values.to_list()
    values = values.numpy()
    return [value.decode() for value in values] if values.dtype == object else values


def assert_no_leakage(
    folder: pathlib.Path, tables, check_rows: int | None = None, min_user_rows: int = 1
) -> None:
    """Nothing of a row, nor of what a model learns from, lies in its future."""
    splits = {name: stored(folder, name) for name in SPLITS}
    for earlier, later in (("train", "valid"), ("valid", "test")):
        assert splits[earlier]["time"].max() < splits[later]["time"].min()
    ratings = tables.ratings
    assert sum(map(len, splits.values())) == len(ratings)
    assert sum(frame["label"].sum() for frame in splits.values()) == (ratings["rating"] >= 4).sum()

    by_user = dict(list(ratings.sort_values("time", kind="stable").groupby("user_id")))
    length = Schema.load(folder)["history_item_id"].length
    year = tables.items.set_index("item_id")["year"]
    rows = pd.concat(splits.values())
    for row in rows.sample(min(check_rows or len(rows), len(rows)), random_state=0).itertuples():
        past = by_user[row.group_user_id]
        past = past[past["time"] < row.time]
        liked = past[past["rating"] >= 4]["item_id"].tolist()
        assert row.history_item_id == liked[-length:]
        assert row.history_year == year[liked[-length:]].tolist()
        assert row.disliked_item_id == past[past["rating"] < 4]["item_id"].tolist()[-length:]
        assert row.user_ratings == pytest.approx(np.log1p(len(past)))
        assert row.user_like_rate == pytest.approx((len(liked) + 1) / (len(past) + 2))

    schema = Schema.load(folder)
    for feature in schema:
        if feature.vocabulary is not None:
            lines = pathlib.Path(feature.vocabulary.file).read_text().splitlines()
            values = splits["train"][feature.name].explode().dropna().astype(str)
            counts = values.value_counts()
            if feature.name == "user_id":
                counts = counts[counts >= min_user_rows]
            assert set(lines) == set(counts.index) - {"", "-1"}
            assert (np.diff([counts[line] for line in lines]) <= 0).all()


def test_no_leakage(small):
    prepared, tables = small
    assert_no_leakage(prepared.folder, tables)


def test_what_appears_late_is_out_of_vocabulary(small):
    prepared, _ = small
    schema = Schema.load(prepared.folder)
    for name, late in (("user_id", "4"), ("item_id", "7")):
        lines = pathlib.Path(schema[name].vocabulary.file).read_text().splitlines()
        assert late not in lines
    rows = next(iter(data.read(prepared.folder / "test", batch_size=100).map(lambda x, y: x)))
    by_user = dict(zip(rows["group_user_id"].numpy(), rows["user_id"].numpy(), strict=True))
    assert by_user[4] == 1 and by_user[1] > 1


def test_summary(small):
    prepared, _ = small
    assert sum(prepared.rows.values()) == len(ROWS)
    assert prepared.unseen_users["train"] == 0 and prepared.unseen_users["test"] > 0
    assert prepared.unseen_items["test"] > 0
    assert "unseen users" in prepared.to_text()
    frame = stored(prepared.folder, "valid")
    assert prepared.click_rate["valid"] == pytest.approx(frame["label"].mean())


def test_entity_tables_hold_every_item_and_user_as_of_the_end(small):
    prepared, tables = small
    schema = Schema.load(prepared.folder)
    items = pd.read_parquet(prepared.folder / "items.parquet")
    assert set(items) == {f.name for f in schema.by_role("item")} | {"title"}
    assert items["item_id"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert items["title"][1] == "Été, L'"
    assert items["genres"][0].tolist() == ["Action", "Children's"]
    users = pd.read_parquet(prepared.folder / "users.parquet")
    roles = ("user", "history")
    assert set(users) == {f.name for role in roles for f in schema.by_role(role)}
    likes = tables.ratings[tables.ratings["rating"] >= 4].sort_values("time", kind="stable")
    for row in users.itertuples():
        mine = likes[likes["user_id"] == row.user_id]["item_id"].tolist()
        assert row.history_item_id.tolist() == mine[-5:]
        rated = (tables.ratings["user_id"] == row.user_id).sum()
        assert row.user_like_rate == pytest.approx((len(mine) + 1) / (rated + 2))


def test_every_raw_format_and_layout_gives_the_same_data(small, tmp_path):
    prepared, _ = small
    expected = (prepared.folder / "schema.json").read_bytes()
    variants = {
        "1m": raw_files.write_1m(tmp_path / "1m", ROWS),
        "titled": raw_files.write_atomic_format(tmp_path / "a", ROWS, True, "\r\n"),
    }
    for name, raw in variants.items():
        layout = "row" if name == "titled" else "block"
        out = tmp_path / f"{name}-out"
        movielens.prepare(out, raw=raw, history_length=5, layout=layout, report=quiet)
        assert (out / "schema.json").read_bytes() == expected
        for split in SPLITS:
            expected_rows = stored(prepared.folder, split)
            pd.testing.assert_frame_equal(stored(out, split), expected_rows, check_like=True)


def test_a_second_prepare_does_nothing_and_other_settings_replace(tmp_path):
    raw = raw_files.write_100k(tmp_path / "raw", ROWS)
    lines = []
    first = movielens.prepare(tmp_path / "out", raw=raw, report=lines.append)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    again = movielens.prepare(tmp_path / "out", raw=raw, report=lines.append)
    assert again.reused and not first.reused and again.rows == first.rows
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    assert lines[-1].endswith("is up to date")
    other = movielens.prepare(tmp_path / "out", raw=raw, history_length=2, report=quiet)
    assert not other.reused
    assert stored(tmp_path / "out", "test")["history_item_id"].map(len).max() == 2


def test_vectors_of_other_items_are_set_aside(tmp_path, monkeypatch):
    raw, out, lines = raw_files.write_100k(tmp_path / "raw", ROWS), tmp_path / "out", []
    vectors, aside = out / "item_vectors", out / "item_vectors_before"
    movielens.prepare(out, raw=raw, report=quiet)
    for folder in (vectors, out / "text_vectors"):
        data.VectorTable.create(folder, {"encoder": "test"}, 3)
    # More items, with the old ones as they were: the vectors stay.
    more = [*raw_files.MOVIES, (8, "Heat", 1995, ["Crime"])]
    monkeypatch.setattr(raw_files, "MOVIES", more)
    raw_files.write_100k(raw, [*ROWS, (1, 8, 5, 1000)])
    movielens.prepare(out, raw=raw, report=lines.append)
    assert vectors.is_dir() and not aside.exists()
    monkeypatch.setattr(raw_files, "MOVIES", [*more[:2], (3, "Goldfinger", 1993, []), *more[3:]])
    raw_files.write_100k(raw, ROWS)
    movielens.prepare(out, raw=raw, report=lines.append)
    assert aside.is_dir() and not vectors.exists() and (out / "text_vectors").is_dir()
    assert "(such as item_id 3, of another title)" in lines[-1] and "encode --items" in lines[-1]
    # Those that are aside already stay.
    data.VectorTable.create(vectors, {"encoder": "other"}, 3)
    monkeypatch.setattr(raw_files, "MOVIES", more)
    raw_files.write_100k(raw, ROWS)
    movielens.prepare(out, raw=raw, report=lines.append)
    assert "it is now item_vectors_before_2;" in lines[-1]
    assert data.VectorTable.open(aside).encoder == {"encoder": "test"}


def test_a_feature_of_users_as_scenario(small, tmp_path):
    raw = raw_files.write_100k(tmp_path / "raw", ROWS)
    options = {"raw": raw, "history_length": 5, "report": quiet}
    found = movielens.prepare(tmp_path / "out", scenario="age", **options)
    schema, plain = (Schema.load(prepared.folder) for prepared in (found, small[0]))
    assert [f.name for f in schema.by_role("scenario")] == ["age"]
    assert schema.names == plain.names and schema["gender"].role == "user"
    for name in ("train", "test"):
        pd.testing.assert_frame_equal(stored(found.folder, name), stored(small[0].folder, name))


def test_negatives_of_training_rows_are_down_sampled(small, tmp_path):
    whole, _ = small
    raw, out = raw_files.write_100k(tmp_path / "raw", ROWS), tmp_path / "out"
    options = {"raw": raw, "history_length": 5, "report": quiet}
    found = movielens.prepare(out, negative_ratio=0.5, negative_seed=3, **options)
    train, before = stored(out, "train"), stored(whole.folder, "train")
    clicks = int(before["label"].sum())
    assert clicks < len(train) < len(before) and train["label"].sum() == clicks
    assert found.negative_ratio == 0.5 and found.rows["train"] == len(train)
    assert found.click_rate["train"] == pytest.approx(clicks / len(train))
    assert "share of 0.5 of its negatives" in found.to_text()
    assert "negatives" not in whole.to_text()
    for name in ("valid", "test"):
        pd.testing.assert_frame_equal(stored(out, name), stored(whole.folder, name))
        assert Manifest.load(out / name).negative_ratio == 1
    assert (out / "schema.json").read_bytes() == (whole.folder / "schema.json").read_bytes()

    # Reading the whole folder with the same seed and ratio reads the same rows.
    def times(path, **kwargs):
        rows = data.read(path, batch_size=7, **kwargs)
        assert rows.negative_ratio == 0.5
        return np.concatenate([x["user_ratings"] for x, _ in rows]).tolist()

    read = times(whole.folder / "train", negative_ratio=0.5, seed=3)
    assert read == times(out / "train") == train["user_ratings"].tolist()
    again = movielens.prepare(out, negative_ratio=0.5, negative_seed=3, **options)
    assert again.reused and again.to_dict() == {**found.to_dict(), "reused": True}
    other = movielens.prepare(out, negative_ratio=0.5, negative_seed=4, **options)
    assert not other.reused and stored(out, "train")["time"].tolist() != train["time"].tolist()


def test_bad_arguments_and_an_empty_split(tmp_path):
    raw = raw_files.write_100k(tmp_path / "raw", ROWS)
    for options, message in (
        ({"variant": "20m"}, "`variant` must be one of"),
        ({"history_length": 0}, "`history_length` must be a positive integer"),
        ({"fractions": (0.9, 0.2, -0.1)}, "positive numbers that sum to 1"),
        ({"layout": "csv"}, "`layout` must be one of"),
        ({"scenario": "genres"}, "`scenario` must be one of .*`scenario='genres'`"),
        ({"negative_ratio": 0}, "`negative_ratio` must be a number in"),
        ({"negative_seed": "1"}, "`seed` must be an integer"),
    ):
        with pytest.raises(ValueError, match=message):
            movielens.prepare(tmp_path / "out", raw=raw, report=quiet, **options)
    same_time = [(user, item, rating, 7) for user, item, rating, _ in ROWS]
    raw = raw_files.write_100k(tmp_path / "raw", same_time)
    with pytest.raises(ValueError, match="valid split would be empty"):
        movielens.prepare(tmp_path / "out", raw=raw, report=quiet)
    assert not (tmp_path / "out").exists()


def test_ml_100k_does_not_leak(ml_100k):
    files = movielens.resolve(movielens.SOURCES["100k"], report=quiet)
    tables = parse(files)
    assert len(tables.ratings) == 100_000
    assert (len(tables.users), len(tables.items)) == (943, 1682)
    assert_no_leakage(ml_100k.folder, tables, check_rows=500, min_user_rows=USER_ROWS)


def test_ml_100k_gives_the_tracked_schema(ml_100k):
    tracked = ROOT / "tf_data" / "movielens" / "schema.json"
    assert (ml_100k.folder / "schema.json").read_bytes() == tracked.read_bytes()


def test_ml_1m_as_recbole_writes_it():
    folder = SHARED / "movielens-1m"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; `$CTR_KERAS_SHARED_DATA` names its parent")
    tables = parse(RawFiles(folder, "", "shared"))
    assert len(tables.ratings) == 1_000_209
    assert (len(tables.users), len(tables.items)) == (6040, 3883)
    # GroupLens' own list of movies: their ids are found from the order of the titles.
    names = [line.split("::") for line in (folder / "movies.dat").read_text("latin-1").splitlines()]
    titles = tables.items.set_index("item_id")["title"]
    same = [titles[int(number)] in title for number, title, _ in names]
    assert np.mean(same) > 0.999
