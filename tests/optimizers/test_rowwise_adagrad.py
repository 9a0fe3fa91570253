import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("sparse gradients are TensorFlow's", allow_module_level=True)

import tensorflow as tf

from ctr_keras.optimizers import RowwiseAdagrad
from tests.optimizers.sparse_gradients import (
    ROWS,
    WIDTH,
    all_rows,
    consumers,
    slices,
    some_rows,
    table,
    to_dense,
)
from tests.optimizers.test_lazy_adam import data, model_of_ids


def unmarked():
    variable = table()
    variable.sparse_rows = False
    return variable


@pytest.mark.parametrize("dense", [False, True])
def test_equals_numpy(dense):
    w, optimizer = table(), RowwiseAdagrad(0.1, initial_accumulator_value=0.05, epsilon=1e-3)
    expected, accumulator = w.numpy().astype("float64"), np.full(ROWS, 0.05)
    for step in range(20):
        gradient = slices(some_rows(step), step)
        g = to_dense(gradient).astype("float64")
        accumulator += np.mean(g**2, axis=1)
        expected -= 0.1 * g / (np.sqrt(accumulator) + 1e-3)[:, None]
        optimizer.apply([tf.constant(g, tf.float32) if dense else gradient], [w])
    np.testing.assert_allclose(w.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(optimizer._accumulators[0].numpy(), accumulator, rtol=1e-6)


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"clipnorm": 0.5}, {"clipvalue": 0.2}, {"global_clipnorm": 0.5}, {"weight_decay": 0.1}],
)
def test_other_variables_are_adagrads(kwargs):
    """Sparse or dense, without the mark each element has its accumulator."""
    ours, theirs = (unmarked(), unmarked()), (unmarked(), unmarked())
    rowwise = RowwiseAdagrad(0.1, **kwargs)
    adagrad = keras.optimizers.Adagrad(0.1, **kwargs)
    for step in range(5):
        sparse, dense = slices(all_rows(step), step), to_dense(slices(all_rows(step), step + 50))
        rowwise.apply([sparse, tf.constant(dense)], ours)
        adagrad.apply([tf.constant(to_dense(sparse)), tf.constant(dense)], theirs)
    np.testing.assert_allclose(ours[0].numpy(), theirs[0].numpy(), atol=1e-6)
    if "global_clipnorm" not in kwargs:
        np.testing.assert_array_equal(ours[1].numpy(), theirs[1].numpy())


def test_state_is_one_number_a_row():
    optimizer = RowwiseAdagrad()
    optimizer.build([table(), unmarked()])
    assert [tuple(v.shape) for v in optimizer._accumulators] == [(ROWS,), (ROWS, WIDTH)]
    assert len(optimizer.variables) == 4


def test_rows_not_touched_keep_everything():
    w, optimizer = table(), RowwiseAdagrad(weight_decay=0.1)
    before = w.numpy()
    optimizer.apply([slices([1, 4, 1], 0)], [w])
    rest = np.setdiff1d(np.arange(ROWS), [1, 4])
    np.testing.assert_array_equal(w.numpy()[rest], before[rest])
    np.testing.assert_array_equal(optimizer._accumulators[0].numpy()[rest], np.float32(0.1))


def test_a_step_neither_reads_nor_writes_whole_tables():
    w, optimizer = table(), RowwiseAdagrad(0.01, clipnorm=1.0, weight_decay=0.1)
    optimizer.build([w])
    step = tf.function(lambda i, v: optimizer.apply([tf.IndexedSlices(v, i, (ROWS, WIDTH))], [w]))
    gradient = slices([1, 1, 2], 0)
    traced = step.get_concrete_function(gradient.indices, gradient.values)
    for variable in (w, optimizer._accumulators[0]):
        assert consumers(traced, variable) == {"ResourceGather": 1, "ResourceScatterUpdate": 1}


def test_state_restored_continues_identically(tmp_path):
    model = model_of_ids(RowwiseAdagrad(0.1))
    model.fit(*data(), batch_size=8, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    for m in (model, restored):
        m.fit(*data(1), batch_size=8, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), restored.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    shapes = [tuple(v.shape) for v in restored.optimizer.variables]
    assert (20,) in shapes and (20, 4) not in shapes


def test_one_device_mirrored_strategy_gives_the_same():
    plain = model_of_ids(RowwiseAdagrad(0.1))
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        mirrored = model_of_ids(RowwiseAdagrad(0.1))
    for model in (plain, mirrored):
        model.fit(*data(), batch_size=8, shuffle=False, verbose=0)
    for a, b in zip(plain.get_weights(), mirrored.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("kwargs", [{"use_ema": True}, {"gradient_accumulation_steps": 2}])
def test_what_needs_whole_tables_is_refused(kwargs):
    with pytest.raises(ValueError, match=f"Received: `{next(iter(kwargs))}="):
        RowwiseAdagrad(**kwargs)
