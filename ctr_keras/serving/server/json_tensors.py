"""JSON values as arrays of a signature's inputs, and outputs as JSON values."""

import base64
import binascii
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ctr_keras.serving.errors import InvalidArgumentError
from ctr_keras.serving.signature import Signature, TensorSpec

_MOST_DIMENSIONS = 8


def parse_rows(signature: Signature, instances: Any) -> dict[str, np.ndarray]:
    """The inputs of the row format: a list with an object (or the only input's value) a row."""
    if not isinstance(instances, list) or not instances:
        raise InvalidArgumentError("'instances' must be a list with at least one row")
    if _is_named(instances[0]):
        names = set(instances[0])
        for row, instance in enumerate(instances):
            if not _is_named(instance) or set(instance) != names:
                raise InvalidArgumentError(
                    f"'instances', row {row}: expected an object with {sorted(names)} as in row 0"
                )
        columns = {name: [instance[name] for instance in instances] for name in instances[0]}
    else:
        columns = {_only_input(signature): instances}
    return _arrays(signature, columns)


def parse_columns(signature: Signature, inputs: Any) -> dict[str, np.ndarray]:
    """The inputs of the columnar format: an object of tensors, or the only input's tensor."""
    columns = inputs if _is_named(inputs) else {_only_input(signature): inputs}
    return _arrays(signature, columns)


def format_rows(outputs: Mapping[str, np.ndarray]) -> list:
    """The predictions of the row format: an object (or the only output's value) a row.

    Raises:
        InvalidArgumentError: the outputs have no rows, or not the same number.
    """
    counts = {array.shape[:1] for array in outputs.values()}
    if len(counts) != 1 or counts == {()}:
        raise InvalidArgumentError(
            "The outputs have not the same number of rows; ask with 'inputs' instead of 'instances'"
        )
    columns = {name: _values(name, array) for name, array in outputs.items()}
    if len(columns) == 1:
        return next(iter(columns.values()))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def format_columns(outputs: Mapping[str, np.ndarray]) -> Any:
    """The outputs of the columnar format: an object of tensors, or the only output's tensor."""
    columns = {name: _values(name, array) for name, array in outputs.items()}
    return next(iter(columns.values())) if len(columns) == 1 else columns


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and set(value) != {"b64"}


def _only_input(signature: Signature) -> str:
    if len(signature.inputs) != 1:
        raise InvalidArgumentError(
            f"Signature {signature.name!r} has the inputs {sorted(signature.inputs)}: expected an "
            "object with their names"
        )
    return next(iter(signature.inputs))


def _arrays(signature: Signature, columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
    for name in columns:
        if name not in signature.inputs:
            raise InvalidArgumentError(
                f"Signature {signature.name!r}: there is no input {name!r}. "
                f"Received: {sorted(columns)}"
            )
    return {name: _array(signature.inputs[name], value) for name, value in columns.items()}


def _array(spec: TensorSpec, value: Any) -> np.ndarray:
    flat, shape = _flatten(spec, value)
    if spec.dtype == tf.string:
        strings = np.empty(len(flat), object)
        strings[:] = [_bytes(spec, item) for item in flat]
        return strings.reshape(shape)
    allowed = _allowed(spec)
    for kind in set(map(type, flat)):
        if kind not in allowed:
            raise _wrong(spec, f"{kind.__name__} among its values")
    try:
        with np.errstate(over="raise"):
            return np.array(flat, spec.dtype.as_numpy_dtype).reshape(shape)
    except (OverflowError, FloatingPointError):
        raise _wrong(spec, "a number out of its range") from None


def _flatten(spec: TensorSpec, value: Any) -> tuple[list, list[int]]:
    """All values in one list, and the sizes of the nested lists they were in."""
    shape: list[int] = []
    level = [value]
    while level and isinstance(level[0], list):
        if set(map(type, level)) != {list} or len(set(map(len, level))) != 1:
            raise _wrong(spec, "lists of different length or depth")
        if len(shape) == _MOST_DIMENSIONS:
            raise _wrong(spec, f"more than {_MOST_DIMENSIONS} lists in one another")
        shape.append(len(level[0]))
        level = list(itertools.chain.from_iterable(level))
    if not level and spec.shape is not None:
        # Of empty lists the sizes further in cannot be read; those that are any are 0 as well.
        shape += [size or 0 for size in spec.shape[len(shape) :]]
    return level, shape


def _allowed(spec: TensorSpec) -> tuple[type, ...]:
    if spec.dtype == tf.bool:
        return (bool,)
    return (int,) if spec.dtype.is_integer else (int, float)


def _bytes(spec: TensorSpec, item: Any) -> bytes:
    try:
        if isinstance(item, str):
            return item.encode()
        if isinstance(item, dict) and set(item) == {"b64"}:
            return base64.b64decode(item["b64"], validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise _wrong(spec, f"a string that cannot be read ({error})") from None
    raise _wrong(spec, f"{type(item).__name__} among its values")


def _wrong(spec: TensorSpec, received: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"The input {spec.name!r} must be {spec}. Received: {received}")


def _values(name: str, array: np.ndarray) -> Any:
    if array.dtype.kind not in "OSU":
        return array.tolist()
    flat = [_string(name, item) for item in array.reshape(-1)]
    nested = np.empty(len(flat), object)
    nested[:] = flat
    return nested.reshape(array.shape).tolist()


def _string(name: str, item: bytes) -> Any:
    """Bytes in base 64 if the output's name says so, as in TF Serving, or no text is possible."""
    if not name.endswith("_bytes"):
        try:
            return item.decode()
        except UnicodeDecodeError:
            pass
    return {"b64": base64.b64encode(item).decode()}
