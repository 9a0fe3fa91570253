import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from ctr_keras.data.describe import describe, plot
from ctr_keras.data.scenarios import FEW_SHOT, draw
from ctr_keras.data.write import write
from ctr_keras.schema import Feature, Schema, Vocabulary

SPLITS = {"train": 3000, "valid": 300, "test": 500}


def rows_of(split, random):
    """Rows with a long tail of users; the test split has scenes, users and items of its own."""
    count = SPLITS[split]
    top = 90 if split == "train" else 120
    return pd.DataFrame(
        {
            "user_id": (top * random.random(count) ** 3).astype(np.int64),
            "item_id": [f"i{n}" if n else "" for n in random.zipf(1.6, count) % (top // 2)],
            "scene": random.choice(["b", "a", "c"], count, p=[0.6, 0.3, 0.1]),
            "label": (random.random(count) < 0.2).astype(np.float32),
        }
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of three splits, and the same rows as one frame."""
    folder = tmp_path_factory.mktemp("data")
    schema = Schema(
        (
            Feature("user_id", "user", vocabulary=Vocabulary.hashing(100)),
            Feature("item_id", "item", vocabulary=Vocabulary.hashing(100), dtype="string"),
            Feature("scene", "scenario", vocabulary=Vocabulary.hashing(5), dtype="string"),
            Feature("label", "label", kind="number"),
        )
    ).save(folder)
    random = np.random.default_rng(3)
    frames = {name: rows_of(name, random) for name in SPLITS}
    for name, frame in frames.items():
        write(folder / name, schema, frame, block_rows=256)
    return folder, pd.concat(frames, names=["split", "row"]).reset_index("split")


@pytest.fixture(scope="module")
def found(data):
    return describe(data[0])


def test_sizes_of_each_scenario(data, found):
    for scenario in found.scenarios.scenarios:
        frame = data[1][data[1]["scene"] == scenario.name]
        assert scenario.rows == frame["split"].value_counts().to_dict()
        assert scenario.clicks == frame.groupby("split")["label"].sum().to_dict()
        assert scenario.click_rate == pytest.approx(frame["label"].mean())
        assert scenario.users.tolist() == frame["user_id"].value_counts().tolist()
        items = frame["item_id"][frame["item_id"] != ""]
        assert scenario.items.tolist() == items.value_counts().tolist()
    assert [s.name for s in found.scenarios.scenarios] == ["a", "b", "c"]


def test_users_that_scenarios_share(data, found):
    users = data[1].groupby("scene")["user_id"].agg(set)
    for line, name in zip(found.scenarios.user_overlap, "abc", strict=True):
        expected = [len(users[name] & users[other]) / len(users[name]) for other in "abc"]
        assert line.tolist() == pytest.approx(expected)


def test_zero_and_few_shot_counts_are_of_training_rows(data, found):
    frame = data[1]
    train = frame[frame["split"] == "train"]
    for entity, column in (("users", "user_id"), ("items", "item_id")):
        known = train[column].value_counts()
        for split in ("valid", "test"):
            judged = frame[(frame["split"] == split) & (frame[column] != "")]
            count = judged[column].map(known).fillna(0)
            masks = [count == 0, (count > 0) & (count < FEW_SHOT), count >= FEW_SHOT]
            for group, mask in zip(("zero-shot", "few-shot", "warm"), masks, strict=True):
                line = next(
                    c
                    for c in found.scenarios.cold_start
                    if (c.split, c.entity, c.group) == (split, entity, group)
                )
                assert line.rows == mask.sum()
                assert line.distinct == judged[column][mask].nunique()
    assert {c.group for c in found.scenarios.cold_start if c.rows} == {
        "zero-shot", "few-shot", "warm",
    }  # fmt: skip


def test_text_json_and_plot(found, tmp_path):
    text = found.to_text()
    assert "users also in" in text and "zero-shot" in text and "click rate" in text
    stored = json.loads(json.dumps(found.to_dict()))["scenarios"]
    assert stored["user_overlap"]["a"]["a"] == 1 and len(stored["cold_start"]) == 12
    plot(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_how_many_users_have_how_many_rows(data, found):
    axes = Figure().subplots()
    draw(found.scenarios, "users", axes)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    for line, name in zip(axes.lines, "abc", strict=True):
        counts = data[1][data[1]["scene"] == name]["user_id"].value_counts().value_counts()
        assert dict(zip(*line.get_data(), strict=True)) == counts.to_dict()


def test_a_single_folder_has_no_cold_start(data):
    found = describe(data[0] / "test").scenarios
    assert found.cold_start == () and len(found.tables()) == 2
    assert sum(sum(scenario.rows.values()) for scenario in found.scenarios) == SPLITS["test"]
