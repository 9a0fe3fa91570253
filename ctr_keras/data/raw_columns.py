"""The rows of a data set as they were written, chunk by chunk."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ctr_keras.columns import Column, Columns, Ragged
from ctr_keras.data import layouts
from ctr_keras.data.manifest import Manifest, Shard

CHUNK_ROWS = 4096


def raw_columns(
    folder: pathlib.Path, manifest: Manifest, names: list[str] | None = None
) -> Iterator[Columns]:
    """Columns of a TFRecord folder, block by block; strings as bytes."""
    for chunk in raw_tensors(folder, manifest, manifest.shards, names).prefetch(1):
        yield {name: _as_column(value) for name, value in chunk.items()}


def raw_tensors(
    folder: pathlib.Path,
    manifest: Manifest,
    shards: Sequence[Shard],
    names: list[str] | None = None,
    rows: int = CHUNK_ROWS,
) -> tf.data.Dataset:
    """Chunks of some shards: a block, or `rows` rows where each is a record."""
    schema = manifest.schema
    names = schema.names if names is None else names
    records = tf.data.TFRecordDataset([str(folder / shard.file) for shard in shards])
    if manifest.layout == "block":
        return records.map(lambda record: layouts.decode_block(schema, names, record))
    return records.batch(rows).map(lambda batch: layouts.decode_rows(schema, names, batch))


def _as_column(value: Any) -> Column:
    if isinstance(value, tf.RaggedTensor):
        return Ragged(value.flat_values.numpy(), value.row_lengths().numpy().astype(np.int32))
    return value.numpy()
