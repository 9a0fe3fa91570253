import numpy as np
import pytest
import tensorflow as tf

import ctr_keras as ck
from ctr_keras import training
from ctr_keras.training.adapted_scores import adapted_scores
from ctr_keras.training.evaluate import predictions
from tests.conftest import make_rows


@pytest.fixture(scope="module")
def split(tmp_path_factory, small_schema):
    """Test rows, some of users that are in no training row."""
    folder = tmp_path_factory.mktemp("cold")
    rows = make_rows(150, seed=2)
    rows["group"] = [f"new{g}" if g in ("u3", "u4") else g for g in rows["group"]]
    ck.data.write(folder, small_schema, rows)
    return folder


@pytest.fixture(scope="module")
def model(small_schema):
    return ck.models.MeLU(small_schema, embedding_dim=4, units=(6,), inner_learning_rate=0.5)


def test_slices_by_hand(model, small_data, split, small_schema):
    found = training.evaluate_cold_start(model, small_data, split, few=20)
    slices = ck.data.cold_slices(small_data, split, few=20)
    x, y = next(iter(ck.data.read(split, small_schema, 150)))
    scores = model.predict(x, verbose=0)[:, 0]
    assert set(found.slices) == {"all", *slices}
    for name, kept in {"all": np.ones(150, bool), **slices}.items():
        part = found.slices[name]
        assert part.rows == kept.sum()
        if name == "item_zero_shot":
            assert part == training.Slice(0, None, None, None, None)
            continue
        labels = y.numpy()[kept]
        assert part.click_rate == pytest.approx(labels.mean())
        assert part.auc == pytest.approx(ck.metrics.auc(labels, scores[kept]), abs=1e-6)
        gauc = ck.metrics.gauc(labels, scores[kept], x["group"].numpy()[kept])
        assert part.gauc == pytest.approx(gauc.value, abs=1e-6)
        assert part.gauc_row_share == pytest.approx(1 - gauc.skipped_row_share)
    assert found.to_dict()["slices"]["user_zero_shot"]["rows"] == slices["user_zero_shot"].sum() > 0
    assert "user_few_shot" in found.to_text() and "nan" not in found.to_text()


def test_groups_out_of_vocabulary_are_none(small_schema):
    vocabulary = ck.Vocabulary.of_size(9)
    looked_up = ck.Feature("group", "group", vocabulary=vocabulary)
    schema = ck.Schema([looked_up if f.name == "group" else f for f in small_schema])
    model = ck.models.FM(schema, embedding_dim=4)
    x = {name: tf.zeros((4, *i.shape[1:]), i.dtype) for name, i in model.input.items()}
    x["group"] = tf.constant([0, 1, 2, 3])
    rows = tf.data.Dataset.from_tensors((x, tf.ones(4)))
    assert predictions(model, rows).groups.tolist() == [-1, -1, 2, 3]


def test_one_class_has_no_auc(model, small_data, tmp_path, small_schema):
    rows = make_rows(20, seed=3)
    rows["label"] = np.ones(20, "float32")
    ck.data.write(tmp_path, small_schema, rows)
    part = training.evaluate_cold_start(model, small_data, tmp_path).slices["all"]
    assert part.auc is None and part.gauc is None and part.click_rate == 1


def test_adapted_scores_are_those_of_one_user_at_a_time(model, small_data, split, small_schema):
    known = next(iter(ck.data.read(small_data, small_schema, 600)))
    x, _ = next(iter(ck.data.read(split, small_schema, 150)))
    shared = model.predict(x, verbose=0)[:, 0]
    # By item, of which some are out of vocabulary; pieces smaller than most groups.
    found = adapted_scores(model, small_data, split, "item_id", shared, support=5, tasks=4, rows=2)
    past = known[0]["item_id"].numpy()
    for row in range(0, 150, 15):
        item = int(x["item_id"][row])
        one = {name: value[row : row + 1] for name, value in x.items()}
        expected = shared[row]
        if item > 1:
            rows = np.flatnonzero(past == item)[-5:]
            support = {name: value.numpy()[rows] for name, value in known[0].items()}
            adapted = model.adapt((support, known[1].numpy()[rows]))
            expected = adapted.predict(one)[0]
        assert found[row] == pytest.approx(expected, abs=1e-5)
    assert np.abs(found - shared).max() > 1e-3
    assert (found == shared)[x["item_id"].numpy() == 1].all()

    evaluated = training.evaluate_cold_start(
        model, small_data, split, adapt="item_id", support=5
    ).slices["all"]
    assert evaluated.auc is not None


def test_adapts_to_as_many_negatives_as_were_learned_from(small_data, split, small_schema):
    model = ck.models.MeLU(small_schema, embedding_dim=4, units=(6,), inner_learning_rate=0.5)
    model.negative_ratio = 0.3
    shared = np.zeros(150, "float32")
    found = adapted_scores(model, small_data, split, "user_id", shared, support=4)
    known, label = next(iter(ck.data.read(small_data, small_schema, 600, negative_ratio=0.3)))
    x, _ = next(iter(ck.data.read(split, small_schema, 150)))
    for row in range(0, 150, 30):
        rows = np.flatnonzero(known["user_id"].numpy() == int(x["user_id"][row]))[-4:]
        support = {name: value.numpy()[rows] for name, value in known.items()}
        adapted = model.adapt((support, label.numpy()[rows]))
        expected = adapted.predict({name: value[row : row + 1] for name, value in x.items()})
        assert found[row] == pytest.approx(expected[0], abs=1e-5)


def test_bad_arguments(model, small_data, split, small_schema):
    with pytest.raises(ValueError, match="Received: `few=0`"):
        training.evaluate_cold_start(model, small_data, split, few=0)
    with pytest.raises(ValueError, match="`support=0`"):
        training.evaluate_cold_start(model, small_data, split, adapt="user_id", support=0)
    with pytest.raises(ValueError, match="`key='age'`"):
        training.evaluate_cold_start(model, small_data, split, adapt="age")
    base = ck.models.FM(small_schema, embedding_dim=4)
    with pytest.raises(ValueError, match="embeddings for, 'item_id'. Received: `'user_id'`"):
        training.evaluate_cold_start(ck.models.MetaEmb(base), small_data, split, adapt="user_id")
    plain = ck.models.FM(small_schema, embedding_dim=4)
    with pytest.raises(ValueError, match="must have `adapt`"):
        training.evaluate_cold_start(plain, small_data, split, adapt="user_id")
