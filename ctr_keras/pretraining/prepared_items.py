"""The items of prepared data, which vectors are made for."""

import os
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from ctr_keras.schema import Schema

_ITEMS_FILE = "items.parquet"


def read_items(data: str | os.PathLike) -> tuple[pa.Table, np.ndarray]:
    """The table of items, and their ids.

    Args:
        data: Prepared folder.

    Raises:
        ValueError: there is no such table, or no item has an id.
    """
    folder = pathlib.Path(data)
    path, key = folder / _ITEMS_FILE, Schema.load(folder).key("item")
    if not path.is_file() or key is None:
        raise ValueError(
            f"{path} must hold the items and their id; `ctr-keras prepare` writes it. "
            f"Received: `data={str(data)!r}`"
        )
    items = pyarrow.parquet.read_table(path)
    return items, np.array(items[key].to_pylist())


def texts_of(items: pa.Table, name: str, column: str) -> list[str]:
    """The texts in a column, `""` where there is none.

    Args:
        items: The table of items.
        name: Of the argument that names the column, for errors.
        column: Its name.

    Raises:
        ValueError: there is no such column, or it holds no texts.
    """
    kinds = (pa.types.is_string, pa.types.is_large_string)
    texts = [f.name for f in items.schema if any(is_text(f.type) for is_text in kinds)]
    if column not in texts:
        raise ValueError(
            f"`{name}` must be a text of items: one of {texts}. Received: `{name}={column!r}`"
        )
    return [text or "" for text in items[column].to_pylist()]
