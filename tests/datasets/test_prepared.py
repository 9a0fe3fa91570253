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
        monkeypatch.setattr(prepared, "_swap", lambda *_: False)
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
