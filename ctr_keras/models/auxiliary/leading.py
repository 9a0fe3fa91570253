"""A part of a tensor along its first axis, with a cheap gradient."""

from typing import Any

from keras import ops


def leading(x: Any, start: int, size: Any) -> Any:
    """`x[start : start + size]`.

    On TensorFlow the gradient of `ops.slice` takes half the time of that of indexing.
    """
    shape = ops.shape(x)
    return ops.slice(x, (start, *(0,) * (len(shape) - 1)), (size, *shape[1:]))
