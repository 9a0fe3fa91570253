"""Training that survives a kill: everything the next epoch depends on, saved after each."""

import dataclasses
import functools
import json
import math
import os
import pathlib
import shutil
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import keras

from ctr_keras import files
from ctr_keras.data import Manifest

# What Keras raises of files that are damaged, or of no model that it knows.
UNREADABLE = (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile)
_STATE_FILE = "state.json"
_BEST_FILE = "best.keras"


class Checkpoint(keras.callbacks.Callback):
    """Saves the model after each epoch, keeps the best, and stops when it gets no better.

    The state names the checkpoint that belongs to it and is replaced last, so a kill at any
    moment leaves a pair that fits. An epoch whose loss is not finite is an error and not saved.

    Args:
        folder: Where `state.json`, the checkpoint and `best.keras` lie.
        key: What must be the same for a training to be continued (JSON).
        patience: Number of epochs without a better value after which training stops.
        monitor: Name of the metric whose highest value is best.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        key: dict[str, Any],
        patience: int | None = None,
        monitor: str = "val_auc",
    ):
        super().__init__()
        self.folder = folder
        self.key = json.loads(json.dumps(key))  # Tuples become lists, as they are read back.
        self.monitor = monitor
        self.patience = patience
        self.history: list[dict[str, float]] = []

    @property
    def best_file(self) -> pathlib.Path:
        return self.folder / _BEST_FILE

    def restore(self) -> keras.Model | None:
        """The model as of the last complete epoch, or `None` where there is none."""
        try:
            state = json.loads((self.folder / _STATE_FILE).read_text())
        except FileNotFoundError:
            return None
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{self.folder / _STATE_FILE} is not valid JSON: {error}; start anew with "
                "`--restart`"
            ) from error
        if state["key"] != self.key:
            changed = sorted(
                name
                for name in {*state["key"], *self.key}
                if state["key"].get(name) != self.key.get(name)
            )
            raise ValueError(
                f"{self.folder} holds a training with another {', '.join(changed)}: choose another "
                "folder, or start anew with `--restart`. Received: "
                f"`{changed[0]}={self.key.get(changed[0])!r}`, "
                f"there {state['key'].get(changed[0])!r}"
            )
        self.history = state["history"]
        file = self.folder / state["checkpoint"]
        try:
            model = keras.models.load_model(file)
        except UNREADABLE as error:
            raise ValueError(
                f"{file} could not be loaded ({error}); start anew with `--restart`"
            ) from error
        for variable, value in zip(_random_states(model), state["random_states"], strict=True):
            variable.assign(value)
        return model

    def discard(self) -> None:
        """Forget an earlier training; whatever else lies in the folder stays."""
        for path in (self.folder / _STATE_FILE, *self.folder.glob("checkpoint-*.keras")):
            path.unlink(missing_ok=True)
        self.best_file.unlink(missing_ok=True)

    @property
    def best_epoch(self) -> int:
        """Index of the best epoch; where the metric is undefined, of the lowest loss."""
        return max(range(len(self.history)), key=self._goodness)

    def _goodness(self, epoch: int) -> tuple[float, float]:
        logs = self.history[epoch]
        value = logs[self.monitor]
        return (-math.inf if math.isnan(value) else value), -logs["val_loss"]

    @property
    def is_over(self) -> bool:
        """Whether `patience` is used up."""
        if self.patience is None or not self.history:
            return False
        return len(self.history) - 1 - self.best_epoch >= self.patience

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        found = {name: float(value) for name, value in (logs or {}).items()}
        _check_finite(epoch, found)
        self.history.append(found)
        name = f"checkpoint-{epoch}.keras"
        write_whole(self.folder / name, self.model.save)
        if self.best_epoch == len(self.history) - 1:
            write_whole(self.best_file, functools.partial(shutil.copyfile, self.folder / name))
        state = {
            "key": self.key,
            "checkpoint": name,
            "history": self.history,
            "random_states": [v.numpy().tolist() for v in _random_states(self.model)],
        }
        files.write_atomic(self.folder / _STATE_FILE, json.dumps(state, indent=1).encode())
        for old in self.folder.glob("checkpoint-*.keras"):
            if old.name != name:
                old.unlink()
        if self.is_over:
            self.model.stop_training = True


def _check_finite(epoch: int, logs: dict[str, float]) -> None:
    """Refuse an epoch after which the weights are of no use, before anything is saved."""
    name = diverged_loss(logs)
    if name is not None:
        raise ValueError(
            f"Epoch {epoch + 1}: the {name} is {logs[name]}, so nothing of it is kept; lower "
            f"`learning_rate`, and start anew with `--restart`. Received: `{name}={logs[name]}`"
        )


def diverged_loss(logs: Mapping[str, float]) -> str | None:
    """Name of a loss of an epoch that is not finite, if there is one."""
    names = ("loss", "val_loss")
    return next((name for name in names if not math.isfinite(logs.get(name, 0.0))), None)


def write_whole(path: pathlib.Path, write: Callable[[pathlib.Path], Any]) -> None:
    """Have a `.keras` file written under a temporary name, and rename it."""
    temporary = path.with_name(f".{path.stem}.tmp.keras")
    write(temporary)
    files.replace(temporary, path)


def best_metrics(model: str | os.PathLike) -> dict[str, float] | None:
    """Loss and metrics of a training's best epoch, by its `best.keras`; `None` for other files."""
    state = pathlib.Path(model).parent / _STATE_FILE
    if pathlib.Path(model).name != _BEST_FILE or not state.is_file():
        return None
    checkpoint = Checkpoint(state.parent, {})
    checkpoint.history = json.loads(state.read_text())["history"]
    return checkpoint.history[checkpoint.best_epoch]


def text_encoder_of(model: str | os.PathLike) -> dict[str, str] | None:
    """What made the vectors of texts that a model learned from, by its training's state beside it;
    `None` where there is no such state, or no such text."""
    return _key_beside(model).get("encoder")


def item_vectors_of(model: str | os.PathLike) -> dict[str, str] | None:
    """As `text_encoder_of`, of the vectors of items."""
    return _key_beside(model).get("item_vectors")


def _key_beside(model: str | os.PathLike) -> dict[str, Any]:
    state = pathlib.Path(model).parent / _STATE_FILE
    return json.loads(state.read_text())["key"] if state.is_file() else {}


def _random_states(model: keras.Model) -> list:
    """The states of dropout and the like, which Keras leaves out of its files."""
    return [v for v in model.variables if v.path.endswith("seed_generator_state")]


def key_of(config: Any) -> dict[str, Any]:
    """What must be the same for a training to be continued: its settings, and its rows.

    Args:
        config: A dataclass, of whose fields `data`, `out`, `epochs` and `patience` may change.
    """
    key = dataclasses.asdict(config)
    for name in ("data", "out", "epochs", "patience"):
        del key[name]
    splits = ("train", "valid")
    return {**key, "rows": {name: Manifest.load(f"{config.data}/{name}").digest for name in splits}}
