import numpy as np
import pytest

from ctr_keras.layers import PLE
from tests.conformance import run_layer_conformance

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 5)).astype("float32")


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"num_experts": 2, "num_shared_experts": 3, "num_levels": 2, "dropout": 0.2, "seed": 1},
    ],
)
def test_conformance(kwargs):
    run_layer_conformance(PLE, {"num_tasks": 3, "units": [7, 4], **kwargs}, X, (6, 3, 4))


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def of_expert(layer, level, n, x):
    """One expert of one level, by its own weights."""
    kernel, bias = layer.experts[level].get_weights()
    kernel = kernel[n] if level else kernel[:, n]
    width = kernel.shape[1]
    return np.maximum(x @ kernel + bias[width * n : width * n + width], 0)


def gate_kernel(gate, level, n):
    (kernel,) = gate.get_weights()
    return kernel[n] if kernel.ndim == 3 and level else kernel[:, n]


@pytest.mark.parametrize(("own", "shared", "levels"), [(1, 1, 1), (2, 3, 1), (2, 1, 3)])
def test_equals_the_formula(own, shared, levels):
    """Task by task, expert by expert, level by level."""
    layer = PLE(3, [4], own, shared, levels)
    layer(X)
    layer.set_weights([RNG.normal(size=w.shape, scale=0.4) for w in layer.get_weights()])
    outputs, gates = (np.asarray(x) for x in layer(X, return_gates=True))
    tasks, common = [X] * 3, X
    for level in range(levels):
        of_shared = [of_expert(layer, level, 3 * own + n, common) for n in range(shared)]
        of_task = [
            [of_expert(layer, level, own * task + n, tasks[task]) for n in range(own)]
            for task in range(3)
        ]
        mixed, shares = [], []
        for task in range(3):
            share = softmax(tasks[task] @ gate_kernel(layer.gates[level], level, task))
            experts = [*of_task[task], *of_shared]
            shares.append(share)
            mixed.append(sum(share[:, i : i + 1] * x for i, x in enumerate(experts)))
        if level < levels - 1:
            share = softmax(common @ layer.shared_gates[level].get_weights()[0][:, 0])
            experts = [x for group in of_task for x in group] + of_shared
            common = sum(share[:, i : i + 1] * x for i, x in enumerate(experts))
        tasks = mixed
    np.testing.assert_allclose(outputs, np.stack(tasks, axis=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gates, np.stack(shares, axis=1), rtol=1e-4, atol=1e-5)


def test_a_task_does_not_see_experts_of_another():
    layer = PLE(num_tasks=3, units=[4])
    before = np.asarray(layer(X))
    kernel = layer.experts[0].kernels[0]
    value = np.array(kernel)
    value[:, 1] += 1
    kernel.assign(value)
    after = np.asarray(layer(X))
    np.testing.assert_array_equal(after[:, [0, 2]], before[:, [0, 2]])
    assert (after[:, 1] != before[:, 1]).any()


def test_last_level_has_no_shared_gate():
    assert len(PLE(2, [4], num_levels=1).shared_gates) == 0
    assert len(PLE(2, [4], num_levels=3).shared_gates) == 2


@pytest.mark.parametrize("name", ["num_tasks", "num_experts", "num_shared_experts", "num_levels"])
def test_bad_arguments(name):
    with pytest.raises(ValueError, match=f"`{name}=0`"):
        PLE(**{"num_tasks": 2, "units": [3], name: 0})


def test_bad_shape():
    with pytest.raises(ValueError, match=r"`inputs.shape=\(6, 3, 5\)`"):
        PLE(2, [3])(np.ones((6, 3, 5), "float32"))


def test_dice_of_a_tasks_experts_has_the_statistics_of_its_rows():
    """As in a scenario's tower: no other scenario's rows, but in the experts that all share."""
    x = RNG.normal(size=(40, 5)).astype("float32")
    x[8:] += 50
    scenario = np.repeat(np.arange(3, dtype="int32"), (8, 12, 20))
    layer, alone = (PLE(3, [4, 2], 2, 2, activation="dice") for _ in range(2))
    layer(x)
    alone(x)
    alone.set_weights(layer.get_weights())
    layer(x, scenario=scenario, training=True)
    alone(x[:8], training=True)
    for ours, theirs in zip(layer.experts[0].stages, alone.experts[0].stages, strict=True):
        (ours,), (theirs,) = ours, theirs
        units = ours.alpha.shape[0] // 8  # Of an expert: 2 a task and 2 shared.
        own, others = slice(0, 2 * units), slice(2 * units, None)
        for got, expected in (
            (ours.moving_mean, theirs.moving_mean),
            (ours.moving_variance, theirs.moving_variance),
        ):
            got, expected = np.asarray(got), np.asarray(expected)
            np.testing.assert_allclose(got[own], expected[own], rtol=1e-3, atol=1e-4)
            assert not np.allclose(got[others], expected[others], rtol=1e-2)


def test_experts_of_every_level_but_the_last_are_everybodys():
    scenario = np.repeat(np.arange(3, dtype="int32"), 2)
    layer, plain = (PLE(3, [4], num_levels=2, activation="dice") for _ in range(2))
    layer(X)
    plain(X)
    plain.set_weights(layer.get_weights())
    layer(X, scenario=scenario, training=True)
    plain(X, training=True)
    first, last = (
        [np.asarray(each.experts[level].stages[0][0].moving_mean) for each in (layer, plain)]
        for level in range(2)
    )
    np.testing.assert_allclose(*first, rtol=1e-4, atol=1e-6)
    assert not np.allclose(*last, rtol=1e-3)


def test_scenarios_are_one_a_row():
    with pytest.raises(ValueError, match=r"`scenario` must have shape \(batch,\)"):
        PLE(3, [4])(X, scenario=np.zeros((6, 1), "int32"))
