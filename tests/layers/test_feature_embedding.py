import collections

import keras
import numpy as np
import pytest

from ctr_keras.layers import FeatureEmbedding
from tests.conformance import BACKEND, run_layer_conformance

RNG = np.random.default_rng(0)
SIZES = {"user": 7, "item": 5, "city": 3}
SHARED = {"history": "item"}
IDS = {
    "user": np.array([6, 1, 0, 2], "int32"),
    "item": np.array([4, 1, 2, 4], "int32"),
    "history": np.array([[4, 4, 0], [1, 2, 3], [0, 0, 0], [4, 0, 2]], "int32"),
    "city": np.array([[1], [2], [0], [1]], "int32"),
}
tensorflow_only = pytest.mark.skipif(BACKEND != "tensorflow", reason="the TensorFlow path")


def build(**kwargs):
    layer = FeatureEmbedding(SIZES, kwargs.pop("width", 4), SHARED, **kwargs)
    layer.build()
    return layer


def look_up(layer, ids):
    """Feature by feature, from the public rows."""
    return {name: layer.rows(name)[x] for name, x in ids.items()}


@pytest.mark.parametrize(
    "kwargs",
    [
        {"width": 4},
        {"width": {"user": 2, "item": 4, "city": 2}, "l2": 0.01},
        {"width": 4, "validate_ids": False, "embeddings_initializer": "normal"},
    ],
)
def test_conformance(kwargs):
    width = kwargs["width"]
    width = width if isinstance(width, dict) else dict.fromkeys(SIZES, width)
    width = {**width, "history": width["item"]}
    shapes = {name: (*x.shape, width[name]) for name, x in IDS.items()}
    run_layer_conformance(
        FeatureEmbedding, {"sizes": SIZES, "shared": SHARED, **kwargs}, IDS, shapes
    )


@pytest.mark.parametrize("width", [4, {"user": 2, "item": 4, "city": 3}])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint32"])
def test_looks_up_the_rows_of_each_feature(width, dtype):
    if BACKEND == "jax" and dtype == "int64":
        pytest.skip("JAX has no 64-bit integers by default")
    layer = build(width=width)
    ids = {name: x.astype(dtype) for name, x in IDS.items()}
    for name, expected in look_up(layer, ids).items():
        np.testing.assert_array_equal(layer(ids)[name], expected)


def test_tables_are_fused_by_width_and_marked():
    layer = build(width={"user": 2, "item": 4, "city": 2})
    assert sorted(tuple(w.shape) for w in layer.weights) == [(5, 4), (10, 2)]
    assert all(w.sparse_rows for w in layer.weights)


def test_padding_is_zero_whatever_the_table_holds():
    layer = build(embeddings_initializer="ones")
    out = layer(IDS)
    for name, x in IDS.items():
        np.testing.assert_array_equal(np.asarray(out[name])[x == 0], 0)
        np.testing.assert_array_equal(np.asarray(out[name])[x != 0], 1)
        np.testing.assert_array_equal(layer.rows(name)[0], 0)


def test_a_subset_in_the_order_asked_for():
    layer = build()
    out = layer({"history": IDS["history"], "city": IDS["city"]})
    assert list(out) == ["history", "city"]
    np.testing.assert_array_equal(out["city"], look_up(layer, IDS)["city"])
    assert layer({"user": np.int32(3)})["user"].shape == (4,)
    assert layer({"user": np.ones((2, 3, 4), "int32")})["user"].shape == (2, 3, 4, 4)
    assert layer({"user": np.ones((0,), "int32"), "item": IDS["item"]})["user"].shape == (0, 4)


def test_assign_rows():
    layer = build()
    kept = layer.rows("user")
    values = RNG.normal(size=(5, 4)).astype("float32")
    layer.assign_rows("history", values)
    np.testing.assert_array_equal(layer.rows("item")[1:], values[1:])
    np.testing.assert_array_equal(layer.rows("item")[0], 0)
    layer.assign_rows("item", values[:2] + 1, ids=[3, 1])
    np.testing.assert_array_equal(layer.rows("item")[[3, 1]], values[:2] + 1)
    np.testing.assert_array_equal(layer.rows("item")[[2, 4]], values[[2, 4]])
    np.testing.assert_array_equal(layer.rows("user"), kept)
    np.testing.assert_array_equal(layer.rows("city"), layer.rows("city"))


def test_bad_rows():
    layer = build()
    with pytest.raises(
        ValueError, match=r"`ids` of feature 'item' must lie in \[1, 5\).*`ids=\[0\]`"
    ):
        layer.assign_rows("item", np.ones((1, 4)), ids=[0])
    with pytest.raises(ValueError, match=r"shape \(5, 4\)\. Received: `values.shape=\(4, 4\)`"):
        layer.assign_rows("item", np.ones((4, 4)))
    with pytest.raises(ValueError, match=r"Received: `inputs=\['nope'\]`"):
        layer.rows("nope")


def test_l2_counts_each_touched_row_once_and_only_in_training():
    layer = build(l2=0.5)
    layer(IDS)
    assert not layer.losses
    layer(IDS, training=True)
    touched = {(n if n != "history" else "item", i) for n, x in IDS.items() for i in x.ravel() if i}
    expected = 0.5 * sum(np.sum(layer.rows(name)[i] ** 2) for name, i in touched)
    np.testing.assert_allclose(sum(float(x) for x in layer.losses), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["user", "history"])
@pytest.mark.parametrize("bad", [-1, 7])
def test_eager_ids_out_of_range_name_the_feature(name, bad):
    ids = {**IDS, name: np.where(IDS[name] == 1, bad, IDS[name])}
    with pytest.raises(ValueError, match=rf"feature '{name}' must lie in \[0, .*{bad}"):
        build()(ids)


def test_bad_calls():
    layer = build()
    with pytest.raises(ValueError, match=r"knows the features .*Received: `inputs=\['nope'\]`"):
        layer({**IDS, "nope": IDS["user"]})
    with pytest.raises(TypeError, match=r"non-empty dict"):
        layer({})
    with pytest.raises(TypeError, match=r"Feature 'user' must hold integer ids.*dtype=float32`"):
        layer({"user": np.ones((2,), "float32")})
    with pytest.raises(TypeError, match=r"Feature 'user' must hold integer ids"):
        layer({"user": keras.Input((), dtype="float32")})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sizes": {}}, r"`sizes` must be a non-empty dict"),
        ({"sizes": {"a": 1}}, r"at least 2.*Received: `sizes\['a'\]=1`"),
        ({"width": 0}, r"positive integer\. Received: `width=0`"),
        ({"width": {"user": 2}}, r"must name every feature, not \['item', 'city'\]"),
        ({"width": {"user": 2, "item": 2, "city": 2, "history": 3}}, r"`width\['history'\]` must"),
        ({"shared": {"history": "nope"}}, r"`shared\['history'\]` must be one of"),
        ({"shared": {"user": "item"}}, r"must not be in `sizes`"),
        ({"l2": -1.0}, r"Received: `l2=-1.0`"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises((ValueError, TypeError), match=message):
        FeatureEmbedding(**{"sizes": SIZES, "width": 4, **kwargs})


def ops_reading(graph, variable):
    """Type of op -> how many of them, in a traced graph, take this variable's resource."""
    handle = next(c for v, c in graph.captures if v is variable.value.handle)
    return collections.Counter(op.type for op in handle.consumers())


@tensorflow_only
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_one_gather_a_width_from_the_resource(policy):
    import tensorflow as tf

    layer = build(width={"user": 2, "item": 4, "city": 2}, dtype=policy)

    @tf.function
    def step(ids):
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_sum(tf.cast(x, "float32")) for x in layer(ids).values()])
        gradients = tape.gradient(loss, [w.value for w in layer.weights])
        assert all(isinstance(g, tf.IndexedSlices) for g in gradients)
        assert all(g.dtype == tf.float32 for g in gradients)
        return gradients

    graph = step.get_concrete_function(IDS).graph
    for table in layer.weights:
        reads = ops_reading(graph, table)
        assert reads["ResourceGather"] == 1
        # What reads or copies all of it.
        assert not set(reads) - {"ResourceGather", "VariableShape"}


@tensorflow_only
def test_gradient_holds_the_unpadded_ids_only():
    import tensorflow as tf

    layer = build()
    upstream = RNG.normal(size=(4, 3, 4)).astype("float32")
    with tf.GradientTape() as tape:
        out = layer({"history": IDS["history"]})["history"]
        loss = tf.reduce_sum(out * upstream)
    gradient = tape.gradient(loss, layer.weights[0].value)
    offset = SIZES["user"]
    valid = IDS["history"] != 0
    np.testing.assert_array_equal(gradient.indices, IDS["history"][valid] + offset)
    np.testing.assert_array_equal(gradient.values, upstream[valid])


@tensorflow_only
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_ids_out_of_range_in_a_graph_name_the_feature(dtype):
    import tensorflow as tf

    call = tf.function(build())
    ids = {name: x.astype(dtype) for name, x in IDS.items()}
    call(ids)
    for bad in (3, 100) if dtype == "uint8" else (-1, 3, 100):
        wrong = {**ids, "city": np.where(ids["city"] == 1, bad, ids["city"]).astype(dtype)}
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"Out of range.*city"):
            call(wrong)


@tensorflow_only
def test_ids_beyond_int32_do_not_wrap_around():
    import tensorflow as tf

    call = tf.function(build())
    with pytest.raises(tf.errors.InvalidArgumentError, match="user"):
        call({"user": np.array([2**32 + 1])})


@tensorflow_only
def test_fit_names_the_feature_of_a_bad_id():
    import tensorflow as tf

    ids = keras.Input((), dtype="int32", name="user")
    model = keras.Model(ids, keras.layers.Dense(1)(build()({"user": ids})["user"]))
    model.compile("sgd", "mse")
    assert not model.jit_compile
    with pytest.raises(tf.errors.InvalidArgumentError, match="user"):
        model.fit(np.array([1, 7]), np.ones((2, 1)), verbose=0)


def test_positions_are_int64_beyond_two_billion_rows():
    from ctr_keras.layers.feature_embedding import _index_dtype

    small, large = (keras.KerasTensor((n, 4)) for n in (2**31 - 1, 2**31))
    assert (_index_dtype(small), _index_dtype(large)) == ("int32", "int64")
