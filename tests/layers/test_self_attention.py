import keras
import numpy as np
import pytest

from ctr_keras.layers import CausalSelfAttention, SelfAttention
from tests.conformance import BACKEND, run_layer_conformance

RNG = np.random.default_rng(0)
B, L, D = 6, 5, 4
X = RNG.normal(size=(B, L, D)).astype("float32")
# Among the rows: an empty history, a full one, and holes.
MASK = np.array(
    [[1, 1, 0, 0, 0], [0] * 5, [1] * 5, [0, 1, 0, 1, 0], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0]], bool
)
LAYERS = pytest.mark.parametrize("cls", [SelfAttention, CausalSelfAttention])
tensorflow_only = pytest.mark.skipif(BACKEND != "tensorflow", reason="takes gradients")


def attention(layer, x, mask):
    """The paper's section 3.2, query by query and head by head."""
    weights = {w.name: w.numpy() for w in layer.weights}
    if layer.max_length is not None:
        x = x + weights["positions"][: x.shape[1]]
    width = x.shape[-1] // layer.num_heads
    out = np.zeros(x.shape)
    for b, t in zip(*np.nonzero(mask), strict=True):
        seen = np.flatnonzero(mask[b])
        if isinstance(layer, CausalSelfAttention):
            seen = seen[seen <= t]
        query = x[b, t] @ weights["query_kernel"] + weights.get("query_bias", 0)
        keys = x[b, seen] @ weights["key_kernel"]
        values = x[b, seen] @ weights["value_kernel"] + weights.get("value_bias", 0)
        heads = []
        for n in range(layer.num_heads):
            part = slice(n * width, (n + 1) * width)
            e = np.exp(keys[:, part] @ query[part] / np.sqrt(width))
            heads.append(e / e.sum() @ values[:, part])
        joined = np.concatenate(heads)
        out[b, t] = joined @ weights["output_kernel"] + weights.get("output_bias", 0)
    return out


def randomized(layer):
    layer.build(X.shape)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(0, 0.7, w.shape) for w in layer.get_weights()])
    return layer


@LAYERS
def test_conformance(cls):
    run_layer_conformance(
        cls,
        {"num_heads": 2, "max_length": 7},
        X,
        (B, L, D),
        keyword_inputs={"mask": MASK},
        masked={"inputs": "mask"},
    )


@LAYERS
@pytest.mark.parametrize("kwargs", [{}, {"num_heads": 2, "max_length": 7}, {"use_bias": False}])
@pytest.mark.parametrize("mask", [MASK, np.ones_like(MASK)])
def test_equals_the_formula(cls, kwargs, mask):
    layer = randomized(cls(**kwargs))
    out = np.asarray(layer(X, mask))
    np.testing.assert_allclose(out, attention(layer, X, mask), rtol=1e-5, atol=1e-5)
    assert np.all(out[~mask] == 0)
    if mask.all():
        np.testing.assert_allclose(layer(X), out, rtol=1e-5, atol=1e-6)


@LAYERS
@pytest.mark.parametrize("length", [1, L])
def test_rows_without_unmasked_positions_give_zeros(cls, length):
    out = randomized(cls())(X[:, :length], np.zeros((B, length), bool), training=True)
    np.testing.assert_array_equal(out, np.zeros((B, length, D)))


def test_a_causal_position_sees_no_later_one():
    layer = randomized(CausalSelfAttention(num_heads=2, max_length=L))
    full = np.asarray(layer(X))
    for t in range(1, L + 1):
        np.testing.assert_allclose(layer(X[:, :t]), full[:, :t], rtol=1e-5, atol=1e-6)


def test_attention_itself_knows_no_order():
    turned = X[:, ::-1]
    layer = randomized(SelfAttention())
    np.testing.assert_allclose(layer(turned)[:, ::-1], layer(X), rtol=1e-5, atol=1e-6)
    layer = randomized(SelfAttention(max_length=L))
    assert np.max(np.abs(np.asarray(layer(turned))[:, ::-1] - np.asarray(layer(X)))) > 0.1


@LAYERS
def test_any_batch_and_length_after_the_first_call(cls):
    layer = randomized(cls(max_length=L))
    full = np.asarray(layer(X, MASK))
    got = layer(X[:1, :2], MASK[:1, :2])
    np.testing.assert_allclose(got, full[:1, :2], rtol=1e-5, atol=1e-6)
    assert layer(X[:1, :1], MASK[:1, :1]).shape == (1, 1, D)


@LAYERS
def test_dynamic_length_in_a_model(cls):
    inputs, mask = keras.Input((None, D)), keras.Input((None,), dtype="bool")
    model = keras.Model([inputs, mask], cls(max_length=L)(inputs, mask))
    for length in (1, 3, 5):
        data = [X[:, :length], MASK[:, :length]]
        assert model.predict(data, verbose=0).shape == (B, length, D)


def test_dropout_is_for_training():
    layer = randomized(SelfAttention(dropout=0.5, seed=1))
    out = np.asarray(layer(X, MASK))
    np.testing.assert_array_equal(layer(X, MASK), out)
    dropped = np.asarray(layer(X, MASK, training=True))
    assert np.any(dropped != out) and np.all(dropped[~MASK] == 0)


@tensorflow_only
@LAYERS
def test_no_gradient_flows_to_masked_or_later_positions(cls):
    import tensorflow as tf

    x, layer = tf.constant(X), randomized(cls())
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(layer(x, MASK)[:, 1])
    gradient = np.any(np.asarray(tape.gradient(loss, x)) != 0, axis=-1)
    seen = MASK & MASK[:, 1:2]
    if cls is CausalSelfAttention:
        seen = seen & (np.arange(L) <= 1)
    np.testing.assert_array_equal(gradient, seen)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"positive integer\. Received: `num_heads=0`"):
        SelfAttention(0)
    with pytest.raises(ValueError, match=r"positive integer\. Received: `max_length=0`"):
        CausalSelfAttention(max_length=0)
    with pytest.raises(ValueError, match=r"\[0, 1\)\. Received: `dropout=1`"):
        SelfAttention(dropout=1)
    with pytest.raises(ValueError, match=r"multiple of `num_heads`.*`num_heads=3`"):
        SelfAttention(3)(X)
    with pytest.raises(ValueError, match=r"`inputs` must have shape \(batch, length, width\)"):
        SelfAttention()(X[0])
    with pytest.raises(ValueError, match=r"`mask` must have shape \(batch, length\)"):
        SelfAttention()(X, MASK[:, :, None])
    with pytest.raises(ValueError, match=r"longer than there are positions.*`max_length=4`"):
        SelfAttention(max_length=4)(X)
