"""What a version is: the file that lies in it for people and tools to read."""

import datetime
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from ctr_keras.data import Manifest
from ctr_keras.data.read import check_compatible
from ctr_keras.data.vector_table import ITEM_VECTORS, TEXT_VECTORS, encoder_of
from ctr_keras.extras import versions
from ctr_keras.json_values import finite
from ctr_keras.models import CTRModel
from ctr_keras.schema import Schema, Vocabulary

MODEL_CARD_FILE = "assets.extra/model_card.json"
_PACKAGES = (
    "ctr-keras",
    "keras",
    "numpy",
    "tensorflow",
    "tensorflow-serving-api",
    "tensorflow-text",
)


def model_card(
    model: CTRModel,
    name: str,
    signatures: Sequence[str],
    data: str | os.PathLike | None,
    metrics: Mapping[str, Any] | None,
    made_by: Mapping[str, str] | None,
    item_vectors: Mapping[str, str] | None,
) -> dict[str, Any]:
    """What is known of a version, its number apart, as JSON.

    Args:
        model: The model.
        name: As the server calls it.
        signatures: Names of its signatures.
        data: Prepared folder that the model was trained on, or one of its splits.
        metrics: How good it is.
        made_by: The encoder of its texts.
        item_vectors: What made the vectors of its items; by default those in `data`.
    """
    return {
        "name": name,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": type(model).__name__,
        "weights": sum(int(w.shape.num_elements()) for w in _values(model)),
        "negative_ratio": model.negative_ratio,
        "signatures": list(signatures),
        "schema": model.schema.fingerprint,
        "text_encoder": None if made_by is None else dict(made_by),
        "item_vectors": _item_vectors(model, data, item_vectors),
        "data": None if data is None else _splits(pathlib.Path(data)),
        "metrics": None if metrics is None else finite(dict(metrics)),
        "versions": {"python": platform.python_version(), **versions(_PACKAGES)},
    }


def check_learned_from(schema: Schema, data: str | os.PathLike) -> None:
    """Refuse data that a model of a schema cannot have learned from.

    Columns that only the data has may be there: a model need not take them all. What is encoded or
    looked up while rows are read is no column.

    Args:
        schema: The model's.
        data: Prepared folder, or one of its splits.

    Raises:
        ValueError: there is no data, it lacks a column of the schema, or has it with another
            vocabulary.
    """
    for path, manifest in _manifests(pathlib.Path(data)).items():
        check_compatible(path, manifest.schema, schema)
        for name in (f.name for f in schema if f.name in manifest.schema):
            here, there = (s.vocabulary(name) for s in (schema, manifest.schema))
            if here is not None and _meaning(here) != _meaning(there):
                raise ValueError(
                    f"The model did not learn from {path}: it has {name!r} with another "
                    f"vocabulary, {_meaning(there)}. Received: `data={str(data)!r}`, the model has "
                    f"{_meaning(here)}"
                )


def _meaning(vocabulary: Vocabulary | None) -> dict[str, Any] | None:
    """What ids stand for, wherever the file lies."""
    return None if vocabulary is None else vocabulary.to_dict("")


def _values(model: CTRModel) -> list:
    return [weight.value for weight in model.inference_model().weights]


def _item_vectors(
    model: CTRModel, data: str | os.PathLike | None, made_by: Mapping[str, str] | None
) -> dict[str, str] | None:
    if made_by is not None:
        return dict(made_by)
    if data is None or all(feature.of is None for feature in model.schema.inputs):
        return None
    return encoder_of(pathlib.Path(data) / ITEM_VECTORS)


def _manifests(folder: pathlib.Path) -> dict[pathlib.Path, Manifest]:
    """Of each split of a prepared folder, or of the one split that it is."""
    found = sorted(path.parent for path in folder.glob("*/manifest.json"))
    splits = [path for path in found if path.name not in (TEXT_VECTORS, ITEM_VECTORS)] or [folder]
    return {split: Manifest.load(split) for split in splits}


def _splits(folder: pathlib.Path) -> dict[str, Any]:
    """Rows and digest of each split."""
    return {
        path.name: {
            "rows": manifest.rows,
            "sha256": manifest.digest,
            "schema": manifest.schema.fingerprint,
            "negative_ratio": manifest.negative_ratio,
        }
        for path, manifest in _manifests(folder).items()
    }
