import keras
import numpy as np
import pytest
from keras import ops

from ctr_keras.layers import MultimodalKnowledgeExtractor, TargetAttention
from tests.conformance import run_layer_conformance

RNG = np.random.default_rng(0)
TARGET = RNG.normal(size=(6, 5)).astype("float32")
HISTORY = RNG.normal(size=(6, 4, 5)).astype("float32")
MASK = np.arange(4) < np.array([[4], [0], [1], [3], [2], [4]])
SMALL = {"units": [7, 3], "attention_units": [4]}


@pytest.mark.parametrize(
    "kwargs",
    [{"stop_gradient": False}, {"projection": 3, "attention_normalize": "softmax"}],
)
def test_conformance(kwargs):
    width = kwargs.get("projection", 5)
    run_layer_conformance(
        MultimodalKnowledgeExtractor,
        {**SMALL, **kwargs},
        (TARGET, HISTORY),
        ((6, 1), (6, width + 10)),
        keyword_inputs={"mask": MASK},
        masked={"history": "mask"},
    )


@pytest.mark.parametrize("normalize", [None, "softmax"])
def test_equals_the_formula(normalize):
    options = {"attention_normalize": normalize, "dropout": 0.5}  # Which inference is without.
    layer = MultimodalKnowledgeExtractor(**SMALL, projection=3, **options)
    layer(TARGET, HISTORY, MASK)
    layer.set_weights([RNG.normal(size=w.shape) ** 2 for w in layer.get_weights()])
    kernel = ops.convert_to_numpy(layer.project.kernel)
    target, history = TARGET @ kernel, HISTORY @ kernel
    attention = TargetAttention([4], normalize=normalize)
    attention(target, history, MASK)
    attention.set_weights(layer.attention.get_weights())
    interest = np.asarray(attention(target, history, MASK))
    parts, x = [interest], np.concatenate([interest, target], axis=1)
    for hidden in layer.hidden:
        w, b = hidden.get_weights()
        x = np.maximum(x @ w + b, 0)
        parts.append(x)
    w, b = layer.score.get_weights()
    logit, knowledge = layer(TARGET, HISTORY, MASK)
    np.testing.assert_allclose(logit, x @ w + b, rtol=1e-4)
    np.testing.assert_allclose(knowledge, np.concatenate(parts, axis=1), rtol=1e-4, atol=1e-5)


def test_dropout_in_training():
    layer = MultimodalKnowledgeExtractor(**SMALL, dropout=0.9)
    layer(TARGET, HISTORY, MASK)
    layer.set_weights([RNG.normal(size=w.shape) ** 2 for w in layer.get_weights()])
    target, history = np.abs(TARGET), np.abs(HISTORY)  # So that no hidden unit is off by itself.
    still = np.asarray(layer(target, history, MASK)[1])[:, 5:]
    noisy = np.asarray(layer(target, history, MASK, training=True)[1])[:, 5:]
    assert np.mean(still == 0) == 0 and np.mean(noisy == 0) > 0.6


@pytest.mark.parametrize("stop", [True, False])
def test_a_rankers_loss_stays_out(stop):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("by TensorFlow's tape")
    import tensorflow as tf

    layer = MultimodalKnowledgeExtractor(**SMALL, stop_gradient=stop)
    with tf.GradientTape(persistent=True) as tape:
        logit, knowledge = layer(TARGET, HISTORY, MASK)
        own, others = tf.reduce_sum(logit), tf.reduce_sum(knowledge)
    weights = layer.attention.trainable_variables
    assert all(g is not None for g in tape.gradient(own, weights))
    assert all((g is None) == stop for g in tape.gradient(others, weights[:1]))


def test_bad_arguments():
    with pytest.raises(ValueError, match="`projection=0`"):
        MultimodalKnowledgeExtractor(projection=0)
    with pytest.raises(ValueError, match="`dropout=1`"):
        MultimodalKnowledgeExtractor(dropout=1)
    with pytest.raises(ValueError, match="`normalize=max`"):
        MultimodalKnowledgeExtractor(attention_normalize="max")
    with pytest.raises(ValueError, match=r"`history.shape=\(6, 4, 2\)`"):
        MultimodalKnowledgeExtractor(**SMALL)(TARGET, HISTORY[..., :2])
