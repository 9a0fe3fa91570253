"""`tf.custom_gradient` that lets go of the graphs it was called in."""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops

_KEPT = "_custom_gradients"


def custom_gradient(function: Callable) -> Callable:
    """As `tf.custom_gradient`, without what that leaves behind of each training.

    In a graph, TensorFlow registers the gradient of every call under a name of its own, and never
    removes it. The gradient refers to tensors of the forward pass, and they to their graph: the
    graphs of all trainings of a process would stay in memory (tensorflow/tensorflow#27492). Here
    the graph itself keeps the gradient, and the registry only knows where to find it.

    Args:
        function: Returns the outputs and a function of their gradients, which returns those of
            the arguments. It reads no variables.
    """
    registering = tf.custom_gradient(function)

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        result = registering(*args)
        if not tf.executing_eagerly():
            _keep_in_graph(tf.nest.flatten(result)[0].op)
        return result

    return call


def _keep_in_graph(operation: tf.Operation) -> None:
    """Move the gradient of an operation from TensorFlow's registry to the operation's graph."""
    registry = ops.gradient_registry._registry
    name = operation.get_attr("_gradient_op_type").decode()
    graph = tf.compat.v1.get_default_graph()
    if not hasattr(graph, _KEPT):
        setattr(graph, _KEPT, {})
    getattr(graph, _KEPT)[name] = registry.pop(name)["type"]
    owner = weakref.ref(graph)

    @tf.RegisterGradient(name)
    def gradient(operation: tf.Operation, *upstream: tf.Tensor) -> Any:
        return getattr(owner(), _KEPT)[name](operation, *upstream)

    weakref.finalize(graph, registry.pop, name)
