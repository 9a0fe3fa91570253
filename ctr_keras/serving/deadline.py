"""The moment after which nobody waits for an answer any more."""

import dataclasses
import time

from ctr_keras.serving.errors import DeadlineExceededError

_YEAR = 365.0 * 24 * 3600


@dataclasses.dataclass(frozen=True)
class Deadline:
    """A moment of the monotonic clock, seconds; `None` is never."""

    at: float | None = None

    @classmethod
    def after(cls, seconds: float | None) -> "Deadline":
        """So many seconds from now; `None`, or years as gRPC says without a deadline, is never."""
        if seconds is None or seconds > _YEAR:
            return cls()
        return cls(time.monotonic() + seconds)

    def remaining(self) -> float | None:
        """Seconds that are left, 0 if none."""
        return None if self.at is None else max(0.0, self.at - time.monotonic())

    def check(self) -> None:
        """Raise `DeadlineExceededError` if it has passed."""
        if self.at is not None and time.monotonic() >= self.at:
            raise DeadlineExceededError("Deadline exceeded before the request was run")
