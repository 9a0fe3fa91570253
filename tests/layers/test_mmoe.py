import numpy as np
import pytest

from ctr_keras.layers import MMoE, SharedBottom
from tests.conformance import run_layer_conformance

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 5)).astype("float32")


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        (MMoE, {"num_experts": 4}),
        (MMoE, {"num_experts": 2, "activation": "dice", "dropout": 0.2, "seed": 1}),
        (SharedBottom, {"dropout": 0.2, "seed": 1}),
    ],
)
def test_conformance(cls, kwargs):
    run_layer_conformance(cls, {"num_tasks": 3, "units": [7, 2], **kwargs}, X, (6, 3, 2))


def test_equals_the_formula():
    """Equations 5 and 6 of the paper, task by task and expert by expert."""
    layer = MMoE(num_experts=4, num_tasks=3, units=[7])
    layer(X)
    layer.set_weights([RNG.normal(size=w.shape) for w in layer.get_weights()])
    outputs, gates = (np.asarray(x) for x in layer(X, return_gates=True))
    kernel, bias = layer.experts.get_weights()
    (gate_kernel,) = layer.gates.get_weights()
    for task in range(3):
        logits = X @ gate_kernel[:, task]
        gate = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        expected = np.zeros((6, 7))
        for i in range(4):
            expert = np.maximum(X @ kernel[:, i] + bias[7 * i : 7 * i + 7], 0)
            expected += gate[:, i : i + 1] * expert
        np.testing.assert_allclose(gates[:, task], gate, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(outputs[:, task], expected, rtol=1e-5, atol=1e-5)


def test_gates_are_shares():
    gates = np.asarray(MMoE(4, 3, [2])(100 * X, return_gates=True)[1])
    assert np.isfinite(gates).all()
    np.testing.assert_allclose(gates.sum(axis=-1), 1, atol=1e-5)


def test_shared_bottom_gives_every_task_the_same():
    layer = SharedBottom(3, [7])
    out = np.asarray(layer(X))
    kernel, bias = layer.get_weights()
    for task in range(3):
        np.testing.assert_allclose(out[:, task], np.maximum(X @ kernel + bias, 0), atol=1e-5)


@pytest.mark.parametrize("layer", [MMoE(2, 3, [4]), SharedBottom(3, [4])])
def test_bad_shape(layer):
    with pytest.raises(ValueError, match=r"\(batch, features\).*`inputs.shape=\(6, 3, 5\)`"):
        layer(np.ones((6, 3, 5), "float32"))


@pytest.mark.parametrize("name", ["num_experts", "num_tasks"])
def test_bad_arguments(name):
    with pytest.raises(ValueError, match=f"`{name}=0`"):
        MMoE(**{"num_experts": 2, "num_tasks": 2, "units": [3], name: 0})
