"""Weights that PyTorch has saved, read without PyTorch and without running what a pickle says."""

import collections
import dataclasses
import io
import pickle
from typing import Any

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_TYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}

# What unpickling and reading may come upon.
_DAMAGED = (
    pickle.UnpicklingError, ValueError, LookupError, TypeError, AttributeError, EOFError,
)  # fmt: skip


def read_torch_weights(content: bytes, name: str) -> dict[str, np.ndarray]:
    """The arrays of a state dict in PyTorch's format before 1.6: pickles, then raw numbers.

    A pickle may name any function to be called. This one may name an ordered dict, tensors and
    their two types of numbers, and nothing else.

    Args:
        content: Of the file.
        name: What errors call it.

    Returns:
        By name, arrays of float32 or int64 in the order of the file.

    Raises:
        ValueError: the content is of another format, names something else, or is cut off.
    """
    file = io.BytesIO(content)
    try:
        if [_load(file) for _ in range(2)] != [_MAGIC, _PROTOCOL]:
            raise ValueError("another format than that of PyTorch before 1.6")
        if not _load(file)["little_endian"]:
            raise ValueError("numbers of another byte order")
        tensors = _load(file)
        storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
        numbers = {key: _numbers(file, storages[key]) for key in _load(file)}
        return {key: tensor.of(numbers[tensor.storage.key]) for key, tensor in tensors.items()}
    except _DAMAGED as error:
        raise ValueError(f"{name} holds no weights that can be read: {error}") from error


@dataclasses.dataclass(frozen=True)
class _Storage:
    """Numbers that follow behind the pickles."""

    key: str
    dtype: np.dtype
    size: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, numbers: np.ndarray) -> np.ndarray:
        last = self.offset + sum(
            (n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True)
        )
        if min((*self.shape, *self.strides, 1)) < 1 or not 0 <= self.offset <= last < len(numbers):
            raise ValueError(f"{self} of {len(numbers)} numbers")
        strides = [stride * numbers.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, strides)
        return np.ascontiguousarray(view).reshape(self.shape)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which weights do not need")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size, view = pid
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError(f"it refers to {pid!r}")
        return _Storage(key, dtype, size)


def _tensor(storage: _Storage, offset: int, shape: tuple, strides: tuple, *_: Any) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


def _load(file: io.BytesIO) -> Any:
    return _Unpickler(file).load()


def _numbers(file: io.BytesIO, storage: _Storage) -> np.ndarray:
    size = int.from_bytes(file.read(8), "little")
    content = file.read(storage.size * storage.dtype.itemsize)
    if size != storage.size or len(content) != size * storage.dtype.itemsize:
        raise ValueError(f"{len(content)} bytes of {storage.size} numbers of {storage.dtype}")
    return np.frombuffer(content, storage.dtype)
