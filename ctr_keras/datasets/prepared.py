"""A prepared folder: schema, vocabularies, splits and entity tables, replaced as one."""

import contextlib
import ctypes
import dataclasses
import fcntl
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from ctr_keras import files
from ctr_keras.data.manifest import Manifest
from ctr_keras.data.split import SPLITS
from ctr_keras.data.vector_table import ITEM_VECTORS
from ctr_keras.json_values import digest
from ctr_keras.schema import Schema
from ctr_keras.sources import Report, to_stderr

PREPARED_FILE = "prepared.json"
SCHEMA_FILE = "schema.json"
ITEMS_FILE = "items.parquet"
USERS_FILE = "users.parquet"
# What a prepared folder consists of; anything else in it belongs to the user and is kept.
_OWN = (PREPARED_FILE, SCHEMA_FILE, ITEMS_FILE, USERS_FILE, "vocabularies", *SPLITS)
_OLD_VECTORS = f"{ITEM_VECTORS}_before"
_KEY_FILE = ".key"
_BEFORE = ".before"
_REPLACED = ".replaced"
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What `prepare` made.

    Attributes:
        folder: It holds `schema.json`, `vocabularies/`, `train/`, `valid/`, `test/`,
            `items.parquet` and `users.parquet`.
        origin: Where the raw data came from.
        rows: Rows of each split.
        click_rate: Share of rows with label 1, by split.
        unseen_users: Share of a split's rows whose user has no training row.
        unseen_items: The same for items.
        reused: Whether the folder was up to date already.
        negative_ratio: Share of the negatives that the training rows hold; rows and click rate
            are those that are kept, users and items are unseen if no row before that was theirs.
    """

    folder: pathlib.Path
    origin: str
    rows: dict[str, int]
    click_rate: dict[str, float]
    unseen_users: dict[str, float]
    unseen_items: dict[str, float]
    reused: bool = False
    negative_ratio: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "folder": str(self.folder)}

    def to_text(self) -> str:
        lines = [f"{self.folder}: {sum(self.rows.values()):,} rows from {self.origin}"]
        for name, rows in self.rows.items():
            lines.append(
                f"  {name:<6}{rows:>12,} rows   clicks {self.click_rate[name]:6.1%}   "
                f"unseen users {self.unseen_users.get(name, 0):6.1%}   "
                f"unseen items {self.unseen_items.get(name, 0):6.1%}"
            )
        if self.negative_ratio < 1:
            lines.append(
                f"  {SPLITS[0]} holds a share of {self.negative_ratio:g} of its negatives, for "
                "which models correct their probabilities"
            )
        return "\n".join(lines)


def key_of(settings: dict[str, Any]) -> str:
    """Digest of everything that decides what a prepared folder holds."""
    return digest(settings)


def up_to_date(out: str | os.PathLike, key: str) -> Prepared | None:
    """What `out` holds, if it was prepared with the same key and is whole."""
    folder = pathlib.Path(out)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        config = json.loads((folder / PREPARED_FILE).read_text(encoding="utf-8"))
        if config.pop("key") != key or config.pop("tables") != _digests(folder):
            return None
        schema = Schema.load(folder)
        for name in SPLITS:
            manifest = Manifest.load(folder / name)
            manifest.verify(folder / name)
            if manifest.schema.fingerprint != schema.fingerprint:
                return None
            if manifest.metadata.get("key") != key:
                return None
        return Prepared(**{**config, "folder": folder, "reused": True})
    return None


def check_kept(
    out: str | os.PathLike, own: Sequence[str] = (), **sources: str | os.PathLike
) -> None:
    """Refuse an `out` that would take the place of what it is made of.

    Args:
        out: The folder to make.
        own: As of `replacing`.
        **sources: Files and folders that are read, by the names of the arguments that give them.

    Raises:
        ValueError: one of them is `out`, or lies in a part of it that is replaced.
    """
    folder = pathlib.Path(out).resolve()
    replaced = [folder / name for name in (*_OWN, *own)]
    for name, source in sources.items():
        path = pathlib.Path(source).resolve()
        if path == folder or any(path.is_relative_to(part) for part in replaced):
            raise ValueError(
                f"`out` would take the place of `{name}`, which it is made of: choose another "
                f"`out`. Received: `out={str(out)!r}`, `{name}={str(source)!r}`"
            )


@contextlib.contextmanager
def replacing(
    out: str | os.PathLike, key: str, own: Sequence[str] = (), report: Report = to_stderr
) -> Iterator[pathlib.Path]:
    """A folder to prepare in; when the block ends well it takes the place of `out`.

    Until then `out` is as it was. It changes in one step, or where the file system has none, and
    where `out` is a mount point, file by file: what a kill leaves of that is not `up_to_date`, and
    the next call starts from the old data, whole. After a kill the next call with the same key
    finds the work again, see `is_written`. Files of `out` that `prepare` does not make are kept;
    vectors of items move to `item_vectors_before` (`_2`, ...) where they are of other items, or of
    texts that changed.

    Args:
        out: The folder.
        key: What decides its content, see `key_of`.
        own: Names that this data set has beside those of all others.
        report: Called with lines for the user.

    Raises:
        ValueError: another process prepares there, or `out` is a file.
    """
    out = pathlib.Path(out).resolve()
    if out.exists() and not out.is_dir():
        raise ValueError(f"`out` must be a folder. Received: `out={str(out)!r}`")
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = _staging(out)
    with _locked(out, staging):
        _put_back(staging, out)
        if staging.exists() and _read_text(staging / _KEY_FILE) != key:
            shutil.rmtree(staging)
        files.write_atomic(staging / _KEY_FILE, key.encode())
        yield staging
        _set_vectors_aside(out, staging, report)
        _exchange(staging, out, (*_OWN, *own))
        (out / _KEY_FILE).unlink(missing_ok=True)
        shutil.rmtree(staging, ignore_errors=True)


def is_written(staging: pathlib.Path, split: str, key: str) -> bool:
    """Whether an interrupted `prepare` finished this split; its manifest tells by the key."""
    try:
        manifest = Manifest.load(staging / split)
        manifest.verify(staging / split)
    except ValueError:
        return False
    return manifest.metadata.get("key") == key


def finish(staging: pathlib.Path, key: str, prepared: Prepared) -> None:
    """Write the file that tells the next `prepare` that there is nothing to do."""
    config = {"key": key, "tables": _digests(staging), **prepared.to_dict()}
    del config["reused"]
    text = json.dumps(config, indent=1, ensure_ascii=False) + "\n"
    files.write_atomic(staging / PREPARED_FILE, text.encode())


def _digests(folder: pathlib.Path) -> dict[str, str]:
    return {name: files.sha256(folder / name) for name in (ITEMS_FILE, USERS_FILE)}


def _set_vectors_aside(old: pathlib.Path, new: pathlib.Path, report: Report) -> None:
    """Rename the vectors of items that `new` would take for those of its own."""
    if not (old / ITEM_VECTORS).exists():
        return
    changed = _changed_item(old, new)
    if changed is None:
        return
    numbered = (f"{_OLD_VECTORS}_{number}" for number in itertools.count(2))
    names = itertools.chain([_OLD_VECTORS], numbered)
    aside = next(name for name in names if not os.path.lexists(old / name))
    os.rename(old / ITEM_VECTORS, old / aside)
    report(
        f"{old / ITEM_VECTORS} is of other items ({changed}): it is now {aside}; "
        "run `ctr-keras encode --items` again"
    )


def _changed_item(old: pathlib.Path, new: pathlib.Path) -> str | None:
    """What tells that an id no longer names the same item, or `None` if nothing does.

    Texts tell, of which vectors are made or which name pictures; other columns, such as a price,
    do so only where there is no text.
    """
    if not (old / ITEMS_FILE).is_file() or not (new / ITEMS_FILE).is_file():
        return None
    key = Schema.load(new).key("item")
    if key is None:
        return None
    try:
        before, after = (pyarrow.parquet.read_table(folder / ITEMS_FILE) for folder in (old, new))
    except pa.ArrowInvalid:
        return f"their {ITEMS_FILE} is damaged"
    if key not in before.column_names or before[key].type != after[key].type:
        return f"their {key} was another"
    plain = [f.name for f in after.schema if f.name != key and not pa.types.is_nested(f.type)]
    texts = [name for name in plain if _is_text(after[name].type)]
    shared = [name for name in texts or plain if name in before.column_names]
    both = before.select([key, *shared]).join(
        after.select([key, *shared]), key, join_type="inner", right_suffix=".after"
    )
    for name in shared:
        old_values, new_values = both[name], both[f"{name}.after"]
        if old_values.type != new_values.type:
            return f"their {name} was of type {old_values.type}"
        differ = pc.fill_null(pc.not_equal(old_values, new_values), False)
        differ = pc.or_(differ, pc.xor(old_values.is_null(), new_values.is_null()))
        if pc.any(differ).as_py():
            return f"such as {key} {both[key].filter(differ)[0]}, of another {name}"
    return None


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)


def _staging(out: pathlib.Path) -> pathlib.Path:
    """The folder to prepare in: beside `out`, or in it if it is a mount point."""
    if _is_mounted(out):
        return out / ".preparing"
    return out.with_name(f".{out.name}.preparing")


def _is_mounted(out: pathlib.Path) -> bool:
    """Whether nothing can be renamed from beside `out` into it."""
    return out.exists() and out.stat().st_dev != out.parent.stat().st_dev


def _exchange(staging: pathlib.Path, out: pathlib.Path, own: Sequence[str]) -> None:
    """Put `staging` in the place of `out`, with what in the old folder is the user's own."""
    if not out.exists():
        os.rename(staging, out)
    elif staging.parent == out:
        _exchange_pieces(staging, out, own)
    else:
        _carry_others(out, staging, own)
        if not _swap(staging, out):
            _exchange_pieces(staging, out, own)
    files.sync(out.parent)


def _exchange_pieces(staging: pathlib.Path, out: pathlib.Path, own: Sequence[str]) -> None:
    """Put the pieces of `staging` in the place of those of `out`, which wait until all are there.

    The schema comes last but one, and what says that the data are prepared goes first, comes last.
    """
    last = (SCHEMA_FILE, PREPARED_FILE)
    before, replaced = staging / _BEFORE, staging / _REPLACED
    shutil.rmtree(replaced, ignore_errors=True)
    before.mkdir()
    _move(PREPARED_FILE, out, before)
    for name in (*(name for name in own if name not in last), *last):
        _move(name, out, before)
        _move(name, staging, out)
    files.sync(out)
    os.rename(before, replaced)  # From here on they are not put back.


def _put_back(staging: pathlib.Path, out: pathlib.Path) -> None:
    """Undo an exchange by pieces that a kill cut short."""
    before = staging / _BEFORE
    if not before.exists():
        return
    names = [path.name for path in before.iterdir()]
    for name in sorted(names, key=[PREPARED_FILE].count):
        _move(name, out, staging)
        _move(name, before, out)
    before.rmdir()


def _move(name: str, source: pathlib.Path, target: pathlib.Path) -> None:
    if os.path.lexists(source / name):
        os.replace(source / name, target / name)


def _swap(first: pathlib.Path, second: pathlib.Path) -> bool:
    """Linux' atomic exchange of two names; `False` where there is none."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    names = os.fsencode(first), os.fsencode(second)
    return rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0


def _carry_others(old: pathlib.Path, new: pathlib.Path, own: Sequence[str]) -> None:
    """Link the user's own files into the new folder, so that no kill can lose them.

    What a kill left of that before is made anew: a folder may lack files, a file be an old one.
    """
    for path in old.iterdir():
        if path.name in (*own, _KEY_FILE):
            continue
        target = new / path.name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(path, target, symlinks=True, copy_function=_link)
        else:
            target.unlink(missing_ok=True)
            _link(path, target)


def _link(source, target) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _read_text(path: pathlib.Path) -> str | None:
    return path.read_text() if path.is_file() else None


@contextlib.contextmanager
def _locked(out: pathlib.Path, staging: pathlib.Path) -> Iterator[None]:
    # The lock lies beside the folders, as they themselves are exchanged.
    path = staging.with_suffix(".lock")
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have removed the file that was just locked.
            held = path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat())
        except BlockingIOError:
            held = False
        if not held:
            raise ValueError(f"Another process is preparing there. Received: `out={str(out)!r}`")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def rows_digest(folder: str | os.PathLike) -> str:
    """Of all rows of a prepared folder and how they are read, wherever it lies."""
    folder = pathlib.Path(folder)
    manifests = [Manifest.load(folder / name) for name in SPLITS]
    rows = [[manifest.digest, manifest.negative_ratio] for manifest in manifests]
    return digest([Schema.load(folder).fingerprint, rows])


def link(source: pathlib.Path, target: pathlib.Path, names: Iterable[str]) -> None:
    """Have files and folders of prepared data in another folder too."""
    for name in names:
        # Made anew each time: the source may lie elsewhere by now.
        new = target / f".{name}.{os.getpid()}"
        new.unlink(missing_ok=True)
        new.symlink_to((source / name).resolve())
        os.replace(new, target / name)
