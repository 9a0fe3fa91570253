import unicodedata

import numpy as np
import pytest
import tensorflow as tf

import ctr_keras as ck
from ctr_keras.encoding import FeatureEncoder, hash_ids


def encode(feature, values, **more):
    schema = ck.Schema([feature, *more.get("others", ())])
    return FeatureEncoder(schema)({feature.name: values})[feature.name].numpy()


def test_looked_up_ids(tmp_path):
    words = ck.Vocabulary.write(tmp_path / "w.txt", ["b", "a", "tab\tinside"])
    feature = ck.Feature("x", "item", vocabulary=words, dtype="string")
    ids = encode(feature, tf.constant(["a", "b", "", "zebra", "tab\tinside"]))
    assert ids.tolist() == [3, 2, 0, 1, 4]
    assert ids.dtype == np.int32


def test_a_vocabulary_that_changed_is_refused(tmp_path):
    words = ck.Vocabulary.write(tmp_path / "w.txt", ["b", "a"])
    schema = ck.Schema([ck.Feature("x", "item", vocabulary=words, dtype="string")])
    model = ck.models.FM(schema)
    (tmp_path / "w.txt").write_text("a\nb\nc\n")
    for use in (
        lambda: FeatureEncoder(schema),
        lambda: model.save(tmp_path / "m.keras"),
        lambda: ck.serving.export(model, tmp_path / "served"),
    ):
        with pytest.raises(ValueError, match="w.txt' changed after .* now has 5 ids"):
            use()
    assert not (tmp_path / "served/1").exists()


def test_looked_up_integers(tmp_path):
    numbers = ck.Vocabulary.write(tmp_path / "n.txt", [500, 7])
    ids = encode(
        ck.Feature("x", "item", vocabulary=numbers), tf.constant([7, 500, -1, 8], tf.int64)
    )
    assert ids.tolist() == [3, 2, 0, 1]


def test_empty_vocabulary_knows_nothing(tmp_path):
    nothing = ck.Vocabulary.write(tmp_path / "n.txt", [])
    for dtype, values in (("string", ["a", ""]), ("int64", [5, -1])):
        feature = ck.Feature("x", "item", vocabulary=nothing, dtype=dtype)
        assert encode(feature, tf.constant(values, dtype)).tolist() == [1, 0]


def test_plain_ids_stay():
    feature = ck.Feature("x", "item", vocabulary=ck.Vocabulary.of_size(9))
    assert encode(feature, tf.constant([0, 1, 8], tf.int64)).tolist() == [0, 1, 8]


def split_mix(x: int) -> int:
    """The finalizer of java.util.SplittableRandom, in Python's integers."""
    mask = 2**64 - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def test_hashed_integers_are_split_mix():
    values = [0, 1, 2, 10**12, 2**62]
    ids = hash_ids(tf.constant(values, tf.int64), 1000).numpy()
    assert ids.tolist() == [split_mix(v) % 1000 + 2 for v in values]
    # The published first output of SplitMix64 with seed 0.
    assert split_mix(0) == 0xE220A8397B1DCDAF


def test_hashed_ids_stay_in_their_range_and_spread():
    values = tf.range(100_000, dtype=tf.int64)
    ids = hash_ids(values, 50).numpy()
    assert ids.min() == 2 and ids.max() == 51
    counts = np.bincount(ids)[2:]
    assert abs(counts - 2000).max() < 250  # five standard deviations
    assert hash_ids(tf.constant(["", "a"]), 50).numpy()[0] == 0
    assert hash_ids(tf.constant([-1], tf.int64), 50).numpy()[0] == 0


def test_history_keeps_the_newest_and_others_the_first():
    rows = tf.ragged.constant([[1, 2, 3, 4], [], [5]], dtype=tf.int64)
    item = ck.Feature("i", "item", vocabulary=ck.Vocabulary.of_size(9))
    history = ck.Feature("h", "history", length=2, shares="i")
    assert encode(history, rows, others=[item]).tolist() == [[3, 4], [0, 0], [5, 0]]
    genres = ck.Feature("g", "item", length=2, vocabulary=ck.Vocabulary.of_size(9))
    assert encode(genres, rows).tolist() == [[1, 2], [0, 0], [5, 0]]


@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_padded_and_ragged_rows_are_the_same(width):
    item = ck.Feature("i", "item", vocabulary=ck.Vocabulary.hashing(9))
    history = ck.Feature("h", "history", length=3, shares="i")
    lists = [list(range(10, 10 + n)) for n in range(width + 1)]
    ragged = tf.ragged.constant(lists, dtype=tf.int64, ragged_rank=1)
    padded = ragged.to_tensor(-1)
    same = [encode(history, rows, others=[item]).tolist() for rows in (ragged, padded)]
    assert same[0] == same[1]


def test_text_is_split_into_lower_case_words(tmp_path):
    words = ck.Vocabulary.write(tmp_path / "w.txt", ["toy", "story", "été"])
    title = ck.Feature("t", "item", kind="text", length=3, vocabulary=words)
    ids = encode(title, tf.constant(["Toy Story (1995)", "ÉTÉ", "", " -- ", "a toy story more"]))
    assert ids.tolist() == [[2, 3, 1], [4, 0, 0], [0, 0, 0], [0, 0, 0], [1, 2, 3]]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("हिन्दी फिल्म", [2, 3, 0]),
        ("«हिन्दी», फिल्म!", [2, 3, 0]),
        (unicodedata.normalize("NFD", "ÉTÉ"), [4, 0, 0]),
        ("love \u2764\ufe0f it", [5, 6, 0]),
        ("\ufe0f it", [6, 0, 0]),
    ],
)
def test_marks_stay_with_their_letters(tmp_path, text, ids):
    """Vowel signs of Indic scripts and accents; those of pictures are no word of their own."""
    names = ["हिन्दी", "फिल्म", unicodedata.normalize("NFD", "été"), "love", "it"]
    words = ck.Vocabulary.write(tmp_path / "w.txt", names)
    title = ck.Feature("t", "item", kind="text", length=3, vocabulary=words)
    assert encode(title, tf.constant([text])).tolist() == [ids]


def test_groups_become_integers():
    group = ck.Feature("g", "group", dtype="string")
    ids = encode(group, tf.constant(["a", "b", "a"]))
    assert ids.dtype == np.int64 and ids[0] == ids[2] != ids[1]
    integers = [5, 6, -1, -7]
    found = encode(ck.Feature("g", "group"), tf.constant(integers, tf.int64))
    assert found.tolist() == integers
    assert encode(group, tf.constant(["", "a"])).tolist() == [-1, ids[0]]


def test_same_in_graph(small_schema, small_rows):
    encoder = FeatureEncoder(small_schema)
    columns = {
        "item_id": tf.constant(small_rows["item_id"]),
        "title": tf.constant(small_rows["title"]),
        "history_item_id": tf.ragged.constant(small_rows["history_item_id"]),
    }
    eager, graph = encoder(columns), tf.function(encoder)(columns)
    for name in columns:
        np.testing.assert_array_equal(eager[name], graph[name])
