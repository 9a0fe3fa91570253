"""TensorFlow's C API, of which `LoadSavedModel` is what TF Serving loads a version with."""

import ctypes
import os
import pathlib

import tensorflow as tf

_OK = 0


def load_by_c_api(folder: str | os.PathLike) -> None:
    """Load a SavedModel in C++, variables, tables and assets included, and let go of it again.

    Raises:
        ValueError: it could not be loaded; says why in TensorFlow's words.
    """
    library = _library()
    status, graph = library.TF_NewStatus(), library.TF_NewGraph()
    options = library.TF_NewSessionOptions()
    tags = (ctypes.c_char_p * 1)(tf.saved_model.SERVING.encode())
    session = library.TF_LoadSessionFromSavedModel(
        options, None, os.fsencode(folder), tags, 1, graph, None, status
    )
    code, message = library.TF_GetCode(status), library.TF_Message(status).decode()
    if session:
        library.TF_CloseSession(session, status)
        library.TF_DeleteSession(session, status)
    library.TF_DeleteSessionOptions(options)
    library.TF_DeleteGraph(graph)
    library.TF_DeleteStatus(status)
    if code != _OK:
        raise ValueError(f"{message} Received: `folder={str(folder)!r}`")


def _library() -> ctypes.CDLL:
    """The library that Python's TensorFlow runs on, already loaded."""
    (path, *_) = sorted(pathlib.Path(tf.sysconfig.get_lib()).glob("libtensorflow_cc.*"))
    library = ctypes.CDLL(str(path))
    pointer = ctypes.c_void_p
    signatures = {
        "TF_NewStatus": (pointer, []),
        "TF_NewGraph": (pointer, []),
        "TF_NewSessionOptions": (pointer, []),
        "TF_LoadSessionFromSavedModel": (
            pointer,
            [
                pointer,  # session options
                pointer,  # run options
                ctypes.c_char_p,  # folder
                ctypes.POINTER(ctypes.c_char_p),  # tags
                ctypes.c_int,  # number of tags
                pointer,  # graph
                pointer,  # meta graph to fill in
                pointer,  # status
            ],
        ),
        "TF_GetCode": (ctypes.c_int, [pointer]),
        "TF_Message": (ctypes.c_char_p, [pointer]),
        "TF_CloseSession": (None, [pointer, pointer]),
        "TF_DeleteSession": (None, [pointer, pointer]),
        "TF_DeleteSessionOptions": (None, [pointer]),
        "TF_DeleteGraph": (None, [pointer]),
        "TF_DeleteStatus": (None, [pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
