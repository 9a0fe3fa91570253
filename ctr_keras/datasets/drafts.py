"""Schemas for people to edit: vocabulary files are named before they exist."""

import dataclasses
import json
import os
import pathlib

from ctr_keras import files
from ctr_keras.schema import RESERVED_IDS, Schema, Vocabulary

# A vocabulary that `prepare` has yet to build from the training rows.
_UNBUILT_SIZE = RESERVED_IDS


def unbuilt(name: str) -> Vocabulary:
    """A vocabulary file that `prepare` is to build for feature `name`."""
    return Vocabulary(size=_UNBUILT_SIZE, file=f"vocabularies/{name}.txt")


def is_unbuilt(vocabulary: Vocabulary | None) -> bool:
    """Whether a vocabulary is a file to be built."""
    return vocabulary is not None and vocabulary.file is not None and vocabulary.sha256 is None


def save(schema: Schema, path: str | os.PathLike) -> None:
    """Write a schema as JSON; files to be built appear as `{"file": "vocabularies/x.txt"}`."""
    config = schema.to_dict()
    for feature in config["features"]:
        if is_unbuilt(schema[feature["name"]].vocabulary):
            feature["vocabulary"] = {"file": feature["vocabulary"]["file"]}
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    files.write_atomic(path, text.encode())


def load(path: str | os.PathLike) -> Schema:
    """Read a schema whose vocabulary files need not exist yet.

    A file that exists is used as it is, checked against its SHA-256 if the schema tells one.

    Raises:
        ValueError: the JSON is no schema, or a file with a SHA-256 is missing or has another.
    """
    path = pathlib.Path(path)
    path = path if path.suffix == ".json" else path / "schema.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"No schema there. Received: `schema={str(path)!r}`") from None
    except NotADirectoryError:
        raise ValueError(
            f"{path.parent} is a file, and no `.json`; expected a schema. "
            f"Received: `schema={str(path.parent)!r}`"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    found: dict[str, Vocabulary] = {}
    features = config.get("features", []) if isinstance(config, dict) else []
    for feature in features:
        vocabulary = feature.get("vocabulary") if isinstance(feature, dict) else None
        if isinstance(vocabulary, dict) and "file" in vocabulary:
            if (path.parent / vocabulary["file"]).is_file():
                found[feature.get("name")] = Vocabulary.from_dict(vocabulary, path.parent)
            elif "sha256" in vocabulary:
                raise ValueError(
                    f"{path}: the vocabulary of {feature.get('name')!r} is missing. Restore "
                    f"{path.parent / vocabulary['file']}, or remove `size` and `sha256` to have "
                    "it built from the training rows"
                )
            feature["vocabulary"] = {"size": _UNBUILT_SIZE, "sha256": None, **vocabulary}
    schema = Schema.from_dict(config, source=str(path))
    return with_vocabularies(schema, found)


def with_vocabularies(schema: Schema, vocabularies: dict[str, Vocabulary]) -> Schema:
    """The schema with other vocabularies for the features that are named."""
    return Schema(
        tuple(
            dataclasses.replace(feature, vocabulary=vocabularies[feature.name])
            if feature.name in vocabularies
            else feature
            for feature in schema
        )
    )
