"""The layout of a model's base path: one folder a version, as TF Serving wants it."""

import json
import os
import pathlib

from ctr_keras.extras import require
from ctr_keras.schema import Schema

SCHEMA_FILE = "assets.extra/schema.json"
_HIGHEST = 2**63 - 1  # TF Serving's messages hold no more.


def all_versions(path: str | os.PathLike) -> dict[int, pathlib.Path]:
    """The folder of each version under a base path, ascending; none if there is no such folder.

    A name may have leading zeros; of two names of one number the shorter one counts.
    """
    folders = sorted(pathlib.Path(path).glob("*"))  # "01" before "1"
    found = {int(f.name): f for f in folders if f.name.isascii() and f.name.isdigit()}
    return {number: found[number] for number in sorted(found) if number <= _HIGHEST}


def version_folder(path: str | os.PathLike) -> pathlib.Path:
    """The SavedModel at `path`: a version itself, or the highest one under a base path."""
    path = pathlib.Path(path)
    if (path / "saved_model.pb").is_file():
        return path
    versions = all_versions(path)
    if not versions:
        raise ValueError(
            f"No SavedModel there; `ctr-keras export` writes one. Received: `path={str(path)!r}`"
        )
    return versions[max(versions)]


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
