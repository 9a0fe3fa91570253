import gc
import weakref

import numpy as np
import pytest

from tests.conformance import BACKEND

pytestmark = pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's registry")


@pytest.fixture
def square():
    """A square whose gradient is ten times too large, so that it is known from the true one."""
    import tensorflow as tf

    from ctr_keras.custom_gradient import custom_gradient

    @custom_gradient
    def square(x, unused):
        return tf.square(x), lambda upstream: (20.0 * x * upstream, None)

    return square


def test_eagerly(square):
    import tensorflow as tf

    x = tf.constant([1.0, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = square(x, 0)
    np.testing.assert_array_equal(tape.gradient(y, x), [20.0, 40.0])


def test_in_a_graph_by_a_tape(square):
    import tensorflow as tf

    @tf.function
    def first_and_second(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = square(x, 0)
            first = inner.gradient(y, x)
        return first, outer.gradient(first, x)

    first, second = first_and_second(tf.constant([1.0, 2.0]))
    np.testing.assert_array_equal(first, [20.0, 40.0])
    np.testing.assert_array_equal(second, [20.0, 20.0])


def test_through_a_function_and_a_loop(square):
    """Their gradients are found in the registry, not by a tape."""
    import tensorflow as tf

    @tf.function
    def twice(x):
        return tf.while_loop(lambda k, x: k < 2, lambda k, x: (k + 1, square(x, 0)), (0, x))[1]

    x = tf.constant([1.0, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = twice(x)
    np.testing.assert_array_equal(y, [1.0, 16.0])
    np.testing.assert_array_equal(tape.gradient(y, x), 20.0 * x**2 * 20.0 * x)


def test_the_graph_is_forgotten(square):
    import tensorflow as tf

    @tf.function
    def gradient(x):
        return tf.gradients(square(x, 0), x)

    concrete = gradient.get_concrete_function(tf.TensorSpec((None,), tf.float32))
    graph = weakref.ref(concrete.graph)
    np.testing.assert_array_equal(concrete(tf.constant([3.0])), [[60.0]])
    del gradient, concrete
    gc.collect()
    assert graph() is None


def test_the_steps_of_a_training_are_forgotten(small_schema, small_data):
    import ctr_keras as ck

    before = {id(graph) for graph in graphs_of_steps()}
    model = ck.models.DIN(small_schema, embedding_dim=4, units=[4])
    model.compile(ck.optimizers.LazyAdam(1e-3))
    model.fit(ck.data.read(small_data, small_schema, 64), verbose=0)
    steps = [weakref.ref(graph) for graph in graphs_of_steps() if id(graph) not in before]
    assert steps
    del model
    gc.collect()
    assert [graph() for graph in steps] == [None] * len(steps)


def graphs_of_steps():
    from tensorflow.python.framework.func_graph import FuncGraph

    graphs = [found for found in gc.get_objects() if isinstance(found, FuncGraph)]
    return [graph for graph in graphs if graph.name.startswith("one_step_on_data")]
