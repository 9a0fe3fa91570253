"""The titles and pictures of prepared data's items, as pairs to learn representations from."""

import os
import posixpath
from typing import Any

import pandas as pd
import tensorflow as tf

from ctr_keras.data.picture_files import PictureFiles, open_pictures
from ctr_keras.data.prepared_items import missing, pictures_of, read_items, texts_of
from ctr_keras.data.write import write
from ctr_keras.datasets import prepared, search_pairs
from ctr_keras.encoding import group_key
from ctr_keras.json_values import digest
from ctr_keras.sources import Report, to_stderr

PICTURES = "pictures"
_FORMAT = 2


def prepare(
    out: str | os.PathLike,
    data: str | os.PathLike,
    images: str | os.PathLike,
    *,
    text: str = "title",
    column: str | None = None,
    held_out: float = 0.1,
    seed: int = 0,
    report: Report = to_stderr,
) -> dict[str, int]:
    """Make a row of each item that has a title and a picture, for `views="text-picture"`.

    Nobody searched for them, so `query` and `negative` are empty. Rows are those of
    `search_pairs.TITLED_SCHEMA`. Their `item_id` is an integer: that of an item whose id is a
    string is its fingerprint, as of groups. Pictures lie in `pictures`, as they are, and are named
    by it.

    Args:
        out: Folder to make: `schema.json`, `train/`, `valid/`, `test/` and `pictures/`.
        data: Prepared folder with `items.parquet`.
        images: A folder, a tar or a zip with the pictures, `<item id>.jpg`, `.jpeg` or `.png`.
        text: Text of the items that counts as their title.
        column: Text of the items that names their pictures by the path within `images`; by default
            it is their id.
        held_out: Share of the items that are validated on, and as many to test on.
        seed: Of which items are held out.
        report: Called with lines for the user.

    Returns:
        Items of each split.

    Raises:
        ValueError: there is no table of items or no such text, no item has both, a split would be
            empty, or `data` or `images` lie where `out` would replace them.
    """
    if not 0 < held_out < 0.5:
        raise ValueError(f"`held_out` must be in (0, 0.5). Received: `held_out={held_out}`")
    prepared.check_kept(out, (PICTURES,), data=data, images=images)
    items, keys = read_items(data)
    titles = texts_of(items, "text", text)
    with open_pictures(images) as pictures:
        names = pictures_of(pictures, items, keys, column)
        lacks = {
            "title": [n for n, title in enumerate(titles) if not title.strip()],
            "picture": [n for n in range(len(keys)) if n not in names],
        }
        for what, places in lacks.items():
            if places:
                without = [str(keys[n]) for n in places]
                report(missing(without, len(keys), f"{what} and are left out"))
        out_of = {n for places in lacks.values() for n in places}
        kept = [n for n in range(len(keys)) if n not in out_of]
        if not kept:
            raise ValueError(
                f"No item has a title and a picture. Received: `text={text!r}`, "
                f"`images={str(images)!r}`"
            )
        numbers = group_key(tf.constant(keys[kept])).numpy()
        rows = pd.DataFrame({"item_id": numbers, "title": [titles[n] for n in kept]})
        rows = rows.assign(query="", negative="", label=1.0, source=[names[n] for n in kept])
        suffixes = rows["source"].map(lambda name: posixpath.splitext(name)[1])
        rows["item"] = rows["item_id"].astype(str) + suffixes
        return _write(out, rows, pictures, held_out, seed, report)


def _write(
    out: str | os.PathLike,
    rows: pd.DataFrame,
    pictures: PictureFiles,
    held_out: float,
    seed: int,
    report: Report,
) -> dict[str, int]:
    in_order = rows.iloc[rows["source"].map(pictures.order).argsort()]
    key = _key_of(in_order, pictures, held_out, seed)
    found = search_pairs.up_to_date(out, key, PICTURES)
    if found is not None:
        report(f"{out} is up to date")
        return found
    splits = search_pairs.split_by_query(rows["item_id"].astype(str), held_out, seed)
    counts = {}
    with prepared.replacing(out, key, own=(PICTURES,), report=report) as staging:
        (staging / PICTURES).mkdir(exist_ok=True)
        for source, name in zip(in_order["source"], in_order["item"], strict=True):
            (staging / PICTURES / name).write_bytes(pictures.read(source))
        metadata = search_pairs.metadata_of(key, staging / PICTURES)
        schema = search_pairs.TITLED_SCHEMA.save(staging)
        for name, part in search_pairs.split_parts(rows, splits, held_out):
            write(staging / name, schema, part.drop(columns="source"), metadata=metadata)
            counts[name] = len(part)
            report(f"{name}: {len(part):,} items")
    return counts


def _key_of(rows: pd.DataFrame, pictures: PictureFiles, held_out: float, seed: int) -> str:
    content = [pictures.sha256(name) for name in rows["source"]]
    made = rows.drop(columns="source").assign(content=content).sort_index()
    settings: dict[str, Any] = {
        "titled_pictures": _FORMAT, "rows": digest(made.to_dict("list")), "held_out": held_out,
        "seed": seed,
    }  # fmt: skip
    return prepared.key_of(settings)
