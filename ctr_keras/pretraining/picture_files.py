"""The pictures in a folder, a tar or a zip."""

import contextlib
import os
import pathlib
import posixpath
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping

_SUFFIXES = (".jpg", ".jpeg", ".png")


class PictureFiles:
    """Pictures by their path within a folder or an archive, in an order that reads well.

    Args:
        path: As the caller named it.
        names: Paths of the files within it, with `/`.
        read: Gives the content of one of them.
    """

    def __init__(self, path: pathlib.Path, names: list[str], read: Callable[[str], bytes]):
        self.path = path
        self.order = {name: place for place, name in enumerate(names)}
        self._read = read

    def read(self, name: str) -> bytes:
        """The content of a file, one of `order`."""
        return self._read(name)

    def label(self, name: str) -> str:
        """What errors call a file."""
        return str(self.path / name) if self.path.is_dir() else f"{self.path}:{name}"

    def by_stem(self) -> Mapping[str, str]:
        """The paths of JPEG and PNG files by their names without folder and suffix.

        Raises:
            ValueError: two of them have one name.
        """
        found: dict[str, str] = {}
        for name in self.order:
            stem, suffix = os.path.splitext(name.rsplit("/", 1)[-1])
            if suffix.lower() not in _SUFFIXES:
                continue
            if stem in found:
                raise ValueError(
                    f"Two pictures are of {stem!r}: {self.label(found[stem])} and "
                    f"{self.label(name)}"
                )
            found[stem] = name
        if not found:
            raise ValueError(f"{self.path} holds no {', '.join(_SUFFIXES)} file")
        return found


@contextlib.contextmanager
def open_pictures(path: str | os.PathLike) -> Iterator[PictureFiles]:
    """The pictures of a folder, with all within it, a tar, packed or not, or a zip.

    Raises:
        ValueError: it is none of them.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
        yield PictureFiles(path, names, lambda name: (path / name).read_bytes())
    elif path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            yield PictureFiles(path, packed.namelist(), packed.read)
    elif path.is_file() and tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            members = {posixpath.normpath(m.name): m for m in archive if m.isfile()}

            def read(name: str) -> bytes:
                file = archive.extractfile(members[name])
                assert file is not None  # It is one for what is a file.
                return file.read()

            yield PictureFiles(path, list(members), read)
    else:
        raise ValueError(
            f"`images` must be a folder, a tar or a zip. Received: `images={str(path)!r}`"
        )
