"""The progress of a training, on standard error."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressBar(keras.callbacks.Callback):
    """One bar an epoch, with the loss as it goes and the metrics when it is done.

    Args:
        steps: Batches an epoch, or `None` if not known; the first epoch tells.
    """

    def __init__(self, steps: int | None):
        super().__init__()
        self.steps = steps
        self._seen = 0
        self._console = Console(stderr=True)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,  # A log would get an empty line of each bar.
        )
        title = f"epoch {epoch + 1}/{self.params['epochs']}"
        self._task = self._progress.add_task(title, total=self.steps, loss="")
        self._progress.start()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._seen = batch + 1
        loss = f"loss {logs['loss']:.4f}" if logs and "loss" in logs else ""
        self._progress.update(self._task, completed=batch + 1, loss=loss)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._progress.stop()
        self.steps = self._seen
        values = "  ".join(f"{name} {value:.4f}" for name, value in sorted((logs or {}).items()))
        line = f"epoch {epoch + 1}/{self.params['epochs']}  {values}"
        self._console.print(line, highlight=False, soft_wrap=True)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if hasattr(self, "_progress"):
            self._progress.stop()


@contextlib.contextmanager
def progress_bar(rows: tf.data.Dataset, shown: bool) -> Iterator[list[ProgressBar]]:
    """Callbacks of a training: a bar, or none.

    Keras tells callbacks nothing of an error or of Ctrl-C, and a bar that goes on hides the cursor.

    Args:
        rows: Batches of an epoch.
        shown: Whether there is a bar.
    """
    bars = [ProgressBar(batches_of(rows))] if shown else []
    try:
        yield bars
    finally:
        for bar in bars:
            bar.on_train_end()


def batches_of(rows: tf.data.Dataset) -> int | None:
    """Number of batches, `None` where only reading tells."""
    cardinality = int(rows.cardinality())
    return None if cardinality == tf.data.UNKNOWN_CARDINALITY else cardinality
