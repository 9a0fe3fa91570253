"""The layout of a model's base path: one folder a version, as TF Serving wants it."""

import json
import os
import pathlib

from ctr_keras.extras import require
from ctr_keras.schema import Schema

SCHEMA_FILE = "assets.extra/schema.json"


def all_versions(path: str | os.PathLike) -> list[int]:
    """The versions under a base path, ascending; none if there is no such folder."""
    names = [child.name for child in pathlib.Path(path).glob("*")]
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def latest_version(path: str | os.PathLike) -> int | None:
    """The highest version under a base path, or `None`."""
    return max(all_versions(path), default=None)


def version_folder(path: str | os.PathLike) -> pathlib.Path:
    """The SavedModel at `path`: a version itself, or the highest one under a base path."""
    path = pathlib.Path(path)
    if (path / "saved_model.pb").is_file():
        return path
    version = latest_version(path)
    if version is None:
        raise ValueError(
            f"No SavedModel there; `ctr-keras export` writes one. Received: `path={str(path)!r}`"
        )
    return path / str(version)


def saved_schema(folder: pathlib.Path) -> Schema:
    """What a version takes.

    Raises:
        ValueError: `ck.serving.export` did not write it.
    """
    file = folder / SCHEMA_FILE
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"The SavedModel has no {SCHEMA_FILE}: `ck.serving.export` did not write it. "
            f"Received: `path={str(folder)!r}`"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from error
    return Schema.from_dict(config, source=str(file))


def require_text(schema: Schema) -> None:
    """Register the operations of a SavedModel that takes texts; without them it does not load.

    Raises:
        ImportError: the extra `text` is not installed.
    """
    if any(f.is_encoded_text or f.as_string for f in schema.inputs):
        require("tensorflow_text", "text", "A SavedModel with encoded texts")
