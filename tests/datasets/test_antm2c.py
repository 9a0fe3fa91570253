import gzip
import pathlib

import numpy as np
import pandas as pd
import pytest

from ctr_keras import data
from ctr_keras.data.manifest import Manifest
from ctr_keras.data.split import SPLITS
from ctr_keras.datasets import antm2c, antm2c_raw, drafts, truth
from ctr_keras.datasets.antm2c_raw import COLUMNS, FEATURES
from ctr_keras.schema import Schema
from tests.datasets.test_movielens import stored

ROOT = pathlib.Path(__file__).parents[2]
TEXTS = ["", "coffee;milk", 'a "latte", hot', "two\nlines", "咖啡;牛奶"]


def quiet(_):
    pass


def frame_of(count=60, seed=0):
    """Raw rows of four days as text, shuffled in time; `features_3` is no integer."""
    random = np.random.default_rng(seed)
    day = np.arange(count) % 4 + 9
    second = random.integers(0, 86_400, count)
    frame = pd.DataFrame({"user_id": random.integers(1, 9, count)})
    for number, name in enumerate(FEATURES):
        values = random.integers(0, number + 2, count).astype(str)
        frame[name] = np.where(random.random(count) < 0.2, ["", "\\N", "null"][number % 3], values)
    frame["features_3"] = "v" + frame["features_3"].where(frame["features_3"] != "", "0")
    frame["features_4"] = ""
    for name in ("query_entity_seq", "item_entity_names", "item_title"):
        frame[name] = random.choice(TEXTS, count)
    frame["item_id"] = random.integers(100, 120, count)
    frame["log_time"] = [
        f"2023-07-{d:02} {s // 3600:02}:{s // 60 % 60:02}:{s % 60:02}"
        for d, s in zip(day, second, strict=True)
    ]
    frame["scene"] = np.array(["E", "B", "A"])[np.arange(count) // 4 % 3]
    frame["label"] = random.integers(0, 2, count)
    return frame[list(COLUMNS)].astype(str)


@pytest.fixture(scope="module")
def frame():
    return frame_of()


@pytest.fixture(scope="module")
def made(frame, tmp_path_factory):
    """Prepared from two files, one of them packed, with columns in another order."""
    folder = tmp_path_factory.mktemp("antm2c")
    frame[:35].to_csv(folder / "part0", index=False)
    text = frame[35:].iloc[:, ::-1].assign(other="x").to_csv(index=False)
    (folder / "part1.csv.gz").write_bytes(gzip.compress(text.encode()))
    lines = []
    result = antm2c.prepare(
        folder / "out", [folder / "part0", folder / "part1.csv.gz"], report=lines.append
    )
    assert any("left out: other" in line for line in lines)
    return result


def expected_of(frame, name):
    """The rows of a split, read independently."""
    day = frame["log_time"].str[8:10].astype(int)
    return frame[day.map({9: "train", 10: "train", 11: "valid", 12: "test"}) == name]


@pytest.mark.parametrize("split", SPLITS)
def test_rows_keep_what_the_files_hold(made, frame, split):
    rows, expected = stored(made.folder, split), expected_of(frame, split)
    assert len(rows) == len(expected) == made.rows[split]
    times = pd.to_datetime(expected["log_time"]).astype("datetime64[s]").astype(np.int64)
    assert rows["time"].tolist() == times.tolist()
    assert rows["label"].tolist() == expected["label"].astype(float).tolist()
    assert rows["group_user_id"].tolist() == rows["user_id"].tolist()
    missing = ("", *antm2c_raw.MISSING_VALUES)
    for name in COLUMNS:
        if name in ("log_time", "label"):
            continue
        wanted = expected[name].where(~expected[name].isin(missing), "")
        if rows[name].dtype.kind == "i":
            wanted = wanted.replace("", "-1").astype(int)
        assert rows[name].tolist() == wanted.tolist(), name
    assert rows["user_id"].dtype == np.int64


def test_the_schema_and_its_vocabularies(made, frame):
    schema = Schema.load(made.folder)
    roles = {feature.name: (feature.role, feature.kind) for feature in schema}
    assert roles["user_id"] == roles["features_26"] == ("user", "id")
    assert roles["scene"] == ("scenario", "id") and roles["item_id"] == ("item", "id")
    assert roles["query_entity_seq"] == ("user", "text")
    assert (roles["item_title"], roles["item_entity_names"]) == (
        ("item", "text"), ("context", "text"),
    )  # fmt: skip
    assert len(schema.inputs) == 30  # user, 27 features, item and scene
    train = expected_of(frame, "train")
    for name in ("user_id", "item_id", "features_5"):
        lines = open(schema[name].vocabulary.file).read().split()
        counts = train[name][~train[name].isin(["", *antm2c_raw.MISSING_VALUES])].value_counts()
        assert sorted(lines) == sorted(counts.index)
        assert [counts[line] for line in lines] == counts.tolist()
    assert open(schema["scene"].vocabulary.file).read().split() == ["A", "B", "E"]
    assert schema["features_4"].vocabulary.size == 2  # Never there.


def prepare(tmp_path, frame, **options):
    frame.to_csv(tmp_path / "raw.csv", index=False)
    return antm2c.prepare(tmp_path / "out", tmp_path / "raw.csv", report=quiet, **options)


def test_optional_columns_word_ids_and_a_share_of_the_day(tmp_path, frame):
    text = ["coffee tea"] * len(frame)
    frame = frame.assign(bill_entity_seq=text, user_id="u" + frame["user_id"])
    made = prepare(tmp_path, frame, text_buckets=50, valid_share=0.4)
    schema = Schema.load(made.folder)
    assert schema["bill_entity_seq"].is_input and schema["bill_entity_seq"].role == "user"
    assert schema["user_id"].dtype == schema["group_user_id"].dtype == "string"
    day = expected_of(frame, "valid")["log_time"].sort_values()
    assert made.rows["valid"] == round(0.4 * len(day))
    assert made.rows["test"] == len(expected_of(frame, "test"))
    newest = pd.to_datetime(day[-made.rows["valid"] :]).astype("datetime64[s]").astype(np.int64)
    assert sorted(stored(made.folder, "valid")["time"]) == newest.tolist()


def test_true_probabilities_stay_apart(tmp_path, frame):
    probability = np.linspace(0, 1, len(frame))
    frame = frame.assign(true_probability=probability)
    made = prepare(tmp_path, frame)
    assert truth.PROBABILITY not in Schema.load(made.folder)
    for split in SPLITS:
        table, rows = truth.read(made.folder, split), stored(made.folder, split)
        assert table["impression_id"].to_pylist() == rows["group_impression_id"].tolist()
        assert table["label"].to_pylist() == rows["label"].tolist()
        expected = expected_of(frame, split)["true_probability"]
        np.testing.assert_allclose(table[truth.PROBABILITY].to_numpy(), expected, rtol=1e-12)
    assert set(truth.bounds(made.folder)["bayes_auc"]) == set(SPLITS)


def test_a_batch_is_what_models_take(made):
    batches = data.read(made.folder / "train", batch_size=8, shuffle=True)
    features, label = next(iter(batches))
    assert features["features_26"].shape == label.shape == (8,)
    assert set(features["scene"].numpy()) <= {2, 3, 4}


def test_a_killed_prepare_goes_on(tmp_path, frame, monkeypatch):
    def crash(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(antm2c, "write", crash)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path, frame)
    monkeypatch.setattr(antm2c_raw, "copy_checked", lambda *_: pytest.fail("read again"))
    made = prepare(tmp_path, frame)
    assert sum(made.rows.values()) == len(frame) and not list(made.folder.glob("rows*"))


def test_the_tracked_schema_is_the_draft(tmp_path):
    tracked = ROOT / "tf_data" / "antm2c" / "schema.json"
    drafts.save(antm2c.draft_schema(), tmp_path / "schema.json")
    assert tracked.read_bytes() == (tmp_path / "schema.json").read_bytes()


def test_times_of_other_forms(tmp_path, frame):
    expected = pd.to_datetime(expected_of(frame, "test")["log_time"])
    times = expected.astype("datetime64[s]").astype(np.int64).tolist()
    compact = frame.assign(log_time=frame["log_time"].str.replace(r"\D", "", regex=True))
    made = prepare(tmp_path, compact, time_format="%Y%m%d%H%M%S")
    assert stored(made.folder, "test")["time"].tolist() == times
    assert prepare(tmp_path, compact, time_format="%Y%m%d%H%M%S").reused
    with pytest.raises(ValueError, match="row 2, column 'log_time': expected a time of the form"):
        prepare(tmp_path, frame, time_format="%Y%m%d")


@pytest.mark.parametrize(
    "column, value, message",
    [
        ("log_time", "yesterday", "expected a time such as .*`value='yesterday'`"),
        ("log_time", "", "expected a time such as"),
        ("log_time", "2023-07-09 10:00:00+08:00", "expected a time such as"),
        ("label", "2", "expected 0 or 1. Received: `value='2'`"),
        ("label", "", "expected 0 or 1"),
        ("user_id", "null", "expected a value"),
        ("item_id", "", "expected a value"),
        ("scene", "", "expected a value"),
        ("true_probability", "1.5", "expected a probability"),
        ("true_probability", "x", "expected a probability"),
    ],
)
def test_a_bad_value_is_named_and_nothing_is_lost(tmp_path, frame, made, column, value, message):
    bad = frame.assign(true_probability="0.5")
    bad.loc[40, column] = value
    bad.to_csv(tmp_path / "raw.csv", index=False)
    before = (made.folder / "prepared.json").read_bytes()
    with pytest.raises(ValueError, match=rf"raw\.csv, row 42, column '{column}': {message}"):
        antm2c.prepare(made.folder, tmp_path / "raw.csv", report=quiet)
    assert (made.folder / "prepared.json").read_bytes() == before
    Manifest.load(made.folder / "test").verify(made.folder / "test")


def test_scenes_that_there_may_not_be(tmp_path, frame):
    with pytest.raises(ValueError, match=r"row 2, column 'scene': expected one of A, B. .*'E'"):
        prepare(tmp_path, frame, scenes=["A", "B"])
    row = expected_of(frame, "test").index[3]
    bad = frame.copy()
    bad.loc[row, "scene"] = "Z"
    with pytest.raises(
        ValueError, match=rf"raw\.csv, row {row + 2}, column 'scene': a row of the test .*'Z'"
    ):
        prepare(tmp_path, bad)


def test_bad_files(tmp_path, frame):
    with pytest.raises(ValueError, match="missing column 'scene'.*raw|raw.*missing column 'scene'"):
        prepare(tmp_path, frame.drop(columns="scene"))
    with pytest.raises(ValueError, match="At least 3 days.*`days=.*2023-07-09"):
        prepare(tmp_path, frame[frame["log_time"] < "2023-07-11"])
    with pytest.raises(ValueError, match="no rows.*raw.csv"):
        prepare(tmp_path, frame[:0])
    raw = tmp_path / "raw.csv"
    text = frame.to_csv(index=False)
    raw.write_text(text + "1,2\n")
    with pytest.raises(ValueError, match=r"raw\.csv, row 62: expected 35 columns.*`columns=2`"):
        antm2c.prepare(tmp_path / "out", raw, report=quiet)
    raw.write_bytes(text.encode().replace("咖".encode(), b"\xff", 1))
    with pytest.raises(ValueError, match=r"raw\.csv, row \d+, column '\w+': expected text in UTF"):
        antm2c.prepare(tmp_path / "out", raw, report=quiet)
    raw.write_text("")
    with pytest.raises(ValueError, match="The file is empty.*raw.csv"):
        antm2c.prepare(tmp_path / "out", raw, report=quiet)
    packed = tmp_path / "cut.csv.gz"
    packed.write_bytes(gzip.compress(text.encode())[:-40])
    with pytest.raises(ValueError, match="cut.csv.gz cannot be read"):
        antm2c.prepare(tmp_path / "out", packed, report=quiet)
    for given in (tmp_path / "none", tmp_path / "none.csv", [raw, raw], []):
        with pytest.raises(ValueError, match="`raw="):
            antm2c.prepare(tmp_path / "out", given, report=quiet)
    assert not (tmp_path / "out").exists()


def test_bad_arguments(tmp_path, frame):
    for options, message in (
        ({"scenes": "A"}, "`scenes='A'`"),
        ({"scenes": []}, "`scenes="),
        ({"valid_share": 0}, "`valid_share=0`"),
        ({"text_buckets": 0}, "`buckets=0`"),
    ):
        with pytest.raises(ValueError, match=message):
            prepare(tmp_path, frame, **options)


def test_batches_beyond_the_first(tmp_path, frame, monkeypatch):
    monkeypatch.setattr(antm2c_raw, "_BLOCK_BYTES", 1 << 10)
    bad = frame.replace("two\nlines", "two lines")
    bad.loc[55, "label"] = "x"
    with pytest.raises(ValueError, match="row 57, column 'label'"):
        prepare(tmp_path, bad)
    frame.to_csv(tmp_path / "raw.csv", index=False)
    copied = antm2c_raw.copy_checked(
        [tmp_path / "raw.csv"] * 2, tmp_path / "rows.parquet", [], None, None, quiet
    )
    table = pd.read_parquet(tmp_path / "rows.parquet")
    assert copied == len(table) == 2 * len(frame)
    assert table["item_id"].tolist() == frame["item_id"].tolist() * 2
    assert table[antm2c_raw.FILE_ROW].tolist() == [*range(2, len(frame) + 2)] * 2
    assert table["__row__"].tolist() == list(range(len(table)))
