"""What a signature takes and gives."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from ctr_keras.serving.errors import InvalidArgumentError


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """An input or output.

    Attributes:
        name: As requests call it.
        tensor: As the graph calls it.
        dtype: TensorFlow's data type.
        shape: `None` stands for any size; a shape that is `None` for any rank.
    """

    name: str
    tensor: str
    dtype: tf.DType
    shape: tuple[int | None, ...] | None

    def takes(self, shape: tuple[int, ...]) -> bool:
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            wanted in (None, size) for wanted, size in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        shape = "any rank" if self.shape is None else str(list(self.shape)).replace("None", "?")
        return f"{self.dtype.name} {shape}"


@dataclasses.dataclass(frozen=True)
class Signature:
    """A function of a model: named tensors in, named tensors out.

    Attributes:
        name: As requests call it.
        inputs, outputs: By name.
    """

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    @classmethod
    def from_proto(cls, name: str, proto: meta_graph_pb2.SignatureDef) -> "Signature":
        return cls(name, _specs(proto.inputs), _specs(proto.outputs))

    @property
    def rows_are_independent(self) -> bool:
        """Whether the first dimension of every input and output is that of the batch."""
        specs = [*self.inputs.values(), *self.outputs.values()]
        return bool(self.inputs) and all(spec.shape and spec.shape[0] is None for spec in specs)

    def arrays(self, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Python values as arrays of the inputs' data types; other names are left to `check`.

        Raises:
            ValueError: a value cannot be one, named.
        """
        return {
            name: _converted(self.inputs[name], value) if name in self.inputs else np.asarray(value)
            for name, value in values.items()
        }

    def check(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Raise `InvalidArgumentError`, naming the input, unless the signature takes them."""
        for spec in self.inputs.values():
            if spec.name not in inputs:
                raise self._wrong(f"the input {spec.name!r} is missing, {spec}", sorted(inputs))
        for name in inputs:
            if name not in self.inputs:
                raise self._wrong(f"there is no input {name!r}", sorted(inputs))
        for name, array in inputs.items():
            spec = self.inputs[name]
            if not _is_of(spec.dtype, array):
                raise self._wrong(f"the input {name!r} must be {spec}", _words(array))
            if not spec.takes(array.shape):
                raise self._wrong(f"the input {name!r} must have the shape of {spec}", array.shape)
        if self.rows_are_independent:
            self._check_rows(inputs)

    def chosen_outputs(self, names: Iterable[str]) -> list[str]:
        """The outputs to compute: those asked for, or all."""
        chosen = list(dict.fromkeys(names)) or list(self.outputs)
        for name in chosen:
            if name not in self.outputs:
                raise self._wrong(f"there is no output {name!r}", sorted(self.outputs))
        return chosen

    def _check_rows(self, inputs: Mapping[str, np.ndarray]) -> None:
        first = next(iter(inputs))
        for name, array in inputs.items():
            if len(array) != len(inputs[first]):
                raise self._wrong(
                    f"the input {name!r} must have as many rows as {first!r}, {len(inputs[first])}",
                    len(array),
                )

    def _wrong(self, what: str, received: object) -> InvalidArgumentError:
        return InvalidArgumentError(f"Signature {self.name!r}: {what}. Received: {received}")


def callable_protos(
    protos: Mapping[str, meta_graph_pb2.SignatureDef],
) -> dict[str, meta_graph_pb2.SignatureDef]:
    """The signatures to call, by name: `__saved_model_init_op` is none."""
    return {name: proto for name, proto in sorted(protos.items()) if not name.startswith("__")}


def _specs(protos: Mapping[str, meta_graph_pb2.TensorInfo]) -> dict[str, TensorSpec]:
    return {name: _spec(name, proto) for name, proto in sorted(protos.items())}


def _spec(name: str, proto: meta_graph_pb2.TensorInfo) -> TensorSpec:
    if proto.WhichOneof("encoding") != "name":
        raise ValueError(f"Tensor {name!r} must be a dense one. Received: `{proto}`")
    shape = None
    if not proto.tensor_shape.unknown_rank:
        shape = tuple(None if dim.size < 0 else dim.size for dim in proto.tensor_shape.dim)
    return TensorSpec(name, proto.name, tf.as_dtype(proto.dtype), shape)


def _is_of(dtype: tf.DType, array: np.ndarray) -> bool:
    if dtype == tf.string:
        return array.dtype.kind in "OSU"
    return array.dtype == dtype.as_numpy_dtype


def _words(array: np.ndarray) -> str:
    name = "string" if array.dtype.kind in "OSU" else array.dtype.name
    return f"{name} {list(array.shape)}"


def _converted(spec: TensorSpec, value: Any) -> np.ndarray:
    try:
        array = _strings(value) if spec.dtype == tf.string else _numbers(spec.dtype, value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Input {spec.name!r} must be an array of {spec.dtype.name}, its lists of equal "
            f"length: {error}. Received: `{spec.name}={str(value)[:80]}`"
        ) from None
    if array.size or spec.shape is None:
        return array
    # Of empty lists the sizes further in cannot be read; those that are any are 0 as well.
    return array.reshape(*array.shape, *(size or 0 for size in spec.shape[array.ndim :]))


def _numbers(dtype: tf.DType, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if not array.size:  # `[]` is an array of floats.
        return array.astype(dtype.as_numpy_dtype)
    converted = array.astype(dtype.as_numpy_dtype, casting="same_kind", copy=False)
    if converted.dtype.kind in "iu" and converted is not array and np.any(converted != array):
        raise ValueError("a value is out of its range")  # NumPy would let it wrap around.
    return converted


def _strings(value: Any) -> np.ndarray:
    array = np.asarray(value, object)
    for kind in set(map(type, array.reshape(-1))):
        if not issubclass(kind, (str, bytes)):
            raise TypeError(f"it holds a {kind.__name__}")
    return array
