"""Texts of items in a table of the user's own, such as a shop's catalogue."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ctr_keras.datasets.tables import column_names, read_texts, table_files

_SHOWN = 3


def item_texts(
    path: str | os.PathLike, key: str, text: str, items: Sequence | np.ndarray
) -> list[str]:
    """The text of each item, `""` of those that the table leaves out.

    Args:
        path: CSV with a header or Parquet, a file or a folder of them; a row an item.
        key: Column of the items' ids.
        text: Column of their texts.
        items: Ids of the items wanted.

    Raises:
        ValueError: a file cannot be read or has no such column, two rows of an item differ, or
            none of the items is there.
    """
    rows = pd.concat([_read(file, key, text) for file in table_files(path)])
    rows = rows[rows[key] != ""].drop_duplicates()  # A row without an id is no item.
    twice = rows[key].duplicated()
    if twice.any():
        raise ValueError(
            f"{path} has more than one {text!r} of {key} {rows[key][twice].iloc[0]!r}: which one "
            f"counts? Received: `catalog={str(path)!r}`"
        )
    wanted = pd.Index([str(item) for item in items])
    if not wanted.isin(rows[key]).any():
        raise ValueError(
            f"{path} has none of the items, which are such as {wanted[:_SHOWN].tolist()}: its "
            f"{key!r} are such as {rows[key].iloc[:_SHOWN].tolist()}. "
            f"Received: `catalog_key={key!r}`"
        )
    return rows.set_index(key)[text].reindex(wanted, fill_value="").tolist()


def _read(file: pathlib.Path, key: str, text: str) -> pd.DataFrame:
    """Both columns, as strings."""
    names = column_names(file)
    for argument, name in {"catalog_key": key, "text": text}.items():
        if name not in names:
            raise ValueError(
                f"`{argument}` must be a column of {file}: one of {names}. "
                f"Received: `{argument}={name!r}`"
            )
    return read_texts(file, list(dict.fromkeys([key, text]))).to_pandas()
