"""Groups of items by how often training shows them."""

import os
import pathlib

import numpy as np

from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.data.cold_slices import exposure_counts
from ctr_keras.data.manifest import Manifest
from ctr_keras.data.raw_columns import raw_columns


def frequency_groups(
    train: str | os.PathLike, path: str | os.PathLike, groups: int = 8, *, item: str | None = None
) -> np.ndarray:
    """The group of each row's item, where groups are of as many items, from rare to frequent.

    All items of both splits are put in the order of their training rows, and that order is cut
    into parts of equal length. Items of equally many rows may so be in two groups; their values
    then decide.

    Args:
        train: The training rows, a folder that `ck.data.write` made. They are streamed.
        path: The rows to be told apart, such as those of the test split.
        groups: Number of groups.
        item: Column that tells items apart; by default the item's id.

    Returns:
        Integers from 0, the rarest, to `groups - 1`, -1 for a row without an item: `(rows,)`, in
        the order in which `ck.data.read` yields the rows unshuffled.

    Raises:
        ValueError: there are fewer items than groups, there is no data, or no column tells items
            apart.

    Example:

    >>> group = ck.data.frequency_groups("tf_data/movielens/train", "tf_data/movielens/test")
    >>> np.bincount(group, minlength=8)     # test rows of the rarest eighth of the items, ...
    """
    check_positive_integer("groups", groups)
    manifest = Manifest.load(path)
    manifest.verify(path)
    item = item or manifest.schema.key("item")
    if item is None:
        raise ValueError(
            "No column tells items apart: pass `item`. "
            f"Received: `features={manifest.schema.names}`"
        )
    shown = exposure_counts(train, item)
    items = sorted({*shown, *exposure_counts(path, item)}, key=lambda value: (shown[value], value))
    if len(items) < groups:
        raise ValueError(
            f"`groups` must be at most the number of items, {len(items)}. "
            f"Received: `groups={groups}`"
        )
    parts = np.array_split(np.arange(len(items)), groups)
    group_of = {items[place]: group for group, part in enumerate(parts) for place in part}
    found = []
    for columns in raw_columns(pathlib.Path(path), manifest, [item]):
        values, places = np.unique(np.asarray(columns[item]), return_inverse=True)
        found.append(np.array([group_of.get(v, -1) for v in values.tolist()], np.int64)[places])
    return np.concatenate(found)
