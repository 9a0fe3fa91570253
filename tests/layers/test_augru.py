import keras
import numpy as np
import pytest

from ctr_keras.layers import AUGRU
from tests.conformance import BACKEND, run_layer_conformance

RNG = np.random.default_rng(0)
B, L, D, U = 6, 5, 4, 3
INPUTS = RNG.normal(size=(B, L, D)).astype("float32")
SCORES = RNG.random((B, L)).astype("float32")
# Among the rows: an empty history, a full one, and holes.
MASK = np.array(
    [[1, 1, 0, 0, 0], [0] * 5, [1] * 5, [0, 1, 0, 1, 0], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0]], bool
)
tensorflow_only = pytest.mark.skipif(BACKEND != "tensorflow", reason="the TensorFlow path")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def recurrence(layer, inputs, scores, mask):
    """Equations 2 to 5 of the paper and its AUGRU, row by row and gate by gate: all states."""
    kernels = np.split(np.asarray(layer.kernel), 3, axis=1)
    recurrent = np.split(np.asarray(layer.recurrent_kernel), 3, axis=1)
    biases = np.split(np.asarray(layer.bias), 3)
    states = np.zeros((*mask.shape, layer.units))
    last = np.zeros((len(inputs), layer.units))
    for b in range(len(inputs)):
        h = np.zeros(layer.units)
        for t in np.flatnonzero(mask[b]):
            x = [inputs[b, t] @ w + bias for w, bias in zip(kernels, biases, strict=True)]
            update = sigmoid(x[0] + h @ recurrent[0])
            reset = sigmoid(x[1] + h @ recurrent[1])
            candidate = np.tanh(x[2] + reset * (h @ recurrent[2]))
            update = scores[b, t] * update
            h = (1 - update) * h + update * candidate
            states[b, t] = h
        last[b] = h
    return states, last


def with_weights(return_sequences=False, inputs=INPUTS):
    layer = AUGRU(U, return_sequences=return_sequences)
    layer.build(inputs.shape)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(0, 0.7, w.shape) for w in layer.get_weights()])
    return layer


@pytest.mark.parametrize("return_sequences", [False, True])
def test_conformance(return_sequences):
    run_layer_conformance(
        AUGRU,
        {"units": U, "return_sequences": return_sequences, "bias_initializer": "ones"},
        (INPUTS, SCORES, MASK),
        (B, L, U) if return_sequences else (B, U),
        masked={"inputs": "mask", "scores": "mask"},
    )


def test_equals_the_formula():
    states, last = recurrence(with_weights(), INPUTS, SCORES, MASK)
    got = with_weights()(INPUTS, SCORES, MASK)
    np.testing.assert_allclose(got, last, rtol=1e-5, atol=1e-6)
    got = with_weights(return_sequences=True)(INPUTS, SCORES, MASK)
    np.testing.assert_allclose(got, states, rtol=1e-5, atol=1e-6)


def test_no_scores_are_ones_and_no_mask_is_a_mask_of_ones():
    layer, ones = with_weights(), np.ones((B, L))
    np.testing.assert_allclose(
        layer(INPUTS, mask=MASK), layer(INPUTS, ones, MASK), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        layer(INPUTS, SCORES), layer(INPUTS, SCORES, ones), rtol=1e-5, atol=1e-6
    )


def test_a_plain_gru_is_that_of_keras():
    """Keras' update gate keeps the old state where the paper's takes the new one."""
    layer = with_weights(return_sequences=True)
    kernel, recurrent, bias = layer.get_weights()
    gru = keras.layers.GRU(U, return_sequences=True, reset_after=True)
    gru.build(INPUTS.shape)
    sign = np.repeat([-1.0, 1.0, 1.0], U)
    gru.set_weights([kernel * sign, recurrent * sign, np.stack([bias * sign, 0 * bias])])
    np.testing.assert_allclose(layer(INPUTS), gru(INPUTS), rtol=1e-5, atol=1e-6)


def test_a_score_of_zero_keeps_the_state():
    layer = with_weights()
    scores = np.where(np.arange(L) < 2, SCORES, 0)
    short = layer(INPUTS[:, :2], SCORES[:, :2])
    np.testing.assert_allclose(layer(INPUTS, scores), short, rtol=1e-6)


@pytest.mark.parametrize("length", [1, L])
def test_empty_histories_give_zeros(length):
    for return_sequences in (False, True):
        layer = with_weights(return_sequences)
        out = layer(INPUTS[:, :length], SCORES[:, :length], np.zeros((B, length), bool))
        np.testing.assert_array_equal(out, np.zeros(out.shape))


def test_any_batch_and_length_after_the_first_call():
    layer = with_weights()
    full = np.asarray(layer(INPUTS, SCORES, MASK))
    for rows, length in ((1, L), (1, 2)):
        got = layer(INPUTS[:rows, :length], SCORES[:rows, :length], MASK[:rows, :length])
        np.testing.assert_allclose(got, full[:rows], rtol=1e-5, atol=1e-6)
    assert layer(INPUTS[:1, :1], SCORES[:1, :1], MASK[:1, :1]).shape == (1, U)


def test_dynamic_length_in_a_model():
    inputs, scores = keras.Input((None, D)), keras.Input((None,))
    mask = keras.Input((None,), dtype="bool")
    model = keras.Model([inputs, scores, mask], with_weights()(inputs, scores, mask))
    for length in (1, 3, 5):
        data = [INPUTS[:, :length], SCORES[:, :length], MASK[:, :length]]
        expected = recurrence(model.layers[-1], *data)[1]
        np.testing.assert_allclose(model.predict(data, verbose=0), expected, rtol=1e-5, atol=1e-6)


def test_half_precision_keeps_the_state_in_full():
    """A state that moves by less than half precision resolves still moves."""
    inputs, scores = np.ones((1, 64, D), "float32"), np.full((1, 64), 1e-3, "float32")
    full, half = AUGRU(U), AUGRU(U, dtype="mixed_bfloat16")
    full(inputs, scores)
    half.build(inputs.shape)
    half.set_weights(full.get_weights())
    got = np.asarray(keras.ops.cast(half(inputs, scores), "float32"))
    np.testing.assert_allclose(got, full(inputs, scores), rtol=0.02)


@tensorflow_only
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("mask", [MASK, np.ones_like(MASK), np.zeros_like(MASK), MASK[:1]])
def test_packed_path_equals_the_generic_one(return_sequences, scored, mask):
    """Outputs and gradients; eager and traced."""
    import tensorflow as tf

    inputs = tf.constant(INPUTS[: len(mask)])
    scores = tf.constant(SCORES[: len(mask)]) if scored else None
    layers = [with_weights(return_sequences) for _ in range(3)]
    layers[1]._walk_packed = layers[1]._walk_all

    def run(layer):
        watched = [inputs] + [scores] * scored
        with tf.GradientTape() as tape:
            tape.watch(watched)
            out = layer(inputs, scores, mask)
            loss = tf.reduce_sum(tf.sin(3 * out))
        sources = watched + [v.value for v in layer.trainable_variables]
        return [out, *tape.gradient(loss, sources, unconnected_gradients="zero")]

    results = [run(layers[0]), run(layers[1]), tf.function(lambda: run(layers[2]))()]
    for other in (1, 2):
        for a, b in zip(results[0], results[other], strict=True):
            assert np.all(np.isfinite(a))
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@tensorflow_only
def test_second_order_gradients():
    """What a meta-learner differentiates through."""
    import tensorflow as tf

    results = []
    for packed in (True, False):
        layer, inputs = with_weights(), tf.constant(INPUTS)
        if not packed:
            layer._walk_packed = layer._walk_all
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                loss = tf.reduce_sum(tf.square(layer(inputs, SCORES, MASK)))
            first = inner.gradient(loss, [layer.recurrent_kernel.value])[0]
            loss = tf.reduce_sum(tf.square(first))
        results.append(outer.gradient(loss, [v.value for v in layer.trainable_variables]))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@tensorflow_only
def test_no_gradient_flows_to_masked_steps():
    import tensorflow as tf

    inputs, scores = tf.constant(INPUTS), tf.constant(SCORES)
    with tf.GradientTape() as tape:
        tape.watch([inputs, scores])
        loss = tf.reduce_sum(tf.square(with_weights()(inputs, scores, MASK)))
    for gradient in tape.gradient(loss, [inputs, scores]):
        gradient = np.asarray(gradient)
        assert np.all(gradient[~MASK] == 0)
        assert np.all(np.any(gradient[MASK].reshape(MASK.sum(), -1) != 0, axis=1))


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"positive integer\. Received: `units=0`"):
        AUGRU(0)
    with pytest.raises(ValueError, match=r"positive integer\. Received: `units=2.5`"):
        AUGRU(2.5)
    with pytest.raises(ValueError, match=r"`inputs` must have shape \(batch, length, width\)"):
        AUGRU(2)(INPUTS[:, 0])
    with pytest.raises(ValueError, match=r"`scores` must have shape \(batch, length\)"):
        AUGRU(2)(INPUTS, SCORES[:, :, None])
    with pytest.raises(ValueError, match=r"`mask` must have shape \(batch, length\)"):
        AUGRU(2)(INPUTS, SCORES, MASK[:, :, None])
