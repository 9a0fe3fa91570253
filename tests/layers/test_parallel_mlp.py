import keras
import numpy as np
import pytest

from ctr_keras.layers import Dice, ParallelMLP
from tests.conformance import run_layer_conformance

RNG = np.random.default_rng(0)
COMMON = RNG.normal(size=(6, 5)).astype("float32")
OWN = RNG.normal(size=(6, 3, 5)).astype("float32")


@pytest.mark.parametrize(
    ("x", "kwargs"),
    [
        (COMMON, {"num_mlps": 3, "units": [7, 4]}),
        (OWN, {"num_mlps": 3, "units": [4], "activation": "dice", "dropout": 0.2, "seed": 1}),
        (OWN, {"num_mlps": 3, "units": [4], "activation": None, "use_bias": False}),
    ],
)
def test_conformance(x, kwargs):
    run_layer_conformance(ParallelMLP, kwargs, x, (6, 3, kwargs["units"][-1]))


@pytest.mark.parametrize("x", [COMMON, OWN], ids=["common", "own"])
def test_equals_one_mlp_after_the_other(x):
    layer = ParallelMLP(3, [7, 4])
    out = np.asarray(layer(x))
    layer.set_weights([RNG.normal(size=w.shape) for w in layer.get_weights()])
    out = np.asarray(layer(x))
    first, first_bias, second, second_bias = layer.get_weights()
    for n in range(3):
        kernel = first[:, n] if x is COMMON else first[n]
        value = x if x is COMMON else x[:, n]
        value = np.maximum(value @ kernel + first_bias[n * 7 : n * 7 + 7], 0)
        value = np.maximum(value @ second[n] + second_bias[n * 4 : n * 4 + 4], 0)
        np.testing.assert_allclose(out[:, n], value, rtol=1e-5, atol=1e-5)


def test_inputs_side_by_side():
    layer = ParallelMLP(3, [7, 4])
    layer.build(COMMON.shape)
    parts = [COMMON[:, :2], COMMON[:1, 2:]]
    joined = np.concatenate([COMMON[:, :2], np.repeat(COMMON[:1, 2:], 6, axis=0)], axis=1)
    np.testing.assert_allclose(layer(parts), layer(joined), rtol=1e-5, atol=1e-5)


def test_kernels_start_apart_and_within_their_own_width():
    for initializer in ("glorot_uniform", keras.initializers.GlorotUniform(seed=4)):
        layer = ParallelMLP(4, [20], kernel_initializer=initializer)
        layer.build((None, 30))
        kernel = layer.get_weights()[0]
        limit = np.sqrt(6 / (30 + 20))
        assert np.abs(kernel).max() <= limit and np.abs(kernel).max() > 0.95 * limit
        for a in range(4):
            for b in range(a):
                assert not np.array_equal(kernel[:, a], kernel[:, b])


def test_each_mlp_has_its_own_dice():
    layer = ParallelMLP(3, [4], activation="dice")
    layer(COMMON)
    (dice,) = [x for x in layer._flatten_layers() if isinstance(x, Dice)]
    assert {tuple(w.shape) for w in dice.weights} == {(12,)}


@pytest.mark.parametrize("shape", [(6, 2, 5), (6,), (6, 3, 5, 1)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=r"\(batch, num_mlps, features\).*`num_mlps=3`"):
        ParallelMLP(3, [4])(np.ones(shape, "float32"))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_mlps": 0, "units": [3]}, "`num_mlps=0`"),
        ({"num_mlps": 2, "units": []}, "`units=\\[\\]`"),
        ({"num_mlps": 2, "units": [3], "dropout": 1.0}, "`dropout=1.0`"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ParallelMLP(**kwargs)
