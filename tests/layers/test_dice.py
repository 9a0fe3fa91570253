import keras
import numpy as np
import pytest
from keras import ops

from ctr_keras.layers import Dice
from tests.conformance import BACKEND, run_layer_conformance

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(7, 4)) * 2 + 1).astype("float32")
tensorflow_only = pytest.mark.skipif(BACKEND != "tensorflow", reason="the TensorFlow path")


def dice(x, mean, variance, alpha, epsilon=1e-8):
    """Section 5.2 of the paper."""
    p = 1 / (1 + np.exp(-(x - mean) / np.sqrt(variance + epsilon)))
    return p * x + (1 - p) * alpha * x


def with_alpha(layer, alpha):
    layer.build((None, len(alpha)))
    layer.alpha.assign(alpha)
    return layer


def test_conformance():
    run_layer_conformance(Dice, {"momentum": 0.9, "epsilon": 1e-6}, X, (7, 4))


def test_conformance_with_mask():
    x = RNG.normal(size=(4, 3, 5)).astype("float32")
    mask = np.arange(3) < np.array([[1], [2], [3], [0]])
    run_layer_conformance(
        Dice, {}, x, (4, 3, 5), keyword_inputs={"mask": mask}, masked={"inputs": "mask"}
    )


def test_training_equals_the_formula_and_moves_the_statistics():
    alpha = np.array([0.0, 0.25, 1.0, -0.5], "float32")
    layer = with_alpha(Dice(momentum=0.9), alpha)
    out = layer(X, training=True)
    np.testing.assert_allclose(out, dice(X, X.mean(0), X.var(0), alpha), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * X.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * X.var(0), rtol=1e-5, atol=1e-6)


def test_statistics_are_known_after_a_short_epoch():
    layer = with_alpha(Dice(), np.zeros(4, "float32"))
    batches = RNG.normal(0.1, 0.05, size=(78, 256, 4)).astype("float32")
    for batch in batches:
        layer(batch, training=True)
    np.testing.assert_allclose(layer.moving_mean, np.full(4, 0.1), rtol=0.05)
    np.testing.assert_allclose(layer.moving_variance, np.full(4, 0.0025), rtol=0.2)


def test_inference_uses_the_moving_statistics_and_keeps_them():
    layer = with_alpha(Dice(), np.full(4, 0.1, "float32"))
    layer.moving_mean.assign(np.arange(4.0))
    layer.moving_variance.assign(np.arange(1.0, 5.0))
    expected = dice(X, np.arange(4.0), np.arange(1.0, 5.0), 0.1)
    np.testing.assert_allclose(layer(X), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean, np.arange(4.0))


def test_coefficients_are_those_of_inference():
    layer = Dice()
    layer.build(X.shape)
    layer.set_weights([np.random.default_rng(1).uniform(0.2, 2, w.shape) for w in layer.weights])
    scale, shift, slope, offset = (np.asarray(x) for x in layer.coefficients())
    expected = X * (slope * np.tanh(scale * X + shift) + offset)
    np.testing.assert_allclose(layer(X), expected, rtol=1e-5, atol=1e-6)


def test_frozen_layer_keeps_its_statistics():
    layer = with_alpha(Dice(), np.zeros(4, "float32"))
    layer.trainable = False
    layer(X, training=True)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(4))


def test_masked_statistics_are_those_of_the_unmasked_rows():
    x = RNG.normal(size=(5, 6, 3)).astype("float32")
    mask = RNG.random((5, 6)) < 0.5
    layer, flat = Dice(), Dice()
    out = layer(x, training=True, mask=mask)
    expected = flat(x[mask], training=True)
    np.testing.assert_allclose(np.asarray(out)[mask], expected, rtol=1e-5, atol=1e-5)
    for a, b in zip(layer.get_weights(), flat.get_weights(), strict=False):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_each_feature_may_have_a_mask_of_its_own():
    mask = RNG.random((7, 4)) < 0.5
    mask[:, 3] = False
    layer = with_alpha(Dice(), np.full(4, 0.3, "float32"))
    out = np.asarray(layer(X, training=True, mask=mask))
    for n in range(3):
        one = with_alpha(Dice(), np.full(1, 0.3, "float32"))
        expected = one(X[mask[:, n], n : n + 1], training=True)
        np.testing.assert_allclose(out[mask[:, n], n : n + 1], expected, rtol=1e-4, atol=1e-5)
        for a, b in zip(layer.get_weights(), one.get_weights(), strict=True):
            np.testing.assert_allclose(a[n : n + 1], b, rtol=1e-5, atol=1e-6)
    assert np.isfinite(out).all()
    assert [float(w[3]) for w in layer.get_weights()] == [pytest.approx(0.3), 0, 1]


@pytest.mark.parametrize("mask", [None, np.zeros((0, 3), bool), np.zeros((2, 3), bool)])
def test_a_batch_without_valid_rows_leaves_numbers(mask):
    x = np.ones((0 if mask is None else len(mask), 3, 4), "float32")
    layer = Dice()
    layer(np.ones((1, 3, 4), "float32"))
    before = layer.get_weights()
    assert np.all(np.isfinite(layer(x, training=True, mask=mask)))
    for a, b in zip(layer.get_weights(), before, strict=False):
        np.testing.assert_array_equal(a, b)


def test_half_precision_statistics_are_computed_in_float32():
    x = (1000 + RNG.normal(size=(64, 2))).astype("float16")
    layer = Dice(momentum=0.0, dtype="mixed_float16")
    out = layer(x, training=True)
    assert keras.backend.standardize_dtype(out.dtype) == "float16"
    # The sum of squares would overflow float16.
    np.testing.assert_allclose(layer.moving_variance, x.astype("float32").var(0), rtol=1e-3)


@tensorflow_only
@pytest.mark.parametrize("rows", [1, 2, 50])
def test_fused_path_equals_the_generic_one(rows):
    """Outputs, statistics, gradients and the gradients of gradients."""
    import tensorflow as tf

    x = tf.constant(RNG.normal(size=(rows, 4)) * 3 + 1, tf.float32)
    mask = tf.ones((rows,), tf.bool)
    alpha = np.array([0.0, 0.25, 1.0, -0.5], "float32")
    weights = tf.constant(RNG.normal(size=(rows, 4)), tf.float32)

    def run(**kwargs):
        layer = with_alpha(Dice(epsilon=1e-3), alpha)
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                out = layer(x, training=True, **kwargs)
                loss = tf.reduce_sum(tf.square(out) * weights)
            first = inner.gradient(loss, [x, layer.alpha])
            norm = tf.add_n([tf.reduce_sum(tf.square(g)) for g in first])
        second = outer.gradient(norm, [x, layer.alpha])
        return [out, *layer.get_weights(), *first, *second]

    for a, b in zip(run(), run(mask=mask), strict=True):
        scale = max(1.0, float(np.max(np.abs(b))))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5 * scale)


def test_double_precision():
    layer = with_alpha(Dice(dtype="float64", epsilon=1e-3), np.full(4, 0.3))
    out = layer(X.astype("float64"), training=True)
    expected = dice(X.astype("float64"), X.mean(0), X.var(0), 0.3, 1e-3)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


@tensorflow_only
def test_fused_gradient_equals_finite_differences():
    import tensorflow as tf

    alpha = tf.constant([0.3, -0.2], tf.float64)
    from ctr_keras.layers.fused_dice import fused_dice

    x = tf.constant(RNG.normal(size=(5, 2)), tf.float32)

    def loss(x):
        return tf.reduce_sum(tf.sin(fused_dice(x, tf.cast(alpha, tf.float32), 1e-3)[0]))

    theory, numeric = tf.test.compute_gradient(loss, [x], delta=1e-3)
    np.testing.assert_allclose(theory[0], numeric[0], rtol=2e-2, atol=2e-3)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"Received: `momentum=1.0`"):
        Dice(momentum=1.0)
    with pytest.raises(ValueError, match=r"Received: `epsilon=0`"):
        Dice(epsilon=0)
    with pytest.raises(ValueError, match=r"`mask` must have one axis less"):
        Dice()(ops.ones((2, 3, 4)), mask=ops.ones((2,), "bool"))
