"""Schemas for people to edit: vocabulary files are named before they exist."""

import dataclasses
import json
import os
import pathlib

from ctr_keras import files
from ctr_keras.schema import RESERVED_IDS, Feature, Schema, Vocabulary
from ctr_keras.sources import Report, to_stderr
from ctr_keras.utf8 import not_utf8

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


def load(path: str | os.PathLike, report: Report = to_stderr) -> Schema:
    """Read a schema whose vocabulary files need not exist yet.

    A file that exists is used as it is, checked against its SHA-256 if the schema tells one, and
    reported if not, since other rows may have made it.

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
            file = path.parent / vocabulary["file"]
            if file.is_file():
                found[feature.get("name")] = Vocabulary.from_dict(vocabulary, path.parent)
                if "sha256" not in vocabulary:
                    report(
                        f"{file} is there already and used as it is: values that it lacks are "
                        "unknown. Remove it to have it built from the training rows"
                    )
            elif "sha256" in vocabulary:
                raise ValueError(
                    f"{path}: the vocabulary of {feature.get('name')!r} is missing. Restore "
                    f"{file}, or remove `size` and `sha256` to have "
                    "it built from the training rows"
                )
            feature["vocabulary"] = {"size": _UNBUILT_SIZE, "sha256": None, **vocabulary}
    schema = Schema.from_dict(config, source=str(path))
    return with_vocabularies(schema, found)


def check_values(feature: Feature) -> None:
    """Refuse a vocabulary file, which may be the user's own, that a model could not look up in.

    Raises:
        ValueError: names the file and the line of a value that stands there twice or is of another
            type.
    """
    vocabulary = feature.vocabulary
    if vocabulary is None or vocabulary.file is None or is_unbuilt(vocabulary):
        return
    file = vocabulary.file
    fault = not_utf8(pathlib.Path(file))
    if fault is not None:
        raise ValueError(fault)
    is_integer = feature.kind == "id" and feature.dtype == "int64"
    lines: dict[str | int, int] = {}
    with open(file, encoding="utf-8", newline="\n") as values:
        for number, line in enumerate(values, 1):
            value: str | int = line.removesuffix("\n")
            if is_integer:
                try:
                    value = int(value)
                except ValueError:
                    raise ValueError(
                        f"{file}, line {number}: expected an integer, as feature {feature.name!r} "
                        f"is of dtype int64. Received: {value!r}"
                    ) from None
            first = lines.setdefault(value, number)
            if first != number:
                raise ValueError(
                    f"{file}, line {number}: a vocabulary names each value once, and {value!r} is "
                    f"at line {first} already"
                )


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
