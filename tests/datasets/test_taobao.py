import json
import pathlib
import sys

import pandas as pd
import pytest

from ctr_keras import cli, data
from ctr_keras.data.split import SPLITS
from ctr_keras.datasets import drafts, simulator, taobao, taobao_raw, taobao_rows
from ctr_keras.schema import Schema
from tests.datasets.test_movielens import stored

ROOT = pathlib.Path(__file__).parents[2]
# User 1 has five clicks: 12 and 11 at the same time, in the order of lines. User 2 has four, not
# sorted in the file. User 3 has three clicks and a purchase.
TINY = """\
1,14,1,pv,400
1,10,1,pv,100
1,12,1,pv,200
1,11,2,pv,200
1,99,9,buy,150
2,12,1,pv,90
2,10,1,pv,80
2,11,2,pv,100
2,15,3,pv,70
1,13,2,pv,300
3,16,1,pv,1
3,17,1,pv,2
3,18,1,pv,3
3,18,1,buy,4
"""
CATEGORY = {10: 1, 11: 2, 12: 1, 13: 2, 14: 1, 15: 3, 16: 1, 17: 1, 18: 1}


def quiet(_):
    pass


@pytest.fixture
def tiny(tmp_path):
    """A function that prepares `TINY`, or other lines, and gives the rows of each split."""

    def prepare(text=TINY, **options):
        (tmp_path / "raw.csv").write_text(text)
        options = {"min_clicks": 4, "history_length": 3, "report": quiet, **options}
        made = taobao.prepare(tmp_path / "out", tmp_path / "raw.csv", **options)
        return made, {name: stored(made.folder, name) for name in SPLITS}

    return prepare


def positives(rows):
    """`(user, item, time, history)` of the rows with label 1."""
    found = rows[rows["label"] == 1]
    return [(r.user_id, r.item_id, r.time, r.history_item_id) for r in found.itertuples()]


def test_the_last_clicks_of_a_user_are_the_targets(tiny):
    made, rows = tiny()
    # What user 1 clicked at 200 besides 11 is not in the history of 11: it is no older.
    assert positives(rows["train"]) == [(1, 11, 200, [10]), (2, 10, 80, [15])]
    assert positives(rows["valid"]) == [(1, 13, 300, [10, 12, 11]), (2, 12, 90, [15, 10])]
    assert positives(rows["test"]) == [(1, 14, 400, [12, 11, 13]), (2, 11, 100, [15, 10, 12])]
    for frame in rows.values():
        for row in frame.itertuples():
            assert row.category_id == CATEGORY[row.item_id]
            assert row.history_category_id == [CATEGORY[item] for item in row.history_item_id]
            assert row.group_user_id == row.user_id
    assert made.rows == dict.fromkeys(SPLITS, 4)
    assert made.click_rate == dict.fromkeys(SPLITS, 0.5)


def test_each_positive_is_followed_by_its_negatives(tiny):
    made, rows = tiny(negatives=3)
    assert made.click_rate["test"] == 0.25
    for frame in rows.values():
        assert frame["label"].tolist() == [1, 0, 0, 0] * 2
        for first in (0, 4):
            group = frame.iloc[first : first + 4]
            for name in ("user_id", "time"):
                assert group[name].nunique() == 1
            assert all(past == group["history_item_id"].iloc[0] for past in group.history_item_id)
            assert group["item_id"].iloc[0] not in group["item_id"].iloc[1:].tolist()
            # Items of users that were left out do not exist.
            assert set(group["item_id"]) <= {10, 11, 12, 13, 14, 15}


def test_more_training_targets(tiny):
    _, rows = tiny(train_targets=3)
    # The first click of a user has no history and is no target.
    assert positives(rows["train"]) == [(1, 12, 200, [10]), (1, 11, 200, [10]), (2, 10, 80, [15])]
    _, more = tiny(train_targets=99)
    assert positives(more["train"]) == positives(rows["train"])


def test_vocabularies_hold_what_training_rows_hold(tiny):
    made, rows = tiny()
    schema = Schema.load(made.folder)
    train = rows["train"]
    items = train["item_id"].tolist() + train["history_item_id"].explode().tolist()
    expected = sorted(set(items), key=lambda item: (-items.count(item), item))
    lines = pathlib.Path(schema["item_id"].vocabulary.file).read_text().split()
    assert lines == [str(item) for item in expected]
    assert pathlib.Path(schema["user_id"].vocabulary.file).read_text().split() == ["1", "2"]
    unseen = (~rows["test"]["item_id"].isin(expected)).mean()
    assert made.unseen_items["test"] == pytest.approx(unseen)
    assert made.unseen_users == dict.fromkeys(SPLITS, 0.0)


def test_entity_tables_tell_the_end_of_the_data(tiny):
    made, _ = tiny()
    users = pd.read_parquet(made.folder / "users.parquet")
    assert users["user_id"].tolist() == [1, 2]
    assert [list(h) for h in users["history_item_id"]] == [[11, 13, 14], [10, 12, 11]]
    assert [list(h) for h in users["history_category_id"]] == [[2, 2, 1], [1, 1, 2]]
    items = pd.read_parquet(made.folder / "items.parquet")
    assert dict(items.to_numpy().tolist()) == {i: CATEGORY[i] for i in (10, 11, 12, 13, 14, 15)}


def test_behaviours_and_period_choose_the_clicks(tiny):
    _, rows = tiny(behaviours=("pv", "buy"))
    # With its purchases user 3 has four clicks.
    assert positives(rows["test"])[2] == (3, 18, 4, [16, 17, 18])
    assert positives(rows["train"])[0] == (1, 11, 200, [10, 99])
    _, rows = tiny(text=f"{TINY}1,14,1,pv,-5\n2,14,1,pv,5000\n", period=(0, 1000))
    assert positives(rows["test"])[1] == (2, 11, 100, [15, 10, 12])


def test_an_item_of_several_categories_has_one(tiny):
    lines = []
    _, rows = tiny(text=TINY.replace("2,11,2,pv", "2,11,1,pv"), report=lines.append)
    assert "1 items have several categories; the smallest is used" in lines
    frame = pd.concat(rows.values())
    assert set(frame[frame["item_id"] == 11]["category_id"]) == {1}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A simulated file and its clicks, those of each user sorted."""
    path = tmp_path_factory.mktemp("raw") / "UserBehavior.csv"
    world = simulator.WorldConfig(users=300, items=200, categories=10, seed=1)
    simulator.taobao.write(path, world, mean_clicks=18.0, report=quiet)
    names = ["user", "item", "category", "behaviour", "time"]
    lines = pd.read_csv(path, header=None, names=names)
    clicks = lines[lines["behaviour"] == "pv"].sort_values(["user", "time"], kind="stable")
    return path, {user: table for user, table in clicks.groupby("user") if len(table) >= 10}


def expected_rows(table, from_end, length):
    """User, item, time and history of the click that is `from_end` from the last."""
    if from_end >= len(table):
        return []
    row = table.iloc[-1 - from_end]
    past = table[table["time"] < row["time"]]
    if past.empty:
        return []
    return [(row["user"], row["item"], row["time"], past["item"].tolist()[-length:])]


def test_every_row_follows_from_the_file(raw, tmp_path):
    path, clicks = raw
    made = taobao.prepare(tmp_path / "out", path, history_length=7, train_targets=3, report=quiet)
    ages = {"train": (4, 3, 2), "valid": (1,), "test": (0,)}
    for name in SPLITS:
        found = positives(stored(made.folder, name))
        expected = [
            row
            for table in clicks.values()
            for age in ages[name]
            for row in expected_rows(table, age, 7)
        ]
        assert found == expected and len(found) > 200


def test_users_are_held_out(raw, tmp_path):
    path, clicks = raw
    options = {"split": "users", "fractions": (0.6, 0.2, 0.2), "report": quiet}
    made = taobao.prepare(tmp_path / "out", path, seed=4, **options)
    users = {}
    for name in SPLITS:
        rows = stored(made.folder, name)
        users[name] = set(rows["user_id"])
        expected = [
            row for user in sorted(users[name]) for row in expected_rows(clicks[user], 0, 100)
        ]
        assert positives(rows) == expected
    assert sum(map(len, users.values())) == len(set().union(*users.values())) == len(clicks)
    assert len(users["train"]) == pytest.approx(0.6 * len(clicks), rel=0.15)
    assert made.unseen_users == {"train": 0.0, "valid": 1.0, "test": 1.0}
    other = taobao.prepare(tmp_path / "other", path, seed=5, **options)
    assert set(stored(other.folder, "test")["user_id"]) != users["test"]


def contents(folder):
    return {
        name: [shard.content for shard in data.Manifest.load(folder / name).shards]
        for name in SPLITS
    }


def test_the_same_rows_whatever_the_chunks(raw, tmp_path, monkeypatch):
    path, _ = raw
    options = {"history_length": 20, "train_targets": 2, "report": quiet}
    made = taobao.prepare(tmp_path / "out", path, **options)
    assert taobao.prepare(tmp_path / "out", path, **options).reused
    # Batches smaller than what a user clicks.
    monkeypatch.setattr(taobao_rows, "_BATCH_CLICKS", 7)
    monkeypatch.setattr(taobao_rows, "_TARGETS_A_CHUNK", 3)
    monkeypatch.setattr(taobao_raw, "_BLOCK_BYTES", 1 << 12)
    again = taobao.prepare(tmp_path / "again", path, **options)
    assert contents(again.folder) == contents(made.folder)
    for name in ("items.parquet", "users.parquet"):
        tables = [pd.read_parquet(folder / name) for folder in (made.folder, again.folder)]
        pd.testing.assert_frame_equal(*tables)
    other = taobao.prepare(tmp_path / "other", path, **options, seed=1)
    assert contents(other.folder) != contents(made.folder)
    assert data.describe(made.folder)


def test_a_killed_prepare_goes_on(raw, tmp_path, monkeypatch):
    path, _ = raw

    def crash(folder, *arguments, **options):
        if folder.name == "valid":
            raise KeyboardInterrupt
        return data.write(folder, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(taobao, "write", crash)
        with pytest.raises(KeyboardInterrupt):
            taobao.prepare(tmp_path / "out", path, report=quiet)
    shard = next((tmp_path / ".out.preparing" / "train").glob("*.tfrecord"))
    monkeypatch.setattr(taobao_raw, "copy_checked", lambda *_: pytest.fail("read again"))
    made = taobao.prepare(tmp_path / "out", path, report=quiet)
    assert (made.folder / "train" / shard.name).exists()
    assert not (made.folder / "clicks").exists()


def test_a_batch_is_what_models_take(raw, tmp_path):
    made = taobao.prepare(tmp_path / "out", raw[0], history_length=6, report=quiet)
    features, label = next(iter(data.read(made.folder / "train", batch_size=64, shuffle=True)))
    assert features["history_item_id"].shape == (64, 6) and label.shape == (64,)
    assert (features["item_id"].numpy() > 1).all()


def test_the_tracked_schema_is_the_draft(tmp_path):
    tracked = ROOT / "tf_data" / "taobao" / "schema.json"
    drafts.save(taobao.draft_schema(), tmp_path / "schema.json")
    assert tracked.read_bytes() == (tmp_path / "schema.json").read_bytes()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"split": "time"}, "`split` must be one of last, users"),
        ({"negative_sampling": "hard"}, "`negative_sampling='hard'`"),
        ({"train_targets": 0}, "`train_targets=0`"),
        ({"history_length": 1.5}, "`history_length=1.5`"),
        ({"negatives": 0}, "`negatives=0`"),
        ({"min_clicks": 3}, "`min_clicks` must be an integer of at least 4"),
        ({"behaviours": ("click",)}, "`behaviours` must be some of pv"),
        ({"behaviours": ()}, "`behaviours` must be some of pv"),
        ({"period": (5, 5)}, "`period` must be a first time and a later one"),
        ({"seed": -1}, "`seed=-1`"),
        ({"fractions": (0.5, 0.6)}, "`fractions`"),
        ({"min_clicks": 10}, "no user has so many clicks.*`min_clicks=10`"),
        ({"period": (10_000, 20_000)}, "no user has so many clicks.*10000"),
    ],
)
def test_bad_arguments(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_files_that_give_no_rows(tiny):
    same_time = "".join(f"1,{item},1,pv,7\n" for item in range(6))
    with pytest.raises(ValueError, match="train split would be empty"):
        tiny(text=same_time)
    with pytest.raises(ValueError, match="all clicks are of one item"):
        tiny(text="".join(f"1,5,1,pv,{time}\n" for time in range(6)))
    with pytest.raises(ValueError, match="valid split would be empty"):
        tiny(split="users", fractions=(0.98, 0.01, 0.01))


def test_the_command(raw, tmp_path, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["ctr-keras", "prepare", "taobao", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, *capsys.readouterr()

    command = ["--raw", raw[0], "--out", tmp_path / "out"]
    status, out, err = run(*command, "--json", "--train-targets", 2, "--behaviour", "pv")
    assert status == 0 and json.loads(out)["rows"]["test"] > 0 and "test:" in err
    times = ["--since", 0, "--until", 2_000_000_000]
    assert run(*command, *times)[0] == 0
    assert run(*command, "--since", 0)[0] == 2
    status, _, err = run("--raw", tmp_path / "absent.csv", "--out", tmp_path / "out")
    assert status == 1 and "absent.csv" in err
