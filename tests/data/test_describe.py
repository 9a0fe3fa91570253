import json

import numpy as np
import pytest

from ctr_keras.columns import Ragged
from ctr_keras.data.describe import Frequencies, describe, plot
from ctr_keras.data.write import write
from ctr_keras.schema import Feature, Schema, Vocabulary

ROWS = {
    "user_id": np.array([1, 1, 2, 9, 1]),
    "city": np.array(["b", "", "c", "b", "b"], object),
    "item_id": np.array([5, 6, 5, -1, 5]),
    "history_item_id": Ragged.from_lists([[], [5], [5, 6, -1], [-1], [7]]),
    "price": np.array([1.0, 2.0, 3.0, 4.0, 5.0], np.float32),
    "time": np.array([10, 20, 30, 40, 50]),
    "label": np.array([1.0, 0.0, 0.0, 1.0, 1.0], np.float32),
}


@pytest.fixture
def schema(tmp_path):
    def vocabulary(name, values):
        return Vocabulary.write(tmp_path / "made" / f"{name}.txt", values)

    return Schema(
        (
            Feature("user_id", "user", vocabulary=vocabulary("u", [1, 2])),
            Feature("city", "user", vocabulary=vocabulary("c", ["b"]), dtype="string"),
            Feature("item_id", "item", vocabulary=vocabulary("i", [5, 6])),
            Feature("history_item_id", "history", length=3, shares="item_id"),
            Feature("price", "context", kind="number"),
            Feature("time", "time", kind="number"),
            Feature("label", "label", kind="number"),
        )
    ).save(tmp_path / "data")


@pytest.mark.parametrize("layout", ["block", "row"])
def test_counts_of_a_folder_of_records(tmp_path, schema, layout):
    write(tmp_path / "data" / "all", schema, ROWS, layout=layout, block_rows=2)
    found = describe(tmp_path / "data" / "all")
    assert found.rows == 5 and found.click_rate == pytest.approx(0.6)
    assert (found.splits["all"].first_time, found.splits["all"].last_time) == (10, 50)
    by_name = {feature.name: feature for feature in found.features}
    assert list(by_name) == schema.names
    assert by_name["user_id"].out_of_vocabulary == pytest.approx(1 / 5)
    assert by_name["city"].coverage == pytest.approx(4 / 5)
    assert (by_name["city"].cardinality, by_name["city"].out_of_vocabulary) == (2, 1 / 4)
    assert (by_name["item_id"].coverage, by_name["item_id"].cardinality) == (0.8, 2)
    history = by_name["history_item_id"]
    assert history.coverage == pytest.approx(3 / 5)
    assert (history.cardinality, history.mean_length) == (3, pytest.approx(6 / 5))
    assert history.out_of_vocabulary == pytest.approx(1 / 4)
    assert by_name["price"].mean == pytest.approx(3) and by_name["price"].cardinality is None
    assert found.users.feature == "user_id" and found.users.counts.tolist() == [3, 1, 1]
    assert found.items.feature == "item_id" and found.items.counts.tolist() == [3, 1]


def test_a_prepared_folder_by_split_as_text_json_and_plot(tmp_path, schema):
    for name, stop in (("train", 5), ("valid", 3), ("test", 2)):
        write(tmp_path / "data" / name, schema, {k: v[:stop] for k, v in ROWS.items()})
    found = describe(tmp_path / "data")
    assert {name: split.rows for name, split in found.splits.items()} == {
        "train": 5, "valid": 3, "test": 2,
    }  # fmt: skip
    assert found.rows == 10
    text = found.to_text()
    assert "10 rows, clicks 50.0%" in text and "history_item_id" in text and "<5 rows" in text
    assert json.loads(json.dumps(found.to_dict()))["items"]["distinct"] == 2
    for suffix in ("png", "svg"):
        plot(found, tmp_path / f"plot.{suffix}")
        assert (tmp_path / f"plot.{suffix}").stat().st_size > 1000


def test_the_long_tail():
    found = Frequencies("item_id", np.array([100, *[1] * 199]))
    assert found.share_with_fewer_than(5) == pytest.approx(199 / 200)
    assert found.top_percent_share == pytest.approx(101 / 299)


def test_without_users_items_labels_and_schema(tmp_path):
    schema = Schema((Feature("x", "context", kind="number"),))
    write(tmp_path / "data", schema, {"x": np.array([1.0, 3.0])})
    found = describe(tmp_path / "data")
    assert found.users is None and found.items is None and found.click_rate is None
    assert found.features[0].mean == 2
    assert "2 rows" in found.to_text()
    plot(found, tmp_path / "plot.png")


def test_errors_name_the_folder_and_the_shard(tmp_path, schema):
    with pytest.raises(ValueError, match="No data set there"):
        describe(tmp_path / "nothing")
    manifest = write(tmp_path / "data" / "all", schema, ROWS)
    shard = tmp_path / "data" / "all" / manifest.shards[0].file
    shard.write_bytes(shard.read_bytes()[:-3])
    with pytest.raises(ValueError, match=manifest.shards[0].file):
        describe(tmp_path / "data" / "all")


def test_share_of_negatives_that_was_kept(tmp_path, schema):
    for name, ratio in (("train", 0.1), ("valid", 1.0)):
        write(tmp_path / "data" / name, schema, ROWS, negative_ratio=ratio)
    found = describe(tmp_path / "data")
    assert found.to_dict()["splits"]["train"]["negative_ratio"] == 0.1
    train, valid = found.to_text().splitlines()[3:5]
    assert train.endswith("10.0% kept") and valid.endswith("all")
