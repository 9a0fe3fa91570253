"""Writing rows as TFRecord shards: atomic, checked, and resumable after a kill."""

import collections
import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any

import numpy as np
import tensorflow as tf

from ctr_keras import files
from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.columns import Columns, Ragged, canonical, is_table, num_rows, rechunk
from ctr_keras.data import layouts
from ctr_keras.data.manifest import Manifest, Shard
from ctr_keras.negative_ratio import check_negative_ratio
from ctr_keras.schema import Schema

_JOURNAL_FILE = ".writing.json"
_LOCK_FILE = ".lock"
_WRITERS = 2


def write(
    path: str | os.PathLike,
    schema: Schema,
    rows: Any,
    *,
    layout: str = "block",
    rows_per_shard: int = 131_072,
    block_rows: int = 4096,
    metadata: dict[str, Any] | None = None,
    negative_ratio: float = 1.0,
    progress: Callable[[int], Any] | None = None,
) -> Manifest:
    """Write rows as a folder of TFRecord shards with a manifest.

    The manifest is replaced last and in one step: until then readers see the old data, whole.
    Then the old shards are removed, so do not write over data that a training is reading.
    A write that was interrupted continues when it is called again with the same rows: shards
    whose rows are the same are kept, found by a digest of the rows themselves.

    Args:
        path: Folder. Data that it holds is replaced.
        schema: What a row is.
        rows: A pandas `DataFrame`, a mapping from column name to array, or an iterable of
            either, for data larger than memory. A sequence column is a list of lists, a
            `ck.data.Ragged`, or a padded array.
        layout: `"block"` (up to `block_rows` rows a record, raw bytes: fast) or `"row"` (one
            `tf.train.Example` a row: for other TensorFlow tools).
        rows_per_shard: Rows a file, in the block layout rounded down to whole records; the rows of
            up to three files are held in memory.
        block_rows: Rows a record in the block layout, at most `rows_per_shard`.
        metadata: JSON values to keep in the manifest.
        negative_ratio: Share of the negatives that `rows` still hold, as they were given to
            `ck.data.down_sample_negatives`: readers and models correct probabilities for it.
        progress: Called with the number of rows each time a shard is complete.

    Returns:
        The `Manifest`.

    Raises:
        ValueError: a column or value is not as the schema says (named with its row), there are
            no rows, or another process is writing there.
        OSError: the disk is full or not writable. What was complete is kept for the next call.
    """
    layouts.check_layout(layout)
    check_positive_integer("rows_per_shard", rows_per_shard)
    check_positive_integer("block_rows", block_rows)
    negative_ratio = check_negative_ratio("negative_ratio", negative_ratio)
    folder = pathlib.Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    block_rows = min(block_rows, rows_per_shard)
    chunk_rows = block_rows if layout == "block" else rows_per_shard
    with _locked(folder):
        key = [schema.fingerprint, layout, block_rows, rows_per_shard]
        journal = _Journal.open(folder, key)
        blocks = rechunk(_canonical_chunks(schema, rows), chunk_rows)
        groups = _groups(blocks, rows_per_shard // chunk_rows)
        shards = []
        for shard in _write_shards(journal, schema, layout, groups):
            shards.append(shard)
            if progress is not None:
                progress(shard.rows)
        if not shards:
            raise ValueError(f"There are no rows to write. Received: `path={str(path)!r}`")
        manifest = Manifest(
            schema, layout, block_rows, tuple(shards), metadata or {}, negative_ratio
        )
        manifest.save(folder)
        _remove_leftovers(folder, manifest)
    return manifest


def _canonical_chunks(schema: Schema, rows: Any) -> Iterator[Columns]:
    first_row = 0
    for chunk in [rows] if is_table(rows) else rows:
        columns = canonical(schema, chunk, first_row)
        first_row += num_rows(columns)
        yield columns


def _groups(blocks: Iterable[Columns], size: int) -> Iterator[list[Columns]]:
    group = []
    for block in blocks:
        group.append(block)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _write_shards(
    journal: "_Journal", schema: Schema, layout: str, groups: Iterable[list[Columns]]
) -> Iterator[Shard]:
    """Write each group as a shard, a few at a time beside the making of the rows; in order."""
    pending: collections.deque[futures.Future[Shard]] = collections.deque()
    with futures.ThreadPoolExecutor(_WRITERS) as pool:
        for index, blocks in enumerate(groups):
            if len(pending) == _WRITERS:
                yield pending.popleft().result()
            pending.append(pool.submit(_write_shard, journal, index, schema, layout, blocks))
        for future in pending:
            yield future.result()


def _write_shard(
    journal: "_Journal", index: int, schema: Schema, layout: str, blocks: list[Columns]
) -> Shard:
    content = _content_digest(schema, blocks)
    shard = journal.complete(index, content)
    if shard is None:
        target = journal.folder / journal.shard_name(index)
        records = _write_records(target, _records(schema, layout, blocks))
        shard = _describe_shard(target, blocks, records, content)
        journal.add(index, shard)
    return shard


def _content_digest(schema: Schema, blocks: list[Columns]) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        for feature in schema:
            column = block[feature.name]
            if isinstance(column, Ragged):
                digest.update(column.lengths.tobytes())
                column = column.values
            if feature.dtype == "string":
                digest.update("".join(f"{len(text)}:{text}" for text in column).encode())
            else:
                dtype = layouts.storage_dtype(schema, feature)
                digest.update(np.ascontiguousarray(column, dtype).data)
    return digest.hexdigest()


def _records(schema: Schema, layout: str, blocks: list[Columns]) -> Iterator[bytes]:
    for block in blocks:
        if layout == "block":
            yield layouts.encode_block(schema, block)
        else:
            yield from layouts.encode_rows(schema, block)


def _write_records(path: pathlib.Path, records: Iterator[bytes]) -> int:
    """Write a TFRecord file that appears whole or not at all; return its number of records."""
    temporary = path.with_name(f".{path.name}.tmp")
    count = 0
    try:
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for record in records:
                writer.write(record)
                count += 1
        files.replace(temporary, path)
    except (OSError, tf.errors.OpError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(
            getattr(error, "errno", None) or errno.EIO,
            f"Could not write shard {path} ({error}). The data that was there is untouched and "
            "complete shards are kept: free space and run the same command again",
        ) from error
    return count


def _describe_shard(path: pathlib.Path, blocks: list[Columns], records: int, content: str) -> Shard:
    return Shard(
        file=path.name,
        rows=sum(num_rows(block) for block in blocks),
        records=records,
        bytes=path.stat().st_size,
        sha256=files.sha256(path),
        content=content,
    )


@dataclasses.dataclass
class _Journal:
    """The complete shards of a write that has no manifest yet."""

    folder: pathlib.Path
    key: list
    generation: str
    shards: dict[int, Shard]
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    @classmethod
    def open(cls, folder: pathlib.Path, key: list) -> "_Journal":
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
            config = json.loads((folder / _JOURNAL_FILE).read_text())
            shards = {int(index): Shard(**shard) for index, shard in config["shards"].items()}
            if config["key"] == key:
                return cls(folder, key, config["generation"], shards)
        return cls(folder, key, secrets.token_hex(4), {})

    def shard_name(self, index: int) -> str:
        # The generation keeps new shards from taking the names of those the manifest still has.
        return f"part-{self.generation}-{index:05d}.tfrecord"

    def complete(self, index: int, content: str) -> Shard | None:
        """The shard, if an earlier call finished it with the same rows."""
        shard = self.shards.get(index)
        if shard is None or shard.content != content:
            return None
        path = self.folder / shard.file
        if not path.is_file() or files.sha256(path) != shard.sha256:
            return None
        return shard

    def add(self, index: int, shard: Shard) -> None:
        with self.lock:
            self.shards[index] = shard
            config = {
                "key": self.key,
                "generation": self.generation,
                "shards": {str(i): dataclasses.asdict(s) for i, s in self.shards.items()},
            }
            files.write_atomic(self.folder / _JOURNAL_FILE, json.dumps(config).encode())


def _remove_leftovers(folder: pathlib.Path, manifest: Manifest) -> None:
    (folder / _JOURNAL_FILE).unlink(missing_ok=True)
    current = {shard.file for shard in manifest.shards}
    for path in (*folder.glob("part-*.tfrecord"), *folder.glob(".part-*.tmp")):
        if path.name not in current:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    with open(folder / _LOCK_FILE, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"Another process is writing there. Received: `path={str(folder)!r}`"
            ) from None
        yield
