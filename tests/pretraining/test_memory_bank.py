import keras
import numpy as np
import pytest
import tensorflow as tf

from ctr_keras.pretraining.memory_bank import MemoryBank

RNG = np.random.default_rng(0)


class PlainRing:
    """One key after the other."""

    def __init__(self, size, width):
        self.keys, self.ids = np.zeros((size, width), "float32"), np.zeros(size, int)
        self.place = self.count = 0

    def add(self, keys, ids):
        for key, number in zip(keys, ids, strict=True):
            self.keys[self.place], self.ids[self.place] = key, number
            self.place = (self.place + 1) % len(self.keys)
            self.count = min(self.count + 1, len(self.keys))


@pytest.mark.parametrize("in_graph", [False, True])
def test_order_is_that_of_a_ring(in_graph):
    bank, plain = MemoryBank(width=3, size=10), PlainRing(10, 3)
    add = tf.function(bank.add, reduce_retracing=True) if in_graph else bank.add
    for count in (4, 4, 4, 0, 7, 10, 1, 23, 13):  # Wraps around, and overflows.
        keys, ids = RNG.normal(size=(count, 3)).astype("float32"), RNG.integers(1, 99, count)
        add(tf.constant(keys, shape=(count, 3)), tf.constant(ids, tf.int64, shape=(count,)))
        plain.add(keys, ids)
        np.testing.assert_array_equal(bank.keys, plain.keys)
        np.testing.assert_array_equal(bank.ids, plain.ids)
        assert bank.in_use.numpy().sum() == plain.count
        assert bank.in_use.numpy()[: plain.count].all()


def test_saved_with_a_model(tmp_path):
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.bank = MemoryBank(width=2, size=5)

        def call(self, x):
            return x

    model, again = Model(), Model()
    for each in (model, again):
        each.build((None, 2))
    model.bank.add(np.ones((7, 2), "float32"), np.arange(7))
    assert not model.trainable_variables
    model.save_weights(tmp_path / "model.weights.h5")
    again.load_weights(tmp_path / "model.weights.h5")
    assert again.bank.ids.numpy().tolist() == [5, 6, 2, 3, 4]
    assert MemoryBank.from_config(model.bank.get_config()).size == 5


def test_bad_arguments():
    with pytest.raises(ValueError, match="`size=0`"):
        MemoryBank(width=3, size=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible with expected shape"):
        MemoryBank(width=3, size=4).add(np.ones((2, 2), "float32"), [1, 2])
