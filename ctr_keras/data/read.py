"""Reading TFRecord shards as batches for `model.fit`."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

import tensorflow as tf

from ctr_keras.data import layouts
from ctr_keras.data.lookups import Lookups
from ctr_keras.data.manifest import Manifest, Shard, schema_beside
from ctr_keras.data.negatives import check_seed, is_kept, row_key
from ctr_keras.encoding import FeatureEncoder
from ctr_keras.negative_ratio import check_negative_ratio
from ctr_keras.schema import Feature, Schema

_CHUNK_ROWS = 4096
_OPEN_SHARDS = 8


def read(
    path: str | os.PathLike,
    schema: Schema | None = None,
    batch_size: int = 1024,
    *,
    shuffle: bool = False,
    seed: int = 0,
    epoch: int = 0,
    shuffle_rows: int = 131_072,
    drop_remainder: bool = False,
    shard: tuple[int, int] | None = None,
    verify: bool = True,
    negative_ratio: float = 1.0,
    negative_key: Sequence[str] | None = None,
    text_vectors: str | os.PathLike | None = None,
    item_vectors: str | os.PathLike | None = None,
) -> tf.data.Dataset:
    """A `tf.data.Dataset` of `(features, label)` batches.

    Ids are looked up or hashed, histories padded: a batch is what the model takes. With
    `shuffle`, files are visited in random order, several at a time, and rows are shuffled within
    a window of `shuffle_rows`. The order depends on `seed` and the number of the epoch
    alone: it is another one each time the data set is iterated, and the same one in each run.

    With a `negative_ratio` below 1 only that share of the negatives is read, the same ones in each
    epoch: those that `ck.data.down_sample_negatives` keeps with the same key and seed. (Of rows
    that were down-sampled before they were written it is a draw of its own.) How many batches
    there are is then not known in advance, and workers with a `shard` each may get different
    numbers of them.

    Args:
        path: Folder that `ck.data.write` made.
        schema: What the model takes; columns that only the data has are left out. By default
            the schema saved beside the data (`../schema.json`) or in it.
        batch_size: Rows a batch.
        shuffle: Whether to shuffle.
        seed: Seed of the shuffle, and of which negatives are read.
        epoch: Number of the first epoch, so that a resumed training sees the rows in the order
            in which the interrupted one would have.
        shuffle_rows: Rows that are shuffled with each other at a time, held in memory.
        drop_remainder: Whether to leave out a last batch that is not full.
        shard: `(index, count)`: read part `index` of `count`, for one of several workers.
        verify: Whether to check every shard's size and checksum before reading.
        negative_ratio: Share of the negatives to read, in (0, 1].
        negative_key: Columns of the data that tell its rows apart, as the `key` of
            `ck.data.down_sample_negatives`.
        text_vectors: Where the vectors of encoded texts lie, as `ctr-keras encode` writes them; by
            default in the folder `text_vectors` beside `path`. They are looked up batch by batch.
        item_vectors: The same for the vectors of items (`Schema.with_item_vectors`), by default
            in `item_vectors`. An item without one has zeros.

    Returns:
        A data set of `(features, label)`. `features` maps each input's name to a tensor:
        `(batch,)` ids (int32, int64 from 2^31 ids on) or numbers (float32), `(batch, length)`
        for sequences, `(batch, width)` for vectors and encoded texts; and group features to int64
        `(batch,)`. `label` is float32 `(batch,)`.
        Its attribute `negative_ratio` is the share of all negatives that it holds, those left out
        before writing included; `CTRModel.fit` takes it from there. What `map`, `take` and the
        like make of it has no such attribute, but `fit` looks behind them.

    Raises:
        ValueError: the folder holds no data or fewer records than workers, a shard is missing,
            truncated or changed (named with the record at fault), or its columns are not those of
            `schema`.
    """
    _check_arguments(batch_size, shuffle_rows, epoch, shard)
    negative_ratio = check_negative_ratio("negative_ratio", negative_ratio)
    folder = pathlib.Path(path)
    manifest = Manifest.load(folder)
    schema = schema_beside(folder) if schema is None else schema
    if schema is None:
        raise ValueError(
            "No schema.json lies in or beside the data: pass `schema`. "
            f"Received: `path={str(folder)!r}`"
        )
    check_compatible(folder, manifest.schema, schema)
    part = _Part.of(manifest.shards, *(shard or (0, 1)))
    if verify:
        manifest.verify(folder, part.shards)

    sampled = None
    if negative_ratio < 1:
        check_seed(seed)
        key = row_key(manifest.schema, negative_key)
        sampled = _Sampling.of(manifest, schema, key, negative_ratio, seed)
    lookups = Lookups.of(folder, schema, text_vectors, item_vectors)
    chunks = _chunk_reader(folder, manifest, part, _encoder(manifest, schema, sampled, lookups))
    window = max(shuffle_rows // batch_size, 1) * batch_size

    def one_epoch(number: tf.Tensor) -> tf.data.Dataset:
        if not shuffle:
            return chunks(None).rebatch(batch_size, drop_remainder=drop_remainder)
        epoch_seed = _epoch_seed(seed, number)
        shuffled = _permuted(chunks(epoch_seed).rebatch(window), epoch_seed)
        return shuffled.rebatch(batch_size, drop_remainder=drop_remainder)

    # Each iteration takes the next number, so that each epoch has an order of its own.
    counter = tf.Variable(epoch, dtype=tf.int64, trainable=False, name="epoch")
    dataset = tf.data.Dataset.range(1).flat_map(lambda _: one_epoch(counter.assign_add(1) - 1))
    if part.every == 1 and sampled is None:
        rows = sum(shard.rows for shard in part.shards)
        batches = rows // batch_size if drop_remainder else -(-rows // batch_size)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches))
    if lookups.tables:
        dataset = dataset.map(lookups.joined, num_parallel_calls=2, deterministic=True)
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    dataset.negative_ratio = manifest.negative_ratio * negative_ratio
    return dataset


@dataclasses.dataclass(frozen=True)
class _Part:
    """What one worker reads: whole shards, or every n-th record where shards are too few."""

    shards: tuple[Shard, ...]
    index: int = 0
    every: int = 1

    @classmethod
    def of(cls, shards: tuple[Shard, ...], index: int, count: int) -> "_Part":
        if len(shards) >= count:
            return cls(shards[index::count])
        records = sum(shard.records for shard in shards)
        if records < count:
            raise ValueError(
                f"The data are {records} records in {len(shards)} files, so a worker would get no "
                "rows: write them with a smaller `rows_per_shard` or `block_rows`. "
                f"Received: `shard={(index, count)}`"
            )
        return cls(shards, index, count)


def _chunk_reader(folder: pathlib.Path, manifest: Manifest, part: _Part, encode: Callable):
    """A function from a seed (`None`: in order) to a data set of encoded chunks of rows."""
    files = [str(folder / shard.file) for shard in part.shards]

    def in_chunks(records: tf.data.Dataset) -> tf.data.Dataset:
        return records if manifest.layout == "block" else records.batch(_CHUNK_ROWS)

    def chunks(seed: tf.Tensor | None) -> tf.data.Dataset:
        # `Dataset.shuffle` would depend on the global seed too.
        shards = tf.data.Dataset.from_tensor_slices(files if seed is None else _mix(files, seed))
        if part.every > 1:
            dataset = in_chunks(shards.flat_map(_records).shard(part.every, part.index))
        else:
            dataset = shards.interleave(
                lambda file: in_chunks(_records(file)),
                cycle_length=1 if seed is None else _OPEN_SHARDS,
            )
        return dataset.map(encode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    return chunks


def _records(file: tf.Tensor) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(file, buffer_size=1 << 20)


@dataclasses.dataclass(frozen=True)
class _Sampling:
    """Down-sampling of the negatives while they are read."""

    label: str
    key: tuple[str, ...]
    ratio: float
    seed: int
    draw: int

    @classmethod
    def of(cls, manifest: Manifest, schema: Schema, key: tuple[str, ...], ratio: float, seed: int):
        # The hashes of rows that were down-sampled with the same seed all lie below its ratio.
        draw = 0 if manifest.negative_ratio == 1 else 1
        return cls(schema.label.name, key, ratio, seed, draw)

    def __call__(self, columns: dict) -> dict:
        """The rows that are kept, of raw columns."""
        key = [columns[name] for name in self.key]
        kept = is_kept(columns[self.label], key, self.ratio, self.seed, self.draw)
        rows = tf.where(kept)[:, 0]
        return {name: tf.gather(column, rows) for name, column in columns.items()}


def _encoder(manifest: Manifest, schema: Schema, sampled: _Sampling | None, lookups: Lookups):
    """A function from a block record, or a batch of row records, to `(features, label)`."""
    decode = layouts.decode_block if manifest.layout == "block" else layouts.decode_rows
    names = [f.name for f in schema if _is_stored(f) and f.name not in lookups.tables]
    label = schema.label.name
    encode = FeatureEncoder(schema)
    key = () if sampled is None else sampled.key
    wanted = list(dict.fromkeys([*names, *lookups.source_names, *key]))

    def to_batch(records: tf.Tensor):
        columns = decode(manifest.schema, wanted, records)
        if sampled is not None:
            columns = sampled(columns)
        encoded = encode({name: columns[name] for name in names})
        encoded |= lookups.numbered(columns, encode)
        return encoded, encoded.pop(label)

    return to_batch


def _permuted(windows: tf.data.Dataset, seed: tf.Tensor) -> tf.data.Dataset:
    """Shuffle the rows of each window."""

    def permute(number, batch):
        order = _mix(tf.range(tf.shape(tf.nest.flatten(batch)[0])[0]), seed, number)
        return tf.nest.map_structure(lambda column: tf.gather(column, order), batch)

    return windows.enumerate().map(permute, num_parallel_calls=1)


def _mix(values, seed: tf.Tensor, number: int | tf.Tensor = -1) -> tf.Tensor:
    return tf.random.experimental.stateless_shuffle(values, tf.stack([seed, number]))


def _epoch_seed(seed: int, epoch: tf.Tensor) -> tf.Tensor:
    return tf.random.stateless_uniform((), [seed, epoch], 0, 2**62, dtype=tf.int64)


def check_compatible(folder: pathlib.Path, stored: Schema, schema: Schema) -> None:
    """Refuse a schema that would read other columns than were written."""
    for feature in schema:
        if not _is_stored(feature):
            continue
        if feature.name not in stored:
            raise ValueError(
                f"The data in {folder} has no column {feature.name!r}, only {stored.names}: it was "
                "written with another schema."
            )
        there = stored[feature.name]
        for what in ("kind", "dtype", "is_sequence", "width"):
            if what == "width" and feature.kind == "text":  # The encoder's, not what is stored.
                continue
            if getattr(there, what) != getattr(feature, what):
                raise ValueError(
                    f"Column {feature.name!r} of {folder} was written with another schema. "
                    f"Received: `{what}={getattr(feature, what)!r}`, the data has "
                    f"{getattr(there, what)!r}"
                )
        _check_same_ids(folder, feature.name, stored, schema)


def _is_stored(feature: Feature) -> bool:
    """Whether a feature that is wanted is a column of the rows."""
    return (feature.is_input and feature.of is None) or feature.role in ("group", "label")


def _check_same_ids(folder: pathlib.Path, name: str, stored: Schema, schema: Schema) -> None:
    """Ids stored as ids mean the same in both schemas only if their number is the same."""
    there, here = stored.vocabulary(name), schema.vocabulary(name)
    encoded_there = there.size if there is not None and there.is_encoded else None
    encoded_here = here.size if here is not None and here.is_encoded else None
    if encoded_there != encoded_here:
        raise ValueError(
            f"Column {name!r} of {folder} was written with another vocabulary. "
            f"Received: `vocabulary={here}`, the data has {there}"
        )


def _check_arguments(batch_size, shuffle_rows, epoch, shard):
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("shuffle_rows", shuffle_rows, 1),
        ("epoch", epoch, 0),
    ):
        if not isinstance(value, int) or value < least:
            raise ValueError(
                f"`{name}` must be an integer of at least {least}. Received: `{name}={value!r}`"
            )
    if shard is not None and not (len(shard) == 2 and 0 <= shard[0] < shard[1]):
        raise ValueError(
            f"`shard` must be (index, count) with 0 <= index < count. Received: `shard={shard!r}`"
        )
