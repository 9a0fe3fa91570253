"""A model's graph for one user and many candidate items, the user's side computed once.

The operations of the graph run one after the other, as in Keras, but what depends on the user alone
has batch 1. Where both sides meet, the user's tensors are repeated for each item, except where it
pays to know better:

- embeddings are looked up by side;
- features joined to a vector stay apart until a dense layer multiplies each side by its rows of the
  kernel;
- layers that attend from the target item to a history are given the one history there is.
"""

import dataclasses
import functools
import itertools
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from ctr_keras import layers
from ctr_keras.layers.side_by_side import product

# Their first argument is of the target item; batch 1 of all others holds for all rows.
_TAKES_ONE_HISTORY = (
    layers.MultimodalKnowledgeExtractor,
    layers.ScenarioTowers,
    layers.SimScore,
    layers.SimTier,
    layers.TargetAttention,
)
# They begin with a dense layer, and take its input in parts.
_TAKES_PARTS = (
    layers.MLP,
    layers.MMoE,
    layers.PLE,
    layers.ParallelMLP,
    layers.ScenarioTowers,
    layers.SharedBottom,
)


def score_candidates(
    graph: keras.Model, user: dict[str, tf.Tensor], items: dict[str, tf.Tensor]
) -> tf.Tensor:
    """The output of a graph for one user with each of many items, in inference.

    Args:
        graph: Functional model with one output, such as `CTRModel.inference_model` returns.
        user: Its inputs of the user: batch 1, known when traced.
        items: Its other inputs, at least one: `(items, ...)`.

    Returns:
        `(items, ...)`, what the graph gives for the user's inputs repeated for each item.
    """
    number = tf.shape(next(iter(items.values())))[0]
    if not _is_by_row(graph):
        # Who knows what happens to the batch: it gets one.
        repeated = {name: _repeat(x, number) for name, x in user.items()}
        return graph({**repeated, **items}, training=False)
    sides = {**{name: _OfUser(x) for name, x in user.items()}, **items}
    run = _Run(number)
    return run.repeated(run.graph(graph, {name: sides[name] for name in graph.input}))


@dataclasses.dataclass(frozen=True)
class _OfUser:
    """What depends on the user alone: a tensor of batch 1."""

    value: tf.Tensor


@dataclasses.dataclass(frozen=True)
class _Parts:
    """Vectors `(batch, width)` of both sides, to be concatenated along the last axis."""

    parts: tuple[Any, ...]

    @classmethod
    def of(cls, values: list) -> "_Parts":
        parts: list[Any] = []
        for value in values:
            for part in value.parts if isinstance(value, _Parts) else (value,):
                if parts and isinstance(parts[-1], _OfUser) == isinstance(part, _OfUser):
                    part = _joined(parts.pop(), part)
                parts.append(part)
        return cls(tuple(parts))

    @property
    def tensors(self) -> list[tf.Tensor]:
        return [_value(part) for part in self.parts]


@dataclasses.dataclass(frozen=True)
class _Run:
    """One run of the operations of a graph, for so many items."""

    number: tf.Tensor

    def graph(self, graph: keras.Model, inputs: Any) -> Any:
        return graph._run_through_graph(
            inputs, operation_fn=lambda operation: functools.partial(self.call, operation)
        )

    def call(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """The outputs of an operation, those that depend on the user alone marked as such."""
        leaves = tree.flatten((args, kwargs))
        if not any(isinstance(x, (_OfUser, _Parts)) for x in leaves):
            return operation(*args, **kwargs)
        if _is_of_user(leaves):
            args, kwargs = tree.map_structure(_value, (args, kwargs))
            return tree.map_structure(_OfUser, operation(*args, **kwargs))
        return self._call_on_both(operation, *args, **kwargs)

    def _call_on_both(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        if type(operation).__name__ == "Functional":
            return self.graph(operation, args[0])
        if isinstance(operation, layers.FeatureEmbedding):
            return _look_up(operation, *args, **kwargs)
        if type(operation).__name__ == "Concatenate" and _joins_vectors(operation, args[0]):
            return _Parts.of(args[0])
        if type(operation).__name__ == "Stack":
            return self._stack(args[0], operation.axis)
        if isinstance(operation, keras.layers.Dense) and isinstance(args[0], _Parts):
            if operation.compute_dtype == "float32":
                return _dense(operation, args[0].tensors)
        if isinstance(operation, _TAKES_PARTS) and isinstance(args[0], _Parts):
            args = (args[0].tensors, *args[1:])
        if isinstance(operation, _TAKES_ONE_HISTORY) and _is_of_user((args[1:], kwargs)):
            args = (args[0], *tree.map_structure(_value, args[1:]))
            kwargs = tree.map_structure(_value, kwargs)
        args, kwargs = tree.map_structure(self.repeated, (args, kwargs))
        return operation(*args, **kwargs)

    def _stack(self, values: list, axis: int) -> tf.Tensor:
        """Of neighbours on the user's side together: what is repeated is one tensor."""
        values = [self.repeated(x) if isinstance(x, _Parts) else x for x in values]
        stacked = []
        for is_of_user, run in itertools.groupby(values, lambda x: isinstance(x, _OfUser)):
            x = tf.stack([_value(x) for x in run], axis)
            stacked.append(_repeat(x, self.number) if is_of_user else x)
        return tf.concat(stacked, axis)

    def repeated(self, x: Any) -> Any:
        """Whatever it is, with a row for each item."""
        if isinstance(x, _Parts):
            return tf.concat([self.repeated(part) for part in x.parts], axis=-1)
        return _repeat(x.value, self.number) if isinstance(x, _OfUser) else x


def _is_by_row(graph: keras.Model) -> bool:
    """Whether the first axis of every tensor is the batch."""
    tensors = [
        tensor
        for nodes in graph._nodes_by_depth.values()
        for node in nodes
        for tensor in node.outputs
    ]
    nested = [x for x in graph.operations if type(x).__name__ == "Functional"]
    has_batch = all(len(x.shape) > 0 and x.shape[0] is None for x in tensors)
    return has_batch and all(_is_by_row(x) for x in nested)


def _is_of_user(values: Any) -> bool:
    """Whether no tensor in a structure depends on the items."""
    return not any(isinstance(x, _Parts) or tf.is_tensor(x) for x in tree.flatten(values))


def _value(x: Any) -> Any:
    return x.value if isinstance(x, _OfUser) else x


def _repeat(x: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    repeated = tf.broadcast_to(x, tf.concat([[number], tf.shape(x)[1:]], axis=0))
    mask = getattr(x, "_keras_mask", None)
    if mask is not None:
        repeated._keras_mask = _repeat(mask, number)
    return repeated


def _joined(first: Any, second: Any) -> Any:
    both = tf.concat([_value(first), _value(second)], axis=-1)
    return _OfUser(both) if isinstance(first, _OfUser) else both


def _joins_vectors(operation: Any, values: Any) -> bool:
    ranks = {2 if isinstance(x, _Parts) else len(_value(x).shape) for x in values}
    return ranks == {2} and operation.axis in (-1, 1)


def _dense(layer: keras.layers.Dense, parts: list[tf.Tensor]) -> tf.Tensor:
    x = product(parts, layer.kernel)
    x = x + layer.bias if layer.use_bias else x
    return layer.activation(x)


def _look_up(layer: layers.FeatureEmbedding, ids: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    of_user = {name: x.value for name, x in ids.items() if isinstance(x, _OfUser)}
    of_items = {name: x for name, x in ids.items() if name not in of_user}
    found = {name: _OfUser(x) for name, x in layer(of_user, **kwargs).items()}
    found |= layer(of_items, **kwargs)
    return {name: found[name] for name in ids}
