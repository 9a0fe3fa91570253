import keras
import numpy as np
import pytest

from ctr_keras.layers import MMoE, ScenarioTowers
from tests.conformance import JIT, run_layer_conformance

RNG = np.random.default_rng(0)
COMMON = RNG.normal(size=(6, 5)).astype("float32")
OWN = RNG.normal(size=(6, 3, 5)).astype("float32")
SCENARIO = np.array([0, 2, 1, 1, -2, 3], "int32")


def test_conformance():
    kwargs = {"num_scenarios": 3, "units": [4, 2]}
    run_layer_conformance(ScenarioTowers, kwargs, COMMON, (6, 3))
    scenario = {"scenario": SCENARIO}
    run_layer_conformance(ScenarioTowers, kwargs, OWN, (6, 1), keyword_inputs=scenario)
    kwargs = {**kwargs, "activation": "dice"}
    run_layer_conformance(ScenarioTowers, kwargs, COMMON, (6, 1), keyword_inputs=scenario)


def test_own_tower_and_the_mean_for_a_scenario_without_one():
    layer = ScenarioTowers(3, [4])
    every = np.asarray(layer(OWN))
    kernel, bias, logit_kernel, logit_bias = layer.get_weights()
    for n in range(3):
        hidden = np.maximum(OWN[:, n] @ kernel[n] + bias[4 * n : 4 * n + 4], 0)
        logit = hidden @ logit_kernel[n, :, 0] + logit_bias[n]
        np.testing.assert_allclose(every[:, n], logit, atol=1e-5)
    own = np.asarray(layer(OWN, scenario=SCENARIO))[:, 0]
    expected = [
        every[row, s] if 0 <= s < 3 else every[row].mean() for row, s in enumerate(SCENARIO)
    ]
    np.testing.assert_allclose(own, expected, atol=1e-6)


def test_a_row_moves_no_other_tower():
    """The trap: several outputs trained with the same label on all rows."""
    x, scenario = keras.Input((5,)), keras.Input((), dtype="int32")
    layer = ScenarioTowers(3, [4])
    model = keras.Model([x, scenario], layer(x, scenario=scenario))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=JIT)
    before = layer.get_weights()
    model.train_on_batch([COMMON, np.full(6, 1, "int32")], np.ones((6, 1)))
    kernel, _, logit_kernel, logit_bias = (
        new - old for new, old in zip(layer.get_weights(), before, strict=True)
    )
    for change in (kernel.transpose(1, 0, 2), logit_kernel, logit_bias):
        assert not change[[0, 2]].any() and change[1].any()


@pytest.mark.parametrize("own", [False, True], ids=["common", "own"])
def test_dice_of_a_tower_has_the_statistics_of_its_rows(own):
    """In training a logit, and in inference what training left, depend on no other scenario."""
    x = RNG.normal(size=(40, 3, 5) if own else (40, 5)).astype("float32")
    scenario = np.repeat(np.arange(3, dtype="int32"), (8, 12, 20))
    x[8:] += 50
    layer = ScenarioTowers(3, [4, 2], activation="dice")
    layer(x, scenario=scenario)
    weights = layer.get_weights()
    alone = ScenarioTowers(3, [4, 2], activation="dice")
    alone(x, scenario=scenario)
    alone.set_weights(weights)
    together = np.asarray(layer(x, scenario=scenario, training=True))
    expected = np.asarray(alone(x[:8], scenario=scenario[:8], training=True))
    np.testing.assert_allclose(together[:8], expected, rtol=1e-4, atol=1e-4)
    of_both = [np.asarray(each(x[:8], scenario=scenario[:8])) for each in (layer, alone)]
    np.testing.assert_allclose(*of_both, rtol=1e-4, atol=1e-4)
    for _ in range(3):
        layer(x[8:], scenario=scenario[8:], training=True)
    np.testing.assert_array_equal(layer(x[:8], scenario=scenario[:8]), of_both[0])


def test_dice_of_every_tower_has_the_rows_of_no_scenario():
    x, unknown = RNG.normal(size=(9, 5)).astype("float32"), np.full(9, -2, "int32")
    layer = ScenarioTowers(3, [4], activation="dice")
    layer(x)
    every = ScenarioTowers(3, [4], activation="dice")
    every(x)
    every.set_weights(layer.get_weights())
    got = np.asarray(layer(x, scenario=unknown, training=True))
    expected = np.asarray(every(x, training=True)).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(layer.get_weights(), every.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_several_tasks_of_a_row():
    """Click and purchase, say: all towers' outputs by the same layers."""
    x = keras.Input((5,))
    logits = ScenarioTowers(2, [8])(MMoE(3, 2, [8])(x))
    model = keras.Model(x, keras.layers.Activation("sigmoid")(logits))
    model.compile(keras.optimizers.Adam(0.05), "binary_crossentropy", jit_compile=JIT)
    features = RNG.normal(size=(200, 5)).astype("float32")
    labels = np.stack([features[:, 0] > 0, features[:, 1] > 0], axis=1).astype("float32")
    model.fit(features, labels, epochs=20, verbose=0)
    assert ((model.predict(features, verbose=0) > 0.5) == labels).mean() > 0.95


def test_bad_scenario():
    with pytest.raises(ValueError, match=r"`scenario` must have shape \(batch,\).*\(6, 1\)"):
        ScenarioTowers(3, [4])(COMMON, scenario=SCENARIO[:, None])
    with pytest.raises(ValueError, match="`num_scenarios=0`"):
        ScenarioTowers(0, [4])
