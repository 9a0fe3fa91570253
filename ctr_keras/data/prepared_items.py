"""The items of prepared data, with their texts and pictures."""

import os
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from ctr_keras.data.picture_files import PictureFiles
from ctr_keras.schema import Schema

_ITEMS_FILE = "items.parquet"
_NAMED = 5


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


def pictures_of(
    files: PictureFiles, items: pa.Table, keys: np.ndarray, column: str | None
) -> dict[int, str]:
    """The picture of each item that has one, by the item's row.

    Args:
        files: The pictures.
        items: The table of items.
        keys: Their ids.
        column: Text of the items that names their pictures; `None` for those named by the ids.

    Raises:
        ValueError: there is no such column, or two pictures are of one item.
    """
    if column is None:
        by_key = files.of_keys({str(key) for key in keys})
        return {n: by_key[str(key)] for n, key in enumerate(keys) if str(key) in by_key}
    names = texts_of(items, "column", column)
    return {n: name for n, name in enumerate(names) if name in files.order}


def missing(without: list[str], count: int, what: str) -> str:
    """A line on items that lack something, some of them named.

    Args:
        without: Their ids.
        count: How many items there are.
        what: What they have none of, and what comes of it.
    """
    return (
        f"{len(without):,} of {count:,} items have no {what}, such as {', '.join(without[:_NAMED])}"
    )


def kept(count: int, of: int, folder: pathlib.Path) -> str:
    """A line on items whose vectors are not made anew, even if their text or picture changed.

    Args:
        count: How many have a vector already.
        of: How many items there are.
        folder: Of the vectors.
    """
    return (
        f"{count:,} of {of:,} items have a vector already, which stays as it is; to make all anew, "
        f"remove {folder}"
    )
