"""An encoder in a `.keras` file."""

import hashlib
import io
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import h5py

from ctr_keras.json_values import digest

# Keras counts them up from object to object and from load to load.
_CHANGING = ("name", "shared_object_id")


def is_file(encoder: str | os.PathLike) -> bool:
    """Whether an encoder is named by a `.keras` file."""
    return str(encoder).endswith(".keras")


def refuse_settings(path: str | os.PathLike, settings: Mapping[str, Any]) -> None:
    """Refuse settings beside a file, which has its own."""
    if settings:
        received = ", ".join(f"`{name}={value!r}`" for name, value in settings.items())
        raise ValueError(f"{path} has its own settings: give none beside it. Received: {received}")


def read_config(path: str | os.PathLike) -> dict[str, Any]:
    """What a file says of its encoder.

    Raises:
        ValueError: it is no `.keras` file.
    """
    return json.loads(_read(path, "config.json"))


def file_identity(path: str | os.PathLike) -> dict[str, str]:
    """What tells an encoder from others: the name of its file, and the digest of what it computes.

    The bytes of the file tell nothing: it also holds when it was saved.

    Raises:
        ValueError: it is no `.keras` file.
    """
    found = hashlib.sha256(digest(_lasting(read_config(path))).encode())
    with h5py.File(io.BytesIO(_read(path, "model.weights.h5"))) as weights:

        def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset):
                found.update(f"{name} {item.dtype} {item.shape}".encode())
                found.update(item[()].tobytes())

        weights.visititems(add)
    return {"encoder": pathlib.Path(path).name, "sha256": found.hexdigest()}


def _read(path: str | os.PathLike, name: str) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{path} holds no encoder ({error}). Received: `path={path!r}`") from None


def _lasting(config: Any) -> Any:
    """A configuration without what changes each time it is saved."""
    if isinstance(config, dict):
        return {key: _lasting(item) for key, item in config.items() if key not in _CHANGING}
    return [_lasting(item) for item in config] if isinstance(config, list) else config
