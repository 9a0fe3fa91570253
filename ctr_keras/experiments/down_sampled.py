"""Prepared data with a share of the training negatives."""

import os
import pathlib

import numpy as np

from ctr_keras import data
from ctr_keras.columns import Column, Columns, Ragged
from ctr_keras.data.raw_columns import raw_columns
from ctr_keras.data.vector_table import ITEM_VECTORS, TEXT_VECTORS
from ctr_keras.datasets import prepared
from ctr_keras.schema import Schema

# Not one that the data was prepared with: the rows kept by a seed all lie below its ratio.
_SEED = 20_231_209


def down_sampled(source: str | os.PathLike, out: str | os.PathLike, ratio: float) -> pathlib.Path:
    """A folder with the same validation and test rows and a share of the training negatives.

    Args:
        source: Prepared folder.
        out: Where to make `<digest of source>/<ratio>/`; what is there already is kept.
        ratio: Share of the negatives, in (0, 1]; 1 gives `source` itself.

    Returns:
        The prepared folder.
    """
    source = pathlib.Path(source)
    if ratio == 1:
        return source
    manifest = data.Manifest.load(source / "train")
    schema = Schema.load(source)
    target = pathlib.Path(out) / prepared.rows_digest(source)[:16] / f"{ratio:g}"
    target.mkdir(parents=True, exist_ok=True)
    schema.save(target)
    vectors = [name for name in (ITEM_VECTORS, TEXT_VECTORS) if (source / name).is_dir()]
    prepared.link(source, target, ["valid", "test", *vectors])
    if not (target / "train" / "manifest.json").exists():
        rows = map(_decoded, raw_columns(source / "train", manifest))
        kept = data.down_sample_negatives(manifest.schema, rows, ratio, seed=_SEED)
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
