import keras
import numpy as np
import pytest

from ctr_keras.models.number_scale import NumberScale


def trained(column, batches=200):
    """The layer after `batches` of `column`."""
    layer = NumberScale()
    for _ in range(batches):
        layer(column, training=True)
    return layer


@pytest.mark.parametrize("unit", [1e-5, 0.004, 1.0, 1e6])
def test_any_unit_comes_to_one_scale(unit):
    column = np.random.default_rng(0).random((64, 1)).astype("float32")
    expected = (column - column.mean()) / column.std()
    layer = trained(unit * column, batches=2)
    for training in (True, False):
        found = layer(np.float32(unit) * column, training=training)
        np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("constant", [0.0, 1e-6, 24.7, -1000.1, 1_600_000_000.0])
def test_a_constant_column_is_harmless(constant):
    column = np.full((100, 1), constant, "float32")
    layer = trained(column)
    for training in (True, False):
        np.testing.assert_allclose(layer(column, training=training), 0, atol=0.02)
    # What it first shows later is bounded.
    assert abs(float(layer(column * 3 + 1)[0, 0])) <= 32


def test_an_empty_batch_leaves_no_trace():
    column = np.random.default_rng(0).normal(5, 3, (64, 1)).astype("float32")
    empty = column[:0]
    layer, with_empty = trained(column, 1), NumberScale()
    for batch in (empty, column, empty):
        assert tuple(with_empty(batch, training=True).shape) == (len(batch), 1)
    for kept, expected in zip(with_empty.get_weights(), layer.get_weights(), strict=True):
        np.testing.assert_allclose(kept, expected, rtol=1e-6)


def test_frozen_and_saved(tmp_path):
    column = np.random.default_rng(0).normal(5, 3, (64, 1)).astype("float32")
    layer = trained(column, 3)
    inputs = keras.Input((1,))
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(column), layer(column))
    before = layer(column)
    layer.trainable = False
    np.testing.assert_array_equal(layer(column, training=True), before)
    with pytest.raises(ValueError, match="earlier version.*train the model again"):
        layer.load_own_variables({})
