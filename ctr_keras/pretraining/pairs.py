"""Batches of pairs, for `ContrastiveModel`."""

import functools
import os
from typing import Any

import numpy as np
import tensorflow as tf

from ctr_keras.data.read import read

VIEWS = ("query", "item")


def read_pairs(
    path: str | os.PathLike,
    batch_size: int = 64,
    *,
    views: str = "query",
    images: str | os.PathLike | None = None,
    shuffle: bool = False,
    seed: int = 0,
    epoch: int = 0,
) -> tf.data.Dataset:
    """Batches as `ContrastiveModel` takes them, of a split that `ctr-keras prepare pairs` made.

    Args:
        path: Folder of a split.
        batch_size: Pairs a batch.
        views: What a pair is: `"query"` for a query and the item it led to; `"item"` for two views
            of the item, every other word of its text and the words between, which knows nothing of
            what people search for.
        images: Folder that the texts are paths within: the files' content takes their place, for
            an `ImageEncoder`, as pairs of `"query"`.
        shuffle: Whether to shuffle.
        seed: Of the shuffle.
        epoch: Number of the first epoch, as for `ck.data.read`.

    Returns:
        A data set of dicts: `query`, `item` and `negative` strings `(batch,)`, `item_id` int64 and
        `has_negative` bool `(batch,)`.

    Raises:
        ValueError: `views` is none of these or not for images, or there is no data.
    """
    if views not in VIEWS:
        raise ValueError(f"`views` must be one of {VIEWS}. Received: `views={views!r}`")
    if images is not None and views == "item":
        raise ValueError(
            'Two views of an item are made of its words. Received: `images` with `views="item"`'
        )

    def as_pairs(x: dict[str, Any], y: tf.Tensor) -> dict[str, tf.Tensor]:
        if views == "item":
            words = tf.strings.split(x["item"])
            odd, even = (
                tf.strings.reduce_join(words[:, first::2], axis=1, separator=" ")
                for first in (0, 1)
            )
            x = {**x, "query": odd, "item": tf.where(even == "", odd, even)}
        return {**x, "has_negative": tf.not_equal(x["negative"], "")}

    rows = read(path, batch_size=batch_size, shuffle=shuffle, seed=seed, epoch=epoch)
    pairs = rows.map(as_pairs)
    if images is None:
        return pairs
    return pairs.map(functools.partial(_with_content, os.fspath(images)), tf.data.AUTOTUNE)


def _with_content(folder: str, pairs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Pairs of files, read; `""` stays what it is."""

    def content(path: tf.Tensor) -> tf.Tensor:
        whole = tf.strings.join([folder, path], "/")
        return tf.cond(tf.equal(path, ""), lambda: path, lambda: tf.io.read_file(whole))

    names = ("query", "item", "negative")
    return {**pairs, **{name: tf.map_fn(content, pairs[name]) for name in names}}


def pair_texts(
    path: str | os.PathLike, images: str | os.PathLike | None = None
) -> tuple[list[str], list[str], np.ndarray]:
    """What Acc@N compares: queries, the distinct items, and which item is each query's.

    Args:
        path: Folder of a split.
        images: Folder that the texts are paths within, which it is then part of.
    """
    parts = list(read_pairs(path, 4096).as_numpy_iterator())
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    _, first, own = np.unique(columns["item_id"], return_index=True, return_inverse=True)
    queries, items = ([text.decode() for text in columns[name]] for name in ("query", "item"))
    items = [items[place] for place in first]
    if images is not None:
        queries, items = ([os.path.join(images, p) for p in paths] for paths in (queries, items))
    return queries, items, own
