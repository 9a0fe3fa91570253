import keras
import numpy as np
import pytest

import ctr_keras as ck
from tests.models.conformance import run_model_conformance
from tests.models.test_dien import BATCH, schema_of
from tests.models.test_ranking import mean_pooled, mlp, mlp_weights, randomized, sigmoid


def small(schema, **kwargs):
    options = {"units": (8, 4), "path_length": 3, "kept": 2, "attention_units": (6,), **kwargs}
    return ck.models.DBPMaN(schema, embedding_dim=4, **options)


def test_conformance(small_schema, small_data, tmp_path):
    run_model_conformance(small, small_schema, small_data, tmp_path, continues=False)


def test_formula():
    """The parts of the layer are held against NumPy in its own test; here what goes in and out."""
    model = randomized(small(schema_of(), units=(6,), attention_activation="sigmoid"))
    embedding = model.get_layer("embedding")
    table, ids = embedding.rows("item_id"), BATCH["history_item_id"]
    query = table[BATCH["item_id"]]
    interest = model.get_layer("path_matching")(query, table[ids], ids > 0)
    users = embedding.rows("user_id")[BATCH["user_id"]]
    joint = np.concatenate([users, query, mean_pooled(table, ids), interest], axis=1)
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


def test_overfits_a_tiny_batch(small_schema, small_data):
    rows = ck.data.read(small_data, small_schema, batch_size=64).take(1).cache().repeat(60)
    model = small(small_schema, units=(16,))
    model.compile(ck.optimizers.LazyAdam(0.02))
    model.fit(rows, verbose=0, shuffle=False)
    assert model.evaluate(rows.take(1), verbose=0, return_dict=True)["auc"] > 0.99


@pytest.mark.parametrize(("rows", "policy"), [([1], "float32"), ([0, 1, 2], "mixed_bfloat16")])
def test_trains_also_on_padding_alone_and_in_mixed_precision(rows, policy):
    keras.config.set_dtype_policy(policy)
    x = {name: values[rows] for name, values in BATCH.items()}
    model = small(schema_of())
    model.compile(metrics=[])
    assert np.isfinite(model.fit(x, np.ones(len(rows)), verbose=0).history["loss"][0])
    assert all(np.isfinite(w).all() for w in model.get_weights())
    assert model.predict(x, verbose=0).dtype == np.float32


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"Received: `kept=4`, `path_length=3`"):
        small(schema_of(), kept=4)
    with pytest.raises(ValueError, match="DBPMaN needs a history that shares"):
        small(ck.Schema([ck.Feature("item_id", "item", vocabulary=ck.Vocabulary.of_size(9))]))
