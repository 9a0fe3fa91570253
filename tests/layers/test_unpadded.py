import numpy as np
import pytest

from tests.conformance import BACKEND

pytestmark = pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow kernels")
RNG = np.random.default_rng(0)
MASKS = [[True, False, True, True, False], [False] * 5, [True] * 5]


def gradients(function, x):
    """First and second order, of a loss that is not linear in `x`."""
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            out = function(x)
            loss = tf.reduce_sum(tf.exp(out))
        first = inner.gradient(loss, x)
        loss = tf.reduce_sum(tf.square(first))
    return [out, first, outer.gradient(loss, x)]


@pytest.mark.parametrize("mask", MASKS)
def test_take_and_put_equal_gather_and_scatter(mask):
    import tensorflow as tf

    from ctr_keras.layers.unpadded import index_unpadded, put_unpadded, take_unpadded

    positions, slots = index_unpadded(tf.constant(mask))
    where = np.flatnonzero(mask)
    np.testing.assert_array_equal(positions, where)
    x = RNG.normal(size=(5, 3)).astype("float32")
    rows = RNG.normal(size=(len(where), 3)).astype("float32")
    pairs = [
        (lambda x: take_unpadded(x, positions, slots), lambda x: tf.gather(x, where), x),
        (
            lambda x: put_unpadded(x, positions, slots),
            lambda x: tf.scatter_nd(where[:, None], x, (5, 3)),
            rows,
        ),
    ]
    for ours, reference, value in pairs:
        for a, b in zip(gradients(ours, value), gradients(reference, value), strict=True):
            np.testing.assert_allclose(a, tf.convert_to_tensor(b), rtol=1e-6)


@pytest.mark.parametrize("owners", [[0, 0, 2], [], [3, 3], [0, 1, 2, 3]])
def test_repeat_rows_equals_gather(owners):
    import tensorflow as tf

    from ctr_keras.layers.unpadded import repeat_rows

    x = RNG.normal(size=(4, 3)).astype("float32")
    owners = np.array(owners, "int32")
    ours = gradients(lambda x: repeat_rows(x, owners), x)
    for a, b in zip(ours, gradients(lambda x: tf.gather(x, owners), x), strict=True):
        np.testing.assert_allclose(a, tf.convert_to_tensor(b), rtol=1e-6)
