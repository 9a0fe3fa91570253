import csv as csv_module
import gzip
import json
import pathlib
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from ctr_keras import data
from ctr_keras.data.describe import raw_columns
from ctr_keras.data.manifest import Manifest
from ctr_keras.data.raw_rows import raw_rows
from ctr_keras.datasets import down_sampling, drafts, tabular
from ctr_keras.schema import Feature, Schema, Vocabulary

SPLITS = ("train", "valid", "test")


def quiet(_):
    pass


def clicks(rows: int = 60) -> pd.DataFrame:
    """A row a second; the last rows have a user, an item and a city of their own."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "user_id": rng.integers(1, 8, rows),
            "item_id": [f"i{n}" for n in rng.integers(0, 9, rows)],
            "item_title": [f"a film called {n}" for n in rng.integers(0, 9, rows)],
            "city": rng.choice(["Köln", "Ulm", ""], rows),
            "price": rng.normal(size=rows).round(3),
            "history_item_id": [
                "|".join(f"i{n}" for n in rng.integers(0, 9, k)) for k in rng.integers(0, 6, rows)
            ],
            "time": 1_600_000_000 + np.arange(rows),
            "click": rng.integers(0, 2, rows),
        }
    )
    frame.loc[rows - 3 :, ["user_id", "item_id", "city"]] = [99, "i99", "Bonn"]
    return frame


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "clicks.csv"
    clicks().to_csv(path, index=False)
    return path


def prepare(out, path, schema=None, **options):
    return tabular.prepare(out, path, schema, report=quiet, **options)


def stored(folder: pathlib.Path, name: str) -> pd.DataFrame:
    parts = []
    for columns in raw_columns(folder / name, Manifest.load(folder / name)):
        plain = {}
        for key, value in columns.items():
            if hasattr(value, "offsets"):
                value = [v.tolist() for v in np.split(value.values, value.offsets[1:-1])]
            plain[key] = list(value)
        parts.append(pd.DataFrame(plain))
    return pd.concat(parts, ignore_index=True)


def lines(folder: pathlib.Path, name: str) -> list[str]:
    return (folder / "vocabularies" / f"{name}.txt").read_text("utf-8").splitlines()


def test_infers_roles_kinds_and_vocabularies(csv, tmp_path):
    schema = tabular.infer_schema(csv, out=tmp_path / "draft.json")
    assert {f.name: (f.role, f.kind, f.dtype) for f in schema} == {
        "user_id": ("user", "id", "int64"),
        "item_id": ("item", "id", "string"),
        "item_title": ("item", "text", "string"),
        "city": ("context", "id", "string"),
        "price": ("context", "number", "float32"),
        "history_item_id": ("history", "id", "string"),
        "time": ("time", "number", "int64"),
        "click": ("label", "number", "float32"),
        "group_user_id": ("group", "id", "int64"),
    }
    assert schema["history_item_id"].shares == "item_id"
    assert schema["item_title"].vocabulary.hashed
    config = json.loads((tmp_path / "draft.json").read_text())
    assert config["features"][0]["vocabulary"] == {"file": "vocabularies/user_id.txt"}
    assert drafts.load(tmp_path / "draft.json") == schema
    small = tabular.infer_schema(csv, max_vocabulary=3)
    assert small["item_id"].vocabulary.hashed


@pytest.mark.parametrize("is_parquet", [False, True])
def test_ids_by_name_and_histories_of_integers(tmp_path, is_parquet):
    rng = np.random.default_rng(0)
    past = [rng.integers(1, 90, k).tolist() for k in rng.integers(0, 6, 400)]
    frame = pd.DataFrame(
        {
            "userId": rng.permutation(400) + 1,
            "movie": rng.permutation(400) + 1,
            "user_age": rng.permutation(400),
            "hist_movie": past,
            "zips": [[f"0{n}" for n in row] for row in past],
            "clicked": rng.integers(0, 2, 400),
        }
    )
    path = tmp_path / "rows.parquet"
    if is_parquet:
        frame.to_parquet(path)
    else:
        path, written = tmp_path / "rows.csv", frame.copy()
        for name in ("hist_movie", "zips"):
            written[name] = ["|".join(map(str, row)) for row in frame[name]]
        written.to_csv(path, index=False)
    schema = tabular.infer_schema(path, max_vocabulary=200)
    assert {f.name: (f.role, f.kind, f.dtype) for f in schema} == {
        "userId": ("user", "id", "int64"),
        "movie": ("item", "id", "int64"),
        "user_age": ("user", "number", "float32"),
        "hist_movie": ("history", "id", "int64"),
        "zips": ("context", "id", "string"),
        "clicked": ("label", "number", "float32"),
        "group_userId": ("group", "id", "int64"),
    }
    assert schema["hist_movie"].shares == "movie"
    # Fewer than 90 values, however many lists.
    assert not schema["zips"].vocabulary.hashed and schema["userId"].vocabulary.hashed
    said = []
    tabular.prepare(tmp_path / "out", path, report=said.append)
    assert "movie (item, id), user_age (user, number), hist_movie (history, id)" in said[0]
    found = pd.concat([stored(tmp_path / "out", name) for name in SPLITS])
    assert sorted(found["hist_movie"]) == sorted(past)
    texts = frame.assign(movie=[f"m{n}" for n in frame["movie"]])
    texts.to_parquet(tmp_path / "texts.parquet")
    history = tabular.infer_schema(tmp_path / "texts.parquet")["hist_movie"]
    assert (history.shares, history.dtype) == ("movie", "string")


@pytest.mark.parametrize("is_parquet", [False, True])
@pytest.mark.parametrize(
    "ids, dtype",
    [
        ([10_000_000_000_000_000_000 + 17 * n for n in range(9)], "string"),
        ([n - 2**62 for n in range(9)], "string"),
        ([2**62 + n for n in range(9)], "int64"),
        ([12.0, 13.0, 1e6, 1e9, 123456789.0, 15.0, 16.0, 17.0, 18.0], "int64"),
        ([-12.0, 13.0, 1e6, 1e9, 123456789.0, 15.0, 16.0, 17.0, 18.0], "string"),
    ],
)
def test_what_is_called_an_id_is_one_and_stays_apart_from_others(tmp_path, ids, dtype, is_parquet):
    rows = pd.DataFrame({"user_id": ids * 10, "item": ids * 10, "label": [0, 1] * 45})
    values = np.array(ids)
    rows["hist_item"] = [values[[n % 9, n % 7]] if n % 3 else values[:0] for n in range(90)]
    path = tmp_path / ("rows.parquet" if is_parquet else "rows.csv")
    if is_parquet:
        rows.to_parquet(path)
    else:
        lists = ["|".join(map(str, row)) for row in rows["hist_item"]]
        rows.assign(hist_item=lists).to_csv(path, index=False)
    schema = tabular.infer_schema(path)
    assert {f.name: (f.role, f.kind, f.dtype) for f in schema if f.name != "hist_item"} == {
        "user_id": ("user", "id", dtype),
        "item": ("item", "id", dtype),
        "label": ("label", "number", "float32"),
        "group_user_id": ("group", "id", dtype),
    }
    prepare(tmp_path / "out", path, schema, split="random")
    found = pd.concat([stored(tmp_path / "out", name) for name in SPLITS])
    for name in ("user_id", "item", "group_user_id"):
        assert found[name].nunique() == 9
    assert (schema["hist_item"].kind, schema["hist_item"].shares) == ("id", "item")
    assert {value for row in found["hist_item"] for value in row} == set(found["item"])


@pytest.mark.parametrize("is_parquet", [False, True])
def test_missing_ids_and_ids_that_begin_with_zeros(tmp_path, is_parquet):
    rows = pd.DataFrame({"user_id": [7.0, None, 9.0, 7.0] * 10, "label": [0, 1] * 20})
    rows["item_id"] = ["07", "7", "", "8"] * 10
    rows["anonymous_id"] = [-1, 3, 4, 5] * 10
    path = tmp_path / ("rows.parquet" if is_parquet else "rows.csv")
    (rows.to_parquet if is_parquet else rows.to_csv)(path, index=False)
    prepare(tmp_path / "out", path)
    schema = Schema.load(tmp_path / "out")
    assert [schema[n].dtype for n in ("user_id", "item_id", "anonymous_id")] == [
        "int64",
        "string",
        "int64",
    ]
    assert set(lines(tmp_path / "out", "user_id")) == {"7", "9"}
    assert set(lines(tmp_path / "out", "item_id")) == {"07", "7", "8"}
    assert set(lines(tmp_path / "out", "anonymous_id")) == {"3", "4", "5"}


def uncommon(kind: str) -> pd.DataFrame | pa.Table:
    rows = clicks()
    rows["history_item_id"] = [row.split("|") if row else [] for row in rows["history_item_id"]]
    if kind == "struct":
        rows["odd"] = [{"a": 1}] * len(rows)
    if kind == "duration":
        rows["odd"] = pd.to_timedelta(range(len(rows)), unit="s")
    if kind == "list<null>":
        rows["odd"] = [[]] * len(rows)
    if kind == "null":
        rows["odd"] = None
    if kind == "lists":
        rows["odd"] = [[0.5] * (1 + n % 2) for n in range(len(rows))]
    if kind == "missing":
        rows["odd"] = [None, *range(1, len(rows))]
    if kind == "case":
        rows["Item_ID"] = rows["item_id"]
    return rows


@pytest.mark.parametrize(
    "kind, name, reason",
    [
        ("struct", "odd", "values of type struct<a: int64> cannot be features"),
        ("duration", "odd", "values of type duration.*cannot be features"),
        ("list<null>", "odd", "values of type list<.*: null> cannot be features"),
        ("null", "odd", "values of type null cannot be features"),
        ("lists", "odd", "its lists hold 1 to 2 numbers"),
        ("missing", "odd", "1 of its numbers are missing: fill them in"),
        ("case", "Item_ID", "its name and 'item_id' differ in case alone"),
    ],
)
def test_columns_of_parquet_that_cannot_be_features_are_left_out(tmp_path, kind, name, reason):
    path, said = tmp_path / "part=1" / "rows.parquet", []
    path.parent.mkdir()
    uncommon(kind).to_parquet(path)
    tabular.prepare(tmp_path / "out", tmp_path / "part=1", report=said.append)
    assert re.match(f"Column '{name}' is left out: {reason}", said[0])
    assert {name, "part"}.isdisjoint(Schema.load(tmp_path / "out").names)
    schema = Schema((*tabular.infer_schema(path), Feature(name, "group")))
    if kind not in ("null", "missing"):
        with pytest.raises(ValueError, match="hold values|holds lists|more than case"):
            prepare(tmp_path / "out", path, schema)


def test_columns_of_a_csv_that_cannot_be_features_are_left_out(csv, tmp_path):
    rows = clicks().rename(columns={"city": "the city"})
    rows["height"], rows["Item_id"] = ["", "nan", *range(len(rows) - 2)], rows["item_id"]
    rows.to_csv(csv)  # With pandas' index, which has no name.
    said = []
    tabular.prepare(tmp_path / "out", csv, report=said.append)
    assert said[:4] == [
        "Column '' is left out: it has no name",
        "Column 'the city' is left out: its name must be letters, digits and underscores, a letter "
        "first",
        "Column 'Item_id' is left out: its name and 'item_id' differ in case alone",
        "Column 'height' is left out: 2 of its numbers are missing: fill them in to use it",
    ]
    schema = Schema((*tabular.infer_schema(csv), Feature("height", "context", kind="number")))
    with pytest.raises(ValueError, match="'height', row 0: expected a finite number. .*value=''"):
        prepare(tmp_path / "out", csv, schema)


def test_a_part_whose_histories_are_all_empty(tmp_path):
    rows = clicks()
    rows["history_item_id"] = [row.split("|") if row else [] for row in rows["history_item_id"]]
    rows[:40].to_parquet(tmp_path / "a.parquet")
    rows[40:].assign(history_item_id=[[]] * 20).to_parquet(tmp_path / "b.parquet")
    prepare(tmp_path / "out", tmp_path, tabular.infer_schema(tmp_path / "a.parquet"))
    assert not stored(tmp_path / "out", "test")["history_item_id"].map(len).any()


def test_files_of_the_same_columns_in_another_order(tmp_path):
    rows = clicks()
    parts, whole = tmp_path / "parts", tmp_path / "whole.csv"
    parts.mkdir()
    rows.to_csv(whole, index=False)
    rows[:30].to_csv(parts / "a.csv", index=False)
    rows[30:][rows.columns[::-1]].to_csv(parts / "b.csv", index=False)
    assert tabular.infer_schema(parts) == tabular.infer_schema(whole)
    rows[30:].drop(columns="price").to_csv(parts / "b.csv", index=False)
    with pytest.raises(ValueError, match="b.csv: missing column 'price', which .*a.csv has"):
        tabular.infer_schema(parts)


def test_a_csv_becomes_what_a_model_reads(csv, tmp_path):
    out = tmp_path / "out"
    prepared = prepare(out, csv)
    assert prepared.rows == {"train": 48, "valid": 6, "test": 6}
    assert prepared.unseen_users["test"] == pytest.approx(3 / 6)
    assert prepared.unseen_items["test"] >= 3 / 6
    frame = clicks()
    train = frame[:48]
    for name in ("user_id", "item_id", "city"):
        values = train[name].astype(str)
        assert set(lines(out, name)) == set(values) - {""}
        counts = values.value_counts()
        assert (np.diff([counts[line] for line in lines(out, name)]) <= 0).all()
    test = stored(out, "test")
    assert test["user_id"].tolist() == frame["user_id"][54:].tolist()
    assert test["group_user_id"].tolist() == frame["user_id"][54:].tolist()
    assert ["|".join(v.decode() for v in row) for row in test["history_item_id"]] == frame[
        "history_item_id"
    ][54:].tolist()
    features, label = next(iter(data.read(out / "test", batch_size=6)))
    assert label.numpy().tolist() == frame["click"][54:].tolist()
    assert features["user_id"].numpy()[-1] == 1 and features["item_id"].numpy()[-1] == 1


def test_entities_are_those_of_the_last_row(csv, tmp_path):
    prepare(tmp_path / "out", csv)
    frame = clicks()
    users = pd.read_parquet(tmp_path / "out" / "users.parquet")
    assert list(users) == ["user_id", "history_item_id"]
    last = frame.drop_duplicates("user_id", keep="last").sort_values("user_id")
    assert users["user_id"].tolist() == last["user_id"].tolist()
    assert ["|".join(row) for row in users["history_item_id"]] == last["history_item_id"].tolist()
    items = pd.read_parquet(tmp_path / "out" / "items.parquet")
    last = frame.drop_duplicates("item_id", keep="last").sort_values("item_id")
    assert items["item_title"].tolist() == last["item_title"].tolist()


def test_parquet_gzip_and_a_folder_of_parts_give_the_same(csv, tmp_path):
    prepare(tmp_path / "csv", csv)
    frame = clicks()
    parts = tmp_path / "parts"
    parts.mkdir()
    frame["history_item_id"] = [row.split("|") if row else [] for row in frame["history_item_id"]]
    frame["time"] = pd.to_datetime(frame["time"], unit="s")
    frame["click"] = frame["click"].astype(bool)
    frame[:31].to_parquet(parts / "part-0.parquet")
    frame[31:].to_parquet(parts / "part-1.parquet")
    prepare(tmp_path / "parquet", parts)
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(csv.read_bytes()))
    prepare(tmp_path / "gzip", packed)
    tabs = tmp_path / "tabs.tsv"
    clicks().to_csv(tabs, index=False, sep="\t")
    prepare(tmp_path / "tabs", tabs)
    for other in ("parquet", "gzip", "tabs"):
        schemas = [(tmp_path / name / "schema.json").read_bytes() for name in ("csv", other)]
        assert schemas[0] == schemas[1]
        for name in SPLITS:
            pd.testing.assert_frame_equal(
                stored(tmp_path / other, name), stored(tmp_path / "csv", name), check_like=True
            )


def test_between_tabs_a_quote_swallows_no_rows(tmp_path):
    path = tmp_path / "clicks.tsv"
    titles = [f"t{n}" for n in range(200)]
    titles[20] = titles[60] = '"x'
    titles[30:34] = ['a "jug", blue', '"', '3" pipe', ""]
    rows = pd.DataFrame({"title": titles, "n": range(200), "label": [0, 1] * 100})
    plain = ["\t".join(map(str, row)) for row in rows.to_numpy()]
    path.write_text("\n".join(['"title"\tn\tlabel', *plain, ""]))
    prepare(tmp_path / "plain", path, split="random")
    rows.to_csv(path, index=False, sep="\t", quoting=csv_module.QUOTE_NONNUMERIC)
    prepare(tmp_path / "quoted", path, split="random")
    for folder in (tmp_path / "plain", tmp_path / "quoted"):
        found = pd.concat([stored(folder, name) for name in SPLITS]).sort_values("n")
        assert [title.decode() for title in found["title"]] == titles


@pytest.mark.parametrize("title", ["two\nlines", "two\tcolumns"])
def test_between_tabs_a_value_in_quotes_is_one_of_one_line(tmp_path, title):
    path = tmp_path / "clicks.tsv"
    rows = pd.DataFrame({"user_id": range(9), "title": ["x"] * 8 + [title], "label": [0] * 9})
    schema = Schema(
        (
            Feature("title", "item", kind="text"),
            Feature("label", "label", kind="number"),
        )
    )
    rows.to_csv(path, index=False, sep="\t")
    for given in (schema, None):
        with pytest.raises(ValueError, match=r"(?s)clicks.tsv cannot.*\b10\b.* nor a line break"):
            prepare(tmp_path / "out", path, given)


def test_a_random_split_is_the_same_each_time_and_another_with_another_seed(csv, tmp_path):
    frame = clicks(2000)
    frame.to_csv(csv, index=False)
    first = prepare(tmp_path / "a", csv, split="random", fractions=(0.6, 0.2, 0.2))
    np.testing.assert_allclose(
        np.array(list(first.rows.values())) / 2000, (0.6, 0.2, 0.2), atol=0.04
    )
    prepare(tmp_path / "b", csv, split="random", fractions=(0.6, 0.2, 0.2))
    prepare(tmp_path / "c", csv, split="random", fractions=(0.6, 0.2, 0.2), seed=1)
    times = [set(stored(tmp_path / name, "test")["time"]) for name in "abc"]
    assert times[0] == times[1]
    assert len(times[0] & times[2]) / len(times[0]) < 0.35


def test_many_distinct_times_are_counted_in_steps(csv, tmp_path, monkeypatch):
    monkeypatch.setattr(tabular, "_DISTINCT_TIMES", 20)
    assert prepare(tmp_path / "out", csv).rows == {"train": 48, "valid": 6, "test": 6}
    assert stored(tmp_path / "out", "train")["time"].max() < (
        stored(tmp_path / "out", "valid")["time"].min()
    )


def test_an_edited_schema_with_a_vocabulary_of_its_own(csv, tmp_path):
    folder = tmp_path / "schema"
    tabular.infer_schema(csv, out=folder / "schema.json")
    Vocabulary.write(folder / "vocabularies" / "city.txt", ["Bonn", "Ulm"])
    config = json.loads((folder / "schema.json").read_text())
    config["features"] = [f for f in config["features"] if f["name"] != "price"]
    (folder / "schema.json").write_text(json.dumps(config))
    said = []
    tabular.prepare(tmp_path / "out", csv, folder / "schema.json", report=said.append)
    assert lines(tmp_path / "out", "city") == ["Bonn", "Ulm"]
    assert "Columns that the schema leaves out: price" in said
    assert "price" not in Schema.load(tmp_path / "out")


def test_numbers_vectors_and_missing_values(tmp_path):
    schema = Schema(
        (
            Feature("item_id", "item", vocabulary=drafts.unbuilt("item_id")),
            Feature("tags", "item", vocabulary=drafts.unbuilt("tags"), length=3),
            Feature("v", "vector", kind="vector", width=2),
            Feature("amount", "context", kind="number"),
            Feature("label", "label", kind="number"),
        )
    )
    path = tmp_path / "rows.csv"
    rows = [f"{n % 4 or ''},{n}|{n + 1},0.5|{n},{n}.0,{n % 2}" for n in range(40)]
    path.write_text("\n".join(["item_id,tags,v,amount,label", *rows, ""]))
    prepare(tmp_path / "out", path, schema)
    frame = pd.concat([stored(tmp_path / "out", name) for name in SPLITS])
    assert (frame["item_id"] == -1).sum() == 10
    assert frame["v"].iloc[0].tolist() == [0.5, frame["amount"].iloc[0]]
    assert "-1" not in lines(tmp_path / "out", "item_id")
    assert pd.read_parquet(tmp_path / "out" / "users.parquet").empty
    assert pd.read_parquet(tmp_path / "out" / "items.parquet")["item_id"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%d %H:%M:%S",
        "%Y-%m-%dT%H:%M:%SZ",
        "%Y-%m-%dT%H:%M:%S+00:00",
        "%Y-%m-%dT%H:%M:%S.%f",
        "%Y-%m-%dT%H:%M:%S.%f789",
        "%Y-%m-%dT%H:%M:%S.%f789Z",
    ],
)
def test_times_in_the_forms_of_iso_8601(csv, tmp_path, form):
    rows = clicks()
    rows["time"] = pd.to_datetime(rows["time"], unit="s").dt.strftime(form)
    rows.to_csv(csv, index=False)
    prepare(tmp_path / "out", csv)
    found = pd.concat([stored(tmp_path / "out", name) for name in SPLITS])
    assert found["time"].tolist() == clicks()["time"].tolist()


def test_times_of_another_zone_and_of_both_kinds(csv, tmp_path):
    rows = clicks()
    times = pd.to_datetime(rows["time"], unit="s")
    rows["time"] = (times + pd.Timedelta("2h")).dt.strftime("%Y-%m-%d %H:%M:%S+02:00")
    rows.to_csv(csv, index=False)
    prepare(tmp_path / "out", csv)
    assert stored(tmp_path / "out", "train")["time"].tolist() == clicks()["time"].tolist()[:48]
    rows.loc[7, "time"] = str(times[7])
    rows.to_csv(csv, index=False)
    with pytest.raises(ValueError, match="with a zone and without, .*:47'` in row 7, .*02:00'` in"):
        prepare(tmp_path / "out", csv)


@pytest.mark.parametrize("is_parquet", [False, True])
def test_true_and_false(tmp_path, is_parquet):
    path = tmp_path / ("rows.parquet" if is_parquet else "rows.csv")
    rows = pd.DataFrame(
        {"user_id": range(40), "item_id": [n % 7 for n in range(40)], "time": range(40)}
    )
    rows["premium"] = [n % 3 == 0 for n in range(40)]
    rows["click"] = [n % 2 == 0 for n in range(40)]
    (rows.to_parquet if is_parquet else rows.to_csv)(path, index=False)
    prepare(tmp_path / "out", path, tabular.infer_schema(path))
    train = stored(tmp_path / "out", "train")
    for name in ("premium", "click"):
        found = train[name].astype(str).str.lower().isin(["true", "1.0"])
        np.testing.assert_array_equal(found, rows[name][: len(train)])
    assert {line.lower() for line in lines(tmp_path / "out", "premium")} == {"true", "false"}


def test_ids_of_sixty_bits(tmp_path):
    ids = [2**60 + n for n in range(59)]
    schema = Schema(
        (
            Feature("item_id", "item", vocabulary=drafts.unbuilt("item_id")),
            Feature("label", "label", kind="number"),
        )
    )
    path = tmp_path / "rows.parquet"
    frame = pd.DataFrame({"item_id": [*ids, None], "label": [0, 1] * 30}, dtype="Int64")
    decimals = pa.array(frame["item_id"]).cast(pa.decimal128(20, 0))
    table = pa.Table.from_pandas(frame)
    pyarrow.parquet.write_table(table.set_column(0, "item_id", decimals), path)
    prepare(tmp_path / "out", path, schema)
    assert pd.read_parquet(tmp_path / "out" / "items.parquet")["item_id"].tolist() == ids
    frame.astype(float).to_parquet(path)
    with pytest.raises(ValueError, match="'item_id', row 0: .* pass Int64 or strings"):
        prepare(tmp_path / "out", path, schema)


def test_histories_over_their_length_keep_the_newest(csv, tmp_path):
    schema = tabular.infer_schema(csv, history_length=2)
    prepare(tmp_path / "out", csv, schema)
    found = stored(tmp_path / "out", "train")["history_item_id"]
    expected = [row.split("|")[-2:] if row else [] for row in clicks()["history_item_id"][:48]]
    assert [[v.decode() for v in row] for row in found] == expected


def test_a_second_prepare_does_nothing(csv, tmp_path):
    assert not prepare(tmp_path / "out", csv).reused
    assert prepare(tmp_path / "out", csv).reused
    assert {p.name for p in tmp_path.iterdir()} == {"clicks.csv", "out"}
    clicks(50).to_csv(csv, index=False)
    assert not prepare(tmp_path / "out", csv).reused


def test_raw_files_are_not_replaced_by_what_is_made_of_them(csv, tmp_path):
    raw = tmp_path / "out/train/clicks.csv"
    raw.parent.mkdir(parents=True)
    csv.rename(raw)
    with pytest.raises(ValueError, match="choose another `out`"):
        prepare(tmp_path / "out", raw.parent)
    assert raw.is_file()


def broken(csv, column, row, value):
    frame = clicks().astype(object)
    frame.loc[row, column] = value
    frame.to_csv(csv, index=False)


@pytest.mark.parametrize(
    "column, value, message",
    [
        ("click", 2, "'click', row 7: expected a label of 0 or 1"),
        ("click", "", "'click', row 7: expected a label of 0 or 1. Received: `value=''`"),
        ("click", "yes", "'click', row 7: expected a label of 0 or 1. Received: `value='yes'`"),
        ("price", "cheap", "'price', row 7: expected a finite number. Received: `value='cheap'`"),
        ("price", "nan", "'price', row 7: expected a finite number"),
        ("price", "inf", "'price', row 7: expected a finite number"),
        ("price", "", "'price', row 7: expected a finite number. Received: `value=''`"),
        ("user_id", "me", "'user_id', row 7: expected an integer. Received: `value='me'`"),
        ("user_id", "1.5", "'user_id', row 7: expected an integer"),
        ("user_id", "-7", "'user_id', row 7: expected an id of 0 or more"),
        ("time", "soon", "'time', row 7: expected a time. Received: `value='soon'`"),
    ],
)
def test_a_bad_value_is_named_with_file_column_and_row(csv, tmp_path, column, value, message):
    schema = tabular.infer_schema(csv)
    broken(csv, column, 7, value)
    with pytest.raises(ValueError, match=message) as error:
        prepare(tmp_path / "out", csv, schema)
    assert "clicks.csv" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_row_counts_on_across_batches(csv, tmp_path, monkeypatch):
    from ctr_keras.datasets import tables

    monkeypatch.setattr(tables, "BATCH_ROWS", 8)
    schema = tabular.infer_schema(csv)
    broken(csv, "price", 41, "cheap")
    with pytest.raises(ValueError, match="'price', row 41"):
        prepare(tmp_path / "out", csv, schema)


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "clicks.csv cannot be read: Empty CSV file"),
        ("user_id,click,time\n", "clicks.csv has no rows"),
        ("user_id,click,time\n1,0,3\n1,0\n", "clicks.csv cannot be read.*xpected.*3.*columns"),
        ("user_id,user_id,click\n1,2,0\n", "column 'user_id' appears twice"),
        ("user_id,price\n1,2\n", "no column is called label"),
        ("user_id,time,click\n1,5,0\n2,5,1\n3,5,1\n", "valid split would be empty"),
        ("user_id,click\n1,0\n", "split would be empty"),
    ],
)
def test_files_that_are_no_data(csv, tmp_path, content, message):
    csv.write_text(content)
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path / "out", csv)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["clicks.csv", "clicks.csv.gz"])
def test_another_encoding_is_named_with_byte_and_line(tmp_path, name):
    text = "user_id,item_id,city,click\n1,2,Ulm,0\n1,3,Köln,1\n"
    path = tmp_path / name
    with (gzip.open if name.endswith(".gz") else open)(path, "wb") as file:
        file.write(text.encode("latin-1"))
    message = r"clicks.csv\S* is not UTF-8 \(byte 0xf6 at line 3\): convert it$"
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path / "out", path)
    features = [Feature("city", "user", "text"), Feature("click", "label", "number")]
    with pytest.raises(ValueError, match=message):  # Read by pyarrow, not scanned before.
        prepare(tmp_path / "out", path, Schema(features))


def test_damaged_archives_are_named(csv, tmp_path):
    packed, schema = tmp_path / "packed.csv.gz", tabular.infer_schema(csv)
    whole = gzip.compress(csv.read_bytes())
    for content in (whole[: len(whole) // 2], csv.read_bytes()):
        packed.write_bytes(content)
        for given in (None, schema):
            with pytest.raises(ValueError, match=r"packed.csv.gz cannot be read: \S+"):
                prepare(tmp_path / "out", packed, given)


def test_an_empty_part_of_a_folder_is_passed_over(csv, tmp_path):
    parts = tmp_path / "parts"
    parts.mkdir()
    frame, schema = pd.read_csv(csv), tabular.infer_schema(csv)
    for name, rows in {"a": frame[:0], "b": frame}.items():
        rows.to_csv(parts / f"{name}.csv", index=False)
    prepare(tmp_path / "one", csv, schema)
    prepare(tmp_path / "two", parts, schema)
    for name in SPLITS:
        pd.testing.assert_frame_equal(
            stored(tmp_path / "two", name), stored(tmp_path / "one", name)
        )
    (parts / "b.csv").unlink()
    with pytest.raises(ValueError, match="a.csv has no rows"):
        prepare(tmp_path / "three", parts, schema)


def test_data_prepared_in_the_folder_of_its_source(csv, tmp_path):
    parts = tmp_path / "parts"
    parts.mkdir()
    csv.rename(parts / "clicks.csv")
    assert not prepare(parts / "prepared", parts).reused
    assert prepare(parts / "prepared", parts).reused


def test_the_simulators_probability_is_no_feature(csv, tmp_path):
    frame = pd.read_csv(csv).assign(true_probability=0.5)
    frame.to_csv(csv, index=False)
    lines = []
    assert "true_probability" not in tabular.infer_schema(csv, report=lines.append)
    assert any("'true_probability' is left out: it is the simulator's" in line for line in lines)


def test_vocabularies_that_are_there_are_used_and_reported(csv, tmp_path):
    draft, file, said = tmp_path / "schema.json", tmp_path / "vocabularies" / "user_id.txt", []
    tabular.infer_schema(csv, out=draft, report=quiet)
    file.parent.mkdir()
    file.write_text("3\n7\n")
    tabular.prepare(tmp_path / "out", csv, draft, report=said.append)
    assert lines(tmp_path / "out", "user_id") == ["3", "7"]
    assert [line for line in said if str(file) in line and "used as it is" in line]
    assert not [line for line in said if "item_id.txt" in line]
    for content, message in (
        (
            "3\n7\n03\n",
            r"user_id.txt, line 3: a vocabulary names each value once, and 3 is at line 1",
        ),
        ("3\nseven\n", r"user_id.txt, line 2: expected an integer.*Received: 'seven'"),
        ("3\n\xe9\n", r"user_id.txt is not UTF-8 \(byte 0xe9 at line 2\)"),
    ):
        file.write_text(content, encoding="latin-1")
        with pytest.raises(ValueError, match=message):
            prepare(tmp_path / "other", csv, draft)


def test_bad_arguments(csv, tmp_path):
    schema = tabular.infer_schema(csv)
    without_time = Schema(tuple(f for f in schema if f.role != "time"))
    more = Schema((*schema, Feature("age", "user", kind="number")))
    words = drafts.with_vocabularies(schema, {"item_title": drafts.unbuilt("item_title")})
    for options, message in (
        ({"path": tmp_path / "nothing"}, "no such file or folder"),
        ({"schema": tmp_path / "nothing.json"}, "No schema there"),
        ({"schema": tmp_path / "clicks.csv"}, "clicks.csv is a file, and no `.json`"),
        ({"schema": more}, "clicks.csv: missing column 'age'.*columns="),
        ({"schema": words}, "'item_title': the words of a text"),
        ({"split": "user"}, '`split` must be "time" or "random"'),
        ({"schema": without_time, "split": "time"}, "needs a feature with the role time"),
        ({"schema": Schema(tuple(f for f in schema if f.role != "label"))}, "no feature with"),
        ({"fractions": (1.0, 0.0, 0.0)}, "`fractions` must be"),
        ({"layout": "rows"}, "`layout` must be one of .*`layout='rows'`"),
        ({"seed": -1}, "`seed` must be an integer of 0 or more"),
        ({"list_separator": ""}, "`list_separator` must not be empty"),
    ):
        with pytest.raises(ValueError, match=message):
            prepare(tmp_path / "out", **{"path": csv, **options})
    assert not list(tmp_path.glob(".out*"))
    with pytest.raises(ValueError, match="no such column. Received: `label='clicked'`"):
        tabular.infer_schema(csv, label="clicked")


def test_a_seed_of_numpy_and_bad_seeds(csv, tmp_path):
    prepare(tmp_path / "out", csv, split="random", seed=np.int64(3), negative_seed=np.int64(1))
    assert prepare(tmp_path / "out", csv, split="random", seed=3, negative_seed=1).reused
    for seed in (-1, 0.5, True):
        with pytest.raises(ValueError, match="`seed` must be an integer.*Received: `seed="):
            prepare(tmp_path / "out", csv, seed=seed)


def test_values_of_several_lines_are_hashed(csv, tmp_path):
    rows = clicks()
    rows.loc[5, "city"] = "Ulm\nMitte"
    rows.to_csv(csv, index=False)
    schema = tabular.infer_schema(csv)
    assert schema["city"].vocabulary.hashed and not schema["item_id"].vocabulary.hashed
    prepare(tmp_path / "out", csv)
    assert stored(tmp_path / "out", "train")["city"][5] == b"Ulm\nMitte"
    looked_up = drafts.with_vocabularies(schema, {"city": drafts.unbuilt("city")})
    with pytest.raises(ValueError, match="^Column 'city' .* hash the column.*'Ulm.nMitte'`$"):
        prepare(tmp_path / "looked_up", csv, looked_up)


def test_bad_drafts(tmp_path):
    path = tmp_path / "schema.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        drafts.load(path)
    feature = {"name": "x", "role": "item", "kind": "id"}
    vocabulary = {"file": "vocabularies/x.txt", "size": 5, "sha256": "0" * 64}
    config = {"schema_version": 1, "features": [{**feature, "vocabulary": vocabulary}]}
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="the vocabulary of 'x' is missing"):
        drafts.load(path)
    Vocabulary.write(tmp_path / "vocabularies" / "x.txt", ["a"])
    with pytest.raises(ValueError, match="changed after its schema was written"):
        drafts.load(path)


def test_hidden_copies_in_a_folder_are_no_rows(tmp_path):
    folder = tmp_path / "_raw"  # Its own name is the user's choice.
    for name in ("c.csv", ".ipynb_checkpoints/c-checkpoint.csv", "_temporary/0/c.csv", ".c.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        clicks().to_csv(folder / name, index=False)
    assert sum(prepare(tmp_path / "out", folder).rows.values()) == len(clicks())
    (folder / "c.csv").unlink()
    with pytest.raises(ValueError, match="no CSV or Parquet file"):
        prepare(tmp_path / "out", folder)


def test_a_missing_column_of_the_second_file_is_named(tmp_path):
    clicks()[:30].to_csv(tmp_path / "a.csv", index=False)
    clicks()[30:].drop(columns="price").to_csv(tmp_path / "b.csv", index=False)
    schema = tabular.infer_schema(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="b.csv: missing column 'price'"):
        prepare(tmp_path / "out", tmp_path, schema)


def test_negatives_of_training_rows_are_down_sampled_and_resumed(csv, tmp_path, monkeypatch):
    whole = prepare(tmp_path / "whole", csv)
    out, options = tmp_path / "out", {"negative_ratio": 0.4, "negative_seed": 2}
    write = down_sampling.write

    def stop_after_train(path, *args, **kwargs):
        if pathlib.Path(path).name != "train":
            raise KeyboardInterrupt
        return write(path, *args, **kwargs)

    monkeypatch.setattr(down_sampling, "write", stop_after_train)
    with pytest.raises(KeyboardInterrupt):
        prepare(out, csv, **options)
    monkeypatch.undo()
    shard = next((tmp_path / ".out.preparing" / "train").glob("*.tfrecord"))
    found = prepare(out, csv, **options)
    assert (out / "train" / shard.name).is_file()
    train, before = stored(out, "train"), stored(whole.folder, "train")
    clicks = before[before["click"] == 1]
    pd.testing.assert_frame_equal(
        train[train["click"] == 1].reset_index(drop=True), clicks.reset_index(drop=True)
    )
    assert len(clicks) < len(train) < len(before)
    assert found.rows["train"] == len(train) and found.negative_ratio == 0.4
    assert found.click_rate["train"] == pytest.approx(len(clicks) / len(train))
    for name in ("valid", "test"):
        pd.testing.assert_frame_equal(stored(out, name), stored(whole.folder, name))
    assert Manifest.load(out / "train").negative_ratio == 0.4
    assert lines(out, "item_id") == lines(whole.folder, "item_id")
    assert prepare(out, csv, **options).reused
    assert not prepare(out, csv).reused


@pytest.mark.parametrize("bits", [8, 32, 64])
def test_unsigned_ids_of_which_some_are_missing(bits, tmp_path):
    ids = pd.array([7, None, 9] * 20, f"UInt{bits}")
    frame = pd.DataFrame({"user_id": ids, "item_id": range(60), "label": [0, 1] * 30})
    path = tmp_path / "clicks.parquet"
    path.mkdir()  # As Spark writes a table.
    frame.to_parquet(path / "part-0.parquet", index=False)
    tabular.prepare(tmp_path / "out", tmp_path, report=quiet)
    schema = Schema.load(tmp_path / "out")
    rows = [raw_rows(tmp_path / "out" / name, schema, 60)["user_id"] for name in SPLITS]
    found = np.concatenate(rows)
    assert sorted(set(found)) == [-1, 7, 9] and len(found) == 60


def test_past_items_that_were_no_target_are_known_too(tmp_path):
    frame = pd.DataFrame(
        {
            "item_id": ["b", "a", "a"] * 20,
            "history_item_id": ["z|b", "z|y|a", "x|z"] * 20,
            "time": range(60),
            "label": [0, 1, 0] * 20,
        }
    )
    frame.loc[59, ["item_id", "history_item_id"]] = ["test", "test|z"]
    frame.to_csv(tmp_path / "clicks.csv", index=False)
    tabular.prepare(tmp_path / "out", tmp_path / "clicks.csv", report=quiet)
    # By frequency as targets, then by that in histories, then by name.
    assert lines(tmp_path / "out", "item_id") == ["a", "b", "z", "x", "y"]
