import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("sparse gradients are TensorFlow's", allow_module_level=True)

import tensorflow as tf

from ctr_keras.optimizers import LazyAdam, LossScaleOptimizer, RowwiseAdagrad
from tests.optimizers.sparse_gradients import ROWS, WIDTH, slices, table

WRAPPERS = [LossScaleOptimizer, keras.optimizers.LossScaleOptimizer]


def scaled(gradient, scale):
    return tf.IndexedSlices(gradient.values * scale, gradient.indices, gradient.dense_shape)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("inner", [LazyAdam, RowwiseAdagrad])
def test_unscales_sparse_gradients(wrapper, inner):
    plain, wrapped = table(), table()
    optimizer, gradient = wrapper(inner(0.1), initial_scale=64.0), slices([1, 3, 1], 0)
    inner(0.1).apply([gradient], [plain])
    optimizer.apply([scaled(gradient, 64.0)], [wrapped])
    np.testing.assert_allclose(wrapped.numpy(), plain.numpy(), atol=1e-6)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_skips_infinite_gradients(wrapper):
    w, optimizer = table(), wrapper(LazyAdam(0.1), initial_scale=64.0)
    before = w.numpy()
    optimizer.apply([scaled(slices([1, 3], 0), np.inf)], [w])
    np.testing.assert_array_equal(w.numpy(), before)
    assert float(optimizer.dynamic_scale) == 32.0


def test_does_not_build_a_tensor_of_the_tables_size():
    w, optimizer = table(), LossScaleOptimizer(LazyAdam(0.1))
    optimizer.build([w])

    @tf.function
    def step(indices, values):
        optimizer.apply([tf.IndexedSlices(values, indices, (ROWS, WIDTH))], [w])

    gradient = slices([1, 3], 0)
    graph = step.get_concrete_function(gradient.indices, gradient.values).graph
    graphs = [graph, *(graph._get_function(name).graph for name in graph._functions)]
    shapes = [t.shape for g in graphs for op in g.get_operations() for t in op.outputs]
    assert not any(s.rank == 2 and s[0] == ROWS for s in shapes)


def test_config_round_trip():
    optimizer = LossScaleOptimizer(LazyAdam(0.5), initial_scale=8.0)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is LossScaleOptimizer
    assert type(again.inner_optimizer) is LazyAdam
    assert again.initial_scale == 8.0
