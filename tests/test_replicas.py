"""Training on two devices of one machine."""

import subprocess
import sys

TWO_REPLICAS = """
import keras
import numpy as np
import pytest
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import ctr_keras as ck
from tests.models.test_ctr_model import WithAuxiliary
from tests.pretraining.test_contrastive_model import Linear

mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
rng = np.random.default_rng(0)
ids = ck.Vocabulary.of_size(30)
schema = ck.Schema([ck.Feature("user_id", "user", vocabulary=ids)])
rows = {"user_id": rng.integers(1, 30, 64)}, rng.integers(0, 2, 64).astype("float32")


def trained(strategy):
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = WithAuxiliary(schema)
        model.compile(keras.optimizers.SGD(0.5), metrics=[])
    batches = tf.data.Dataset.from_tensor_slices(rows).batch(32)
    return model.fit(batches, epochs=2, shuffle=False, verbose=0).history, model.get_weights()


losses, weights = trained(tf.distribute.get_strategy())
other_losses, other_weights = trained(mirrored)
assert losses["norm_loss"][0] > 1.2 * losses["norm_loss"][1]
for name, values in losses.items():
    np.testing.assert_allclose(values, other_losses[name], rtol=1e-5)
for one, other in zip(weights, other_weights, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-6)

with mirrored.scope(), pytest.raises(ValueError, match="one device.*2 replicas"):
    ck.metrics.GAUC()
with mirrored.scope(), pytest.raises(ValueError, match="one device.*2 replicas"):
    ck.pretraining.ContrastiveModel(Linear(), bank_size=7)
"""


def test_two_replicas_are_as_one():
    """Losses, logged and learned from, as on one device; the memory bank is of one device alone."""
    # Logical devices cannot be added to a process that has run an op.
    subprocess.run([sys.executable, "-c", TWO_REPLICAS], check=True, timeout=240)
