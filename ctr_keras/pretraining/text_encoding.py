"""Vectors of the texts of prepared data, or of its items, each text encoded once."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.progress import track

from ctr_keras.data.manifest import Manifest
from ctr_keras.data.prepared_items import kept, missing, read_items, texts_of
from ctr_keras.data.raw_columns import raw_columns
from ctr_keras.data.split import SPLITS
from ctr_keras.data.vector_table import ITEM_VECTORS, TEXT_VECTORS, VectorTable
from ctr_keras.datasets.item_texts import item_texts
from ctr_keras.pretraining.text_encoder import TextEncoder, batches_by_length, identity
from ctr_keras.pretraining.text_weights import MINILM
from ctr_keras.schema import Schema
from ctr_keras.sources import Report, to_stderr

_SAVE_EVERY = 64


def encode_texts(
    data: str | os.PathLike,
    features: Sequence[str] | None = None,
    encoder: str | os.PathLike = MINILM,
    *,
    out: str | os.PathLike | None = None,
    max_tokens: int | None = None,
    batch_size: int = 128,
    progress: bool = True,
) -> VectorTable:
    """Encode the distinct texts of prepared data, of all splits, that have no vector yet.

    Called again after an interruption, or on more data, it goes on with what is missing.

    Args:
        data: Prepared folder: `schema.json`, `train/`, `valid/` and `test/`.
        features: Names of text features; by default all texts that are neither split into words
            nor of a role outside of models.
        encoder: As `preset` of `TextEncoder.from_preset`.
        out: Folder of the vectors; by default `text_vectors` in `data`, where `ck.data.read` looks.
        max_tokens: Tokens of a text, at most. By default 64; a `.keras` file has its own.
        batch_size: Texts that are encoded at a time.
        progress: Whether to show progress on standard error.

    Raises:
        ValueError: there is no such text, `out` holds vectors of another encoder, or `max_tokens`
            stands beside a file.
    """
    folder = pathlib.Path(data)
    schema = Schema.load(folder)
    if features is None:
        features = schema.plain_texts
        if not features:
            raise ValueError(f"{folder} has no text to encode. Received: `{schema.names}`")
    schema.with_encoded_texts(features, 1)  # Refuses what is no text.
    model = TextEncoder.from_preset(encoder, max_tokens)
    made_by = {**identity(encoder), "max_tokens": str(model.max_tokens)}
    table = VectorTable.create(folder / TEXT_VECTORS if out is None else out, made_by, model.width)
    texts = _missing_texts(folder, features, table)
    return _filled(table, model, texts, texts, batch_size, progress)


def encode_items(
    data: str | os.PathLike,
    text: str,
    encoder: str | os.PathLike = MINILM,
    *,
    catalog: str | os.PathLike | None = None,
    catalog_key: str | None = None,
    max_tokens: int | None = None,
    batch_size: int = 128,
    progress: bool = True,
    report: Report = to_stderr,
) -> VectorTable:
    """The vectors of items, by one of their texts: what `Schema.with_item_vectors` looks up.

    An item with an empty text gets no vector: it is counted, reads as zeros, and is left out of
    what `SimTier`, `SimScore` and `MAKE` make of past items. Called again after an interruption, or
    with more texts, it goes on with what is missing; vectors that are there stay as they are.

    Args:
        data: Prepared folder with `items.parquet`; the vectors lie in its folder `item_vectors`.
        text: Column of the items that is encoded, such as the title.
        encoder: As of `encode_texts`.
        catalog: CSV or Parquet, a row an item, whose column `text` is encoded instead, such as a
            shop's descriptions.
        catalog_key: Its column of the items' ids; by default named as in `data`.
        max_tokens: Tokens of a text, at most. By default 64; a `.keras` file has its own.
        batch_size: Texts that are encoded at a time.
        progress: Whether to show progress on standard error, and to report what is there already.
        report: Called with lines for the user.

    Raises:
        ValueError: there is no table of items, or it has no such column, or the vectors of another
            encoder or text lie there, or `max_tokens` stands beside a file; `catalog` cannot be
            read, has no such column, two texts of an item, or none of the items.
    """
    items, keys = read_items(data)
    if catalog is None:
        texts, source = texts_of(items, "text", text), {"text": text}
    else:
        key = catalog_key or Schema.load(data).key("item")
        texts = item_texts(catalog, str(key), text, keys)
        source = {"text": text, "catalog": pathlib.Path(catalog).name}
    model = TextEncoder.from_preset(encoder, max_tokens)
    made_by = {**identity(encoder), "max_tokens": str(model.max_tokens), **source}
    table = VectorTable.create(pathlib.Path(data) / ITEM_VECTORS, made_by, model.width)
    is_there = np.array([bool(text.strip()) for text in texts], bool)
    without = [str(key) for key in keys[~is_there]]
    if without:
        report(missing(without, len(keys), f"{text!r} and get no vector"))
    lacking = table.lacks(keys)
    if progress and not lacking.all():
        report(kept(int((~lacking).sum()), len(keys), table.folder))
    wanted = np.flatnonzero(lacking & is_there)
    found = [texts[place] for place in wanted]
    return _filled(table, model, keys[wanted], found, batch_size, progress)


def _filled(
    table: VectorTable,
    model: TextEncoder,
    keys: Sequence | np.ndarray,
    texts: Sequence[str],
    batch_size: int,
    progress: bool,
) -> VectorTable:
    """The table with the vectors of texts, saved now and then."""
    batches = list(batches_by_length(texts, batch_size))
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    console = Console(stderr=True, quiet=not progress)
    for number, places in enumerate(track(batches, f"{len(texts):,} texts", console=console), 1):
        waiting.append((places, model.encode([texts[place] for place in places], batch_size)))
        if number % _SAVE_EVERY == 0 or number == len(batches):
            chosen = np.concatenate([part for part, _ in waiting])
            vectors = np.concatenate([found for _, found in waiting])
            table = table.extended([keys[place] for place in chosen], vectors)
            waiting = []
    return table


def _missing_texts(folder: pathlib.Path, features: Sequence[str], table: VectorTable) -> list[str]:
    """The distinct texts that the table lacks."""
    found: set[bytes] = set()
    for split in SPLITS:
        manifest = Manifest.load(folder / split)
        manifest.verify(folder / split)
        for columns in raw_columns(folder / split, manifest, list(features)):
            for name in features:
                texts = np.unique(np.asarray(columns[name]))
                found.update(texts[table.lacks(texts)].tolist())
    return [text.decode() for text in sorted(found)]
