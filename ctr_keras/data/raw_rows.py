"""The first rows of a data set as they were written: what a server is sent."""

import os
import pathlib
from collections.abc import Iterator

import tensorflow as tf

from ctr_keras.data.lookups import Lookups
from ctr_keras.data.manifest import Manifest
from ctr_keras.data.raw_columns import raw_tensors
from ctr_keras.data.read import check_compatible
from ctr_keras.encoding import FeatureEncoder
from ctr_keras.examples import raw_dtype
from ctr_keras.schema import Schema


def raw_rows(path: str | os.PathLike, schema: Schema, count: int) -> dict:
    """Raw columns of the inputs of a model, neither looked up nor padded.

    Args:
        path: Folder that `ck.data.write` made. Vectors of items lie beside it, as for
            `ck.data.read`; encoded texts are the texts themselves.
        schema: What the model takes.
        count: How many rows, or as many as there are.

    Returns:
        By feature name, a tensor `(rows, ...)`, or a `tf.RaggedTensor` for sequences.

    Raises:
        ValueError: the folder holds no such data, or a shard is damaged.
    """
    folder = pathlib.Path(path)
    manifest = Manifest.load(folder)
    check_compatible(folder, manifest.schema, schema)
    described = Schema(tuple(f for f in schema if not f.is_encoded_text))
    lookups = Lookups.of(folder, described, None, None)
    stored = [f for f in schema.inputs if f.of is None]
    names = list(dict.fromkeys([*(f.name for f in stored), *lookups.source_names]))
    chunks, found = [], 0
    for chunk in _chunks(folder, manifest, names, count):
        chunks.append(chunk)
        found += int(tf.shape(chunk[names[0]])[0])
        if found >= count:
            break
    if not chunks:
        raise ValueError(f"The data set is empty. Received: `path={str(folder)!r}`")
    columns = {name: tf.concat([c[name] for c in chunks], axis=0)[:count] for name in names}
    numbers = lookups.numbered(columns, FeatureEncoder(described))
    vectors = {name: table.take(numbers[name]) for name, table in lookups.tables.items()}
    return {f.name: tf.cast(columns[f.name], raw_dtype(f)) for f in stored} | vectors


def _chunks(
    folder: pathlib.Path, manifest: Manifest, names: list[str], count: int
) -> Iterator[dict]:
    """Of one shard after the other, so that only those that are needed are verified."""
    for shard in manifest.shards:
        manifest.verify(folder, (shard,))
        yield from raw_tensors(folder, manifest, (shard,), names, count)
