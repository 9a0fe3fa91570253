import pathlib
import shutil
import threading

import numpy as np
import pytest

from ctr_keras.data.split import SPLITS
from ctr_keras.data.write import write
from ctr_keras.datasets import prepared
from ctr_keras.datasets.prepared import Prepared
from ctr_keras.schema import Feature, Schema

SCHEMA = Schema((Feature("x", role="context", kind="number"), Feature("label", "label", "number")))


def fill(staging, key, value=1.0, crash_after=None):
    SCHEMA.save(staging)
    for name in SPLITS:
        if not prepared.is_written(staging, name, key):
            rows = {"x": np.full(3, value), "label": np.ones(3)}
            write(staging / name, SCHEMA, rows, metadata={"key": key})
        if name == crash_after:
            raise KeyboardInterrupt
    for name in (prepared.ITEMS_FILE, prepared.USERS_FILE):
        (staging / name).write_bytes(b"table")
    shares = dict.fromkeys(SPLITS, 0.0)
    result = Prepared("out", "here", dict.fromkeys(SPLITS, 3), shares, shares, shares)
    prepared.finish(staging, key, result)


def make(out, key, **options):
    with prepared.replacing(out, key) as staging:
        fill(staging, key, **options)


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_the_folder_appears_whole_and_is_then_up_to_date(tmp_path):
    out = tmp_path / "deep" / "data"
    assert prepared.up_to_date(out, "k") is None
    make(out, "k")
    found = prepared.up_to_date(out, "k")
    assert found.reused and found.folder == out and found.rows["train"] == 3
    assert "3 rows" in found.to_text() and found.to_dict()["origin"] == "here"
    assert prepared.up_to_date(out, "other") is None
    assert names(tmp_path / "deep") == {"data"}
    assert not (out / ".key").exists()


@pytest.mark.parametrize("victim", ["schema.json", "items.parquet", "train/manifest.json"])
def test_what_is_damaged_is_not_up_to_date(tmp_path, victim):
    make(tmp_path / "data", "k")
    (tmp_path / "data" / victim).write_text("{}")
    assert prepared.up_to_date(tmp_path / "data", "k") is None
    shard = next((tmp_path / "data" / "test").glob("*.tfrecord"))
    shard.unlink()
    assert prepared.up_to_date(tmp_path / "data", "k") is None


@pytest.mark.parametrize("atomic", [True, False])
def test_old_data_stays_until_the_new_is_whole(tmp_path, monkeypatch, atomic):
    if not atomic:
        not_atomic(monkeypatch)
    out = tmp_path / "data"
    make(out, "old")
    (out / "notes.txt").write_text("mine")
    (out / "index").mkdir()
    (out / "index" / "a").write_text("also mine")
    with pytest.raises(KeyboardInterrupt):
        make(out, "new", value=2.0, crash_after="valid")
    assert prepared.up_to_date(out, "old")
    make(out, "new", value=2.0)
    assert prepared.up_to_date(out, "new")
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "index" / "a").read_text() == "also mine"
    assert names(tmp_path) == {"data"}


def not_atomic(monkeypatch):
    monkeypatch.setattr(prepared, "_swap", lambda *_: False)


def mounted(monkeypatch):
    monkeypatch.setattr(prepared, "_is_mounted", pathlib.Path.exists)


def kill_after(monkeypatch, moves):
    """Stop the exchange of the folders after so many pieces."""
    move, left = prepared._move, iter(range(moves))

    def move_or_die(*piece):
        if next(left, None) is None:
            raise KeyboardInterrupt
        move(*piece)

    monkeypatch.setattr(prepared, "_move", move_or_die)


@pytest.mark.parametrize("place", [not_atomic, mounted])
@pytest.mark.parametrize("moves", [0, 1, 2, 5, 8, 11, 14, 16])
def test_a_kill_in_the_exchange_of_pieces(tmp_path, monkeypatch, place, moves):
    place(monkeypatch)
    out = tmp_path / "data"
    make(out, "old")
    (out / "notes.txt").write_text("mine")
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        kill_after(context, moves)
        make(out, "new", value=2.0)
    assert prepared.up_to_date(out, "new") is None
    assert (prepared.up_to_date(out, "old") is None) == (moves > 0)
    # The old data are there again as soon as someone prepares there.
    with pytest.raises(KeyboardInterrupt), prepared.replacing(out, "new") as staging:
        assert prepared.up_to_date(out, "old") and prepared.is_written(staging, "train", "new")
        raise KeyboardInterrupt
    shards = {path.name for path in (staging / "train").glob("*.tfrecord")}
    make(out, "new", value=2.0)
    assert prepared.up_to_date(out, "new") and shards <= names(out / "train")
    assert (out / "notes.txt").read_text() == "mine" and names(tmp_path) == {"data"}
    assert not [name for name in names(out) if name.startswith(".")]


def test_a_kill_while_the_users_own_files_are_carried_over(tmp_path, monkeypatch):
    out, link = tmp_path / "data", prepared._link
    make(out, "old")
    (out / "index").mkdir()
    for name in ("a", "b"):
        (out / "index" / name).write_text("before")
    left = iter([1])

    def link_or_die(source, target):
        if next(left, None) is None:
            raise KeyboardInterrupt
        link(source, target)

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(prepared, "_link", link_or_die)
        make(out, "new", value=2.0)
    for name in ("a", "b"):
        (out / "index" / name).unlink()  # Else a hard link would change with it.
        (out / "index" / name).write_text("after")
    make(out, "new", value=2.0)
    assert prepared.up_to_date(out, "new")
    assert [(out / "index" / name).read_text() for name in ("a", "b")] == ["after", "after"]


def test_what_was_there_before_a_kill_outlives_other_settings(tmp_path, monkeypatch):
    not_atomic(monkeypatch)
    make(tmp_path / "data", "old")
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        kill_after(context, 9)
        make(tmp_path / "data", "new")
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "data", "third", crash_after="train")
    assert prepared.up_to_date(tmp_path / "data", "old")


def test_splits_of_other_settings_are_not_up_to_date(tmp_path):
    make(tmp_path / "old", "old")
    make(tmp_path / "data", "new")
    shutil.rmtree(tmp_path / "data" / "train")
    shutil.copytree(tmp_path / "old" / "train", tmp_path / "data" / "train")
    assert prepared.up_to_date(tmp_path / "data", "new") is None


def test_a_mount_point_is_prepared_within(tmp_path, monkeypatch):
    """As a volume of Docker, into which nothing can be renamed from beside it."""
    mounted(monkeypatch)
    out = tmp_path / "data"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    make(out, "old")
    with pytest.raises(KeyboardInterrupt):
        make(out, "new", value=2.0, crash_after="train")
    assert names(tmp_path) == {"data"} and prepared.up_to_date(out, "old")
    shard = next((out / ".preparing" / "train").glob("*.tfrecord"))
    make(out, "new", value=2.0)
    assert prepared.up_to_date(out, "new") and (out / "train" / shard.name).exists()
    assert (out / "notes.txt").read_text() == "mine"


def test_a_killed_prepare_goes_on_where_it_stopped(tmp_path):
    out = tmp_path / "data"
    with pytest.raises(KeyboardInterrupt):
        make(out, "k", crash_after="train")
    shard = next((tmp_path / ".data.preparing" / "train").glob("*.tfrecord"))
    make(out, "k")
    assert (out / "train" / shard.name).exists()


def test_work_of_another_key_is_dropped(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "data", "k", crash_after="train")
    (tmp_path / ".data.preparing" / "stale").touch()
    make(tmp_path / "data", "other")
    assert not (tmp_path / "data" / "stale").exists()


def test_two_at_once_and_files_in_the_way(tmp_path):
    started, done = threading.Event(), threading.Event()

    def hold():
        with prepared.replacing(tmp_path / "data", "k") as staging:
            started.set()
            done.wait(10)
            fill(staging, "k")

    thread = threading.Thread(target=hold)
    thread.start()
    started.wait(10)
    with pytest.raises(ValueError, match="Another process is preparing there"):
        make(tmp_path / "data", "k")
    done.set()
    thread.join()
    assert prepared.up_to_date(tmp_path / "data", "k")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="`out` must be a folder"):
        make(tmp_path / "file", "k")


def test_what_is_read_is_not_replaced(tmp_path):
    out = tmp_path / "data"
    for lost in (".", "train", "train/rows.csv", "items.parquet", "pictures/more"):
        with pytest.raises(ValueError, match="choose another `out`. Received: `out=.*`raw="):
            prepared.check_kept(out, ("pictures",), raw=out / "../data" / lost)
    for kept in ("rows.csv", "raw", "..", "../train", "photos"):
        prepared.check_kept(out, ("pictures",), raw=out / kept)
