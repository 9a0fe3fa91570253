import dataclasses

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from ctr_keras import data
from ctr_keras.data.split import SPLITS
from ctr_keras.datasets.simulator import ImpressionsConfig, World, WorldConfig, clock, impressions
from ctr_keras.datasets.simulator.impression_log import find_bias
from ctr_keras.schema import Schema
from tests.datasets.test_movielens import stored

WORLD = WorldConfig(users=1500, items=600, categories=30, seed=2)
CONFIG = ImpressionsConfig(mean_impressions=40.0, mean_past_clicks=3.0, history_length=8)


def quiet(_):
    pass


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("impressions") / "out"
    return impressions.prepare(out, WORLD, CONFIG, report=quiet)


@pytest.fixture(scope="module")
def rows(made):
    """The rows of each split as they lie on disk."""
    return {name: stored(made.folder, name) for name in SPLITS}


@pytest.fixture(scope="module")
def truth(made):
    return {name: impressions.truth(made.folder, name).to_pandas() for name in SPLITS}


def test_labels_are_drawn_with_the_probabilities(truth):
    table = truth["train"]
    order = np.argsort(table["true_probability"], kind="stable").to_numpy()
    for rows_of_bin in np.array_split(order, 10):
        probability = table["true_probability"].to_numpy()[rows_of_bin]
        clicks = table["label"].to_numpy()[rows_of_bin].mean()
        error = (probability * (1 - probability)).mean() ** 0.5 / len(rows_of_bin) ** 0.5
        assert abs(clicks - probability.mean()) < 4 * error
    assert table["true_probability"].mean() == pytest.approx(0.05, rel=0.15)


@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_the_click_rate_is_an_argument(tmp_path, rate):
    config = dataclasses.replace(CONFIG, click_rate=rate, mean_impressions=20.0)
    made = impressions.prepare(tmp_path / "out", WORLD, config, report=quiet)
    assert made.prepared.click_rate["train"] == pytest.approx(rate, rel=0.25)


def test_the_bounds_are_sklearns(made, truth):
    for name in SPLITS:
        table = truth[name]
        auc = roc_auc_score(table["label"], table["true_probability"])
        assert made.bayes_auc[name] == pytest.approx(auc, abs=1e-9) and auc > 0.7
        loss = log_loss(table["label"], table["true_probability"])
        assert made.bayes_log_loss[name] == pytest.approx(loss, abs=1e-6)
    assert f"{made.bayes_auc['test']:.4f}" in made.to_text()
    assert made.to_dict()["bayes_auc"] == made.bayes_auc


def test_the_probability_is_kept_aside_in_the_order_of_the_rows(made, rows, truth):
    schema = Schema.load(made.folder)
    assert not any("probability" in name for name in schema.names)
    for name in SPLITS:
        table = truth[name]
        assert (table["label"].to_numpy() == rows[name]["label"].to_numpy()).all()
        batches = data.read(made.folder / name, schema, batch_size=1000)
        ids = np.concatenate([x["group_impression_id"].numpy() for x, _ in batches])
        assert (ids == table["impression_id"].to_numpy()).all()
    everything = np.concatenate([table["impression_id"] for table in truth.values()])
    assert sorted(everything) == list(range(len(everything)))


def test_splits_follow_each_other_in_time(made, rows):
    window = 10 * clock.DAY
    ends = [clock.BEGIN + window * 8 // 10, clock.BEGIN + window * 9 // 10, clock.BEGIN + window]
    begin = clock.BEGIN
    for name, end in zip(SPLITS, ends, strict=True):
        time = rows[name]["time"].to_numpy()
        assert (np.diff(time) >= 0).all() and begin <= time.min() and time.max() < end
        assert made.prepared.rows[name] == len(time)
        begin = end


def test_histories_hold_the_clicks_before_and_no_others(rows):
    clicked = {}
    seen = set()
    for name in SPLITS:
        for row in rows[name].itertuples():
            earlier = clicked.setdefault(row.group_user_id, [])
            # What the user brought from before the log comes first.
            if row.group_user_id not in seen and len(row.history_item_id) < 8:
                seen.add(row.group_user_id)
                earlier[:0] = list(zip(row.history_item_id, row.history_category_id, strict=True))
            found = list(zip(row.history_item_id, row.history_category_id, strict=True))
            if row.group_user_id in seen:
                assert found == earlier[-8:]
            if row.label:
                earlier.append((row.item_id, row.category_id))
    assert len(seen) > 1200


def test_the_same_call_does_nothing_and_a_fresh_one_the_same(made, tmp_path):
    again = impressions.prepare(made.folder, WORLD, CONFIG, report=quiet)
    assert again.prepared.reused and again.bayes_auc == made.bayes_auc
    fresh = impressions.prepare(tmp_path / "out", WORLD, CONFIG, report=quiet)
    for name in SPLITS:
        a, b = (data.Manifest.load(folder / name) for folder in (made.folder, fresh.folder))
        assert [s.content for s in a.shards] == [s.content for s in b.shards]
        assert impressions.truth(fresh.folder, name) == impressions.truth(made.folder, name)


def test_a_lost_probability_is_made_again(tmp_path):
    small = ImpressionsConfig(mean_impressions=20.0)
    world = dataclasses.replace(WORLD, users=300)
    made = impressions.prepare(tmp_path / "out", world, small, report=quiet)
    (made.folder / "test" / impressions.TRUTH_FILE).unlink()
    with pytest.raises(ValueError, match="simulate impressions"):
        impressions.truth(made.folder, "test")
    again = impressions.prepare(tmp_path / "out", world, small, report=quiet)
    assert not again.prepared.reused and again.bayes_auc == made.bayes_auc


def test_the_bias_belongs_to_the_click_rate():
    world = World(WORLD)
    low, high = (
        find_bias(world, dataclasses.replace(CONFIG, click_rate=rate)) for rate in (0.01, 0.1)
    )
    assert low < high - 1.5


def test_bad_arguments(tmp_path):
    for options in (
        {"click_rate": 0.0},
        {"mean_impressions": 0.2},
        {"mean_past_clicks": -1.0},
        {"history_length": 0},
    ):
        name, value = next(iter(options.items()))
        with pytest.raises(ValueError, match=f"`{name}={value}`"):
            ImpressionsConfig(**options)
    one = WorldConfig(users=1, items=10, categories=2)
    with pytest.raises(ValueError, match="split would be empty"):
        impressions.prepare(
            tmp_path / "out", one, ImpressionsConfig(mean_impressions=1.0), report=quiet
        )
