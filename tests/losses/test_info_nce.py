import importlib

import keras
import numpy as np
import pytest
from keras import ops

from ctr_keras.losses import InfoNCE, info_nce, info_nce_with_bank

RNG = np.random.default_rng(3)


def pairs(rows=6, width=5):
    return RNG.normal(size=(2, rows, width)).astype("float32")


def by_hand(q, k, temperature, anchors=None, candidates=None, ids=None):
    """The formula, one anchor and one candidate at a time: the losses of the anchors."""
    rows = len(q)
    anchors = np.ones(rows, bool) if anchors is None else anchors
    candidates = np.ones(rows, bool) if candidates is None else candidates
    losses = []
    for i in np.flatnonzero(anchors & candidates):
        total = 0.0
        for j in np.flatnonzero(candidates):
            if ids is not None and i != j and ids[i] == ids[j]:
                continue
            cosine = q[i] @ k[j] / np.linalg.norm(q[i]) / np.linalg.norm(k[j])
            total += np.exp(cosine / temperature)
            if i == j:
                own = np.exp(cosine / temperature)
        losses.append(-np.log(own / total))
    return losses


def test_published_check_value():
    """Two orthonormal pairs at temperature 1: log(1 + 1/e) in each direction."""
    eye = np.eye(2, dtype="float32")
    assert float(info_nce(eye, eye, 1.0)) == pytest.approx(0.31326, abs=1e-5)
    assert float(info_nce(eye, eye, 1.0, symmetric=True)) == pytest.approx(0.62652, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.07, 0.5, 3.0])
def test_formula(temperature):
    q, k = pairs()
    anchors = np.array([1, 0, 1, 1, 0, 1], bool)
    candidates = np.array([1, 1, 1, 0, 1, 1], bool)
    query_ids, key_ids = np.array([1, 2, 1, 1, 3, 3]), np.array([5, 5, 5, 6, 6, 5])
    for masks in ({}, {"anchor_mask": anchors}, {"candidate_mask": candidates},
                  {"anchor_mask": anchors, "candidate_mask": candidates}):  # fmt: skip
        given = [masks.get("anchor_mask"), masks.get("candidate_mask")]
        expected = by_hand(q, k, temperature, *given, key_ids)
        got = info_nce(q, k, temperature, **masks, key_ids=key_ids, query_ids=query_ids)
        assert float(got) == pytest.approx(np.mean(expected), rel=1e-4, abs=1e-5)
        expected = np.add(expected, by_hand(k, q, temperature, *given, query_ids))
        got = info_nce(
            q, k, temperature, **masks, key_ids=key_ids, query_ids=query_ids, symmetric=True
        )
        assert float(got) == pytest.approx(np.mean(expected), rel=1e-4, abs=1e-5)


def test_weights_of_anchors():
    q, k = pairs()
    anchors = np.array([1, 0, 1, 1, 0, 1], bool)
    there = np.array([1, 1, 1, 0, 1, 1], bool)
    weights = np.array([2, 9, 0.5, 9, 9, 3], "float32")
    masks = {"anchor_mask": anchors, "candidate_mask": there}
    expected = np.mean(weights[[0, 2, 5]] * by_hand(q, k, 0.3, anchors, there))
    assert float(info_nce(q, k, 0.3, **masks, anchor_weight=weights)) == pytest.approx(
        expected, rel=1e-4
    )
    plain = info_nce(q, k, 0.3, **masks)
    assert float(info_nce(q, k, 0.3, **masks, anchor_weight=np.ones(6))) == float(plain)
    with pytest.raises(ValueError, match=r"anchor_weight.shape=\(6, 1\)"):
        info_nce(q, k, anchor_weight=np.ones((6, 1)))


def test_leading_axes_are_batches_of_their_own():
    q, k = RNG.normal(size=(2, 3, 4, 5)).astype("float32")
    there = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], bool)
    ids = np.array([[1, 1, 2, 3], [4, 5, 4, 4], [0, 0, 0, 0]])
    expected = [
        loss for n in range(3) for loss in by_hand(q[n], k[n], 0.3, candidates=there[n], ids=ids[n])
    ]
    got = info_nce(q, k, 0.3, candidate_mask=there, key_ids=ids)
    assert float(got) == pytest.approx(np.mean(expected), rel=1e-4)


def test_nothing_to_contrast_is_zero():
    q, k = pairs(3)
    assert float(info_nce(q, k, anchor_mask=np.zeros(3, bool), symmetric=True)) == 0
    assert float(info_nce(q, k, candidate_mask=np.zeros(3, bool))) == 0
    # The difference of two equal numbers of 10 to 20: their last bit is 2e-6.
    assert float(info_nce(q[:1], k[:1], symmetric=True)) == pytest.approx(0, abs=1e-5)
    same = np.ones(3)
    assert float(info_nce(q, k, key_ids=same)) == pytest.approx(0, abs=1e-5)


def test_a_zero_vector_and_a_tiny_temperature_stay_finite():
    q, k = pairs()
    q[0] = k[1] = 0
    assert np.isfinite(float(info_nce(q, k, 0.001, symmetric=True)))


def test_the_own_candidate_counts_even_if_ids_repeat():
    q, k = pairs(2)
    got = info_nce(q, k, 0.5, key_ids=np.array([7, 7]), query_ids=np.array([1, 2]), symmetric=True)
    expected = np.mean(by_hand(k, q, 0.5))  # only the direction from keys has negatives
    assert float(got) == pytest.approx(expected, rel=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="GradientTape")
def test_gradient_stays_out_of_what_is_masked_and_is_finite():
    import tensorflow as tf

    q, k = map(tf.constant, pairs())
    q = tf.concat([tf.zeros((1, 5)), q[1:]], axis=0)
    there = np.array([1, 1, 1, 1, 0, 1], bool)
    with tf.GradientTape() as tape:
        tape.watch([q, k])
        loss = info_nce(q, k, 0.1, candidate_mask=there, symmetric=True)
    gradients = tape.gradient(loss, [q, k])
    for gradient in gradients:
        assert np.isfinite(gradient).all()
        assert np.abs(gradient[4]).max() == 0
        assert (np.abs(gradient).max(axis=1)[[1, 2, 3, 5]] > 0).all()
    assert np.abs(gradients[0][0]).max() == 0  # a zero vector has no direction to turn


def test_half_precision_is_computed_in_float32():
    q, k = pairs()
    half = info_nce(ops.cast(q, "float16"), ops.cast(k, "float16"), 0.07)
    assert ops.dtype(half) == "float32"
    assert float(half) == pytest.approx(float(info_nce(q, k, 0.07)), abs=0.02)


def test_as_keras_loss():
    q, k = pairs()
    loss = InfoNCE(temperature=0.2)
    assert float(loss(k, q)) == pytest.approx(np.mean(by_hand(q, k, 0.2)), rel=1e-4)
    weights = np.array([1, 0, 0, 2, 0, 0], "float32")
    expected = np.sum(weights * by_hand(q, k, 0.2)) / 6
    assert float(loss(k, q, sample_weight=weights)) == pytest.approx(expected, rel=1e-4)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()


@pytest.mark.parametrize("temperature", [0.1, "learned"])  # The fused form and the generic one.
def test_ids_and_keys_of_another_shape_are_refused(temperature):
    t = keras.ops.convert_to_tensor(0.1) if temperature == "learned" else temperature
    vectors, ids = np.ones((6, 5), "float32"), np.arange(6)
    with pytest.raises(ValueError, match=r"`keys.shape=\(1, 5\)`"):
        info_nce(vectors, vectors[:1], t)
    with pytest.raises(ValueError, match=r"`key_ids.shape=\(6, 1\)`"):
        info_nce(vectors, vectors, t, key_ids=ids[:, None])
    with pytest.raises(ValueError, match=r"`keys.shape=\(1, 5\)`"):
        info_nce_with_bank(vectors, vectors[:1], vectors, t)
    for name in ("key_ids", "bank_ids"):
        given = {"key_ids": ids, "bank_ids": ids, name: ids[:, None]}
        with pytest.raises(ValueError, match=rf"`{name}.shape=\(6, 1\)`"):
            info_nce_with_bank(vectors, vectors, vectors, t, **given)


def test_bad_arguments():
    q, k = pairs()
    for temperature in (0, -1.0):
        with pytest.raises(ValueError, match="`temperature` must be positive"):
            info_nce(q, k, temperature)
        with pytest.raises(ValueError, match="`temperature` must be positive"):
            InfoNCE(temperature)
    with pytest.raises(ValueError, match=r"queries.shape=\(5,\)"):
        info_nce(q[0], k[0])
    with pytest.raises(ValueError, match="anchor_mask.shape"):
        info_nce(q, k, anchor_mask=np.ones((6, 6)))


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the fused form is TensorFlow's"
)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("repeats", ["none", "both", "shared"])
def test_fused_form_is_the_generic_one(monkeypatch, symmetric, masked, repeats):
    import tensorflow as tf

    module = importlib.import_module("ctr_keras.losses.info_nce")  # the name is the function's

    q, k = (tf.constant(x) for x in RNG.normal(size=(2, 3, 7, 5)).astype("float32"))
    there = RNG.random((3, 7)) < 0.7
    there[2] = False
    anchors = RNG.random((3, 7)) < 0.6
    query_ids, key_ids = (tf.constant(x) for x in RNG.integers(0, 3, (2, 3, 7)))
    arguments = {"symmetric": symmetric, "anchor_mask": anchors}
    if masked:
        arguments["candidate_mask"] = there
    if repeats != "none":
        arguments["key_ids"] = key_ids
        arguments["query_ids"] = key_ids if repeats == "shared" else query_ids

    def value_and_gradients():
        with tf.GradientTape() as tape:
            tape.watch([q, k])
            loss = info_nce(q, k, 0.07, **arguments)
        return [loss, *tape.gradient(loss, [q, k])]

    fused = value_and_gradients()
    monkeypatch.setattr(module, "_is_fused", lambda temperature: False)
    for got, expected in zip(fused, value_and_gradients(), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
