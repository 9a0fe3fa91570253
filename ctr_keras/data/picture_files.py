"""The pictures in a folder, a tar or a zip."""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import posixpath
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator

from ctr_keras import files
from ctr_keras.json_values import digest

_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclasses.dataclass(frozen=True)
class PictureFiles:
    """Files by their path within a folder or an archive.

    Attributes:
        path: Of the folder or archive.
        order: Of each file, with `/` between folders, its place: they are best read in this order.
        read: Gives the content of a file.
    """

    path: pathlib.Path
    order: dict[str, int]
    read: Callable[[str], bytes]

    @classmethod
    def of(
        cls, path: pathlib.Path, names: Iterable[str], read: Callable[[str], bytes]
    ) -> "PictureFiles":
        return cls(path, {name: place for place, name in enumerate(names)}, read)

    def label(self, name: str) -> str:
        """What errors call a file."""
        return str(self.path / name) if self.path.is_dir() else f"{self.path}:{name}"

    def sha256(self, name: str) -> str:
        """Of the content of a file."""
        return hashlib.sha256(self.read(name)).hexdigest()

    def of_keys(self, keys: Collection[str]) -> dict[str, str]:
        """The JPEG or PNG file of each key, which is its name without folder and suffix.

        Raises:
            ValueError: two files are of one key.
        """
        found: dict[str, str] = {}
        for name in self.order:
            key, suffix = posixpath.splitext(posixpath.basename(name))
            if suffix.lower() not in _SUFFIXES or key not in keys:
                continue
            if key in found:
                raise ValueError(
                    f"Two pictures are of {key!r}: {self.label(found[key])} and {self.label(name)}"
                )
            found[key] = name
        return found


@contextlib.contextmanager
def open_pictures(path: str | os.PathLike) -> Iterator[PictureFiles]:
    """The pictures of a folder, with all within it, a tar, packed or not, or a zip.

    Raises:
        ValueError: it is none of them, or damaged.
    """
    try:
        with _opened(pathlib.Path(path)) as pictures:
            yield pictures
    except (tarfile.TarError, *files.DAMAGED) as error:
        raise ValueError(
            f"The archive is damaged ({error}): fetch it again. Received: `images={str(path)!r}`"
        ) from error


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[PictureFiles]:
    if path.is_dir():
        names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
        yield PictureFiles.of(path, names, lambda name: (path / name).read_bytes())
    elif path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            yield PictureFiles.of(path, packed.namelist(), packed.read)
    elif path.is_file() and tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            members = {posixpath.normpath(m.name): m for m in archive if m.isfile()}

            def read(name: str) -> bytes:
                file = archive.extractfile(members[name])
                assert file is not None  # It is one for what is a file.
                return file.read()

            yield PictureFiles.of(path, members, read)
    else:
        raise ValueError(
            f"`images` must be a folder, a tar or a zip. Received: `images={str(path)!r}`"
        )


def digest_of(path: str | os.PathLike) -> str:
    """Of the JPEG and PNG files in a folder their paths and content, of an archive its file.

    Raises:
        ValueError: it is neither.
    """
    if pathlib.Path(path).is_file():
        return files.sha256(path)
    with open_pictures(path) as pictures:
        names = [name for name in pictures.order if name.lower().endswith(_SUFFIXES)]
        return digest({name: pictures.sha256(name) for name in names})
