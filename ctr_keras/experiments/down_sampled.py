"""Prepared data with a share of the training negatives."""

import os
import pathlib

import numpy as np

from ctr_keras import data
from ctr_keras.columns import Column, Columns, Ragged
from ctr_keras.data.describe import raw_columns
from ctr_keras.schema import Schema


def down_sampled(source: str | os.PathLike, out: str | os.PathLike, ratio: float) -> pathlib.Path:
    """A folder with the same validation and test rows and a share of the training negatives.

    Args:
        source: Prepared folder.
        out: Where to make `<ratio>/`; what is there with the same rows is kept.
        ratio: Share of the negatives, in (0, 1]; 1 gives `source` itself.

    Returns:
        The prepared folder.
    """
    source = pathlib.Path(source)
    if ratio == 1:
        return source
    manifest = data.Manifest.load(source / "train")
    target = pathlib.Path(out) / manifest.digest[:16] / f"{ratio:g}"
    target.mkdir(parents=True, exist_ok=True)
    Schema.load(source).save(target)
    for name in ("valid", "test"):
        if not (target / name).exists():
            (target / name).symlink_to((source / name).resolve(), target_is_directory=True)
    if not (target / "train" / "manifest.json").exists():
        rows = map(_decoded, raw_columns(source / "train", manifest))
        kept = data.down_sample_negatives(manifest.schema, rows, ratio)
        data.write(
            target / "train",
            manifest.schema,
            kept,
            layout=manifest.layout,
            negative_ratio=ratio * manifest.negative_ratio,
        )
    return target


def _decoded(columns: Columns) -> Columns:
    """Texts as `str`, which writing takes, in place of bytes."""
    return {name: _decoded_column(column) for name, column in columns.items()}


def _decoded_column(column: Column) -> Column:
    if isinstance(column, Ragged):
        return Ragged(_decoded_values(column.values), column.lengths)
    return _decoded_values(column)


def _decoded_values(values: np.ndarray) -> np.ndarray:
    if values.dtype != object:
        return values
    return np.array([value.decode() for value in values], object)
