"""NumPy arrays as TF Serving's tensors, and back."""

import math
from collections.abc import Mapping, MutableMapping

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2


def to_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    """A message with the array's values; strings are `bytes` or `str`."""
    if array.dtype.kind in "OSU":
        return string_proto(array)
    proto = tensor_pb2.TensorProto(dtype=tf.as_dtype(array.dtype).as_datatype_enum)
    proto.tensor_shape.SetInParent()
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    proto.tensor_content = array.tobytes()
    return proto


def string_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    """A message with an array's strings, `bytes` or `str`."""
    proto = tensor_pb2.TensorProto(dtype=tf.string.as_datatype_enum)
    proto.tensor_shape.SetInParent()
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    values = array.reshape(-1).tolist()
    proto.string_val.extend(x.encode() if isinstance(x, str) else x for x in values)
    return proto


def put_arrays(
    protos: MutableMapping[str, tensor_pb2.TensorProto], arrays: Mapping[str, np.ndarray]
) -> None:
    """Add arrays to a message's tensors by name: a request's inputs, or a response's outputs."""
    for name, array in arrays.items():
        protos[name].CopyFrom(to_proto(array))


def get_arrays(
    protos: Mapping[str, tensor_pb2.TensorProto], max_bytes: float = math.inf
) -> dict[str, np.ndarray]:
    """The arrays of a message's tensors by name.

    Args:
        protos: Tensors of numbers, booleans or strings.
        max_bytes: Largest size of all arrays together: a message of a few bytes may stand for any
            number of equal values.

    Raises:
        ValueError: a message makes no tensor, or one too many; names it.
    """
    arrays: dict[str, np.ndarray] = {}
    size = 0
    for name, proto in protos.items():
        try:
            size += _array_bytes(proto)
            if size > max_bytes:
                raise ValueError(
                    f"with it, {size:,} bytes are more than the {max_bytes:,.0f} that all may have"
                )
            arrays[name] = to_array(proto)
        except ValueError as error:
            raise ValueError(f"Tensor {name!r}: {error}") from None
    return arrays


def to_array(proto: tensor_pb2.TensorProto) -> np.ndarray:
    """The array of a message.

    Args:
        proto: A tensor of numbers, booleans or strings.

    Raises:
        ValueError: the message makes no tensor.
    """
    dtype, shape = _dtype(proto), _shape(proto)
    expected = math.prod(shape) * _item_bytes(dtype)
    content = len(proto.tensor_content)
    if content and content != expected:
        raise ValueError(f"{content} bytes do not fill the shape {shape} of {dtype.name}")
    if content and dtype != tf.string:
        return np.frombuffer(proto.tensor_content, dtype.as_numpy_dtype).reshape(shape)
    try:
        return tf.make_ndarray(proto)
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(f"no tensor of shape {shape} and {dtype.name}: {error}") from None


def _dtype(proto: tensor_pb2.TensorProto) -> tf.DType:
    try:
        dtype = tf.as_dtype(proto.dtype)
        _item_bytes(dtype)  # A type that NumPy lacks has none.
    except (TypeError, KeyError) as error:
        raise ValueError(f"no data type: {error}") from None
    return dtype


def _item_bytes(dtype: tf.DType) -> int:
    return np.dtype(dtype.as_numpy_dtype).itemsize


def _shape(proto: tensor_pb2.TensorProto) -> list[int]:
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or min(shape, default=0) < 0:
        raise ValueError(f"the shape must be known, got {shape}")
    return shape


def _array_bytes(proto: tensor_pb2.TensorProto) -> int:
    """Of the array, and of the strings that are more than the message holds.

    A message with fewer values than its shape asks for stands for one that repeats the last.
    """
    count = math.prod(_shape(proto))
    size = count * _item_bytes(_dtype(proto))
    if proto.string_val:
        size += max(0, count - len(proto.string_val)) * len(proto.string_val[-1])
    return size
