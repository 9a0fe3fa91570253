"""How a client connects, waits and tries again."""

import dataclasses
import pathlib
import random


@dataclasses.dataclass(frozen=True)
class ClientOptions:
    """Options of a client.

    Attributes:
        timeout_seconds: Until an answer must be there, all attempts together; more than a year is
            for ever.
        retries: Further attempts when the server is unavailable.
        first_wait_seconds: Before the first further attempt; each next one waits twice as long.
        most_wait_seconds: The longest wait.
        token: Bearer token that the server asks for.
        tls: Whether the connection is encrypted.
        tls_ca: PEM file with the certificates to trust. Defaults to those of the system.
    """

    timeout_seconds: float = 10.0
    retries: int = 4
    first_wait_seconds: float = 0.05
    most_wait_seconds: float = 2.0
    token: str | None = dataclasses.field(default=None, repr=False)
    tls: bool = False
    tls_ca: pathlib.Path | None = None

    def __post_init__(self):
        for name in ("timeout_seconds", "first_wait_seconds", "most_wait_seconds"):
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"`{name}` must be positive. Received: `{name}={value!r}`")
        if self.retries < 0:
            raise ValueError(f"`retries` must not be negative. Received: `retries={self.retries}`")
        if self.tls_ca is not None and not self.tls:
            raise ValueError(f"`tls_ca` needs `tls=True`. Received: `tls_ca={self.tls_ca}`")

    def wait_seconds(self, attempt: int) -> float:
        """Before attempt 1, 2, ...: between half and all of it, so that clients spread out."""
        wait = min(self.most_wait_seconds, self.first_wait_seconds * 2 ** (attempt - 1))
        return wait * random.uniform(0.5, 1.0)
