"""A SavedModel in a session of TensorFlow's C API, as TF Serving runs it.

Python's own session builds the graph under the interpreter's lock, and every request waits until
that is done. Here nothing that takes long holds the lock, and no object of Python's is left of a
model that was let go of.
"""

import ctypes
import functools
import os
import pathlib
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2

from ctr_keras.serving.tensors import string_proto

_EMPTY = (ctypes.c_int64 * 1)(0)

_pointer, _int, _size, _text = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p


class _Buffer(ctypes.Structure):
    _fields_ = [("data", _pointer), ("length", _size), ("deallocator", _pointer)]


class _Output(ctypes.Structure):
    """A tensor of a graph: an output of an operation."""

    _fields_ = [("operation", _pointer), ("index", _int)]


class CSession:
    """A SavedModel, its variables, tables and assets included.

    It is let go of with the last reference to it, so a run that is under way ends first.

    Args:
        folder: A version's folder.

    Raises:
        tf.errors.OpError: it could not be loaded; says why in TensorFlow's words.
    """

    def __init__(self, folder: str | os.PathLike):
        library, quick = _libraries()
        options, buffer = quick.TF_NewSessionOptions(), quick.TF_NewBuffer()
        tags = (_text * 1)(tf.saved_model.SERVING.encode())
        self._graph = quick.TF_NewGraph()
        try:
            self._session = _checked(
                library.TF_LoadSessionFromSavedModel,
                *(options, None, os.fsencode(folder), tags, 1, self._graph, buffer),
            )
            self._content = ctypes.string_at(buffer.contents.data, buffer.contents.length)
        except BaseException:
            library.TF_DeleteGraph(self._graph)
            raise
        finally:
            quick.TF_DeleteSessionOptions(options)
            quick.TF_DeleteBuffer(buffer)
        # Not at exit: threads may still run it then.
        weakref.finalize(self, _delete, self._session, self._graph).atexit = False
        self._tensors: dict[str, _Output] = {}

    def meta_graph(self) -> meta_graph_pb2.MetaGraphDef:
        """What it was loaded from."""
        return meta_graph_pb2.MetaGraphDef.FromString(self._content)

    def run(
        self, fetches: Iterable[str], feeds: Mapping[str, np.ndarray], seconds: float | None = None
    ) -> list[np.ndarray]:
        """Tensors of the graph.

        Args:
            fetches: Their names.
            feeds: Values of others by name.
            seconds: How long it may take; `None` is for ever.

        Raises:
            tf.errors.OpError: it failed, or took too long.
        """
        library, quick = _libraries()
        wanted = [self._tensor(name) for name in fetches]
        outputs = (_pointer * len(wanted))()
        inputs = (_pointer * len(feeds))()
        options = None
        try:
            for number, array in enumerate(feeds.values()):
                inputs[number] = _new_tensor(quick, array)
            if seconds is not None:
                options = _new_buffer(quick, _timeout(seconds))
            _checked(
                library.TF_SessionRun,
                *(self._session, options),
                *((_Output * len(feeds))(*map(self._tensor, feeds)), inputs, len(feeds)),
                *((_Output * len(wanted))(*wanted), outputs, len(wanted)),
                *(None, 0, None),
            )
            return [_array(quick, tensor) for tensor in outputs]
        finally:
            for tensor in (*inputs, *outputs):
                quick.TF_DeleteTensor(tensor)
            quick.TF_DeleteBuffer(options)

    def _tensor(self, name: str) -> _Output:
        found = self._tensors.get(name)
        if found is None:
            operation, _, index = name.partition(":")
            pointer = _libraries()[1].TF_GraphOperationByName(self._graph, operation.encode())
            if pointer is None:
                raise ValueError(f"The graph has no such tensor. Received: `name={name!r}`")
            found = self._tensors[name] = _Output(pointer, int(index or 0))
        return found


def _delete(session: int, graph: int) -> None:
    library, _ = _libraries()
    _checked(library.TF_CloseSession, session)
    _checked(library.TF_DeleteSession, session)
    library.TF_DeleteGraph(graph)


def _checked(function: Any, *arguments: Any) -> Any:
    """What a function returns whose last argument is the status."""
    _, quick = _libraries()
    status = quick.TF_NewStatus()
    try:
        result = function(*arguments, status)
        code = quick.TF_GetCode(status)
        if code != tf.errors.OK:
            message = quick.TF_Message(status).decode(errors="replace")
            raise tf.compat.v1.errors.exception_type_from_error_code(code)(None, None, message)
        return result
    finally:
        quick.TF_DeleteStatus(status)


def _timeout(seconds: float) -> bytes:
    milliseconds = max(1, int(1000 * seconds))  # 0 is no timeout
    return config_pb2.RunOptions(timeout_in_ms=milliseconds).SerializeToString()


def _new_buffer(quick: ctypes.PyDLL, content: bytes) -> Any:
    return quick.TF_NewBufferFromString(content, len(content))


def _new_tensor(quick: ctypes.PyDLL, array: np.ndarray) -> int:
    if array.dtype.kind in "OSU":
        buffer = _new_buffer(quick, string_proto(array).SerializeToString())
        tensor = quick.TF_AllocateTensor(tf.uint8.as_datatype_enum, _EMPTY, 1, 0)
        try:
            _checked(quick.TF_TensorFromProto, buffer, tensor)
        except BaseException:
            quick.TF_DeleteTensor(tensor)
            raise
        finally:
            quick.TF_DeleteBuffer(buffer)
        return tensor
    array = np.ascontiguousarray(array).reshape(array.shape)  # which a scalar loses
    tensor = quick.TF_AllocateTensor(
        tf.as_dtype(array.dtype).as_datatype_enum,
        (ctypes.c_int64 * array.ndim)(*array.shape),
        *(array.ndim, array.nbytes),
    )
    ctypes.memmove(quick.TF_TensorData(tensor), array.ctypes.data, array.nbytes)
    return tensor


def _array(quick: ctypes.PyDLL, tensor: Any) -> np.ndarray:
    shape = [quick.TF_Dim(tensor, axis) for axis in range(quick.TF_NumDims(tensor))]
    dtype = tf.as_dtype(quick.TF_TensorType(tensor))
    data = quick.TF_TensorData(tensor)
    if dtype != tf.string:
        content = ctypes.string_at(data, quick.TF_TensorByteSize(tensor))
        return np.frombuffer(content, dtype.as_numpy_dtype).reshape(shape)
    array = np.empty(quick.TF_TensorElementCount(tensor), object)
    width = quick.TF_TensorByteSize(tensor) // max(len(array), 1)
    for number in range(len(array)):
        text = data + number * width
        array[number] = ctypes.string_at(
            quick.TF_StringGetDataPointer(text), quick.TF_StringGetSize(text)
        )
    return array.reshape(shape)


@functools.cache
def _libraries() -> tuple[ctypes.CDLL, ctypes.PyDLL]:
    """What Python's TensorFlow runs on, already loaded.

    The first lets go of Python's lock during a call. The second keeps it, for calls that are over
    before another thread would have taken it.
    """
    (path, *_) = sorted(pathlib.Path(tf.sysconfig.get_lib()).glob("libtensorflow_cc.*"))
    libraries = ctypes.CDLL(str(path)), ctypes.PyDLL(str(path))
    for library in libraries:
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    return libraries


_FUNCTIONS: dict[str, tuple[Any, list]] = {
    "TF_AllocateTensor": (_pointer, [_int, _pointer, _int, _size]),
    "TF_CloseSession": (None, [_pointer, _pointer]),
    "TF_DeleteBuffer": (None, [_pointer]),
    "TF_DeleteGraph": (None, [_pointer]),
    "TF_DeleteSession": (None, [_pointer, _pointer]),
    "TF_DeleteSessionOptions": (None, [_pointer]),
    "TF_DeleteStatus": (None, [_pointer]),
    "TF_DeleteTensor": (None, [_pointer]),
    "TF_Dim": (ctypes.c_int64, [_pointer, _int]),
    "TF_GetCode": (_int, [_pointer]),
    "TF_GraphOperationByName": (_pointer, [_pointer, _text]),
    # Session options, run options, folder, tags and their number, graph, meta graph, status.
    "TF_LoadSessionFromSavedModel": (
        _pointer,
        [_pointer, _pointer, _text, _pointer, _int, _pointer, _pointer, _pointer],
    ),
    "TF_Message": (_text, [_pointer]),
    "TF_NewBuffer": (ctypes.POINTER(_Buffer), []),
    "TF_NewBufferFromString": (_pointer, [_text, _size]),
    "TF_NewGraph": (_pointer, []),
    "TF_NewSessionOptions": (_pointer, []),
    "TF_NewStatus": (_pointer, []),
    "TF_NumDims": (_int, [_pointer]),
    # Session, run options; tensors, values and number of inputs, and of outputs; operations to run
    # and their number, meta data, status.
    "TF_SessionRun": (
        None,
        [_pointer, _pointer, *2 * (_pointer, _pointer, _int), _pointer, _int, _pointer, _pointer],
    ),
    "TF_StringGetDataPointer": (_pointer, [_pointer]),
    "TF_StringGetSize": (_size, [_pointer]),
    "TF_TensorByteSize": (_size, [_pointer]),
    "TF_TensorData": (_pointer, [_pointer]),
    "TF_TensorElementCount": (ctypes.c_int64, [_pointer]),
    "TF_TensorFromProto": (None, [_pointer, _pointer, _pointer]),
    "TF_TensorType": (_int, [_pointer]),
}
