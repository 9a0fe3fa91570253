import keras
import numpy as np
import pytest

from ctr_keras.layers import SimScore, SimTier
from tests.conformance import run_layer_conformance

RNG = np.random.default_rng(0)


def unit(*shape):
    x = RNG.normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype("float32")


TARGET, HISTORY = unit(6, 5), unit(6, 7, 5)
MASK = np.arange(7) < np.array([[7], [0], [1], [3], [5], [6]])


@pytest.mark.parametrize("cls, shape", [(SimTier, (6, 20)), (SimScore, (6, 7))])
def test_conformance(cls, shape):
    run_layer_conformance(
        cls,
        {"num_tiers": 20} if cls is SimTier else {},
        (TARGET, HISTORY),
        shape,
        keyword_inputs={"mask": MASK},
        masked={"history": "mask"},
        trains=cls is SimScore,
        # A similarity near an edge falls into the next tier in half precision.
        mixed_precision_tolerance=None if cls is SimTier else 0.05,
    )


@pytest.mark.parametrize("num_tiers", [1, 2, 7, 20])
def test_equals_numpys_histogram(num_tiers):
    target, history = unit(50, 3), unit(50, 40, 3)
    target[:4], history[:4] = [1, 0, 0], 0
    edges = np.linspace(-1, 1, num_tiers + 1, dtype="float32")
    history[:4, : num_tiers + 1, 0] = np.concatenate([edges, np.zeros(40)])[: num_tiers + 1]
    history[1] = np.nextafter(history[1], -2, dtype="float32")  # Just below each edge.
    history[2] = np.nextafter(history[2], 2, dtype="float32")  # And just above.
    mask = RNG.random((50, 40)) < 0.7
    scores = np.asarray(SimScore()(target, history))
    found = np.asarray(SimTier(num_tiers)(target, history, mask))
    for row in range(50):
        expected = np.histogram(scores[row][mask[row]], num_tiers, (-1, 1))[0]
        np.testing.assert_array_equal(found[row], expected)
    np.testing.assert_array_equal(found.sum(axis=1), mask.sum(axis=1))


def test_scores_are_products():
    expected = np.einsum("bd,bld->bl", TARGET, HISTORY) * MASK
    np.testing.assert_allclose(SimScore()(TARGET, HISTORY, MASK), expected, atol=1e-6)


def test_rounding_stays_within_the_tiers():
    target = np.full((1, 3), 0.57735032, "float32")  # Its square is a little above 1.
    history = np.stack([target, -target], axis=1)
    assert np.asarray(SimTier(5)(target, history)).tolist() == [[1, 0, 0, 0, 1]]
    assert np.abs(np.asarray(SimScore()(target, history))).max() <= 1


def test_nothing_is_learned_through_a_histogram():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("by TensorFlow's tape")
    import tensorflow as tf

    target = tf.Variable(TARGET)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(SimTier(4)(target, HISTORY))
    assert tape.gradient(total, target) is None
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(SimScore()(target, HISTORY, MASK))
    expected = (HISTORY * MASK[..., None]).sum(axis=1)
    np.testing.assert_allclose(tape.gradient(total, target), expected, atol=1e-5)


def test_a_nan_is_noticed():
    history = HISTORY.copy()
    history[0, 0], history[2, 6] = np.nan, np.nan  # The second is masked.
    found = np.asarray(SimTier(4)(TARGET, history, MASK))
    assert np.isnan(found[0]).all() and np.isfinite(found[1:]).all()


def test_an_item_without_representation_has_similarity_0():
    history = np.zeros((1, 2, 5), "float32")
    assert np.asarray(SimTier(4)(TARGET[:1], history)).tolist() == [[0, 0, 2, 0]]
    assert np.asarray(SimTier(4)(TARGET[:1], history, np.zeros((1, 2), bool))).sum() == 0
    history[0, 1] = TARGET[0]
    assert np.asarray(SimTier(4, skip_zeros=True)(TARGET[:1], history)).tolist() == [[0, 0, 0, 1]]


def test_bad_arguments():
    with pytest.raises(ValueError, match="`num_tiers=0`"):
        SimTier(0)
    for layer in (SimTier(), SimScore()):
        with pytest.raises(ValueError, match=r"`target.shape=\(6, 5\)`, `history.shape=\(6, 7, 4"):
            layer(TARGET, HISTORY[..., :4])
        with pytest.raises(ValueError, match=r"`mask.shape=\(6,\)`"):
            type(layer)()(TARGET, HISTORY, MASK[:, 0])
