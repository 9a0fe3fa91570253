"""The versions of one model: on disk, loaded, in use."""

import contextlib
import dataclasses
import logging
import pathlib
import threading
import time
from collections.abc import Callable, Iterator

from ctr_keras.serving.errors import NotFoundError, ServingError, error_of_code
from ctr_keras.serving.server.model_config import ModelConfig
from ctr_keras.serving.server.servable import Servable
from ctr_keras.serving.status import State, VersionStatus
from ctr_keras.serving.versions import all_versions

_LOG = logging.getLogger(__name__)

# What made a version fail may have passed (memory, a mount) without a trace in its files; each
# attempt costs the requests meanwhile some time.
_RETRY_SECONDS = 60.0


@dataclasses.dataclass
class _Version:
    number: int
    state: State = State.START
    error: ServingError | None = None
    servable: Servable | None = None
    users: int = 0
    failed_files: tuple = ()
    failed_at: float = 0.0

    @property
    def status(self) -> VersionStatus:
        if self.error is None:
            return VersionStatus(self.number, self.state)
        return VersionStatus(self.number, self.state, self.error.code, str(self.error))


class ServedModel:
    """Keeps the wanted versions loaded.

    A version that leaves goes on until its last request is answered, and not before one that is
    wanted is available: a version that cannot be loaded leaves the old one in its place.

    Args:
        config: Where the versions are, and which are wanted.
        load: Loads and warms up a version's folder.
        on_idle: Called when a version that leaves is not in use any more.
        clock: Tells the seconds, from any moment on.
    """

    def __init__(
        self,
        config: ModelConfig,
        load: Callable[[pathlib.Path], Servable],
        on_idle: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self.config = config
        self._load_folder = load
        self._on_idle = on_idle
        self._clock = clock
        self._versions: dict[int, _Version] = {}
        self._labels: dict[str, int] = {}
        self._lock = threading.Lock()  # held for moments, never while a version loads

    def refresh(self, again: bool = False) -> None:
        """Load what is wanted and not there, let go of what is not wanted.

        Args:
            again: Whether to try what failed at once: not only when its files have changed, or
                after a minute.
        """
        present = all_versions(self.config.base_path)
        wanted = self.config.versions.wanted(list(present))
        for number in wanted:
            self._ensure(number, present[number], again)
        self._switch(set(wanted))
        self.close_idle()
        self._forget(set(present))

    def retire_all(self) -> None:
        """Take no more requests."""
        with self._lock:
            for version in self._versions.values():
                if version.state is State.AVAILABLE:
                    version.state = State.UNLOADING
        self.close_idle()

    def close_idle(self) -> bool:
        """Unload what leaves and is not in use; whether nothing is left."""
        with self._lock:
            leaving = [v for v in self._versions.values() if v.state is State.UNLOADING]
            idle = [version for version in leaving if not version.users]
        for version in idle:
            servable, version.servable = version.servable, None
            if servable is not None:
                servable.close()
            version.state = State.END
        return len(idle) == len(leaving)

    @contextlib.contextmanager
    def lease(
        self, number: int | None = None, label: str | None = None
    ) -> Iterator[tuple[int, Servable]]:
        """A version that stays loaded meanwhile: this one, or the highest that is available.

        Raises:
            NotFoundError: it is not available, or there is no such label.
        """
        version = self._acquire(number, label)
        try:
            if version.servable is None:
                raise AssertionError("a version in use was unloaded")
            yield version.number, version.servable
        finally:
            self._release(version)

    def labelled(self, label: str) -> int:
        """The version with this label.

        Raises:
            NotFoundError: there is no such label.
        """
        number = self._labels.get(label)
        if number is None:
            raise NotFoundError(f"Unrecognized servable version label: {label!r}")
        return number

    def statuses(self) -> list[VersionStatus]:
        """Of every version that was wanted since it is on disk, the highest first."""
        with self._lock:
            return [self._versions[number].status for number in sorted(self._versions)[::-1]]

    def available(self) -> list[int]:
        """The versions that answer requests, ascending."""
        with self._lock:
            return self._available()

    def _available(self) -> list[int]:
        return sorted(n for n, v in self._versions.items() if v.state is State.AVAILABLE)

    def _ensure(self, number: int, folder: pathlib.Path, again: bool) -> None:
        version = self._versions.get(number)
        if version is not None:
            with self._lock:
                if version.state is State.UNLOADING:  # Wanted again before it was gone.
                    version.state = State.AVAILABLE
            if version.state is State.AVAILABLE:
                return
            if version.error is not None and not again and not self._is_due(version, folder):
                return
        self._load(folder, number)

    def _is_due(self, version: _Version, folder: pathlib.Path) -> bool:
        """Whether a version that failed may load by now."""
        waited = self._clock() - version.failed_at
        return waited >= _RETRY_SECONDS or version.failed_files != _files(folder)

    def _load(self, folder: pathlib.Path, number: int) -> None:
        version = _Version(number, State.LOADING)
        files = _files(folder)
        with self._lock:
            self._versions[number] = version
        try:
            servable = self._load_folder(folder)
        except Exception as error:  # Whatever is wrong with a version, the others go on.
            with self._lock:
                version.state, version.failed_files = State.END, files
                version.failed_at = self._clock()
                version.error = _load_error(error)
            _LOG.error(
                "Model %s version %d was not loaded: %s", self.config.name, number, version.error
            )
            return
        with self._lock:
            version.servable, version.state = servable, State.AVAILABLE
        _LOG.info("Model %s version %d is available", self.config.name, number)

    def _switch(self, wanted: set[int]) -> None:
        """Let go of what is not wanted, and move each label whose version is there to stay."""
        with self._lock:
            available = set(self._available())
            staying = wanted & available or available
            self._labels = {
                label: number if number in staying else self._labels.get(label, number)
                for label, number in self.config.labels.items()
            }
            for number in available - staying:
                self._versions[number].state = State.UNLOADING

    def _forget(self, present: set[int]) -> None:
        with self._lock:
            for number, version in list(self._versions.items()):
                if version.state is State.END and number not in present:
                    del self._versions[number]

    def _acquire(self, number: int | None, label: str | None) -> _Version:
        with self._lock:
            if label:
                number = self.labelled(label)
            available = self._available()
            if number is None and available:
                number = available[-1]
            if number not in available:
                asked = (
                    f"Latest({self.config.name})"
                    if number is None
                    else f"Specific({self.config.name}, {number})"
                )
                raise NotFoundError(
                    f"Servable not found for request: {asked}; available are {available}"
                )
            version = self._versions[number]
            version.users += 1
            return version

    def _release(self, version: _Version) -> None:
        with self._lock:
            version.users -= 1
            idle = version.state is State.UNLOADING and not version.users
        if idle:
            self._on_idle()


def _files(folder: pathlib.Path) -> tuple:
    """What tells a folder from itself after something was written to it."""
    found = []
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(OSError):  # It is being changed right now.
            stat = path.stat()
            found.append((str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    return tuple(found)


def _load_error(error: Exception) -> ServingError:
    if isinstance(error, ServingError):
        # Without its frames, which hold the model.
        return error_of_code(error.code, str(error))
    lines = str(error).strip().splitlines()
    return ServingError(f"{type(error).__name__}: {lines[0] if lines else ''}")
