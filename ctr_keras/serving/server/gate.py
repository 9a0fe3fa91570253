"""How many requests run at a time, and how many may wait."""

import contextlib
import threading
from collections.abc import Iterator

from ctr_keras.serving.deadline import Deadline
from ctr_keras.serving.errors import DeadlineExceededError, ResourceExhaustedError


class Gate:
    """Lets `running` requests in at a time and `waiting` more stand in line; refuses the others.

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
        self._slots = threading.BoundedSemaphore(running)

    @contextlib.contextmanager
    def enter(self, deadline: Deadline) -> Iterator[None]:
        """Wait for a slot and hold it.

        Raises:
            ResourceExhaustedError: the line is full.
            DeadlineExceededError: no slot came free in time.
        """
        if not self._places.acquire(blocking=False):
            raise ResourceExhaustedError(
                f"{self.running} requests run and {self.waiting} wait: try again later"
            )
        try:
            if not self._slots.acquire(timeout=deadline.remaining()):
                raise DeadlineExceededError("Deadline exceeded while the request waited")
            try:
                yield
            finally:
                self._slots.release()
        finally:
            self._places.release()
