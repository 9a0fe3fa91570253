"""Batches of pairs, for `ContrastiveModel`."""

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ctr_keras.data.manifest import Manifest
from ctr_keras.data.read import read

VIEWS = ("query", "item", "text-picture")


def read_pairs(
    path: str | os.PathLike,
    batch_size: int = 64,
    *,
    views: str = "query",
    images: str | os.PathLike | None = None,
    left_out: Sequence[str] = (),
    shuffle: bool = False,
    seed: int = 0,
    epoch: int = 0,
) -> tf.data.Dataset:
    """Batches as `ContrastiveModel` takes them, of a split that `ctr-keras prepare pairs` made.

    Args:
        path: Folder of a split.
        batch_size: Pairs a batch.
        views: What a pair is: `"query"` for a query and the item it led to; `"item"` for two views
            of the item, which know nothing of what people search for: every other word of its text
            and the words between, or two random parts of its picture, mirrored or not, which are a
            pair's own and the same in every epoch; `"text-picture"` for the item's title, as
            `query`, and its picture, without hard negatives.
        images: Folder that the texts are paths within: the files' content takes their place, for
            an `ImageEncoder`.
        left_out: Texts, such as paths of corrupt pictures: pairs with one of them are left out, so
            that a batch is smaller or not there, and one that is a hard negative counts as none.
        shuffle: Whether to shuffle.
        seed: Of the shuffle, and of the parts of pictures.
        epoch: Number of the first epoch, as for `ck.data.read`.

    Returns:
        A data set of dicts: `query`, `item` and `negative` strings `(batch,)`, `item_id` int64 and
        `has_negative` bool `(batch,)`.

    Raises:
        ValueError: `views` is none of these, there is no data, or it lacks what `views` needs.
    """
    if views not in VIEWS:
        raise ValueError(f"`views` must be one of {VIEWS}. Received: `views={views!r}`")
    _check_pairs(path)
    is_titled = views == "text-picture"
    if is_titled:
        _check_titled(path)
        if images is None:
            raise ValueError("`views='text-picture'` needs pictures. Received: `images=None`")

    def as_pairs(x: dict[str, Any], y: tf.Tensor) -> dict[str, tf.Tensor]:
        if views == "item" and images is None:
            words = tf.strings.split(x["item"])
            odd, even = (
                tf.strings.reduce_join(words[:, first::2], axis=1, separator=" ")
                for first in (0, 1)
            )
            x = {**x, "query": odd, "item": tf.where(even == "", odd, even)}
        if len(left_out):
            x = _without(tf.constant(list(left_out)), x)
        if is_titled:
            x = {**x, "query": x["title"], "negative": tf.zeros_like(x["title"])}
        return {**x, "has_negative": tf.not_equal(x["negative"], "")}

    rows = read(path, batch_size=batch_size, shuffle=shuffle, seed=seed, epoch=epoch)
    pairs = rows.map(as_pairs)
    if len(left_out):
        pairs = pairs.filter(lambda batch: tf.size(batch["item_id"]) > 0)
    if images is None:
        return pairs
    folder = os.fspath(images)
    if views == "item":
        return pairs.map(functools.partial(_parts, folder, seed), tf.data.AUTOTUNE)
    names = ("item",) if is_titled else ("query", "item", "negative")
    return pairs.map(functools.partial(_with_content, folder, names), tf.data.AUTOTUNE)


def _check_pairs(path: str | os.PathLike) -> None:
    names = Manifest.load(path).schema.names
    if not {"query", "item", "negative", "item_id"}.issubset(names):
        raise ValueError(
            "Rows are there, not pairs, which `ctr-keras prepare pairs`, `prepare titled-pictures` "
            f"and `simulate pictures` make. Received: {path} with {names}"
        )


def _check_titled(path: str | os.PathLike) -> None:
    names = Manifest.load(path).schema.names
    if "title" not in names:
        raise ValueError(
            "Pairs must have the item's `title`, as `ctr-keras prepare titled-pictures` and "
            f"`simulate pictures` make them. Received: {path} with {names}"
        )


def _without(texts: tf.Tensor, pairs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Pairs without those of some texts."""
    is_out = {
        name: tf.reduce_any(pairs[name][:, tf.newaxis] == texts, axis=1)
        for name in ("query", "item", "negative")
    }
    kept = ~(is_out["query"] | is_out["item"])
    pairs = {**pairs, "negative": tf.where(is_out["negative"], "", pairs["negative"])}
    return {name: tf.boolean_mask(values, kept) for name, values in pairs.items()}


def _with_content(
    folder: str, names: Sequence[str], pairs: dict[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """Pairs with some columns' files read; `""` stays what it is."""

    def content(path: tf.Tensor) -> tf.Tensor:
        whole = tf.strings.join([folder, path], "/")
        return tf.cond(tf.equal(path, ""), lambda: path, lambda: tf.io.read_file(whole))

    return {**pairs, **{name: tf.map_fn(content, pairs[name]) for name in names}}


def _parts(folder: str, seed: int, pairs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Pairs of two parts of the item's picture."""
    names = tf.strings.join([pairs["query"], pairs["item"]], "\n")
    own = tf.strings.to_hash_bucket_fast(names, 2**31 - 1)
    pairs = {**pairs, "query": pairs["item"]}
    pairs = _with_content(folder, ("query", "item", "negative"), pairs)
    for number, name in enumerate(("query", "item")):
        seeds = tf.stack([own, tf.fill(tf.shape(own), tf.constant(2 * seed + number, tf.int64))], 1)
        pairs[name] = tf.map_fn(_part, (pairs[name], seeds), fn_output_signature=tf.string)
    return pairs


def _part(given: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    """A part of a picture, at least a quarter, mirrored or not; `""` stays what it is."""
    image, seed = given

    def part() -> tf.Tensor:
        pixels = tf.io.decode_image(image, channels=3, expand_animations=False)
        pixels.set_shape((None, None, 3))
        first, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            tf.shape(pixels), [[[0.0, 0.0, 1.0, 1.0]]], seed, area_range=(0.25, 1.0)
        )
        pixels = tf.image.stateless_random_flip_left_right(tf.slice(pixels, first, size), seed)
        return tf.io.encode_jpeg(pixels, quality=95)

    return tf.cond(tf.equal(image, ""), lambda: image, part)


def pair_texts(
    path: str | os.PathLike,
    images: str | os.PathLike | None = None,
    left_out: Sequence[str] = (),
    query: str = "query",
) -> tuple[list[str], list[str], np.ndarray]:
    """What Acc@N compares: queries, the distinct items, and which item is each query's.

    Args:
        path: Folder of a split.
        images: Folder that the texts are paths within, which it is then part of; not of titles.
        left_out: As of `read_pairs`.
        query: `"query"`, or `"title"` where an item's title takes its place.

    Raises:
        ValueError: there is no data, it has no titles, or no pair is left.
    """
    if query == "title":
        _check_titled(path)
    parts = list(read_pairs(path, 4096, left_out=left_out).as_numpy_iterator())
    if not parts:
        raise ValueError(
            f"{path} has no pairs without the texts that are left out, such as corrupt pictures. "
            f"Received: `left_out` with {len(left_out)} texts"
        )
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    _, first, own = np.unique(columns["item_id"], return_index=True, return_inverse=True)
    queries, items = ([text.decode() for text in columns[name]] for name in (query, "item"))
    items = [items[place] for place in first]
    if images is not None:
        items = [os.path.join(images, path) for path in items]
        if query != "title":
            queries = [os.path.join(images, path) for path in queries]
    return queries, items, own
