import keras
import numpy as np
import pytest

from ctr_keras.layers import MLP, Dice
from tests.conformance import run_layer_conformance

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 5)).astype("float32")


@pytest.mark.parametrize(
    "kwargs",
    [
        {"units": [7, 3]},
        {"units": [7, 3], "activation": "dice", "dropout": 0.2, "seed": 1},
        {"units": [4], "activation": None, "use_bias": False, "batch_norm": True},
    ],
)
def test_conformance(kwargs):
    # Batch normalization removes the mean, so the bias before it cannot move; here there is none.
    run_layer_conformance(MLP, kwargs, X, (6, kwargs["units"][-1]))


def test_equals_the_formula():
    layer = MLP([7, 3])
    out = layer(X)
    w1, b1, w2, b2 = layer.get_weights()
    expected = np.maximum(np.maximum(X @ w1 + b1, 0) @ w2 + b2, 0)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("use_bias", [True, False])
def test_inputs_side_by_side(use_bias):
    """Tensors of which some hold for all rows, against the rows joined."""
    layer = MLP([7, 3], activation="dice", use_bias=use_bias, batch_norm=True)
    layer.build(X.shape)
    parts = [X[:1, :2], X[:, 2:3], X[:1, 3:]]
    joined = np.concatenate([np.broadcast_to(x, (len(X), x.shape[1])) for x in parts], axis=1)
    np.testing.assert_allclose(layer(parts), layer(joined), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(layer([X[:1]]), layer(X[:1]), rtol=1e-5, atol=1e-5)


def test_each_layer_has_its_own_dice_and_kernel():
    layer = MLP([5, 5, 5], activation="dice")
    layer(X)
    assert sum(isinstance(x, Dice) for x in layer._flatten_layers()) == 3
    kernels = [w for w in layer.get_weights() if w.ndim == 2]
    assert not np.array_equal(kernels[0], kernels[1])


def test_mask_reaches_dice_and_batch_norm():
    x = RNG.normal(size=(4, 3, 5)).astype("float32")
    mask = np.arange(3) < np.array([[1], [2], [3], [0]])
    kwargs = {"units": [4, 2], "activation": "dice", "batch_norm": True, "use_bias": False}
    run_layer_conformance(
        MLP, kwargs, x, (4, 3, 2), keyword_inputs={"mask": mask}, masked={"inputs": "mask"}
    )


def test_dropout_only_in_training():
    layer = MLP([50], activation=None, dropout=0.5, seed=3)
    np.testing.assert_array_equal(layer(X), layer(X))
    dropped = np.asarray(layer(X, training=True))
    assert 0.3 < np.mean(dropped == 0) < 0.7


def test_regularizer_adds_a_loss_a_kernel():
    layer = MLP([3, 2], kernel_regularizer=keras.regularizers.L2(0.1))
    layer(X)
    expected = 0.1 * sum(np.sum(w**2) for w in layer.get_weights() if w.ndim == 2)
    np.testing.assert_allclose(sum(float(x) for x in layer.losses), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"units": []}, r"`units` must be .*Received: `units=\[\]`"),
        ({"units": [3, 0]}, r"positive integers"),
        (
            {"units": [3], "dropout": 1.0},
            r"`dropout` must be in \[0, 1\)\. Received: `dropout=1.0`",
        ),
        ({"units": [3], "activation": "nope"}, "nope"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        MLP(**kwargs)
