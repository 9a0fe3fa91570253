import keras
import numpy as np
import pytest

from ctr_keras.layers import TargetAttention
from tests.conformance import BACKEND, run_layer_conformance

RNG = np.random.default_rng(0)
B, L, D = 6, 5, 4
QUERY = RNG.normal(size=(B, D)).astype("float32")
KEYS = RNG.normal(size=(B, L, D)).astype("float32")
# Among the rows: an empty history, a full one, and holes.
MASK = np.array(
    [[1, 1, 0, 0, 0], [0] * 5, [1] * 5, [0, 1, 0, 1, 0], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0]], bool
)
tensorflow_only = pytest.mark.skipif(BACKEND != "tensorflow", reason="the TensorFlow path")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def attention(layer, query, keys, mask, normalize=None):
    """The paper's formula, pair by pair, in inference: Dice by mean 0 and variance 1, alpha 0."""
    weights = {w.path.split("/", 1)[1]: w.numpy() for w in layer.weights}
    kernels = [weights["kernel"], weights["hidden/dense_0/kernel"], weights["score/kernel"]]
    biases = [weights["bias"], weights["hidden/dense_0/bias"], weights["score/bias"]]
    out, scores = np.zeros((len(query), D)), np.full(mask.shape, -np.inf)
    for b, i in zip(*np.nonzero(mask), strict=True):
        q, k = query[b], keys[b, i]
        x = np.concatenate([q, k, q - k, q * k])
        for kernel, bias in zip(kernels[:-1], biases[:-1], strict=False):
            x = x @ kernel + bias
            x = x * sigmoid(x)
        scores[b, i] = (x @ kernels[-1] + biases[-1])[0]
    for b in np.flatnonzero(mask.any(1)):
        w = np.where(mask[b], scores[b], 0)
        if normalize:
            w = np.exp(scores[b] / np.sqrt(D))
            w = w / w.sum()
        out[b] = w @ keys[b]
    return out


@pytest.mark.parametrize(
    "kwargs",
    [
        {"units": [6, 3]},
        {"units": [6, 3], "activation": "relu", "normalize": "softmax"},
        {"units": [5], "activation": "sigmoid", "kernel_initializer": "he_normal"},
    ],
)
def test_conformance(kwargs):
    softmax = kwargs.get("normalize") == "softmax"
    run_layer_conformance(
        TargetAttention,
        kwargs,
        (QUERY, KEYS, MASK),
        (B, D),
        masked={"keys": "mask"},
        # A constant added to all scores does not change their softmax.
        without_gradient=("bias",) if softmax else (),
    )


def test_conformance_without_mask():
    run_layer_conformance(TargetAttention, {"units": [6]}, (QUERY, KEYS), (B, D))


@pytest.mark.parametrize("normalize", [None, "softmax"])
def test_equals_the_formula(normalize):
    layer = TargetAttention([6, 3], normalize=normalize)
    out, weights = layer(QUERY, KEYS, MASK, return_attention_scores=True)
    for w in layer.weights:
        if "bias" in w.path:
            w.assign(RNG.normal(size=w.shape))
    out, weights = layer(QUERY, KEYS, MASK, return_attention_scores=True)
    expected = attention(layer, QUERY, KEYS, MASK, normalize)
    # The formula divides by sqrt(1), the layer by sqrt(1 + 1e-8).
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    weights = np.asarray(weights)
    assert weights.shape == MASK.shape
    assert np.all(weights[~MASK] == 0)
    if normalize:
        np.testing.assert_allclose(weights.sum(1), MASK.any(1), rtol=1e-5)


@pytest.mark.parametrize("normalize", [None, "softmax"])
def test_no_mask_is_a_mask_of_ones(normalize):
    layer = TargetAttention([6], normalize=normalize)
    a, b = layer(QUERY, KEYS), layer(QUERY, KEYS, np.ones_like(MASK))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("normalize", [None, "softmax"])
@pytest.mark.parametrize("training", [False, True])
def test_empty_histories_give_zeros(normalize, training):
    layer = TargetAttention([6, 3], normalize=normalize)
    out = layer(QUERY, KEYS, np.zeros_like(MASK), training=training)
    np.testing.assert_array_equal(out, np.zeros((B, D)))
    assert all(np.all(np.isfinite(w)) for w in layer.get_weights())


def test_any_batch_and_length_after_the_first_call():
    layer = TargetAttention([6, 3])
    full = np.asarray(layer(QUERY, KEYS, MASK))
    np.testing.assert_allclose(layer(QUERY[:1], KEYS[:1], MASK[:1]), full[:1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        layer(QUERY[:1], KEYS[:1, :2], MASK[:1, :2]), full[:1], rtol=1e-5, atol=1e-6
    )
    assert layer(QUERY[:1], KEYS[:1, :1], MASK[:1, :1]).shape == (1, D)


def test_dynamic_length_in_a_model():
    query, keys = keras.Input((D,)), keras.Input((None, D))
    mask = keras.Input((None,), dtype="bool")
    model = keras.Model([query, keys, mask], TargetAttention([6])(query, keys, mask))
    for length in (1, 3, 5):
        inputs = [QUERY, KEYS[:, :length], MASK[:, :length]]
        assert model.predict(inputs, verbose=0).shape == (B, D)


def test_kernel_is_stored_whole():
    layer = TargetAttention([6, 3])
    layer.build((None, D), (None, L, D))
    assert tuple(layer.kernel.shape) == (4 * D, 6)


@pytest.mark.parametrize("normalize", [None, "softmax"])
@pytest.mark.parametrize("activation", ["dice", "tanh"])
@pytest.mark.parametrize("units", [[6], [6, 3]])
@pytest.mark.parametrize("row", range(4))
def test_many_queries_on_one_history(normalize, activation, units, row):
    """As on so many copies of it; Dice with statistics and slopes of its own, 1 among them."""
    layer = TargetAttention(units, activation, normalize)
    layer(QUERY, KEYS, MASK)
    for w in layer.weights:
        w.assign(RNG.uniform(0.1, 0.9, w.shape))
        if w.path.endswith("alpha"):
            w.assign(np.arange(w.shape[0]) % 3 - 0.0)
    query = RNG.normal(size=(1500, D)).astype("float32")
    keys, mask = KEYS[row : row + 1], MASK[row : row + 1]
    copies = np.repeat(keys, 1500, axis=0), np.repeat(mask, 1500, axis=0)
    for given in ((keys, mask), (keys, None)):
        rows = copies if given[1] is not None else (copies[0], None)
        expected = layer(query, *rows, return_attention_scores=True)
        found = layer(query, *given, return_attention_scores=True)
        for got, want in zip(found, expected, strict=True):
            assert got.shape == want.shape
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(layer(query, *given), expected[0], rtol=1e-5, atol=1e-4)


def test_one_history_in_training():
    layer = TargetAttention([6, 3])
    expected = layer(QUERY, np.repeat(KEYS[:1], B, 0), np.repeat(MASK[:1], B, 0), training=True)
    got = layer(QUERY, KEYS[:1], MASK[:1], training=True)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@tensorflow_only
@pytest.mark.parametrize("normalize", [None, "softmax"])
@pytest.mark.parametrize("activation", ["dice", "tanh"])
@pytest.mark.parametrize("mask", [MASK, np.ones_like(MASK), np.zeros_like(MASK)])
def test_path_without_padding_equals_the_generic_one(normalize, activation, mask):
    """Outputs, gradients, Dice's statistics; eager and traced."""
    import tensorflow as tf

    inputs = [tf.constant(QUERY), tf.constant(KEYS)]
    # Dice on one or two equal rows divides rounding errors by sqrt(epsilon).
    layers = [TargetAttention([6, 3], activation, normalize) for _ in range(3)]
    for layer in layers:
        layer(*inputs, mask)
        layer.set_weights(layers[0].get_weights())
        layer.score.bias.assign([0.5])
    layers[1]._score_unmasked = layers[1]._score_all

    def run(layer):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            out = layer(*inputs, mask, training=True)
            loss = tf.reduce_sum(tf.sin(out))
        sources = inputs + [v.value for v in layer.trainable_variables]
        return [out, *tape.gradient(loss, sources, unconnected_gradients="zero")]

    results = [run(layers[0]), run(layers[1]), tf.function(lambda: run(layers[2]))()]
    for other in (1, 2):
        for a, b in zip(results[0], results[other], strict=True):
            assert np.all(np.isfinite(a))
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        for a, b in zip(layers[0].get_weights(), layers[other].get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@tensorflow_only
def test_masked_positions_are_not_computed():
    import tensorflow as tf

    layer = TargetAttention([6, 3], activation="relu")
    layer(QUERY, KEYS, MASK)
    seen = []
    inner = layer._score_hidden
    layer._score_hidden = lambda x, *args: seen.append(tuple(x.shape)) or inner(x, *args)
    layer(tf.constant(QUERY), tf.constant(KEYS), tf.constant(MASK))
    assert seen == [(int(MASK.sum()), 6)]


@tensorflow_only
def test_no_gradient_flows_to_masked_keys():
    import tensorflow as tf

    keys, layer = tf.constant(KEYS), TargetAttention([6, 3], normalize="softmax")
    with tf.GradientTape() as tape:
        tape.watch(keys)
        loss = tf.reduce_sum(tf.square(layer(QUERY, keys, MASK, training=True)))
    gradient = np.asarray(tape.gradient(loss, keys))
    assert np.all(gradient[~MASK] == 0)
    # The one key of a history of one has weight 1 whatever its score: it still gets a gradient.
    assert np.all(np.any(gradient[MASK] != 0, axis=-1))


def test_bad_arguments():
    with pytest.raises(ValueError, match=r'None or "softmax"\. Received: `normalize=max`'):
        TargetAttention(normalize="max")
    with pytest.raises(ValueError, match=r"Received: `units=\[0\]`"):
        TargetAttention([0])
    with pytest.raises(
        ValueError, match=r"`keys` \(batch, length, width\).*`keys.shape=\(6, 5, 3\)"
    ):
        TargetAttention()(QUERY, KEYS[..., :3])
    with pytest.raises(ValueError, match=r"`mask` must have shape \(batch, length\)"):
        TargetAttention()(QUERY, KEYS, MASK[:, :, None])
