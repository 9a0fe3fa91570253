import keras
import numpy as np
import pytest

from ctr_keras.layers import BehaviorPathMatching
from tests.conformance import BACKEND, run_layer_conformance

RNG = np.random.default_rng(0)
B, L, D = 6, 6, 4
TARGET = RNG.normal(size=(B, D)).astype("float32")
ITEMS = RNG.normal(size=(B, L, D)).astype("float32")
# Among the rows: an empty history, a full one, a single item, and holes.
MASK = np.array(
    [
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1],
        [0, 1, 0, 1, 1, 0],
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 1],
    ],
    bool,
)
KWARGS = {"path_length": 3, "kept": 2, "units": [5], "activation": "tanh"}
tensorflow_only = pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow alone")


def softmax(x):
    e = np.exp(x - np.max(x))
    return e / e.sum()


def path_before(layer, items, mask, t):
    """The enhanced path of position `t`, place by place in the order of time."""
    weights = {w.path.rsplit("/", 1)[1]: w.numpy() for w in layer.weights}
    at = np.arange(t - layer.path_length, t)
    present = np.array([i >= 0 and mask[i] for i in at])
    if not present.any():
        return None
    path = np.array(
        [items[i] if known else np.zeros(D) for i, known in zip(at, present, strict=True)]
    )
    kernel = weights["router_kernel"].reshape(-1, layer.path_length)
    logits = path.reshape(-1) @ kernel + weights["router_bias"]
    router = np.zeros(layer.path_length)
    router[present] = softmax(logits[present])
    router[np.argsort(-router)[layer.kept :]] = 0
    return router[:, None] * path


def activation(layer, query, key):
    """DIN's unit with one hidden layer."""
    weights = {w.path.split("activation_unit/", 1)[-1]: w.numpy() for w in layer.weights}
    x = np.concatenate([query, key, query - key, query * key])
    x = np.tanh(x @ weights["kernel"] + weights["bias"])
    return (x @ weights["score/kernel"] + weights["score/bias"])[0]


def matching(layer, target, items, mask):
    """The class' three steps, by loops over rows, positions and places."""
    match_kernel = layer.match_kernel.numpy()
    out = np.zeros(target.shape)
    for b in range(len(target)):
        if not mask[b].any():
            continue
        now = path_before(layer, items[b], mask[b], 1 + np.flatnonzero(mask[b])[-1])
        paths = {t: path_before(layer, items[b], mask[b], t) for t in np.flatnonzero(mask[b])}
        paths = {t: path for t, path in paths.items() if path is not None}
        if not paths:
            continue
        scores = softmax(np.array([np.sum((now @ match_kernel) * p) for p in paths.values()]))
        for match, t in zip(scores, paths, strict=True):
            out[b] += match * activation(layer, target[b], items[b, t]) * items[b, t]
    return out


def randomized(**kwargs):
    layer = BehaviorPathMatching(**{**KWARGS, **kwargs})
    layer.build(TARGET.shape, ITEMS.shape)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(0, 0.7, w.shape) for w in layer.get_weights()])
    return layer


def test_conformance():
    run_layer_conformance(
        BehaviorPathMatching,
        {**KWARGS, "activation": "dice", "kernel_initializer": "he_normal"},
        (TARGET, ITEMS, MASK),
        (B, D),
        masked={"items": "mask"},
    )


@pytest.mark.parametrize("kwargs", [{}, {"kept": 1}, {"kept": 3}, {"path_length": 9, "kept": 4}])
@pytest.mark.parametrize("mask", [MASK, np.ones_like(MASK)])
def test_equals_the_formula(kwargs, mask):
    layer = randomized(**kwargs)
    out = np.asarray(layer(TARGET, ITEMS, mask))
    expected = matching(layer, TARGET, ITEMS, mask)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    if mask.all():
        np.testing.assert_allclose(layer(TARGET, ITEMS), out, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "mask", [np.zeros_like(MASK), np.arange(L) == np.zeros((B, 1)), MASK[:1, :1]]
)
def test_rows_in_which_nothing_follows_an_item_give_zeros(mask, training):
    rows, length = mask.shape
    layer = randomized(activation="dice")
    out = layer(TARGET[:rows], ITEMS[:rows, :length], mask, training=training)
    np.testing.assert_array_equal(out, np.zeros((rows, D)))
    assert all(np.all(np.isfinite(w)) for w in layer.get_weights())


def test_what_follows_the_matching_path_comes_back():
    """The current path a, b was followed by c before, and d, e by f."""
    a, b, c, d, e, f = np.eye(6, dtype="float32")
    items = np.stack([a, b, c, d, e, f, a, b])[None]
    layer = BehaviorPathMatching(path_length=2, kept=2, units=[2], activation="linear")
    layer.build((1, 6), items.shape)
    layer.set_weights([np.zeros(w.shape) for w in layer.get_weights()])
    layer.match_kernel.assign(100 * np.eye(6))
    layer.activation_unit.score.bias.assign([1.0])
    np.testing.assert_allclose(layer(np.ones((1, 6), "float32"), items)[0], c, atol=1e-5)


def test_any_batch_and_length_after_the_first_call():
    layer = randomized()
    full = np.asarray(layer(TARGET, ITEMS, MASK))
    for length in (3, L):
        got = layer(TARGET[:1], ITEMS[:1, :length], MASK[:1, :length])
        np.testing.assert_allclose(got, full[:1], rtol=1e-5, atol=1e-6)


def test_dynamic_length_in_a_model():
    target, items = keras.Input((D,)), keras.Input((None, D))
    mask = keras.Input((None,), dtype="bool")
    model = keras.Model([target, items, mask], randomized()(target, items, mask))
    for length in (1, 3, 6):
        data = [TARGET, ITEMS[:, :length], MASK[:, :length]]
        expected = matching(model.layers[-1], *data)
        np.testing.assert_allclose(model.predict(data, verbose=0), expected, rtol=1e-5, atol=1e-5)


@tensorflow_only
def test_no_gradient_flows_to_padding():
    import tensorflow as tf

    items = tf.constant(ITEMS)
    with tf.GradientTape() as tape:
        tape.watch(items)
        loss = tf.reduce_sum(tf.square(randomized()(TARGET, items, MASK, training=True)))
    gradient = np.asarray(tape.gradient(loss, items))
    assert np.all(gradient[~MASK] == 0)
    assert np.all(np.any(gradient[MASK.all(1)] != 0, axis=-1))


@tensorflow_only
def test_no_gradient_flows_into_the_current_path_as_query():
    import tensorflow as tf

    layer, items, seen = randomized(), tf.constant(ITEMS), []
    inner = layer._match
    layer._match = lambda *args: seen.append(inner(*args)) or seen[0]
    with tf.GradientTape() as tape:
        tape.watch(items)
        layer(TARGET, items)
        loss = tf.reduce_sum(seen[0] * np.arange(L, dtype="float32"))
    gradient = np.any(np.asarray(tape.gradient(loss, items)) != 0, axis=(0, 2))
    # The last item lies in the current path alone, every other one in a past path too.
    np.testing.assert_array_equal(gradient, [True] * (L - 1) + [False])


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"positive integer\. Received: `path_length=0`"):
        BehaviorPathMatching(path_length=0)
    with pytest.raises(ValueError, match=r"positive integer\. Received: `kept=0`"):
        BehaviorPathMatching(kept=0)
    with pytest.raises(ValueError, match=r"Received: `kept=4`, `path_length=3`"):
        BehaviorPathMatching(path_length=3, kept=4)
    with pytest.raises(ValueError, match=r"Received: `units=\[0\]`"):
        BehaviorPathMatching(units=[0])
    with pytest.raises(ValueError, match=r"`target` must have shape .*`items.shape=\(6, 6, 3\)`"):
        BehaviorPathMatching()(TARGET, ITEMS[..., :3])
    with pytest.raises(ValueError, match=r"`mask` must have shape \(batch, length\)"):
        BehaviorPathMatching()(TARGET, ITEMS, MASK[:, :, None])


@tensorflow_only
def test_a_graph_of_any_batch_takes_no_rows():
    import tensorflow as tf

    layer = randomized()
    specs = [tf.TensorSpec((None, *x.shape[1:]), x.dtype) for x in (TARGET, ITEMS, MASK)]
    graph = tf.function(lambda *inputs: layer(*inputs), input_signature=specs)
    assert graph(TARGET[:0], ITEMS[:0], MASK[:0]).shape == (0, D)
    np.testing.assert_allclose(graph(TARGET, ITEMS, MASK), layer(TARGET, ITEMS, MASK), rtol=1e-4)
