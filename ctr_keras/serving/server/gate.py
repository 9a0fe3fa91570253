"""How many requests run at a time, and how many may wait."""

import contextlib
import threading
from collections.abc import Iterator

from ctr_keras.serving.deadline import Deadline
from ctr_keras.serving.errors import DeadlineExceededError, ResourceExhaustedError


class Gate:
    """Admits `running + waiting` requests at a time and lets `running` of them run.

    A line without an end would make every request late instead of refusing a few.

    Args:
        running: Requests that run at a time.
        waiting: Requests that may wait.
    """

    def __init__(self, running: int, waiting: int):
        if running < 1 or waiting < 0:
            raise ValueError(
                "`running` must be positive and `waiting` not negative. "
                f"Received: `running={running}`, `waiting={waiting}`"
            )
        self.running, self.waiting = running, waiting
        self._places = threading.BoundedSemaphore(running + waiting)
        self._turns = threading.BoundedSemaphore(running)

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Hold a place, before anything is done that costs more than to refuse.

        Raises:
            ResourceExhaustedError: all places are taken.
        """
        if not self._places.acquire(blocking=False):
            raise ResourceExhaustedError(
                f"{self.running} requests run and {self.waiting} wait: try again later"
            )
        try:
            yield
        finally:
            self._places.release()

    @contextlib.contextmanager
    def turn(self, deadline: Deadline) -> Iterator[None]:
        """Wait for a turn to run, and hold it.

        Raises:
            DeadlineExceededError: it did not come in time.
        """
        if not self._turns.acquire(timeout=deadline.remaining()):
            raise DeadlineExceededError("Deadline exceeded while the request waited")
        try:
            yield
        finally:
            self._turns.release()
