import numpy as np
import pytest
from keras import ops

from ctr_keras.layers import AUGRU, InterestExtractor, interest_extractor
from tests.conformance import BACKEND, run_layer_conformance

RNG = np.random.default_rng(0)
B, L, D = 6, 5, 4
KEYS, NEGATIVES = RNG.normal(size=(2, B, L, D)).astype("float32")
# Among the rows: an empty history, a full one, and holes.
MASK = np.array(
    [[1, 1, 0, 0, 0], [0] * 5, [1] * 5, [0, 1, 0, 1, 1], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0]], bool
)
tensorflow_only = pytest.mark.skipif(BACKEND != "tensorflow", reason="takes gradients")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def auxiliary_loss(states, keys, negatives, mask):
    """Equation 6 of the paper, pair by pair."""
    losses = []
    for b in range(len(keys)):
        for t in range(keys.shape[1] - 1):
            if mask[b, t] and mask[b, t + 1]:
                of_next = sigmoid(states[b, t] @ keys[b, t + 1])
                of_other = sigmoid(states[b, t] @ negatives[b, t + 1])
                losses.append(-np.log(of_next) - np.log(1 - of_other))
    return np.mean(losses) if losses else 0.0


def test_conformance():
    run_layer_conformance(
        InterestExtractor,
        {"units": 3, "recurrent_initializer": "glorot_normal"},
        (KEYS, MASK),
        (B, L, 3),
        masked={"keys": "mask"},
    )


def test_is_the_recurrence_without_scores():
    layer, gru = InterestExtractor(D), AUGRU(D, return_sequences=True)
    gru.build(KEYS.shape)
    layer.build(KEYS.shape)
    layer.set_weights(gru.get_weights())
    states = np.asarray(layer(KEYS, MASK))
    np.testing.assert_allclose(states, gru(KEYS, mask=MASK), rtol=1e-6)
    assert np.all(states[~MASK] == 0)
    # The padded steps between the second and the fourth item of this row do not count.
    together = layer(KEYS[3:4][:, [1, 3, 4]])
    np.testing.assert_allclose(states[3, [1, 3, 4]], together[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mask", [MASK, np.ones_like(MASK), MASK[:1], MASK[2:3, :2]])
def test_auxiliary_loss_equals_the_formula(mask):
    rows, length = mask.shape
    keys, negatives = KEYS[:rows, :length], NEGATIVES[:rows, :length]
    layer = InterestExtractor(D)
    states = layer(keys, mask)
    expected = auxiliary_loss(np.asarray(states), keys, negatives, mask)
    assert expected > 0
    got = layer.auxiliary_loss(states, keys, negatives, mask)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    if mask.all():
        np.testing.assert_allclose(
            layer.auxiliary_loss(states, keys, negatives), expected, rtol=1e-5
        )


@pytest.mark.parametrize("mask", [np.zeros_like(MASK), MASK[1:2], MASK[4:], MASK[:, :1]])
def test_auxiliary_loss_without_a_valid_step_is_zero(mask):
    rows, length = mask.shape
    layer, keys = InterestExtractor(D), KEYS[:rows, :length]
    loss = layer.auxiliary_loss(layer(keys, mask), keys, keys, mask)
    np.testing.assert_array_equal(loss, 0)


def test_a_negative_that_came_next_is_none():
    layer = InterestExtractor(D)
    states, mask = layer(KEYS, MASK), MASK.copy()
    negatives = NEGATIVES.copy()
    negatives[2, 4], mask[2, 4] = KEYS[2, 4], False
    np.testing.assert_allclose(
        layer.auxiliary_loss(states, KEYS, negatives, MASK),
        layer.auxiliary_loss(states, KEYS, negatives, mask),
        rtol=1e-6,
    )


def test_auxiliary_loss_does_not_see_padding():
    layer = InterestExtractor(D)
    states = layer(KEYS, MASK)
    hidden = ~MASK[:, :, None]
    other = [np.where(hidden, x * 3 + 7, x) for x in (KEYS, NEGATIVES)]
    np.testing.assert_allclose(
        layer.auxiliary_loss(states, *other, MASK),
        layer.auxiliary_loss(states, KEYS, NEGATIVES, MASK),
        rtol=1e-6,
    )


def test_auxiliary_loss_stays_a_number_where_the_sigmoid_is_zero_or_one():
    layer = InterestExtractor(D)
    states, keys = np.full((1, 2, D), 50, "float32"), np.full((1, 2, D), -50, "float32")
    np.testing.assert_allclose(layer.auxiliary_loss(states, keys, -keys), 2 * D * 2500)


def test_auxiliary_loss_in_half_precision_is_computed_in_full():
    layer = InterestExtractor(D, dtype="mixed_float16")
    loss = layer.auxiliary_loss(layer(KEYS, MASK), KEYS, NEGATIVES, MASK)
    assert "float32" in str(loss.dtype)
    assert np.isfinite(np.asarray(loss))


@tensorflow_only
@pytest.mark.parametrize("mask", [MASK, np.ones_like(MASK), np.zeros_like(MASK), MASK[:, :1]])
def test_path_without_padding_equals_the_generic_one(mask, monkeypatch):
    """The auxiliary loss and its gradients."""
    import tensorflow as tf

    layer = InterestExtractor(D)
    layer.build(KEYS.shape)
    sources = [tf.constant(x[:, : mask.shape[1]]) for x in (KEYS, KEYS[::-1], NEGATIVES)]
    results = []
    for pairs in (interest_extractor._unmasked_pairs, interest_extractor._all_pairs):
        monkeypatch.setattr(interest_extractor, "_unmasked_pairs", pairs)
        with tf.GradientTape() as tape:
            tape.watch(sources)
            loss = layer.auxiliary_loss(*sources, mask)
        gradients = tape.gradient(loss, sources, unconnected_gradients="zero")
        results.append([loss, *gradients])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@tensorflow_only
def test_gradients_of_the_auxiliary_loss():
    """It teaches the recurrence, the items and the negatives, and nothing that is padding."""
    import tensorflow as tf

    layer = InterestExtractor(D)
    layer.build(KEYS.shape)
    keys, negatives = tf.constant(KEYS), tf.constant(NEGATIVES)
    with tf.GradientTape() as tape:
        tape.watch([keys, negatives])
        loss = layer.auxiliary_loss(layer(keys, MASK), keys, negatives, MASK)
    sources = [keys, negatives, *(v.value for v in layer.trainable_variables)]
    of_keys, of_negatives, *of_weights = (np.asarray(g) for g in tape.gradient(loss, sources))
    assert all(np.any(g != 0) for g in of_weights)
    assert np.all(of_keys[~MASK] == 0) and np.all(of_negatives[~MASK] == 0)
    valid = MASK[:, :-1] & MASK[:, 1:]
    assert np.all(np.any(of_keys[:, 1:][valid] != 0, axis=-1))
    np.testing.assert_array_equal(np.any(of_negatives[:, 1:] != 0, axis=-1), valid)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"Received: `units=-1`"):
        InterestExtractor(-1)
    with pytest.raises(ValueError, match=r"`keys` must have shape \(batch, length, width\)"):
        InterestExtractor(3)(KEYS[0])
    with pytest.raises(ValueError, match=r"`mask` must have shape \(batch, length\)"):
        InterestExtractor(3)(KEYS, MASK[:, :, None])
    layer = InterestExtractor(3)
    with pytest.raises(
        ValueError, match=r"as wide as the states.*`units=3`.*`keys.shape=\(6, 5, 4"
    ):
        layer.auxiliary_loss(layer(KEYS), KEYS, NEGATIVES)
    with pytest.raises(ValueError, match=r"`negatives.shape=\(6, 4\)`"):
        InterestExtractor(D).auxiliary_loss(ops.ones((B, L, D)), KEYS, NEGATIVES[:, 0])
