import keras
import numpy as np
import pytest

import ctr_keras as ck
from ctr_keras.models.other_items import OtherItems
from tests.layers.test_augru import recurrence
from tests.layers.test_interest_extractor import auxiliary_loss
from tests.models.conformance import run_model_conformance
from tests.models.test_ranking import mlp, mlp_weights, randomized, sigmoid

BATCH = {
    "user_id": np.array([2, 8, 0]),
    "item_id": np.array([3, 11, 5]),
    "history_item_id": np.array([[4, 5, 0, 0], [0, 0, 0, 0], [7, 7, 2, 3]]),
}


def schema_of(length=4):
    return ck.Schema(
        [
            ck.Feature("user_id", "user", vocabulary=ck.Vocabulary.of_size(9)),
            ck.Feature("item_id", "item", vocabulary=ck.Vocabulary.of_size(12)),
            ck.Feature("history_item_id", "history", length=length, shares="item_id"),
        ]
    )


def small(schema, **kwargs):
    return ck.models.DIEN(schema, embedding_dim=4, units=(8, 4), **kwargs)


def losses_of_a_step(model, x, y):
    model.compile(keras.optimizers.SGD(0.01), metrics=[])
    return {key: value[0] for key, value in model.fit(x, y, verbose=0).history.items()}


def test_conformance(small_schema, small_data, tmp_path):
    """With the auxiliary loss on: after a reload the negatives go on alike too."""
    model = run_model_conformance(small, small_schema, small_data, tmp_path)
    paths = [w.path for w in model.inference_model().variables]
    assert paths and not any("negatives" in path for path in paths)


def test_formula():
    """The paper's layers one after the other, the softmax by a loop over rows."""
    model = randomized(ck.models.DIEN(schema_of(), embedding_dim=4, units=(6,), interest_weight=0))
    table = model.get_layer("embedding").rows("item_id")
    ids, query = BATCH["history_item_id"], table[BATCH["item_id"]]
    mask = ids > 0
    states, _ = recurrence(model.get_layer("interests").gru, table[ids], np.ones(ids.shape), mask)
    scores = np.zeros(ids.shape)
    for row in np.flatnonzero(mask.any(1)):
        x = states[row] @ (query[row] @ model.get_layer("attention").kernel.numpy())
        scores[row, mask[row]] = np.exp(x[mask[row]]) / np.exp(x[mask[row]]).sum()
    _, interest = recurrence(model.get_layer("evolution"), states, scores, mask)
    users = model.get_layer("embedding").rows("user_id")[BATCH["user_id"]]
    joint = np.concatenate([users, query, interest], axis=1)
    kernel, bias = (w.numpy() for w in model.get_layer("logit").weights)
    logit = mlp(mlp_weights(model.get_layer("mlp")), joint) @ kernel + bias
    np.testing.assert_allclose(model.predict(BATCH, verbose=0), sigmoid(logit), atol=1e-5)


def test_padding_and_its_length_change_nothing():
    short, long = small(schema_of()), small(schema_of(length=9))
    long.set_weights(randomized(short).get_weights())
    padded = {**BATCH, "history_item_id": np.pad(BATCH["history_item_id"], ((0, 0), (0, 5)))}
    np.testing.assert_allclose(
        short.predict(BATCH, verbose=0), long.predict(padded, verbose=0), atol=1e-6
    )


def test_auxiliary_loss_is_that_of_the_drawn_negatives():
    model = small(schema_of(), interest_weight=0.5, seed=3)
    tensors = keras.Model(model.input, model.tensors)(BATCH)
    items, mask = tensors["history"], tensors["history_mask"]
    again = OtherItems(seed=3)
    negatives, found = again(items, mask)
    table = model.get_layer("embedding").rows("item_id")
    differs = ~np.all(np.asarray(negatives) == np.asarray(items), axis=-1)
    assert differs[found].all()  # The two histories have no item in common.
    expected = auxiliary_loss(
        np.asarray(tensors["interests"]), table[BATCH["history_item_id"]], negatives.numpy(), found
    )
    logs = losses_of_a_step(model, BATCH, np.array([1.0, 0.0, 1.0]))
    assert logs["interest_loss"] == pytest.approx(expected, abs=1e-5)
    assert logs["loss"] == pytest.approx(logs["ctr_loss"] + 0.5 * expected, abs=1e-5)


def test_weight_zero_turns_the_auxiliary_loss_off():
    model = small(schema_of(), interest_weight=0)
    assert set(losses_of_a_step(model, BATCH, np.ones(3))) == {"loss"}
    assert not hasattr(model, "negatives")


@pytest.mark.parametrize("rows", [[1], [0, 1]])
def test_without_items_of_other_rows_there_is_no_auxiliary_loss(rows):
    x = {name: values[rows] for name, values in BATCH.items()}
    model = small(schema_of())
    logs = losses_of_a_step(model, x, np.ones(len(rows)))
    assert logs["interest_loss"] == 0 and np.isfinite(logs["loss"])
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_other_items_come_from_other_rows_evenly():
    mask = np.arange(4) < np.array([[3], [0], [4], [1]])
    ids = np.arange(1, 17, dtype="float32").reshape(4, 4, 1) * mask[:, :, None]
    layer, seen = OtherItems(seed=1), [[] for _ in range(4)]
    for _ in range(400):
        drawn, found = layer(ids, mask)
        np.testing.assert_array_equal(found, mask)
        for row in range(4):
            seen[row] += np.asarray(drawn)[row, mask[row], 0].tolist()
    for row in (0, 2, 3):
        values, counts = np.unique(seen[row], return_counts=True)
        others = np.delete(ids, row, axis=0)
        np.testing.assert_array_equal(values, np.sort(others[others > 0]))
        assert counts.min() > 0.7 * counts.mean() and counts.max() < 1.3 * counts.mean()


def test_what_tells_of_one_item_is_drawn_together():
    mask = np.arange(4) < np.array([[3], [0], [4], [1]])
    ids = np.arange(1, 17, dtype="int64").reshape(4, 4, 1) * mask[:, :, None]
    vectors = np.tile(ids.astype("float32"), (1, 1, 3))
    (drawn, of_drawn), found = OtherItems(seed=1)([vectors, ids], mask)
    alone, _ = OtherItems(seed=1)(vectors, mask)
    np.testing.assert_array_equal(drawn, alone)
    np.testing.assert_array_equal(drawn, np.tile(of_drawn, (1, 1, 3)))
    np.testing.assert_array_equal(np.asarray(of_drawn)[..., 0] > 0, found)


def test_other_items_follow_the_seed():
    mask = np.ones((3, 4), bool)
    items = np.arange(12, dtype="float32").reshape(3, 4, 1)

    def draw(seed):
        layer = OtherItems(seed)
        return np.stack([layer(items, mask)[0] for _ in range(3)])

    np.testing.assert_array_equal(draw(1), draw(1))
    assert np.any(draw(1) != draw(2)) and np.any(draw(1)[0] != draw(1)[1])
    keras.utils.set_random_seed(5)
    first = draw(None)
    assert np.any(first != draw(None))
    keras.utils.set_random_seed(5)
    np.testing.assert_array_equal(draw(None), first)


def test_overfits_a_tiny_batch(small_schema, small_data):
    rows = ck.data.read(small_data, small_schema, batch_size=64).take(1).cache().repeat(60)
    model = ck.models.DIEN(small_schema, embedding_dim=8, units=(16,), interest_weight=0.1)
    model.compile(ck.optimizers.LazyAdam(0.02))
    history = model.fit(rows, verbose=0, shuffle=False).history
    assert np.isfinite(history["interest_loss"][0])
    assert model.evaluate(rows.take(1), verbose=0, return_dict=True)["auc"] > 0.99


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    model = small(schema_of())
    logs = losses_of_a_step(model, BATCH, np.ones(3))
    assert logs["interest_loss"] > 0 and np.isfinite(logs["loss"])
    probability = model.predict(BATCH, verbose=0)
    assert probability.dtype == np.float32 and np.isfinite(probability).all()


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"Received: `interest_weight=-1`"):
        small(schema_of(), interest_weight=-1)
    with pytest.raises(ValueError, match="DIEN needs a history that shares"):
        small(ck.Schema([ck.Feature("item_id", "item", vocabulary=ck.Vocabulary.of_size(9))]))
