import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import ctr_keras as ck
from ctr_keras.columns import canonical
from ctr_keras.encoding import FeatureEncoder, hash_ids


def collect(dataset):
    """All batches as one: `(features, label)` of NumPy arrays."""
    batches = list(dataset.as_numpy_iterator())
    features = {name: np.concatenate([x[name] for x, _ in batches]) for name in batches[0][0]}
    return features, np.concatenate([y for _, y in batches])


def ids_in_order(path, schema, **kwargs):
    return collect(ck.data.read(path, schema, **kwargs))[0]["id"].tolist()


@pytest.fixture(scope="module")
def numbered_schema():
    return ck.Schema(
        [
            ck.Feature("id", "item", vocabulary=ck.Vocabulary.of_size(10_000)),
            ck.Feature("label", "label", kind="number"),
        ]
    )


@pytest.fixture(scope="module")
def numbered(tmp_path_factory, numbered_schema):
    """Rows 0 to 999, eight shards of blocks of 16."""
    folder = tmp_path_factory.mktemp("numbered")
    rows = {"id": np.arange(1000), "label": np.arange(1000) % 2}
    ck.data.write(folder, numbered_schema, rows, rows_per_shard=128, block_rows=16)
    return folder


@pytest.mark.parametrize("layout", ["block", "row"])
def test_what_is_written_is_read(small_schema, small_rows, tmp_path, layout):
    manifest = ck.data.write(
        tmp_path, small_schema, small_rows, layout=layout, rows_per_shard=256, block_rows=64
    )
    assert manifest.rows == 600 and len(manifest.shards) == 3
    features, label = collect(ck.data.read(tmp_path, small_schema, batch_size=100))
    columns = canonical(small_schema, small_rows)
    raw = {
        name: tf.RaggedTensor.from_row_lengths(column.values, column.lengths)
        if isinstance(column, ck.data.Ragged)
        else tf.constant(column)
        for name, column in columns.items()
    }
    expected = {name: value.numpy() for name, value in FeatureEncoder(small_schema)(raw).items()}
    np.testing.assert_array_equal(label, expected["label"])
    assert set(features) == {f.name for f in small_schema} - {"label", "time"}
    for name, values in features.items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


@pytest.mark.parametrize("layout", ["block", "row"])
def test_texts_keep_zeros_at_their_end(tmp_path, layout):
    schema = ck.Schema(
        [
            ck.Feature("x", "item", dtype="string", vocabulary=ck.Vocabulary.hashing(10**6)),
            ck.Feature("label", "label", kind="number"),
        ]
    )
    texts = ["a\0", "a", "\0"]
    ck.data.write(tmp_path, schema, {"x": texts, "label": [0, 1, 0]}, layout=layout)
    features, _ = collect(ck.data.read(tmp_path, schema))
    assert features["x"].tolist() == hash_ids(tf.constant(texts), 10**6).numpy().tolist()


def test_shapes_are_known_to_the_model(small_schema, small_data):
    features, label = ck.data.read(small_data, small_schema, batch_size=100).element_spec
    assert label.shape.as_list() == [None] and label.dtype == tf.float32
    assert features["history_item_id"].shape.as_list() == [None, 7]
    assert features["title"].shape.as_list() == [None, 4]
    assert features["item_vector"].shape.as_list() == [None, 5]
    assert features["user_id"].shape.as_list() == [None]


def test_chunks_of_any_size_write_the_same_bytes(numbered_schema, tmp_path):
    rows = {"id": np.arange(100), "label": np.arange(100) % 2}
    pieces = [{name: x[a:b] for name, x in rows.items()} for a, b in ((0, 7), (7, 60), (60, 100))]
    digests = []
    for name, source in (("whole", rows), ("pieces", iter(pieces))):
        manifest = ck.data.write(
            tmp_path / name, numbered_schema, source, rows_per_shard=32, block_rows=16
        )
        digests.append([shard.sha256 for shard in manifest.shards])
    assert digests[0] == digests[1]


def test_lists_of_one_length_are_ragged_in_chunks_of_any_size(tmp_path):
    item = ck.Feature("i", "item", vocabulary=ck.Vocabulary.hashing(9))
    history = ck.Feature("h", "history", length=3, shares="i")
    schema = ck.Schema([item, history])
    rows = {"i": [1, 2, 3, 4], "h": [[5, -1], [-1, 6], [7, 8], [-1, -1]]}

    def pieces(size):
        for start in range(0, 4, size):
            yield {name: column[start : start + size] for name, column in rows.items()}

    sources = {str(size): pieces(size) for size in (1, 2, 4)} | {"frame": pd.DataFrame(rows)}
    digests = {ck.data.write(tmp_path / k, schema, rows).digest for k, rows in sources.items()}
    assert len(digests) == 1


def test_order_without_shuffle(numbered, numbered_schema):
    assert ids_in_order(numbered, numbered_schema, batch_size=64) == list(range(1000))


def test_shuffle_mixes_and_loses_nothing(numbered, numbered_schema):
    order = ids_in_order(numbered, numbered_schema, batch_size=64, shuffle=True, seed=1)
    assert sorted(order) == list(range(1000))
    # Neighbours in a random order of n are n/3 apart on average.
    assert np.abs(np.diff(order)).mean() > 250


def test_shuffle_window_smaller_than_the_data(numbered, numbered_schema):
    order = ids_in_order(
        numbered, numbered_schema, batch_size=20, shuffle=True, seed=1, shuffle_rows=60
    )
    assert sorted(order) == list(range(1000))


def test_seed_and_epoch_decide_the_order(numbered, numbered_schema):
    def order(**kwargs):
        return ids_in_order(numbered, numbered_schema, batch_size=64, shuffle=True, **kwargs)

    assert order(seed=1) == order(seed=1)
    assert order(seed=1) != order(seed=2)
    dataset = ck.data.read(numbered, numbered_schema, 64, shuffle=True, seed=1)
    epochs = [collect(dataset)[0]["id"].tolist() for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[2] == order(seed=1, epoch=2)


@pytest.mark.parametrize("global_seed", [0, 3])
def test_global_seed_does_not_matter(numbered, numbered_schema, global_seed):
    options = {"batch_size": 64, "shuffle": True, "seed": 1, "shuffle_rows": 128}
    expected = ids_in_order(numbered, numbered_schema, **options)
    ck.set_seed(global_seed)
    assert ids_in_order(numbered, numbered_schema, **options) == expected


@pytest.mark.parametrize("count", [1, 3, 8, 11])
@pytest.mark.parametrize("shuffle", [False, True])
def test_workers_share_the_rows(numbered, numbered_schema, count, shuffle):
    parts = [
        ids_in_order(
            numbered, numbered_schema, batch_size=50, shuffle=shuffle, shard=(index, count)
        )
        for index in range(count)
    ]
    assert sorted(sum(parts, [])) == list(range(1000))
    assert all(parts)


@pytest.mark.parametrize(("layout", "sizes"), [("block", [36] * 4 + [6]), ("row", [40] * 3 + [30])])
def test_files_of_few_rows(numbered_schema, tmp_path, layout, sizes):
    options = {"layout": layout, "rows_per_shard": 40, "block_rows": 12}
    manifest = ck.data.write(tmp_path, numbered_schema, numbered_chunks(150), **options)
    assert [shard.rows for shard in manifest.shards] == sizes
    # A file of less than a block is a smaller block.
    manifest = ck.data.write(tmp_path, numbered_schema, numbered_chunks(150), layout=layout,
                             rows_per_shard=100)  # fmt: skip
    assert [shard.rows for shard in manifest.shards] == [100, 50]
    parts = [len(ids_in_order(tmp_path, numbered_schema, shard=(n, 2))) for n in range(2)]
    assert parts == [100, 50]


def test_more_workers_than_records(numbered_schema, tmp_path):
    ck.data.write(tmp_path, numbered_schema, numbered_chunks(150), block_rows=60)
    assert len(ids_in_order(tmp_path, numbered_schema, shard=(2, 3))) == 30
    for index in range(4):
        with pytest.raises(ValueError, match="3 records in 1 files.*`rows_per_shard` or `block_r"):
            ck.data.read(tmp_path, numbered_schema, shard=(index, 4))


def test_last_batch(numbered, numbered_schema):
    kept = ck.data.read(numbered, numbered_schema, batch_size=300)
    dropped = ck.data.read(numbered, numbered_schema, batch_size=300, drop_remainder=True)
    assert [len(y) for _, y in kept] == [300, 300, 300, 100] and len(kept) == 4
    assert [len(y) for _, y in dropped] == [300, 300, 300] and len(dropped) == 3


def test_schema_is_found_beside_the_data(small_schema, small_rows, tmp_path):
    ck.data.write(tmp_path / "train", small_schema, small_rows)
    with pytest.raises(ValueError, match="pass `schema`"):
        ck.data.read(tmp_path / "train")
    small_schema.save(tmp_path)
    assert len(collect(ck.data.read(tmp_path / "train"))[1]) == 600


def test_history_limit_of_the_reader(small_schema, small_rows, tmp_path):
    ck.data.write(tmp_path, small_schema, small_rows)
    config = small_schema.to_dict()
    history = next(f for f in config["features"] if f["name"] == "history_item_id")
    history["length"] = 2
    small_schema.save(tmp_path)
    shorter = ck.Schema.from_dict(config, tmp_path)
    long, _ = collect(ck.data.read(tmp_path, small_schema))
    short, _ = collect(ck.data.read(tmp_path, shorter))
    for row_long, row_short in zip(long["history_item_id"], short["history_item_id"], strict=True):
        newest = row_long[row_long != 0][-2:]
        np.testing.assert_array_equal(row_short[: len(newest)], newest)


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"epoch": -1}, "epoch=-1"),
        ({"shuffle_rows": 0}, "shuffle_rows=0"),
        ({"shard": (3, 3)}, r"shard=\(3, 3\)"),
    ],
)
def test_bad_read_arguments(numbered, numbered_schema, kwargs, message):
    with pytest.raises(ValueError, match=message):
        ck.data.read(numbered, numbered_schema, **kwargs)


def test_bad_write_arguments(numbered_schema, tmp_path):
    rows = {"id": [1], "label": [1]}
    with pytest.raises(ValueError, match="layout='rows'"):
        ck.data.write(tmp_path, numbered_schema, rows, layout="rows")
    with pytest.raises(ValueError, match="block_rows=0"):
        ck.data.write(tmp_path, numbered_schema, rows, block_rows=0)
    with pytest.raises(ValueError, match="no rows"):
        ck.data.write(tmp_path, numbered_schema, iter([]))
    assert not (tmp_path / "manifest.json").exists()


def test_no_data_set(tmp_path, numbered_schema):
    with pytest.raises(ValueError, match="manifest.json is missing"):
        ck.data.read(tmp_path, numbered_schema)


def test_another_schema_is_refused(numbered, small_schema):
    with pytest.raises(ValueError, match="no column 'user_id'"):
        ck.data.read(numbered, small_schema)
    text = ck.Feature("id", "item", dtype="string", vocabulary=ck.Vocabulary.hashing(5))
    label = ck.Feature("label", "label", kind="number")
    with pytest.raises(ValueError, match="'id'.*dtype='string'"):
        ck.data.read(numbered, ck.Schema([text, label]))
    fewer = ck.Feature("id", "item", vocabulary=ck.Vocabulary.of_size(20))
    with pytest.raises(ValueError, match="another vocabulary"):
        ck.data.read(numbered, ck.Schema([fewer, label]))


@pytest.fixture
def copy(numbered, tmp_path):
    for path in numbered.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path, sorted(tmp_path.glob("part-*"))


def test_missing_shard_is_named(copy, numbered_schema):
    folder, shards = copy
    shards[2].unlink()
    with pytest.raises(ValueError, match=f"{shards[2].name} is missing"):
        ck.data.read(folder, numbered_schema)


def test_flipped_bit_names_shard_and_record(copy, numbered_schema):
    folder, shards = copy
    records = [len(r.numpy()) for r in tf.data.TFRecordDataset(str(shards[1]))]
    content = bytearray(shards[1].read_bytes())
    # A record is framed by 12 bytes before and 4 after; hit the third one's data.
    content[sum(records[:2]) + 2 * 16 + 12 + 5] ^= 1
    shards[1].write_bytes(bytes(content))
    with pytest.raises(ValueError, match=f"{shards[1].name}.*record 3 of 8 is damaged"):
        ck.data.read(folder, numbered_schema)
    # Unchecked, TensorFlow's own checksums still catch it.
    with pytest.raises(tf.errors.DataLossError):
        collect(ck.data.read(folder, numbered_schema, verify=False))


@pytest.mark.parametrize("cut", [1, 500])
def test_truncated_shard_is_named(copy, numbered_schema, cut):
    folder, shards = copy
    shards[0].write_bytes(shards[0].read_bytes()[:-cut])
    with pytest.raises(ValueError, match=f"{shards[0].name}.*record . of 8"):
        ck.data.read(folder, numbered_schema)


def test_exchanged_shards_are_noticed(copy, numbered_schema):
    folder, shards = copy
    first, second = shards[0].read_bytes(), shards[1].read_bytes()
    assert len(first) == len(second)
    shards[0].write_bytes(second)
    with pytest.raises(ValueError, match="checksum differs"):
        ck.data.read(folder, numbered_schema)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(rows=5), "disagrees with itself"),
        (lambda c: c.update(manifest_version=9), "upgrade"),
        (lambda c: c.pop("shards"), "not a manifest"),
        (lambda c: c.pop("rows"), "not a manifest"),
        (lambda c: c.update(manifest_version="1"), "integer `manifest_version`"),
        (lambda c: c.update(layout="columns"), "layout='columns'"),
        (lambda c: c["schema"].update(schema_version=9), "upgrade"),
    ],
)
def test_bad_manifest(copy, numbered_schema, change, message):
    folder, _ = copy
    config = json.loads((folder / "manifest.json").read_text())
    change(config)
    (folder / "manifest.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message) as error:
        ck.data.read(folder, numbered_schema)
    assert "manifest.json" in str(error.value)


# ------------------------------------------------------------------ interrupted writes

ROWS_PER_SHARD = 64


def numbered_chunks(count, bad_row=None, seen=None):
    for start in range(0, count, 50):
        ids = np.arange(start, min(start + 50, count))
        label = ids % 2
        if bad_row is not None:
            label = np.where(ids == bad_row, 7, label)
        yield {"id": ids, "label": label}
        if seen is not None:
            seen.append(start)


def test_old_data_stays_when_a_row_is_bad(copy, numbered_schema):
    folder, _ = copy
    with pytest.raises(ValueError, match="row 430"):
        ck.data.write(
            folder, numbered_schema, numbered_chunks(500, bad_row=430),
            rows_per_shard=ROWS_PER_SHARD, block_rows=16,
        )  # fmt: skip
    assert ids_in_order(folder, numbered_schema) == list(range(1000))


def test_resumed_write_keeps_complete_shards(numbered_schema, tmp_path):
    options = {"rows_per_shard": ROWS_PER_SHARD, "block_rows": 16}
    with pytest.raises(ValueError, match="row 430"):
        ck.data.write(tmp_path, numbered_schema, numbered_chunks(500, bad_row=430), **options)
    complete = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("part-*.tfrecord")}
    assert len(complete) == 6
    manifest = ck.data.write(tmp_path, numbered_schema, numbered_chunks(500), **options)
    after = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("part-*.tfrecord")}
    assert complete.items() <= after.items()
    assert ids_in_order(tmp_path, numbered_schema) == list(range(500))
    assert {shard.file for shard in manifest.shards} == set(after)
    assert not (tmp_path / ".writing.json").exists()


def test_resumed_write_notices_other_rows(numbered_schema, tmp_path):
    options = {"rows_per_shard": ROWS_PER_SHARD, "block_rows": 16}
    with pytest.raises(ValueError, match="row 430"):
        ck.data.write(tmp_path, numbered_schema, numbered_chunks(500, bad_row=430), **options)
    other = ({"id": c["id"] + 1000, "label": c["label"]} for c in numbered_chunks(500))
    ck.data.write(tmp_path, numbered_schema, other, **options)
    assert ids_in_order(tmp_path, numbered_schema) == list(range(1000, 1500))


def test_resume_tells_texts_of_equal_letters_apart(tmp_path):
    schema = ck.Schema(
        [ck.Feature("x", "item", dtype="string", vocabulary=ck.Vocabulary.hashing(9))]
    )
    options = {"rows_per_shard": 2, "block_rows": 2}

    def rows(*texts, fail=False):
        yield {"x": list(texts)}
        if fail:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        ck.data.write(tmp_path, schema, rows("a", "bc", fail=True), **options)
    first = {path.name for path in tmp_path.glob("part-*")}
    manifest = ck.data.write(tmp_path, schema, rows("ab", "c"), **options)
    record = next(iter(tf.data.TFRecordDataset(str(tmp_path / manifest.shards[0].file)))).numpy()
    assert tf.train.Example.FromString(record).features.feature["x"].bytes_list.value == [
        b"ab",
        b"c",
    ]
    assert first


def run_writer(folder, script, **kwargs):
    code = (
        "import sys, time, resource, signal\n"
        "import numpy as np\n"
        "import ctr_keras as ck\n"
        "schema = ck.Schema([ck.Feature('id', 'item', vocabulary=ck.Vocabulary.of_size(10_000)),"
        " ck.Feature('label', 'label', kind='number')])\n"
        f"folder = {str(folder)!r}\n{script}"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=pathlib.Path(__file__).parents[2], env=environment, **kwargs,
    )  # fmt: skip


def complete_shards(folder):
    """The shards that a write in progress would keep."""
    try:
        return json.loads((folder / ".writing.json").read_text())["shards"]
    except FileNotFoundError:
        return {}


def test_kill_while_writing(copy, numbered_schema):
    folder, _ = copy
    process = run_writer(
        folder,
        "def rows():\n"
        "    for start in range(0, 500, 50):\n"
        "        yield {'id': np.arange(start, start + 50), 'label': np.arange(50) % 2}\n"
        "        if start == 250: print('half', flush=True); time.sleep(600)\n"
        "ck.data.write(folder, schema, rows(), rows_per_shard=64, block_rows=16)\n",
    )
    assert process.stdout.readline() == "half\n"
    deadline = time.monotonic() + 60
    while len(complete_shards(folder)) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)  # The last of the four whole shards is written beside the rows.
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert ids_in_order(folder, numbered_schema) == list(range(1000))
    half = {p.name for p in folder.glob("part-*.tfrecord")}
    seen = []
    manifest = ck.data.write(
        folder, numbered_schema, numbered_chunks(500, seen=seen), rows_per_shard=64, block_rows=16
    )
    assert len(half & {shard.file for shard in manifest.shards}) == 4
    assert ids_in_order(folder, numbered_schema) == list(range(500))
    assert {p.name for p in folder.glob("*part*")} == {shard.file for shard in manifest.shards}


def test_full_disk(copy, numbered_schema):
    folder, _ = copy
    # A limit on the size of files stands for a full disk: the kernel refuses the write.
    process = run_writer(
        folder,
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "rows = {'id': np.arange(10_000), 'label': np.arange(10_000) % 2}\n"
        "rows = ({'id': r, 'label': r % 2} for r in np.split(np.arange(10_000), [64]))\n"
        "try:\n"
        "    ck.data.write(folder, schema, ({'id': np.arange(9_000), 'label': np.ones(9_000)}"
        " for _ in range(9)), block_rows=4096)\n"
        "except OSError as error:\n"
        "    print(error)\n",
    )
    message, errors = process.communicate(timeout=120)
    assert "Could not write shard" in message and "free space" in message, errors
    assert ids_in_order(folder, numbered_schema) == list(range(1000))
    assert not list(folder.glob("*.tmp"))


def test_two_writers_do_not_mix(numbered_schema, tmp_path):
    def rows():
        yield {"id": [1], "label": [1]}
        with pytest.raises(ValueError, match="Another process is writing"):
            ck.data.write(tmp_path, numbered_schema, {"id": [2], "label": [1]})
        yield {"id": [3], "label": [1]}

    ck.data.write(tmp_path, numbered_schema, rows())
    assert ids_in_order(tmp_path, numbered_schema) == [1, 3]


# ------------------------------------------------------------------ memory


def test_memory_does_not_grow_with_the_data(tmp_path):
    script = (
        "def rows(n):\n"
        "    for start in range(n):\n"
        "        yield {'id': np.arange(4096), 'label': np.ones(4096)}\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "def stream(n):\n"
        "    ck.data.write(folder, schema, rows(n))\n"
        "    for x, y in ck.data.read(folder, schema, 1024, shuffle=True): pass\n"
        "    return peak()\n"
        "print(stream(100), stream(1500))\n"
    )
    process = run_writer(tmp_path, script)
    output, errors = process.communicate(timeout=300)
    small, large = map(int, output.split())
    # 400 thousand rows, then 6 million (70 MB on disk, ten times that as NumPy int64 lists).
    assert large - small < 60_000, (small, large, errors)
