"""Files that appear whole or not at all."""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import uuid
import zipfile
import zlib
from collections.abc import Iterator

# What reading a packed file that is not whole raises beside `OSError`, without its name.
DAMAGED = (EOFError, zipfile.BadZipFile, zlib.error)


def write_atomic(path: str | os.PathLike, content: bytes) -> None:
    """Write `content` under a temporary name, sync it, and rename it to `path`.

    Whoever opens `path` finds the old content or the new, also after a crash. The mode follows
    the umask, as an ordinary `open` would.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(content)
        replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def make_folder(path: str | os.PathLike) -> pathlib.Path:
    """Make a folder to write into, if it is not there.

    Raises:
        ValueError: a file is in its way (it is named).
    """
    folder = pathlib.Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(
            f"{_file_on(folder)} is a file; expected a folder to write to. "
            f"Received: `path={str(path)!r}`"
        ) from None
    return folder


def not_prepared(path: pathlib.Path) -> ValueError:
    """The error for a file where the folder that should hold `path` is looked for."""
    return ValueError(
        f"{_file_on(path)} is a file; expected the folder that `ctr-keras prepare` made. "
        f"Received: `path={str(path.parent)!r}`"
    )


def _file_on(path: pathlib.Path) -> pathlib.Path:
    """What is no folder on the way to `path`."""
    return next((part for part in (path, *path.parents) if part.is_file()), path)


def replace(temporary: pathlib.Path, target: pathlib.Path) -> None:
    """Rename a file that is written to its name, so that a crash leaves it whole or not there."""
    sync(temporary)
    os.replace(temporary, target)
    sync(target.parent)


def sync(path: str | os.PathLike) -> None:
    """Flush a file's data, or a directory's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(folder: str | os.PathLike, *, wait: bool = True) -> Iterator[None]:
    """Hold a folder, made if it is not there; other processes that want it wait.

    Args:
        folder: The folder.
        wait: Whether to wait for another process that holds it; otherwise that is an error.

    Raises:
        ValueError: another process holds it, and `wait` is false.
    """
    os.makedirs(folder, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ValueError(
                "Another process is at work there: wait for it, or choose another folder. "
                f"Received: `out={str(folder)!r}`"
            ) from None
        yield
    finally:
        os.close(handle)


def sha256(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of a file, read in constant memory."""
    return digest_of(path, "sha256")


def digest_of(path: str | os.PathLike, algorithm: str) -> str:
    """Hexadecimal digest of a file, read in constant memory."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
