"""Rows of several requests in one run."""

import collections
import concurrent.futures
import dataclasses
import os
import threading
import time
import types
from collections.abc import Callable, Mapping

import numpy as np

from ctr_keras.serving.deadline import Deadline
from ctr_keras.serving.errors import (
    DeadlineExceededError,
    ResourceExhaustedError,
    ServingError,
    UnavailableError,
)

Arrays = Mapping[str, np.ndarray]
_SHORT = 127  # Values of a sequence that may be padded to so many.


@dataclasses.dataclass(frozen=True)
class BatchingConfig:
    """How rows are gathered; the names are those of TF Serving's batching parameters.

    Attributes:
        max_batch_size: Rows of a batch; a request with more is a batch of its own.
        batch_timeout_micros: How long a request waits for others, microseconds.
        max_enqueued_batches: Batches that may wait; a request beyond them is refused.
        num_batch_threads: Batches that run at a time.
        pad_variable_length_inputs: Whether requests with sequences of different length share a
            batch. The shorter are filled up with what pads them by the model's schema, on which no
            answer depends; inputs that no schema tells of are left alone.
    """

    max_batch_size: int = 128
    batch_timeout_micros: int = 1000
    max_enqueued_batches: int = 16
    num_batch_threads: int = os.cpu_count() or 1
    pad_variable_length_inputs: bool = False

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if field.type is bool:
                continue
            least = 0 if field.name == "batch_timeout_micros" else 1
            value = getattr(self, field.name)
            if not isinstance(value, int) or value < least:
                raise ValueError(
                    f"`{field.name}` must be an integer of at least {least}. "
                    f"Received: `{field.name}={value!r}`"
                )


@dataclasses.dataclass
class _Task:
    inputs: Arrays
    rows: int
    deadline: Deadline
    enqueued: float = dataclasses.field(default_factory=time.monotonic)
    answer: concurrent.futures.Future = dataclasses.field(default_factory=concurrent.futures.Future)


@dataclasses.dataclass
class _Group:
    """Tasks that make a batch together, oldest first."""

    tasks: collections.deque[_Task] = dataclasses.field(default_factory=collections.deque)
    rows: int = 0

    def put(self, task: _Task) -> None:
        self.tasks.append(task)
        self.rows += task.rows

    def take(self, most_rows: int) -> list[_Task]:
        """The oldest tasks of at most so many rows, at least one."""
        taken: list[_Task] = []
        rows = 0
        while self.tasks and (not taken or rows + self.tasks[0].rows <= most_rows):
            taken.append(self.tasks.popleft())
            rows += taken[-1].rows
        self.rows -= rows
        return taken


class Batcher:
    """Gathers requests whose inputs agree in all but the number of rows.

    Args:
        run: Gives a batch's outputs, row by row those of its inputs.
        config: Sizes and times.
        padding: The inputs `(rows, length)` that need not agree in their length, each with the
            value that fills the shorter ones up. A wrong value is a wrong answer.
    """

    def __init__(
        self,
        run: Callable[[Arrays], dict[str, np.ndarray]],
        config: BatchingConfig,
        padding: Mapping[str, bytes | int] = types.MappingProxyType({}),
    ):
        self._run = run
        self._config = config
        self._padding = padding
        self._most_rows = config.max_enqueued_batches * config.max_batch_size
        self._groups: dict[tuple, _Group] = {}  # by the shape of a row
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"batch-{number}", daemon=True)
            for number in range(config.num_batch_threads)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, inputs: Arrays, deadline: Deadline) -> dict[str, np.ndarray]:
        """Outputs of one request, which ran with others.

        Raises:
            ResourceExhaustedError: the queue is full.
            DeadlineExceededError: it passed while the request waited.
        """
        task = _Task(inputs, len(next(iter(inputs.values()))), deadline)
        self._enqueue(task)
        try:
            return task.answer.result(deadline.remaining())
        except concurrent.futures.TimeoutError:
            task.answer.cancel()
            raise DeadlineExceededError("Deadline exceeded in the batching queue") from None

    def close(self) -> None:
        """Run what waits, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _enqueue(self, task: _Task) -> None:
        shape = tuple(
            (name, _length_group(a.shape[1]) if name in self._padding else a.shape[1:])
            for name, a in sorted(task.inputs.items())
        )
        with self._changed:
            if self._closed:
                raise UnavailableError("The model is being unloaded")
            waiting = sum(group.rows for group in self._groups.values())
            if self._groups and waiting + task.rows > self._most_rows:
                raise ResourceExhaustedError(
                    f"{waiting} rows wait in the batching queue: try again later"
                )
            self._groups.setdefault(shape, _Group()).put(task)
            self._changed.notify()

    def _work(self) -> None:
        while batch := self._next_batch():
            tasks = [task for task in batch if _is_wanted(task)]
            if tasks:
                self._answer(tasks)

    def _next_batch(self) -> list[_Task]:
        """Wait for a batch that is full, or whose oldest task has waited long enough."""
        with self._changed:
            while True:
                if not self._groups:
                    if self._closed:
                        return []
                    self._changed.wait()
                    continue
                shape, patience = self._next_shape()
                if patience <= 0 or self._closed:
                    group = self._groups[shape]
                    batch = group.take(self._config.max_batch_size)
                    if not group.tasks:
                        del self._groups[shape]
                    return batch
                self._changed.wait(patience)

    def _next_shape(self) -> tuple[tuple, float]:
        """The group to run next, and the seconds until then.

        Of those that are full or have waited long enough, the one that has waited longest: groups
        that are always full must not keep others waiting for ever.
        """
        oldest = min(self._groups, key=self._since)
        patience = self._since(oldest) + self._config.batch_timeout_micros / 1e6 - time.monotonic()
        full = [s for s, group in self._groups.items() if group.rows >= self._config.max_batch_size]
        if patience <= 0 or not full:
            return oldest, patience
        return min(full, key=self._since), 0.0

    def _since(self, shape: tuple) -> float:
        """When the oldest task of a group came."""
        return self._groups[shape].tasks[0].enqueued

    def _answer(self, tasks: list[_Task]) -> None:
        try:
            for task, outputs in zip(tasks, self._outputs(tasks), strict=True):
                task.answer.set_result(outputs)
        except ServingError as error:
            if len(tasks) == 1:
                tasks[0].answer.set_exception(error)
                return
            for task in tasks:  # One bad request must not fail the others.
                self._answer([task])
        except Exception as error:  # A thread that ends here would leave its callers waiting.
            for task in tasks:
                if not task.answer.done():
                    task.answer.set_exception(error)

    def _outputs(self, tasks: list[_Task]) -> list[dict[str, np.ndarray]]:
        if len(tasks) == 1:
            return [self._run(tasks[0].inputs)]
        merged = {
            name: _joined([task.inputs[name] for task in tasks], self._padding.get(name))
            for name in tasks[0].inputs
        }
        ends = np.cumsum([task.rows for task in tasks])
        outputs = self._run(merged)
        for name, array in outputs.items():
            if len(array) != ends[-1]:
                raise ServingError(f"Output {name!r} has {len(array)} rows, not {ends[-1]}")
        return [
            {name: array[end - task.rows : end] for name, array in outputs.items()}
            for task, end in zip(tasks, ends, strict=True)
        ]


def _length_group(length: int) -> int:
    """Short sequences are one group, longer ones that of their power of two.

    So one very long sequence makes no others as long as itself.
    """
    return max(length, _SHORT).bit_length()


def _joined(arrays: list[np.ndarray], padding: bytes | int | None) -> np.ndarray:
    """The rows of all, filled up on the right if their lengths may differ."""
    if padding is None or len({a.shape[1:] for a in arrays}) == 1:
        return np.concatenate(arrays)
    longest = max(a.shape[1] for a in arrays)
    joined = np.full((sum(map(len, arrays)), longest), padding, np.result_type(*arrays))
    row = 0
    for a in arrays:
        joined[row : row + len(a), : a.shape[1]] = a
        row += len(a)
    return joined


def _is_wanted(task: _Task) -> bool:
    """Claim a task, unless nobody waits for it any more."""
    if not task.answer.set_running_or_notify_cancel():
        return False
    try:
        task.deadline.check()
    except DeadlineExceededError as error:
        task.answer.set_exception(error)
        return False
    return True
