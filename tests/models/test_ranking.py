import numpy as np
import pytest

import ctr_keras as ck
from tests.models.conformance import run_model_conformance

MODELS = {
    "DNN": lambda schema: ck.models.DNN(schema, embedding_dim=4, units=(8, 4)),
    "FM": lambda schema: ck.models.FM(schema, embedding_dim=4),
    "WideDeep": lambda schema: ck.models.WideDeep(
        schema, embedding_dim=4, units=(8,), crosses=[("user_id", "item_id")], cross_buckets=50
    ),
    "DeepFM": lambda schema: ck.models.DeepFM(schema, embedding_dim=4, units=(8, 4), l2=1e-4),
    "DIN": lambda schema: ck.models.DIN(
        schema, embedding_dim=4, units=(8, 4), attention_units=(6, 3)
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_conformance(name, small_schema, small_data, tmp_path):
    run_model_conformance(MODELS[name], small_schema, small_data, tmp_path, continues=name == "DIN")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def plain_schema():
    return ck.Schema(
        [
            ck.Feature("user_id", "user", vocabulary=ck.Vocabulary.of_size(9)),
            ck.Feature("item_id", "item", vocabulary=ck.Vocabulary.of_size(12)),
            ck.Feature("history_item_id", "history", length=4, shares="item_id"),
        ]
    )


@pytest.fixture(scope="module")
def batch():
    return {
        "user_id": np.array([2, 8, 0]),
        "item_id": np.array([3, 11, 5]),
        "history_item_id": np.array([[4, 5, 0, 0], [0, 0, 0, 0], [7, 7, 2, 3]]),
    }


def mean_pooled(rows, ids):
    """Mean over unpadded positions, by a plain loop."""
    pooled = np.zeros((len(ids), rows.shape[1]))
    for row, values in enumerate(ids):
        kept = [rows[v] for v in values if v]
        if kept:
            pooled[row] = np.mean(kept, axis=0)
    return pooled


def fields_of(layer, batch):
    """Each feature's pooled vector, `(3, features, width)`."""
    return np.stack(
        [
            layer.rows("user_id")[batch["user_id"]],
            layer.rows("item_id")[batch["item_id"]],
            mean_pooled(layer.rows("item_id"), batch["history_item_id"]),
        ],
        axis=1,
    )


def fm_logit(model, batch):
    """Rendle 2010, equation 1, by the double sum over pairs."""
    linear = fields_of(model.get_layer("linear"), batch)[:, :, 0].sum(axis=1)
    v = fields_of(model.get_layer("embedding"), batch)
    pairs = sum((v[:, i] * v[:, j]).sum(axis=-1) for i in range(3) for j in range(i))
    return model.get_layer("linear_bias").bias.numpy() + linear + pairs


def mlp(layers, x):
    for kernel, bias in layers:
        x = np.maximum(x @ kernel + bias, 0)
    return x


def mlp_weights(layer):
    weights = [w.numpy() for w in layer.trainable_weights]
    return list(zip(weights[::2], weights[1::2], strict=True))


def randomized(model):
    """A model whose every weight matters to the output."""
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.get_weights()])
    model.negative_ratio = 1  # No weight of the formula.
    return model


def test_fm_formula(plain_schema, batch):
    model = randomized(ck.models.FM(plain_schema, embedding_dim=5))
    expected = sigmoid(fm_logit(model, batch))
    np.testing.assert_allclose(model.predict(batch, verbose=0)[:, 0], expected, atol=1e-5)


def test_dnn_formula(plain_schema, batch):
    model = randomized(ck.models.DNN(plain_schema, embedding_dim=5, units=(6, 4)))
    v = fields_of(model.get_layer("embedding"), batch).reshape(3, -1)
    kernel, bias = (w.numpy() for w in model.get_layer("logit").weights)
    logit = mlp(mlp_weights(model.get_layer("mlp")), v) @ kernel + bias
    np.testing.assert_allclose(model.predict(batch, verbose=0), sigmoid(logit), atol=1e-5)


def test_deep_fm_formula(plain_schema, batch):
    model = randomized(ck.models.DeepFM(plain_schema, embedding_dim=5, units=(6, 4)))
    v = fields_of(model.get_layer("embedding"), batch).reshape(3, -1)
    deep = mlp(mlp_weights(model.get_layer("mlp")), v)
    logit = fm_logit(model, batch) + (deep @ model.get_layer("mlp_logit").kernel.numpy())[:, 0]
    np.testing.assert_allclose(model.predict(batch, verbose=0)[:, 0], sigmoid(logit), atol=1e-5)


def test_wide_deep_formula(plain_schema, batch):
    model = randomized(ck.models.WideDeep(plain_schema, embedding_dim=5, units=(6,)))
    v = fields_of(model.get_layer("embedding"), batch).reshape(3, -1)
    linear = fields_of(model.get_layer("linear"), batch)[:, :, 0].sum(axis=1)
    logit = model.get_layer("linear_bias").bias.numpy() + linear
    deep = mlp(mlp_weights(model.get_layer("mlp")), v)
    logit = logit + (deep @ model.get_layer("mlp_logit").kernel.numpy())[:, 0]
    np.testing.assert_allclose(model.predict(batch, verbose=0)[:, 0], sigmoid(logit), atol=1e-5)


def test_wide_crosses_are_penalized(plain_schema, batch):
    model = ck.models.WideDeep(
        plain_schema, embedding_dim=5, crosses=[("user_id", "item_id")], cross_buckets=50, l2=0.1
    )
    crosses = model.get_layer("crosses")
    model(batch, training=True)
    crosses.set_weights([np.full_like(w, 10.0) for w in crosses.get_weights()])
    before = float(sum(model.losses))
    model(batch, training=True)
    # Row 2 has no user: a cross of its own all the same. All three rows of weight 10.
    assert float(sum(model.losses)) - before == pytest.approx(0.1 * 3 * 10**2, rel=1e-3)


def test_wide_crosses_tell_combinations_apart(plain_schema, batch):
    model = ck.models.WideDeep(plain_schema, 4, (4,), crosses=[("user_id", "item_id")])
    before = model.predict(batch, verbose=0)
    crosses = model.get_layer("crosses")
    crosses.tables["1"].assign(np.arange(crosses.tables["1"].shape[0])[:, None] * 1e-4)
    change = (model.predict(batch, verbose=0) - before)[:, 0]
    assert len(set(change.round(7))) == 3


def test_din_formula(plain_schema, batch):
    """Equation 3 of the paper with the public code's difference, by a loop over positions."""
    model = randomized(
        ck.models.DIN(
            plain_schema,
            embedding_dim=4,
            units=(6,),
            attention_units=(5, 3),
            attention_activation="sigmoid",
        )  # fmt: skip
    )
    embedding = model.get_layer("embedding")
    items = embedding.rows("item_id")
    query = items[batch["item_id"]]
    attention = model.get_layer("attention")
    shapes = {tuple(w.shape): w.numpy() for w in attention.weights}
    first, second, last = shapes[(16, 5)], shapes[(5, 3)], shapes[(3, 1)]
    first_bias, second_bias, last_bias = shapes[(5,)], shapes[(3,)], shapes[(1,)]
    interest = np.zeros((3, 4))
    for row, ids in enumerate(batch["history_item_id"]):
        for key in (items[i] for i in ids if i):
            q = query[row]
            x = np.concatenate([q, key, q - key, q * key])
            x = sigmoid(sigmoid(x @ first + first_bias) @ second + second_bias)
            interest[row] += (x @ last + last_bias) * key
    users = embedding.rows("user_id")[batch["user_id"]]
    joint = np.concatenate([users, query, interest], axis=1)
    kernel, bias = (w.numpy() for w in model.get_layer("logit").weights)
    logit = mlp(mlp_weights(model.get_layer("mlp")), joint) @ kernel + bias
    np.testing.assert_allclose(model.predict(batch, verbose=0), sigmoid(logit), atol=1e-5)


def test_padding_and_its_length_change_nothing(plain_schema, batch):
    history = ck.Feature("history_item_id", "history", length=9, shares="item_id")
    longer = ck.Schema([*plain_schema.features[:2], history])
    padded = {**batch, "history_item_id": np.pad(batch["history_item_id"], ((0, 0), (0, 5)))}
    for cls in (ck.models.DIN, ck.models.DeepFM):
        short, long = cls(plain_schema, embedding_dim=4), cls(longer, embedding_dim=4)
        long.set_weights(randomized(short).get_weights())
        np.testing.assert_allclose(
            short.predict(batch, verbose=0), long.predict(padded, verbose=0), atol=1e-6
        )


def test_din_overfits_a_tiny_batch(small_schema, small_data):
    rows = ck.data.read(small_data, small_schema, batch_size=64).take(1).cache().repeat(60)
    model = ck.models.DIN(small_schema, embedding_dim=8, units=(16,))
    model.compile(ck.optimizers.LazyAdam(0.02))
    model.fit(rows, verbose=0, shuffle=False)
    logs = model.evaluate(rows.take(1), verbose=0, return_dict=True)
    assert logs["auc"] > 0.99


def test_din_needs_a_history():
    schema = ck.Schema([ck.Feature("item_id", "item", vocabulary=ck.Vocabulary.of_size(9))])
    with pytest.raises(ValueError, match="needs a history that shares"):
        ck.models.DIN(schema)


def test_din_needs_histories_of_one_length(plain_schema):
    features = [
        *plain_schema,
        ck.Feature("brand", "item", vocabulary=ck.Vocabulary.of_size(5)),
        ck.Feature("history_brand", "history", length=9, shares="brand"),
    ]
    with pytest.raises(ValueError, match="one length.*'history_brand': 9"):
        ck.models.DIN(ck.Schema(features))


def test_wide_deep_names_a_bad_cross(plain_schema):
    with pytest.raises(ValueError, match="'colour'"):
        ck.models.WideDeep(plain_schema, crosses=[("user_id", "colour")])
    with pytest.raises(ValueError, match="'history_item_id'"):
        ck.models.WideDeep(plain_schema, crosses=[("user_id", "history_item_id")])


def test_schema_is_checked():
    with pytest.raises(TypeError, match="schema="):
        ck.models.FM("schema.json")
    with pytest.raises(ValueError, match="no model input"):
        ck.models.FM(ck.Schema([ck.Feature("label", "label", kind="number")]))


@pytest.mark.parametrize("name", ["DNN", "FM", "WideDeep", "DeepFM"])
def test_histories_of_two_lengths(name, plain_schema, batch):
    bought = ck.Feature("history_bought", "history", length=2, shares="item_id")
    schema = ck.Schema((*plain_schema, bought))
    model = MODELS[name](schema)
    assert not {"target", "history", "history_mask"} & set(model.tensors)
    model.compile()
    x = {**batch, "history_bought": np.array([[3, 0], [0, 0], [5, 6]])}
    assert np.isfinite(model.fit(x, np.array([0.0, 1, 0]), verbose=0).history["loss"][0])
    with pytest.raises(ValueError, match="need one length. Received: `length="):
        MODELS["DIN"](schema)


def test_one_layer_may_be_a_number(plain_schema):
    model = ck.models.DIN(plain_schema, units=16, attention_units=4)
    assert (model.units, model.attention_units) == ((16,), (4,))
    assert ck.models.AT4CTR(model, units=8).units == (8,)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"units": "wide"}, ValueError, "`units` must be .* positive integers.*`units='wide'`"),
        ({"units": None}, ValueError, "`units` must be .* positive integers.*`units=None`"),
        ({"activation": "rely"}, ValueError, "`activation` must be .*`activation='rely'`"),
        ({"embedding_dim": None}, ValueError, "`embedding_dim` must be .*`embedding_dim=None`"),
        ({"hidden": [3]}, TypeError, r"DNN does not take `hidden`, but .*units.*`hidden=\[3\]`"),
        ({"unit": [3]}, TypeError, "did you mean `units`"),
    ],
)
def test_bad_arguments_are_named(plain_schema, options, error, message):
    with pytest.raises(error, match=message):
        ck.models.DNN(plain_schema, **options)
