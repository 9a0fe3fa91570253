"""Vectors of the items of prepared data by their pictures."""

import os
import pathlib

import numpy as np
from rich.console import Console
from rich.progress import track

from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.data.picture_files import PictureFiles, open_pictures
from ctr_keras.data.prepared_items import kept, missing, pictures_of, read_items
from ctr_keras.data.vector_table import ITEM_VECTORS, VectorTable
from ctr_keras.pretraining import image_weights
from ctr_keras.pretraining.corrupt_images import CorruptImages
from ctr_keras.pretraining.image_encoder import ImageEncoder
from ctr_keras.sources import Report, to_stderr

_SAVE_EVERY = 32


def encode_item_images(
    data: str | os.PathLike,
    images: str | os.PathLike,
    encoder: str | os.PathLike = image_weights.EFFICIENTNET,
    *,
    column: str | None = None,
    skip_corrupt: bool = False,
    out: str | os.PathLike | None = None,
    batch_size: int = 64,
    progress: bool = True,
    report: Report = to_stderr,
) -> VectorTable:
    """The vectors of items, by their pictures: what `Schema.with_item_vectors` looks up.

    An item without a picture gets no vector: it is counted, reads as zeros, and is left out of
    what `SimTier`, `SimScore` and `MAKE` make of past items. Called again after an interruption, or
    with more pictures, it goes on with what is missing; vectors that are there stay as they are.

    Args:
        data: Prepared folder with `items.parquet`.
        images: A folder, a tar or a zip with the pictures, `<item id>.jpg`, `.jpeg` or `.png`, in
            whatever folders within it.
        encoder: As `preset` of `ImageEncoder.from_preset`.
        column: Text of the items that names their pictures by the path within `images`; by default
            it is their id.
        skip_corrupt: Whether an item whose picture cannot be decoded is reported and left without
            a vector; otherwise it is an error.
        out: Folder of the vectors; by default `item_vectors` in `data`, where `ck.data.read` looks.
        batch_size: Pictures that are encoded at a time.
        progress: Whether to show progress on standard error, and to report what is there already.
        report: Called with lines for the user.

    Raises:
        ValueError: there is no table of items, no item has a picture, a picture cannot be decoded
            (it is named), or `out` holds the vectors of another encoder.
    """
    check_positive_integer("batch_size", batch_size)
    items, keys = read_items(data)
    model = ImageEncoder.from_preset(encoder)
    made_by = {
        **image_weights.identity(encoder), "framing": model.framing, "images": column or "by id"
    }  # fmt: skip
    folder = pathlib.Path(data) / ITEM_VECTORS if out is None else out
    with open_pictures(images) as files:
        pictures = pictures_of(files, items, keys, column)
        without = [str(key) for n, key in enumerate(keys) if n not in pictures]
        if without:
            report(missing(without, len(keys), "picture and get no vector"))
        if not pictures:
            raise ValueError(f"No item has a picture. Received: `images={str(images)!r}`")
        table = VectorTable.create(folder, made_by, model.width)
        lacking = np.flatnonzero(table.lacks(keys)).tolist()
        if progress and len(lacking) < len(keys):
            report(kept(len(keys) - len(lacking), len(keys), table.folder))
        wanted = [place for place in lacking if place in pictures]
        wanted.sort(key=lambda place: files.order[pictures[place]])
        batches = [wanted[n : n + batch_size] for n in range(0, len(wanted), batch_size)]
        console = Console(stderr=True, quiet=not progress)
        corrupt = CorruptImages(skip_corrupt)
        waiting: list[tuple[np.ndarray, np.ndarray]] = []
        for places in track(batches, f"{len(wanted):,} pictures", console=console):
            names = [pictures[place] for place in places]
            vectors = _encoded(model, files, names, corrupt)
            is_made = vectors.any(axis=1)
            waiting.append((keys[places][is_made], vectors[is_made]))
            if len(waiting) == _SAVE_EVERY or places is batches[-1]:
                made, found = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
                table, waiting = table.extended(made, found), []
    corrupt.tell(len(wanted), report)
    return table


def _encoded(
    model: ImageEncoder, files: PictureFiles, names: list[str], corrupt: CorruptImages
) -> np.ndarray:
    """Vectors of some pictures, zeros for the corrupt ones, which are noted."""
    contents = [files.read(name) for name in names]
    vectors, errors = model.try_encode(contents)
    errors |= {n: "is empty" for n, content in enumerate(contents) if not content}
    for n in sorted(errors):
        corrupt.add(files.label(names[n]), errors[n])
    return vectors
