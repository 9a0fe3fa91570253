"""The layout of a model's base path: one folder a version, as TF Serving wants it."""

import os
import pathlib

SCHEMA_FILE = "assets.extra/schema.json"


def latest_version(path: str | os.PathLike) -> int | None:
    """The highest version under a base path, or `None`."""
    versions = [int(child.name) for child in pathlib.Path(path).glob("*") if child.name.isdigit()]
    return max(versions, default=None)


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
