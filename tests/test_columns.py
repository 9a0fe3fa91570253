import datetime
import itertools
import time

import numpy as np
import pandas as pd
import pytest

import ctr_keras as ck
from ctr_keras.columns import canonical, concatenate, num_rows, rechunk
from ctr_keras.data import Ragged


@pytest.fixture
def rows(small_rows):
    return {name: column[:20] for name, column in small_rows.items()}


def test_canonical_types(small_schema, rows):
    columns = canonical(small_schema, rows)
    assert columns["user_id"].dtype == np.int64
    assert columns["age"].dtype == np.float32
    assert columns["item_id"].tolist() == rows["item_id"]
    assert columns["item_vector"].shape == (20, 5)
    history = columns["history_item_id"]
    kept = [row[-7:] for row in rows["history_item_id"]]
    assert [history.values[a:b].tolist() for a, b in itertools.pairwise(history.offsets)] == kept


def test_data_frame_is_the_same(small_schema, rows):
    frame = pd.DataFrame({**rows, "item_vector": list(rows["item_vector"])})
    plain = canonical(small_schema, rows)
    for name, column in canonical(small_schema, frame).items():
        expected = plain[name]
        if isinstance(column, Ragged):
            column, expected = column.values, expected.values
        np.testing.assert_array_equal(column, expected)


@pytest.mark.parametrize(
    ("name", "row", "value", "message"),
    [
        ("user_id", 3, 30, "'user_id', row 103: expected an id in 0 ... 29.*value=30"),
        ("user_id", 0, -1, "'user_id', row 100: expected an id in 0 ... 29"),
        ("user_id", 2, 1.5, "'user_id', row 102: expected an integer.*value=1.5"),
        ("user_id", 4, "x", "'user_id', row 104: expected a value of type int64.*value='x'"),
        ("user_id", 4, None, "'user_id', row 104: expected an integer.*value=nan"),
        ("user_id", 4, 1e20, "'user_id', row 104: expected an integer of 64 bits"),
        ("age", 5, 1e39, "'age', row 105: expected a number in float32.*value=1e.39"),
        ("age", 5, np.nan, "'age', row 105: expected a finite number"),
        ("age", 6, np.inf, "'age', row 106: expected a finite number"),
        ("label", 7, 2, "'label', row 107: expected a label of 0 or 1.*value=2"),
        ("label", 7, 0.5, "'label', row 107: expected a label of 0 or 1"),
        ("item_id", 8, 5.0, "'item_id', row 108: expected text"),
        ("genres", 9, [1, -5], "'genres', row 109: expected an id of 0 or more"),
        ("genres", 9, "12", "'genres', row 109: expected a list"),
    ],
)
def test_bad_value_names_column_and_row(small_schema, rows, name, row, value, message):
    column = list(rows[name])
    column[row] = value
    values = np.empty(len(column), object)
    values[:] = column
    with pytest.raises(ValueError, match=message):
        canonical(small_schema, {**rows, name: values}, first_row=100)


def test_missing_text_becomes_empty(small_schema, rows):
    values = np.array([None, np.nan, *rows["item_id"][2:]], object)
    assert canonical(small_schema, {**rows, "item_id": values})["item_id"][:2].tolist() == ["", ""]


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_missing_ids_become_padding(missing):
    hashed = ck.Vocabulary.hashing(9)
    number, text = (
        ck.Feature("n", "item", vocabulary=hashed),
        ck.Feature("t", "item", vocabulary=hashed, dtype="string"),
    )
    rows = {"n": np.array([3, missing], object), "t": np.array(["a", missing], object)}
    columns = canonical(ck.Schema([number, text]), rows)
    assert columns["n"].tolist() == [3, -1] and columns["t"].tolist() == ["a", ""]


@pytest.mark.parametrize(("dtype", "bits"), [("float64", 53), ("float32", 24)])
def test_ids_that_a_float_cannot_hold(dtype, bits):
    schema = ck.Schema([ck.Feature("n", "item", vocabulary=ck.Vocabulary.hashing(9))])
    largest = 2**bits - 1
    column = np.array([largest, np.nan], dtype)
    assert canonical(schema, {"n": column})["n"].tolist() == [largest, -1]
    with pytest.raises(ValueError, match=rf"'n', row 1: .*from 2\*\*{bits} on: pass Int64 or str"):
        canonical(schema, {"n": np.array([1, largest + 1], dtype)})
    # With one missing, Pandas' integers and objects stay exact.
    ids = [2**62 + 1, None]
    for column in (pd.Series(ids, dtype="Int64"), np.array(ids, object)):
        assert canonical(schema, {"n": column})["n"].tolist() == [2**62 + 1, -1]


@pytest.mark.parametrize(
    "dtype", ["Int64", "int64[pyarrow]", "string", "string[pyarrow]", "object"]
)
def test_columns_of_pandas(dtype):
    hashed = ck.Vocabulary.hashing(9)
    is_text = "string" in dtype or dtype == "object"
    feature = ck.Feature("x", "item", vocabulary=hashed, dtype="string" if is_text else "int64")
    frame = pd.DataFrame({"x": pd.Series(["a", None] if is_text else [5, None], dtype=dtype)})
    column = canonical(ck.Schema([feature]), frame)["x"]
    assert column.tolist() == (["a", ""] if is_text else [5, -1])


def test_vectors_as_a_column_of_lists(small_schema, rows):
    frame = pd.DataFrame({"v": list(rows["item_vector"])})
    column = canonical(small_schema, {**rows, "item_vector": frame["v"]})["item_vector"]
    np.testing.assert_array_equal(column, rows["item_vector"])
    short = [*rows["item_vector"][:2], [1.0], *rows["item_vector"][3:]]
    with pytest.raises(ValueError, match="'item_vector', row 2: expected a vector of 5 numbers"):
        canonical(small_schema, {**rows, "item_vector": short})


@pytest.mark.parametrize(("lengths", "total"), [([1, 1, 1], 3), ([1, 1, 5], 7), ([4, -2, 3], 5)])
def test_ragged_must_agree_with_itself(lengths, total):
    with pytest.raises(ValueError, match=f"sum to {total}"):
        Ragged(np.arange(5), np.array(lengths))


def test_columns_must_be_those_of_the_schema(small_schema, rows):
    with pytest.raises(ValueError, match="Unknown column.*column='colour'"):
        canonical(small_schema, {**rows, "colour": rows["age"]})
    del rows["age"]
    with pytest.raises(ValueError, match="Missing column 'age'"):
        canonical(small_schema, rows)


def test_columns_need_one_length(small_schema, rows):
    with pytest.raises(ValueError, match="same number of rows.*'age': 19"):
        canonical(small_schema, {**rows, "age": rows["age"][:19]})


def test_vector_width_is_checked(small_schema, rows):
    with pytest.raises(ValueError, match=r"'item_vector' must have shape \(rows, 5\)"):
        canonical(small_schema, {**rows, "item_vector": rows["item_vector"][:, :4]})


def test_dates_become_seconds():
    schema = ck.Schema([ck.Feature("t", "time", kind="number")])
    dates = np.array(["1970-01-02", "2020-01-01T00:00:01"], "datetime64[ms]")
    assert canonical(schema, {"t": dates})["t"].tolist() == [86400, 1577836801]
    zoned = pd.Series(pd.to_datetime(["1970-01-02T01:00+01:00"], utc=True))
    assert canonical(schema, {"t": zoned})["t"].tolist() == [86400]
    with pytest.raises(ValueError, match="'t', row 1: expected a date"):
        canonical(schema, {"t": pd.to_datetime(["2020-01-01", None])})


@pytest.fixture
def parallel_schema():
    """Items of a history, and the category of each."""
    features = []
    for name in ("item_id", "cat"):
        hashed = ck.Vocabulary.hashing(9)
        features += [
            ck.Feature(name, "item", vocabulary=hashed, dtype="string"),
            ck.Feature(f"history_{name}", "history", length=3, shares=name, dtype="string"),
        ]
    return ck.Schema(features)


@pytest.mark.parametrize("as_row", [list, tuple, np.array])
def test_lists_of_one_length_keep_their_holes(parallel_schema, as_row):
    """Else the categories of a row would move beside other items."""
    rows = {
        "item_id": ["a", "b"],
        "cat": ["c", "d"],
        "history_item_id": [as_row(["i", "j"]), as_row(["k", "l"])],
        "history_cat": [as_row(["", "c"]), as_row(["d", "e"])],
    }
    frame = canonical(parallel_schema, pd.DataFrame(rows))
    pieces = [
        canonical(parallel_schema, {k: v[n : n + 1] for k, v in rows.items()}) for n in (0, 1)
    ]
    for columns in (frame, canonical(parallel_schema, rows), concatenate(pieces)):
        assert columns["history_cat"].values.tolist() == ["", "c", "d", "e"]
        assert columns["history_cat"].lengths.tolist() == [2, 2]


@pytest.mark.parametrize("rows", [[3, 4], np.array([3, 4]), pd.Series([3, 4])])
def test_numbers_are_no_lists(rows):
    item = ck.Feature("i", "item", vocabulary=ck.Vocabulary.of_size(9))
    history = ck.Feature("h", "history", length=3, shares="i")
    with pytest.raises(ValueError, match="'h', row 0: expected a list. Received: `value=3`"):
        canonical(ck.Schema([item, history]), {"i": [1, 2], "h": rows})


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_missing_text_beside_text_becomes_empty(parallel_schema, missing):
    rows = {
        "item_id": ["a", missing],
        "cat": [missing, "b"],
        "history_item_id": [["x", missing], ["y"]],
        "history_cat": [[missing], ["z"]],
    }
    columns = canonical(parallel_schema, rows)
    assert columns["item_id"].tolist() == ["a", ""] and columns["cat"].tolist() == ["", "b"]
    assert columns["history_item_id"].values.tolist() == ["x", "", "y"]
    assert columns["history_cat"].values.tolist() == ["", "z"]


def test_missing_text_of_a_row_of_its_own():
    rows = [np.array(["x", "y"]), np.array([np.nan]), ["z"], None]
    values = Ragged.from_lists(rows).values.tolist()
    assert values[:2] == ["x", "y"] and np.isnan(values[2]) and values[3] == "z"


@pytest.mark.parametrize(
    ("name", "values"), [("item_id", ["a", 2.5]), ("history_item_id", [["a"], [2.5, "b"]])]
)
def test_numbers_beside_text_are_refused(parallel_schema, name, values):
    rows = {name: [[], []] if "history" in name else ["a", "b"] for name in parallel_schema.names}
    with pytest.raises(ValueError, match=f"'{name}', row 1: expected text. Received: `value=2.5`"):
        canonical(parallel_schema, {**rows, name: values})


def test_bytes_are_text_in_utf_8(parallel_schema):
    rows = {name: [[], []] if "history" in name else ["a", "b"] for name in parallel_schema.names}
    found = canonical(parallel_schema, {**rows, "item_id": np.array(["Köln".encode(), b"Ulm"])})
    assert found["item_id"].tolist() == ["Köln", "Ulm"]
    with pytest.raises(ValueError, match="'item_id', row 1: expected text in UTF-8"):
        canonical(
            parallel_schema, {**rows, "item_id": np.array([b"Ulm", "Köln".encode("latin-1")])}
        )


def test_padded_array_loses_its_padding():
    item = ck.Feature("i", "item", vocabulary=ck.Vocabulary.of_size(9))
    history = ck.Feature("h", "history", length=3, shares="i")
    columns = canonical(ck.Schema([item, history]), {"i": [1, 2], "h": np.array([[3, 4], [5, 0]])})
    assert columns["h"].values.tolist() == [3, 4, 5]
    assert columns["h"].lengths.tolist() == [2, 1]


@pytest.mark.parametrize("sizes", [[1], [3, 4, 5], [10], [2, 2, 2, 2], [7, 0, 5]])
def test_rechunk_keeps_rows_in_order(sizes):
    values = iter(range(100))
    chunks = []
    for size in sizes:
        x = np.array([next(values) for _ in range(size)], np.int64)
        chunks.append({"x": x, "h": Ragged(np.repeat(x, x % 3), (x % 3).astype(np.int32))})
    result = list(rechunk(chunks, 4))
    assert all(num_rows(chunk) == 4 for chunk in result[:-1])
    assert 0 < num_rows(result[-1]) <= 4
    x = np.concatenate([chunk["x"] for chunk in result])
    assert x.tolist() == list(range(sum(sizes)))
    for chunk in result:
        np.testing.assert_array_equal(chunk["h"].values, np.repeat(chunk["x"], chunk["x"] % 3))


def test_dates_without_a_zone_are_utc(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    schema = ck.Schema([ck.Feature("at", "time", kind="number")])
    noon = datetime.datetime(2024, 1, 1, 12)
    zoned = noon.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=9)))
    found = canonical(schema, {"at": np.array([noon, zoned, pd.Timestamp(noon)], object)})["at"]
    assert found.tolist() == [1704110400, 1704110400 - 9 * 3600, 1704110400]
    for wrong, row in (([noon, None], 1), ([None, noon], 0), ([pd.NaT, noon], 0)):
        with pytest.raises(ValueError, match=f"row {row}: expected a date"):
            canonical(schema, {"at": np.array(wrong, object)})
    monkeypatch.undo()
    time.tzset()
