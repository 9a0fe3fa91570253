"""The signature `rank`; that every model's agrees with its rows is in the models' conformance."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import ctr_keras as ck
from ctr_keras import serving
from ctr_keras.models.candidates import score_candidates
from ctr_keras.models.inference_graph import InferenceGraph
from tests.models.test_ranking import randomized

ITEMS = 37
RNG = np.random.default_rng(0)


def schema_of(*more):
    ids = ck.Vocabulary.of_size(50)
    return ck.Schema(
        [
            ck.Feature("user_id", "user", vocabulary=ids),
            ck.Feature("item_id", "item", vocabulary=ids),
            ck.Feature("brand", "item", vocabulary=ids),
            ck.Feature("hour", "context", kind="number"),
            ck.Feature("history_item_id", "history", length=6, shares="item_id"),
            ck.Feature("history_brand", "history", length=6, shares="brand"),
            *more,
        ]
    )


def columns_of(schema, items=ITEMS):
    """One user and some items, as `rank` takes them."""
    columns = {}
    for feature in schema.inputs:
        rows = items if schema.is_of_item(feature.name) else 1
        shape = (rows, *(() if feature.length is None else (feature.length,)))
        if feature.kind == "number":
            columns[feature.name] = tf.constant(RNG.normal(size=shape), tf.float32)
        elif feature.kind == "vector":
            columns[feature.name] = tf.constant(RNG.normal(size=(*shape, feature.width)), "float32")
        else:
            columns[feature.name] = tf.constant(RNG.integers(1, 50, shape), tf.int64)
    return columns


def tiled(schema, columns, items=ITEMS):
    return {
        name: x if schema.is_of_item(name) else tf.repeat(x, items, axis=0)
        for name, x in columns.items()
    }


def din(schema, **kwargs):
    options = {"embedding_dim": 4, "units": (8, 4), "attention_units": (6, 3), **kwargs}
    model = randomized(ck.models.DIN(schema, **options))
    for weight in model.weights:
        if "variance" in weight.path:
            weight.assign(ops.abs(weight) + 0.1)
    return model


@pytest.fixture(scope="module")
def signatures(tmp_path_factory):
    folder = serving.export(din(schema_of()), tmp_path_factory.mktemp("models") / "din")
    return tf.saved_model.load(str(folder)).signatures


def test_sides():
    vectors = [
        ck.Feature("photo", "vector", kind="vector", width=3),
        ck.Feature("of_item", "vector", kind="vector", width=3, of="item_id"),
        ck.Feature("of_past", "vector", kind="vector", width=3, length=6, of="history_item_id"),
    ]
    schema = schema_of(*vectors)
    of_items = {f.name for f in schema.inputs if schema.is_of_item(f.name)}
    assert of_items == {"item_id", "brand", "photo", "of_item"}


@pytest.mark.parametrize("past", [0, 1, 6])
@pytest.mark.parametrize("items", [0, 1, ITEMS])
def test_as_by_rows(signatures, past, items):
    columns = columns_of(schema_of(), items)
    for name in ("history_item_id", "history_brand"):
        columns[name] *= tf.cast(tf.range(6) < past, tf.int64)
    got = signatures["rank"](**columns)["probability"]
    assert got.shape == (items,) and got.dtype == tf.float32
    if items:
        rows = tiled(schema_of(), columns, items)
        expected = signatures["serving_default"](**rows)["probability"].numpy()
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
        assert items == 1 or expected.std() > 0.01


def test_history_of_any_length(signatures):
    """The newest of a longer one, as in `serving_default`."""
    columns = columns_of(schema_of())
    expected = signatures["rank"](**columns)["probability"]
    older = tf.constant([[3, 4, 5]], tf.int64)
    longer = {
        name: tf.concat([older, x], axis=1) if name.startswith("history") else x
        for name, x in columns.items()
    }
    np.testing.assert_array_equal(signatures["rank"](**longer)["probability"], expected)


def test_what_the_signature_takes(signatures):
    inputs = signatures["rank"].structured_input_signature[1]
    schema = schema_of()
    for name, spec in inputs.items():
        assert spec.shape[0] == (None if schema.is_of_item(name) else 1), name
    assert list(signatures["rank"].structured_outputs) == ["probability"]


def test_wrong_shapes_are_named(signatures):
    columns = columns_of(schema_of())
    with pytest.raises(tf.errors.InvalidArgumentError, match="brand, item_id|item_id, brand"):
        signatures["rank"](**{**columns, "brand": columns["brand"][:5]})
    two = tf.repeat(columns["hour"], 2, axis=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="hour.*not compatible.*1"):
        signatures["rank"](**{**columns, "hour": two})


@pytest.mark.parametrize("left_out", ["item", "user"])
def test_no_rank_without_both_sides(left_out, tmp_path):
    features = [f for f in schema_of() if (f.role == "item") != (left_out == "item")]
    schema = ck.Schema([f for f in features if f.shares is None])
    folder = serving.export(ck.models.FM(schema, embedding_dim=3), tmp_path / "fm")
    signatures = tf.saved_model.load(str(folder)).signatures
    assert set(signatures) == {"serving_default", "serving_examples"}


def test_the_users_side_has_one_row():
    """Rows that operations are given: 1 where only the user matters."""
    schema = schema_of()
    graph = ck.models.DeepFM(schema, embedding_dim=4, units=(8,)).inference_model()
    rows = {}

    class Spy(keras.layers.Layer):
        def call(self, x):
            rows[self.name] = x.shape[0]
            return x

    x = Spy(name="user")(graph.input["hour"])
    y = Spy(name="both")(ops.concatenate([x[:, None], graph.input["hour"][:, None] * 2], axis=-1))
    item = ops.cast(graph.input["item_id"], "float32")[:, None]
    z = Spy(name="item")(ops.concatenate([y, item], axis=-1))
    model = keras.Model(graph.input, z)
    columns = columns_of(schema)
    user = {name: value for name, value in columns.items() if not schema.is_of_item(name)}
    items = {name: value for name, value in columns.items() if schema.is_of_item(name)}
    got = score_candidates(model, user, items)
    assert rows == {"user": 1, "both": 1, "item": ITEMS}
    np.testing.assert_allclose(got, model(tiled(schema, columns)), rtol=1e-6)


@pytest.mark.parametrize("kind", [keras.Model, InferenceGraph])
def test_the_users_side_has_one_row_in_nested_graphs(kind):
    rows, modes = [], []

    class Spy(keras.layers.Layer):
        def call(self, x, training=None):
            rows.append(x.shape[0])
            modes.append(training)
            return x

    a, b = keras.Input((1,), name="a"), keras.Input((1,), name="b")
    nested = kind({"a": a, "b": b}, ops.concatenate([Spy()(a), b], axis=-1))
    user, item = keras.Input((1,), name="user"), keras.Input((1,), name="item")
    model = keras.Model({"user": user, "item": item}, nested({"a": user, "b": item}))
    rows.clear()
    score_candidates(model, {"user": tf.ones((1, 1))}, {"item": tf.ones((5, 1))})
    assert rows == [1]
    modes.clear()
    model({"user": tf.ones((1, 1)), "item": tf.ones((1, 1))}, training=True)
    assert modes == [kind is keras.Model]


def functional(schema, build):
    inputs = ck.models.FM(schema, embedding_dim=2).input
    return keras.Model(inputs, build({n: ops.cast(x, "float32") for n, x in inputs.items()}))


GRAPHS = {
    "dense layer after a concatenation of both sides": lambda x: keras.layers.Dense(3, "tanh")(
        ops.concatenate([x["hour"][:, None], x["item_id"][:, None], x["history_brand"]], axis=-1)
    ),
    "a matrix of both sides": lambda x: ops.sum(
        ops.stack([x["item_id"], x["user_id"], x["hour"]], axis=1), axis=1, keepdims=True
    ),
    "concatenated along the history": lambda x: ops.concatenate(
        [x["history_brand"][:, :, None], x["item_id"][:, None, None]], axis=1
    ),
    "broadcast": lambda x: x["item_id"][:, None] * x["history_brand"],
    "the user alone": lambda x: x["hour"][:, None] * 2,
    "the items alone": lambda x: x["item_id"][:, None] * 2,
    "a reduction of the batch": lambda x: (
        x["item_id"][:, None] + ops.mean(x["user_id"][:, None], axis=0, keepdims=True)
    ),
    "a nested model": lambda x: keras.Model(
        {"a": (a := keras.Input((1,))), "b": (b := keras.Input((6,)))},
        ops.concatenate([b * 2, a], axis=-1),
    )({"a": x["item_id"][:, None], "b": x["history_brand"]}),
    "a mask of Keras": lambda x: keras.layers.GlobalAveragePooling1D()(
        keras.layers.Masking(5.0)(x["history_brand"][:, :, None])
        + ops.repeat(x["item_id"][:, None, None], 6, axis=1)
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_any_graph(name):
    """Of operations that the package knows nothing of."""
    schema = schema_of()
    model = functional(schema, GRAPHS[name])
    columns = columns_of(schema)
    user = {n: x for n, x in columns.items() if not schema.is_of_item(n)}
    items = {n: x for n, x in columns.items() if schema.is_of_item(n)}
    got = tf.function(lambda: score_candidates(model, user, items), autograph=False)()
    expected = model(tiled(schema, columns))
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    schema = schema_of()
    graph = din(schema).inference_model()
    columns = columns_of(schema)
    user = {n: x for n, x in columns.items() if not schema.is_of_item(n)}
    items = {n: x for n, x in columns.items() if schema.is_of_item(n)}
    got = score_candidates(graph, user, items)
    np.testing.assert_allclose(got, graph(tiled(schema, columns)), atol=0.05)
