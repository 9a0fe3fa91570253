import subprocess
import sys

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("sparse gradients are TensorFlow's", allow_module_level=True)

import tensorflow as tf

from ctr_keras.layers import FeatureEmbedding
from ctr_keras.optimizers import LazyAdam
from ctr_keras.optimizers.sparse_rows import merge_rows
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


class NumpyAdam:
    """Adam of the touched rows, in float64."""

    def __init__(self, w, lr, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
        self.w, self.lr, self.epsilon = w.astype("float64"), lr, epsilon
        self.b1, self.b2 = beta_1, beta_2
        self.m, self.v, self.t = np.zeros_like(self.w), np.zeros_like(self.w), 0

    def step(self, indices, values):
        self.t += 1
        for i in np.unique(indices):
            g = values[indices == i].sum(0).astype("float64")
            self.m[i] = self.b1 * self.m[i] + (1 - self.b1) * g
            self.v[i] = self.b2 * self.v[i] + (1 - self.b2) * g * g
            m, v = self.m[i] / (1 - self.b1**self.t), self.v[i] / (1 - self.b2**self.t)
            # Keras adds epsilon to the root before its bias correction.
            correction = np.sqrt(1 - self.b2**self.t)
            self.w[i] -= self.lr * m / (np.sqrt(v) + self.epsilon / correction)


def test_merge_rows():
    gradient = slices([5, 2, 5, 5, 0], seed=0)
    merged = merge_rows(gradient)
    assert sorted(merged.indices.numpy()) == [0, 2, 5]
    np.testing.assert_allclose(to_dense(merged), to_dense(gradient), rtol=1e-6)


@pytest.mark.parametrize("indices", [[], [3], [3, 3, 3]])
def test_merge_few_rows(indices):
    merged = merge_rows(slices(indices, seed=0))
    assert merged.values.shape == (len(set(indices)), WIDTH)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 2, 3)])
@pytest.mark.parametrize("gpus", [[], ["GPU:0"]])
def test_merge_any_dtype_and_rank(dtype, shape, gpus, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    values = tf.cast(np.arange(np.prod(shape)).reshape(shape), dtype)
    gradient = tf.IndexedSlices(values, tf.constant([1, 0, 1, 1, 0]), (4, *shape[1:]))
    merged = merge_rows(gradient)
    assert merged.values.dtype == dtype
    np.testing.assert_array_equal(to_dense(merged), to_dense(gradient))


@pytest.mark.parametrize("traced", [False, True])
def test_equals_numpy_adam_on_the_touched_rows(traced):
    w, optimizer = table(), LazyAdam(0.01)
    expected = NumpyAdam(w.numpy(), 0.01)
    optimizer.build([w])

    def apply(indices, values):
        optimizer.apply([tf.IndexedSlices(values, indices, (ROWS, WIDTH))], [w])

    run = tf.function(apply) if traced else apply
    for step in range(20):
        gradient = slices(some_rows(step), seed=step)
        run(gradient.indices, gradient.values)
        expected.step(gradient.indices.numpy(), gradient.values.numpy())
    np.testing.assert_allclose(w.numpy(), expected.w, atol=1e-6)
    np.testing.assert_allclose(optimizer._momentums[0].numpy(), expected.m, atol=1e-6)
    np.testing.assert_allclose(optimizer._velocities[0].numpy(), expected.v, atol=1e-6)


def test_rows_not_touched_keep_everything():
    w, optimizer = table(), LazyAdam(0.1, weight_decay=0.1)
    optimizer.apply([slices(all_rows(0), seed=0)], [w])
    before = [x.numpy() for x in (w, optimizer._momentums[0], optimizer._velocities[0])]
    optimizer.apply([slices([1, 4, 1], seed=1)], [w])
    after = [x.numpy() for x in (w, optimizer._momentums[0], optimizer._velocities[0])]
    rest = np.setdiff1d(np.arange(ROWS), [1, 4])
    for a, b in zip(after, before, strict=True):
        np.testing.assert_array_equal(a[rest], b[rest])
        assert np.all(a[[1, 4]] != b[[1, 4]])


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
        {"clipnorm": 0.5},
        {"clipvalue": 0.2},
        {"global_clipnorm": 0.5},
        {"weight_decay": 0.1},
        {"loss_scale_factor": 8.0},
    ],
)
def test_equals_adam_where_all_rows_are_touched(kwargs):
    """A sparse gradient with repeats and a dense one, against Keras on both as dense."""
    ours, theirs = (table(0), table(1)), (table(0), table(1))
    lazy, adam = LazyAdam(0.01, **kwargs), keras.optimizers.Adam(0.01, **kwargs)
    for step in range(5):
        sparse, dense = slices(all_rows(step), step), to_dense(slices(all_rows(step), step + 50))
        lazy.apply([sparse, tf.constant(dense)], ours)
        adam.apply([tf.constant(to_dense(sparse)), tf.constant(dense)], theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6)


def test_dense_variables_are_exactly_adams():
    ours, theirs = table(), table()
    lazy, adam = LazyAdam(0.01, weight_decay=0.01), keras.optimizers.Adam(0.01, weight_decay=0.01)
    for step in range(5):
        gradient = tf.constant(to_dense(slices(all_rows(step), step)))
        lazy.apply([gradient], [ours])
        adam.apply([gradient], [theirs])
    for a, b in zip([ours, *lazy.variables], [theirs, *adam.variables], strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_excluded_from_weight_decay():
    a, b = table(), table()
    for w, exclude in ((a, True), (b, False)):
        optimizer = LazyAdam(0.01, weight_decay=0.5)
        if exclude:
            optimizer.exclude_from_weight_decay(var_names=["table"])
        optimizer.apply([slices([1, 1], 0)], [w])
    assert np.all(np.abs(a.numpy()[1]) != np.abs(b.numpy()[1]))


def test_a_step_neither_reads_nor_writes_whole_tables():
    """With everything on that is not refused."""
    w, optimizer = table(), LazyAdam(0.01, global_clipnorm=1.0, weight_decay=0.1)
    optimizer.build([w])
    step = tf.function(lambda i, v: optimizer.apply([tf.IndexedSlices(v, i, (ROWS, WIDTH))], [w]))
    gradient = slices([1, 1, 2], 0)
    traced = step.get_concrete_function(gradient.indices, gradient.values)
    for variable in (w, optimizer._momentums[0], optimizer._velocities[0]):
        assert consumers(traced, variable) == {"ResourceGather": 1, "ResourceScatterUpdate": 1}


def model_of_ids(optimizer, seed=0, **kwargs):
    keras.utils.set_random_seed(seed)
    ids = keras.Input((3,), dtype="int32", name="item")
    x = FeatureEmbedding({"item": 20}, 4)({"item": ids})["item"]
    x = keras.layers.Dense(1)(keras.layers.Flatten()(x))
    model = keras.Model(ids, x)
    model.compile(optimizer, "mse", **kwargs)
    return model


def data(seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 20, (32, 3)).astype("int32"), rng.normal(size=(32, 1)).astype("float32")


def test_state_restored_continues_identically(tmp_path):
    model = model_of_ids(LazyAdam(0.01, clipnorm=1.0))
    model.fit(*data(), batch_size=8, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(restored.optimizer, LazyAdam)
    assert restored.optimizer.get_config() == model.optimizer.get_config()
    for m in (model, restored):
        m.fit(*data(1), batch_size=8, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), restored.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(model.optimizer.variables, restored.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_learning_rate_schedule_and_assignment():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.1, 0.0])
    model = model_of_ids(LazyAdam(schedule))
    first = model.get_weights()[0]
    x, y = data()
    model.train_on_batch(x, y)
    second = model.get_weights()[0]
    model.train_on_batch(x, y)
    assert np.any(first != second)
    np.testing.assert_array_equal(model.get_weights()[0], second)

    model = model_of_ids(LazyAdam(0.1))
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=1, min_delta=1e9)
    model.fit(x, y, epochs=3, verbose=0, callbacks=[plateau])
    np.testing.assert_allclose(float(model.optimizer.learning_rate), 0.001, rtol=1e-5)


def test_one_device_mirrored_strategy_gives_the_same():
    plain = model_of_ids(LazyAdam(0.01, clipnorm=0.1))
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        mirrored = model_of_ids(LazyAdam(0.01, clipnorm=0.1))
    for model in (plain, mirrored):
        model.fit(*data(), batch_size=8, shuffle=False, verbose=0)
    for a, b in zip(plain.get_weights(), mirrored.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


TWO_REPLICAS = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.optimizers.test_lazy_adam import *
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
gradient, shape = slices([1, 4, 1], 0), tf.constant([ROWS, WIDTH], tf.int64)

def updated(optimizer):
    with strategy.scope():
        w, optimizer = table(), optimizer()
        optimizer.build([w])

    scales = []

    def step():
        scales.append(optimizer.scale_loss(1.0))
        values = gradient.values * scales[-1]
        optimizer.apply([tf.IndexedSlices(values, gradient.indices, shape)], [w])

    tf.function(lambda: strategy.run(step))()
    assert set(scales) == {optimizer.loss_scale_factor or 1.0} and len(scales) > 1, scales
    return [copy.numpy() for copy in strategy.experimental_local_results(w.value)]
"""

MERGED = """
expected = NumpyAdam(table().numpy(), 0.01)
expected.step(gradient.indices.numpy(), 2 * gradient.values.numpy())
for copy in updated(lambda: LazyAdam(0.01)):
    np.testing.assert_allclose(copy, expected.w, atol=1e-6)
"""

SCALED = """
from ctr_keras.optimizers import RowwiseAdagrad
for kind in (LazyAdam, RowwiseAdagrad):
    plain, scaled = (updated(lambda: kind(0.01, loss_scale_factor=x)) for x in (None, 8.0))
    np.testing.assert_array_equal(plain, scaled)
    assert np.any(plain != table().numpy())
"""


@pytest.mark.parametrize("check", [MERGED, SCALED])
def test_two_replicas_are_as_one(check):
    """An id that both looked up counts once, with the sum of its gradients, the loss scaled or not.

    Replicas are traced in turns, so that neither may change what the other reads.
    """
    # Logical devices cannot be added to a process that has run an op.
    subprocess.run([sys.executable, "-c", TWO_REPLICAS + check], check=True, timeout=120)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"use_ema": True}, r"`use_ema` .*Received: `use_ema=True`"),
        ({"gradient_accumulation_steps": 2}, r"Received: `gradient_accumulation_steps=2`"),
        ({"amsgrad": True}, r"Received: `amsgrad=True`"),
    ],
)
def test_what_needs_whole_tables_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        LazyAdam(**kwargs)


def test_a_constraint_on_a_table_is_refused():
    w = table()
    w.constraint = keras.constraints.NonNeg()
    with pytest.raises(ValueError, match="constraint would rewrite a whole table"):
        LazyAdam().apply([slices([1], 0)], [w])
    LazyAdam().apply([tf.ones((ROWS, WIDTH))], [w])
