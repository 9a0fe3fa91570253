"""The manifest of a TFRecord folder: what was written, and whether it is still that."""

import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

import tensorflow as tf

from ctr_keras import files
from ctr_keras.negative_ratio import check_negative_ratio
from ctr_keras.schema import Schema

MANIFEST_VERSION = 1
MANIFEST_FILE = "manifest.json"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file of a data set.

    Attributes:
        file: Name within the folder.
        rows: Rows it holds.
        records: TFRecord records it holds.
        bytes: Size of the file.
        sha256: Digest of the file.
        content: Digest of the rows, whatever the layout; a resumed write compares it.
    """

    file: str
    rows: int
    records: int
    bytes: int
    sha256: str
    content: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a TFRecord folder holds; written last, so its presence means the data is whole.

    Attributes:
        schema: What a row is.
        layout: `"block"` or `"row"`.
        block_rows: Rows a record in the block layout.
        shards: The files.
        metadata: JSON values of whoever wrote it.
        negative_ratio: Share of the negatives that were kept before writing: 1 for all of them.
    """

    schema: Schema
    layout: str
    block_rows: int
    shards: tuple[Shard, ...]
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    negative_ratio: float = 1.0

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @property
    def digest(self) -> str:
        """Digest of the rows and their order."""
        return hashlib.sha256("".join(shard.content for shard in self.shards).encode()).hexdigest()

    def save(self, folder: str | os.PathLike) -> None:
        config = {
            "manifest_version": MANIFEST_VERSION,
            "layout": self.layout,
            "block_rows": self.block_rows,
            "rows": self.rows,
            "negative_ratio": self.negative_ratio,
            "metadata": self.metadata,
            "schema": self.schema.to_dict(),
            "shards": [dataclasses.asdict(shard) for shard in self.shards],
        }
        text = json.dumps(config, indent=1, ensure_ascii=False) + "\n"
        files.write_atomic(pathlib.Path(folder) / MANIFEST_FILE, text.encode())

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "Manifest":
        path = pathlib.Path(folder) / MANIFEST_FILE
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(
                f"No data set there: {MANIFEST_FILE} is missing; `ctr-keras prepare` or "
                f"`ck.data.write` makes one. Received: `path={str(folder)!r}`"
            ) from None
        except NotADirectoryError:
            raise files.not_prepared(path) from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not valid JSON: {error}") from error
        version = config.get("manifest_version") if isinstance(config, dict) else None
        if not isinstance(version, int):
            raise ValueError(
                f"{path} is not a manifest: expected an integer `manifest_version`. "
                f"Received: `manifest_version={version!r}`"
            )
        if version > MANIFEST_VERSION:
            raise ValueError(
                f"{path} is of a newer version than this package reads ({MANIFEST_VERSION}): "
                f"upgrade ctr-keras. Received: `manifest_version={version}`"
            )
        try:
            manifest = cls(
                schema=Schema.from_dict(config["schema"], source=str(path)),
                layout=config["layout"],
                block_rows=config["block_rows"],
                shards=tuple(Shard(**shard) for shard in config["shards"]),
                metadata=config["metadata"],
                negative_ratio=config.get("negative_ratio", 1.0),
            )
            rows = config["rows"]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not a manifest: {error!r}") from error
        if manifest.layout not in ("block", "row"):
            raise ValueError(f"{path}: unknown layout. Received: `layout={manifest.layout!r}`")
        try:
            check_negative_ratio("negative_ratio", manifest.negative_ratio)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if manifest.rows != rows:
            raise ValueError(
                f"{path} disagrees with itself: its shards hold {manifest.rows} rows. "
                f"Received: `rows={rows}`"
            )
        return manifest

    def verify(self, folder: str | os.PathLike, shards: tuple[Shard, ...] | None = None) -> None:
        """Compare shards with the manifest.

        Raises:
            ValueError: names the shard that is missing, truncated or changed, and its first
                record that cannot be read.
        """
        for shard in self.shards if shards is None else shards:
            path = pathlib.Path(folder) / shard.file
            if not path.is_file():
                raise ValueError(f"Shard {path} is missing. Restore it or prepare the data again.")
            size = path.stat().st_size
            if size == shard.bytes and files.sha256(path) == shard.sha256:
                continue
            raise ValueError(
                f"Shard {path} is not what was written: {_damage(path, shard)}. Restore it or "
                f"prepare the data again. Received: `bytes={size}`, expected {shard.bytes}"
            )


def _damage(path: pathlib.Path, shard: Shard) -> str:
    """Find the first record that TensorFlow's own checksums reject."""
    whole = 0
    try:
        for _ in tf.data.TFRecordDataset(str(path)):
            whole += 1
    except tf.errors.DataLossError:
        return f"record {whole + 1} of {shard.records} is damaged"
    if whole != shard.records:
        return f"it ends after record {whole} of {shard.records}"
    return "its checksum differs, though every record can be read (another file of this name?)"


def schema_beside(folder: pathlib.Path) -> Schema | None:
    """The schema saved in the folder of the data, or in the one around it."""
    for candidate in (folder / "schema.json", folder.resolve().parent / "schema.json"):
        if candidate.is_file():
            return Schema.load(candidate)
    return None
