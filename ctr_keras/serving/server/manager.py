"""All models that are served, and the thread that keeps them up to date."""

import concurrent.futures
import contextlib
import logging
import pathlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from ctr_keras.serving.errors import FailedPreconditionError, NotFoundError
from ctr_keras.serving.server.model_config import ModelConfig, check_names
from ctr_keras.serving.server.model_name import ModelName
from ctr_keras.serving.server.servable import Servable
from ctr_keras.serving.server.served_model import ServedModel
from ctr_keras.serving.status import VersionStatus
from ctr_keras.serving.versions import all_versions

_LOG = logging.getLogger(__name__)


class ModelManager:
    """Loads models, watches their base paths, and switches versions under load.

    Args:
        models: What to serve.
        load: Loads and warms up a version's folder; gently, if it is told that requests to any
            model are answered meanwhile.
        poll_seconds: How often the base paths are looked at; 0: only `poll` does.
        load_threads: How many models load at a time; the versions of one load one by one.

    Example:

    >>> manager = ModelManager(models, load)
    >>> manager.start()
    >>> with manager.lease(ModelName("din")) as (version, servable):
    ...     servable.run("serving_default", inputs)
    """

    def __init__(
        self,
        models: Iterable[ModelConfig],
        load: Callable[[pathlib.Path, bool], Servable],
        poll_seconds: float = 1.0,
        load_threads: int = 1,
    ):
        if poll_seconds < 0:
            raise ValueError(
                f"`poll_seconds` must not be negative. Received: `poll_seconds={poll_seconds}`"
            )
        if load_threads < 1:
            raise ValueError(
                f"`load_threads` must be positive. Received: `load_threads={load_threads}`"
            )
        self._load = load
        self._poll_seconds = poll_seconds
        self._load_threads = load_threads
        self._upkeep = threading.Lock()  # one thread at a time loads and unloads
        self._wake = threading.Event()
        self._stopped = False
        self._leaving: list[ServedModel] = []
        self._models: dict[str, ServedModel] = {}
        self._first = check_names(models)
        self._thread = threading.Thread(target=self._watch, name="model-manager", daemon=True)

    @property
    def names(self) -> list[str]:
        return sorted(self._models)

    def start(self) -> None:
        """Load what is there, until `stop` is called, then watch."""
        with self._upkeep:
            for model in self._serve(self._first):
                _warn_of_none(model.config)
        self._thread.start()

    def poll(self) -> None:
        """Look at the base paths now, and load and unload what that asks for."""
        with self._upkeep:
            self._refresh(self._models.values())
            self._close_idle()

    def reload(self, models: Iterable[ModelConfig]) -> None:
        """Serve these models from now on; returns when they are loaded.

        A version that failed before is tried again.

        Raises:
            ValueError: two have the same name.
            FailedPreconditionError: a model has no version that could be loaded, or a label is
                that of a version that is not available. The others are served all the same; such
                a model is served from where it was before, such a label stays where it was.
        """
        models = check_names(models)
        with self._upkeep:
            asked_for = self._serve(models)
        for model in asked_for:
            _check_available(model)

    @contextlib.contextmanager
    def lease(self, model: ModelName) -> Iterator[tuple[int, Servable]]:
        """A version's number and the version, which stays loaded meanwhile.

        Raises:
            NotFoundError: it is not available.
        """
        served = self._model(model.name)
        with served.lease(model.version, model.label) as leased:
            yield leased

    def statuses(self, model: ModelName) -> list[VersionStatus]:
        """Of all versions of a model or of one.

        Raises:
            NotFoundError: there is none.
        """
        served = self._model(model.name)
        number = served.labelled(model.label) if model.label else model.version
        found = [s for s in served.statuses() if number in (None, s.version)]
        if not found:
            asked = model.name if number is None else f"{model.name} and version {number}"
            raise NotFoundError(f"Could not find any versions of model {asked}")
        return found

    def available(self) -> dict[str, list[int]]:
        """The versions that answer requests, ascending, of each model."""
        return {name: model.available() for name, model in self._models.items()}

    def stop(self, seconds: float = 10.0) -> bool:
        """Take no more requests and unload every model; whether all were done in time."""
        end = time.monotonic() + seconds
        self._stopped = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        if not self._upkeep.acquire(timeout=max(0.0, end - time.monotonic())):
            return False  # A version is being loaded, and nothing can hurry that.
        try:
            return self._unload_all(end)
        finally:
            self._upkeep.release()

    def _unload_all(self, end: float) -> bool:
        for model in self._models.values():
            model.retire_all()
        while not all([model.close_idle() for model in self._everything()]):
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    def _serve(self, configs: Iterable[ModelConfig]) -> list[ServedModel]:
        """Make these the models, and return them; what is loaded from the same folder stays loaded.

        One without a version does not take the place of one that answers requests.
        """
        models = {}
        for config in configs:
            model = self._models.get(config.name)
            if model is None or model.config.base_path != config.base_path:
                model = ServedModel(config, self._load_folder, self._wake.set)
            model.config = config
            models[config.name] = model
        asked_for = list(models.values())
        self._refresh(asked_for, again=True)  # before what they take the place of goes
        for name in models.keys() & self._models.keys():
            if self._models[name].available() and not models[name].available():
                models[name] = self._models[name]
        gone = [model for model in self._models.values() if model not in models.values()]
        self._models = models
        for model in gone:
            model.retire_all()
        self._leaving += gone
        self._close_idle()
        return asked_for

    def _watch(self) -> None:
        while not self._stopped:
            woken = self._wake.wait(self._poll_seconds or None)
            self._wake.clear()
            if self._stopped:
                return
            if woken:
                with self._upkeep:
                    self._close_idle()
            else:
                self.poll()

    def _refresh(self, models: Iterable[ServedModel], again: bool = False) -> None:
        if self._load_threads == 1:
            for model in models:
                self._refresh_one(model, again)
            return
        with concurrent.futures.ThreadPoolExecutor(self._load_threads, "load-model") as threads:
            list(threads.map(lambda model: self._refresh_one(model, again), models))

    def _refresh_one(self, model: ServedModel, again: bool) -> None:
        if self._stopped:
            return
        try:
            model.refresh(again)
        except OSError as error:  # The disk may be back at the next look.
            _LOG.error("Model %s: %s", model.config.name, error)

    def _load_folder(self, folder: pathlib.Path) -> Servable:
        return self._load(folder, any(self.available().values()))

    def _close_idle(self) -> None:
        for model in self._models.values():
            model.close_idle()
        self._leaving = [model for model in self._leaving if not model.close_idle()]

    def _everything(self) -> list[ServedModel]:
        return [*self._models.values(), *self._leaving]

    def _model(self, name: str) -> ServedModel:
        model = self._models.get(name)
        if model is None:
            raise NotFoundError(f"Servable not found for request: Latest({name})")
        return model


def _warn_of_none(config: ModelConfig) -> None:
    """A path that nobody will ever write to is easily a wrong one."""
    if not all_versions(config.base_path):
        what = "holds no version yet" if config.base_path.exists() else "does not exist yet"
        _LOG.warning("Model %s: %s %s", config.name, config.base_path, what)


def _check_available(model: ServedModel) -> None:
    config, available = model.config, model.available()
    if not available:
        statuses = model.statuses()
        reasons = "; ".join(f"version {s.version}: {s.message}" for s in statuses)
        raise FailedPreconditionError(
            f"Model {config.name!r} has no version that could be loaded from "
            f"{config.base_path}{': ' if reasons else ''}{reasons}"
        )
    for label, number in config.labels.items():
        if number not in available:
            raise FailedPreconditionError(
                f"Label {label!r} of model {config.name!r} is that of version {number}, which "
                f"is not available; there are {available}"
            )
