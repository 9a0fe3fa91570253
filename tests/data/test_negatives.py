import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import ctr_keras as ck
from ctr_keras.data.negatives import row_key
from tests.conftest import make_rows

IDS = ck.Vocabulary.of_size(100_000)
SCHEMA = ck.Schema(
    [
        ck.Feature("user_id", "user", vocabulary=IDS),
        ck.Feature("item_id", "item", vocabulary=ck.Vocabulary.hashing(50), dtype="string"),
        ck.Feature("price", "context", kind="number"),
        ck.Feature("tags", "item", length=3, vocabulary=IDS),
        ck.Feature("label", "label", kind="number"),
    ]
)


def rows(count=20_000, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "user_id": np.arange(count),
        "item_id": [f"i{n}" for n in rng.integers(0, 40, count)],
        "price": rng.normal(size=count).astype(np.float32),
        "tags": ck.data.Ragged(np.arange(2 * count), np.full(count, 2, np.int32)),
        "label": (rng.random(count) < 0.2).astype(np.float32),
    }


def part(table, start, stop):
    return {name: column[start:stop] for name, column in table.items()}


def kept_users(kept):
    chunks = [kept] if isinstance(kept, dict) else list(kept)
    return np.concatenate([chunk["user_id"] for chunk in chunks]).tolist()


def split_mix(x):
    """SplitMix64's finalizer in Python's integers."""
    mask = 2**64 - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def test_kept_rows_are_those_of_the_formula():
    table = rows(300)
    texts = tf.strings.to_hash_bucket_fast(table["item_id"], 2**63 - 1).numpy().tolist()
    expected = []
    for user, text, label in zip(table["user_id"].tolist(), texts, table["label"], strict=True):
        state = 0
        for word in (5, 0, user, text):
            state = split_mix(state ^ word)
        if label == 1 or state / 2**64 < 0.3:
            expected.append(user)
    kept = ck.data.down_sample_negatives(SCHEMA, table, 0.3, seed=5)
    assert kept_users(kept) == expected


@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.5])
def test_every_positive_and_a_binomial_share_of_negatives(ratio):
    table = rows()
    kept = ck.data.down_sample_negatives(SCHEMA, table, ratio)
    negatives = (table["label"] == 0).sum()
    count = (kept["label"] == 0).sum()
    assert (kept["label"] == 1).sum() == (table["label"] == 1).sum()
    assert abs(count - ratio * negatives) < 4 * np.sqrt(negatives * ratio * (1 - ratio))
    assert np.all(np.diff(kept["user_id"]) > 0)


def test_seeds_draw_independently_and_ratios_are_nested():
    table = {**rows(), "label": np.zeros(20_000)}
    some = set(kept_users(ck.data.down_sample_negatives(SCHEMA, table, 0.2, seed=1)))
    again = set(kept_users(ck.data.down_sample_negatives(SCHEMA, table, 0.2, seed=1)))
    other = set(kept_users(ck.data.down_sample_negatives(SCHEMA, table, 0.2, seed=2)))
    more = set(kept_users(ck.data.down_sample_negatives(SCHEMA, table, 0.4, seed=1)))
    assert some == again and some < more
    assert abs(len(some & other) - 800) < 4 * np.sqrt(800)
    assert len(kept_users(ck.data.down_sample_negatives(SCHEMA, table, 1))) == 20_000


def test_a_rows_fate_is_its_own():
    table = rows(2000)
    whole = kept_users(ck.data.down_sample_negatives(SCHEMA, table, 0.2))
    for cuts in ([0, 2000], [0, 1, 700, 701, 2000], range(0, 2001, 8)):
        pieces = (part(table, a, b) for a, b in zip(cuts, cuts[1:], strict=False))
        assert kept_users(ck.data.down_sample_negatives(SCHEMA, pieces, 0.2)) == whole
    order = np.random.default_rng(1).permutation(1000)
    shuffled = {
        name: column.take(order) if name == "tags" else [column[n] for n in order]
        for name, column in table.items()
    }
    kept = kept_users(ck.data.down_sample_negatives(SCHEMA, shuffled, 0.2))
    assert sorted(kept) == [user for user in whole if user < 1000]


def test_columns_stay_together_and_of_their_kind():
    table = rows(500)
    kept = ck.data.down_sample_negatives(SCHEMA, table, 0.3)
    users = kept["user_id"]
    assert 0 < len(users) < 500 and isinstance(kept["item_id"], list)
    assert kept["item_id"] == [table["item_id"][n] for n in users]
    np.testing.assert_array_equal(kept["price"], table["price"][users])
    np.testing.assert_array_equal(
        kept["tags"].to_padded(0), np.stack([2 * users, 2 * users + 1], axis=1)
    )
    frame = pd.DataFrame({**table, "tags": np.split(table["tags"].values, 500)}).set_index("price")
    frame = ck.data.down_sample_negatives(SCHEMA, frame, 0.3)
    assert isinstance(frame, pd.DataFrame) and frame["user_id"].tolist() == users.tolist()


def test_an_iterable_is_not_held_in_memory():
    taken = []

    def chunks():
        for start in range(0, 1000, 100):
            taken.append(start)
            yield part(rows(1000), start, start + 100)

    kept = ck.data.down_sample_negatives(SCHEMA, chunks(), 0.5)
    assert taken == []
    next(kept)
    assert taken == [0]
    nothing = [{**rows(50), "label": np.zeros(50)}] * 2
    assert list(ck.data.down_sample_negatives(SCHEMA, nothing, 1e-9)) == []


def test_default_key():
    def key(*features):
        label = ck.Feature("label", "label", kind="number")
        return row_key(ck.Schema([*features, label]))

    user, item, price, tags = SCHEMA.features[:4]
    time, group = ck.Feature("time", "time", kind="number"), ck.Feature("session", "group")
    assert key(price, user, tags, item, group, time) == ("user_id", "item_id", "session", "time")
    assert key(price, item, time) == ("item_id", "time")
    # Users alone, or items alone, tell no rows apart.
    assert key(price, user, group, tags) == ("price", "user_id", "session")
    assert key(price, item, tags) == ("price", "item_id")


def test_key_decides_and_its_order_does_not():
    table = rows()
    kept = ck.data.down_sample_negatives(SCHEMA, table, 0.3, key=["item_id"])
    negatives = {item for item, y in zip(kept["item_id"], kept["label"], strict=True) if y == 0}
    everywhere = sum(
        y == 1 or item in negatives
        for item, y in zip(table["item_id"], table["label"], strict=True)
    )
    assert len(kept["label"]) == everywhere and 0 < len(negatives) < 40
    assert row_key(SCHEMA, ["price", "user_id"]) == row_key(SCHEMA, ["user_id", "price"])
    signs = {**rows(2), "price": np.array([0.0, -0.0], np.float32), "label": np.zeros(2)}
    for seed in range(9):
        kept = ck.data.down_sample_negatives(SCHEMA, signs, 0.5, seed=seed, key=["price"])
        assert len(kept["label"]) in (0, 2)


@pytest.mark.parametrize("ratio", [0, -0.1, 1.1, float("nan"), None, "0.1", True])
def test_bad_ratios(ratio, tmp_path, small_data, small_schema):
    with pytest.raises(ValueError, match=r"`ratio` must be .* in \(0, 1\].*Received: `ratio="):
        ck.data.down_sample_negatives(SCHEMA, rows(4), ratio)
    with pytest.raises(ValueError, match="`ratio` must be"):
        ck.data.recalibrate(0.5, ratio)
    with pytest.raises(ValueError, match="`negative_ratio` must be"):
        ck.data.write(tmp_path, SCHEMA, rows(4), negative_ratio=ratio)
    with pytest.raises(ValueError, match="`negative_ratio` must be"):
        ck.data.read(small_data, small_schema, negative_ratio=ratio)


@pytest.mark.parametrize(
    ("changes", "kwargs", "message"),
    [
        ({}, {"key": ["colour"]}, r"`key` must name columns.*key=\['colour'\]"),
        ({}, {"key": ["tags"]}, r"key=\['tags'\]"),
        ({}, {"key": []}, r"key=\[\]"),
        ({}, {"seed": 0.5}, "`seed` must be an integer.*seed=0.5"),
        ({"label": [0, 1, 2, 0]}, {}, "Column 'label', row 6"),
        ({"user_id": [1, 2, 3, -1]}, {}, "Column 'user_id', row 7"),
        ({"price": [1.0]}, {}, "same number of rows.*'price': 1"),
    ],
)
def test_bad_arguments_and_values_are_named(changes, kwargs, message):
    chunks = [rows(4), {**rows(4), **changes}]
    with pytest.raises(ValueError, match=message):
        list(ck.data.down_sample_negatives(SCHEMA, chunks, 0.5, **kwargs))


def test_missing_key_column():
    table = rows(4)
    del table["user_id"]
    with pytest.raises(ValueError, match="Missing column 'user_id'"):
        ck.data.down_sample_negatives(SCHEMA, table, 0.5)


def batches(path, schema, **kwargs):
    """All rows as they are read: a list of `(user, age, label)`."""
    found = []
    for x, y in ck.data.read(path, schema, 32, **kwargs):
        columns = [column.numpy().tolist() for column in (x["user_id"], x["age"], y)]
        found += zip(*columns, strict=True)
    return found


@pytest.fixture(scope="module", params=["block", "row"])
def layout(request):
    return request.param


@pytest.fixture(scope="module")
def whole(layout, small_schema, tmp_path_factory):
    folder = tmp_path_factory.mktemp(layout)
    options = {"layout": layout, "rows_per_shard": 256, "block_rows": 64}
    ck.data.write(folder, small_schema, make_rows(600), **options)
    return folder


def test_read_keeps_what_preparation_keeps(whole, layout, small_schema, tmp_path):
    kept = ck.data.down_sample_negatives(small_schema, make_rows(600), 0.2, seed=4)
    ck.data.write(tmp_path, small_schema, kept, layout=layout, negative_ratio=0.2)
    prepared = batches(tmp_path, small_schema)
    assert 300 < len(prepared) < 420
    assert batches(whole, small_schema, negative_ratio=0.2, seed=4) == prepared
    assert batches(whole, small_schema, negative_ratio=0.2, seed=5) != prepared
    features = ck.data.read(whole, small_schema, negative_ratio=0.2).element_spec[0]
    assert features == ck.data.read(whole, small_schema).element_spec[0]


def test_read_the_same_rows_in_each_epoch_and_part(whole, small_schema):
    options = {"negative_ratio": 0.2, "seed": 4}
    expected = batches(whole, small_schema, **options)
    dataset = ck.data.read(whole, small_schema, 32, shuffle=True, **options)
    epochs = [[x["age"].numpy().tolist() for x, _ in dataset] for _ in range(2)]
    assert epochs[0] != epochs[1]
    for epoch in epochs:
        assert sorted(sum(epoch, [])) == sorted(age for _, age, _ in expected)
    for count in (2, 5):  # Whole shards, and every fifth record.
        parts = [batches(whole, small_schema, shard=(n, count), **options) for n in range(count)]
        assert sorted(sum(parts, [])) == sorted(expected)


def test_read_by_a_key_that_the_model_does_not_take(whole, small_schema):
    kept = ck.data.down_sample_negatives(small_schema, make_rows(600), 0.2, key=["time"])
    options = {"negative_ratio": 0.2, "negative_key": ["time"]}
    ages = [age for _, age, _ in batches(whole, small_schema, **options)]
    assert ages == kept["age"].tolist()
    small = ck.Schema([f for f in small_schema if f.name in ("user_id", "age", "label")])
    found = batches(whole, small, **options)
    assert [age for _, age, _ in found] == ages
    assert batches(whole, small, negative_ratio=0.2) == batches(
        whole, small_schema, negative_ratio=0.2
    )
    with pytest.raises(ValueError, match="`key` must name columns"):
        ck.data.read(whole, small, negative_ratio=0.2, negative_key=["genres"])


def test_chunks_without_a_row_make_no_batch(small_schema, tmp_path):
    table = {**make_rows(200), "label": np.zeros(200)}
    ck.data.write(tmp_path, small_schema, table, block_rows=8)
    sizes = [len(y) for _, y in ck.data.read(tmp_path, small_schema, 4, negative_ratio=0.05)]
    assert sizes and min(sizes) > 0 and sum(sizes) < 30


def test_ratios_multiply_and_draws_are_independent(whole, small_schema, tmp_path):
    table = {**make_rows(3000), "label": np.zeros(3000), "time": np.arange(3000)}
    kept = ck.data.down_sample_negatives(small_schema, table, 0.4)
    ck.data.write(tmp_path, small_schema, kept, negative_ratio=0.4)
    assert ck.data.read(tmp_path, small_schema).negative_ratio == 0.4
    dataset = ck.data.read(tmp_path, small_schema, negative_ratio=0.5)
    assert dataset.negative_ratio == pytest.approx(0.2)
    assert ck.data.read(whole, small_schema).negative_ratio == 1
    # With the same seed and key all rows would be kept, if the draw were the same.
    rows_read = sum(len(y) for _, y in dataset)
    assert abs(rows_read - 600) < 4 * np.sqrt(600)


def test_number_of_batches_is_known_only_without_sampling(whole, small_schema):
    assert len(ck.data.read(whole, small_schema, 100)) == 6
    sampled = ck.data.read(whole, small_schema, 100, negative_ratio=0.5)
    assert sampled.cardinality() == tf.data.UNKNOWN_CARDINALITY


def test_manifest_keeps_the_ratio(tmp_path):
    written = ck.data.write(tmp_path, SCHEMA, rows(4), negative_ratio=0.25)
    assert written.negative_ratio == 0.25 and ck.data.Manifest.load(tmp_path) == written
    assert written.metadata == {}
    file = tmp_path / "manifest.json"
    config = json.loads(file.read_text())
    del config["negative_ratio"]  # As manifests were before it.
    file.write_text(json.dumps(config))
    assert ck.data.Manifest.load(tmp_path).negative_ratio == 1
    file.write_text(json.dumps({**config, "negative_ratio": 0}))
    with pytest.raises(ValueError, match="manifest.json: `negative_ratio` must be.*=0`"):
        ck.data.Manifest.load(tmp_path)


def test_recalibrate():
    assert ck.data.recalibrate(0.5, 0.1) == pytest.approx(1 / 11)
    p, ratio = np.random.default_rng(0).random((3, 4)), 0.03
    q = ck.data.recalibrate(p, ratio)
    assert q.shape == (3, 4)
    np.testing.assert_allclose(q, p / (p + (1 - p) / ratio), rtol=1e-14)
    np.testing.assert_array_equal(ck.data.recalibrate([0, 1], 0.1), [0.0, 1.0])
    tensor = ck.data.recalibrate(tf.constant(p, tf.float32), ratio)
    assert tf.is_tensor(tensor) and tensor.dtype == tf.float32
    np.testing.assert_allclose(tensor, q, rtol=1e-6)
    in_graph = tf.function(lambda p: ck.data.recalibrate(p, ratio))
    np.testing.assert_allclose(in_graph(tf.constant(p)), q, rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_recalibrate_at_the_ends(dtype):
    eps, tiny = np.finfo(dtype).epsneg, np.finfo(dtype).tiny
    p = np.array([0, tiny, eps, 0.5, 1 - eps, 1], dtype)
    q = ck.data.recalibrate(p, 0.1)
    assert q.dtype == dtype
    exact = np.array(p, np.longdouble) * 0.1
    exact = exact / (exact + (1 - np.array(p, np.longdouble)))
    np.testing.assert_allclose(q, exact.astype(dtype), rtol=4 * np.finfo(dtype).eps)
    assert (np.diff(q) > 0).all() and q[0] == 0 and q[-1] == 1
    many = np.random.default_rng(0).random(10_000).astype(dtype)
    np.testing.assert_array_equal(ck.data.recalibrate(many, 1), many)
    # The same as adding log(ratio) to the logit.
    logit = np.log(q[1:-1].astype(np.float64)) - np.log1p(-q[1:-1].astype(np.float64))
    before = np.log(p[1:-1].astype(np.float64)) - np.log1p(-p[1:-1].astype(np.float64))
    np.testing.assert_allclose(logit[:3] - before[:3], np.log(0.1), rtol=1e-4)


@pytest.mark.parametrize("p", [-0.1, [0.5, 1.5], np.nan])
def test_recalibrate_wants_probabilities(p):
    with pytest.raises(ValueError, match=r"`p` must be probabilities in \[0, 1\]"):
        ck.data.recalibrate(p, 0.5)
