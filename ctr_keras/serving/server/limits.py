"""How much a listener takes on, and for how long."""

import dataclasses
import os

# Predictions, by default.
RUNNING = os.cpu_count() or 1
WAITING = 128


def connections_for(running: int, waiting: int) -> int:
    """Connections that are enough for so many predictions.

    Others are idle, ask for something else, or are to be told that there are too many.
    """
    return max(256, 2 * (running + waiting))


@dataclasses.dataclass(frozen=True)
class Limits:
    """Of requests and connections, by default such that none can harm the others.

    Attributes:
        request_bytes: Size of the largest request, and of all tensors that a gRPC request, in
            which one value may stand for any number of equal ones, asks to make.
        connections: HTTP connections, and gRPC calls, at a time. Three quarters of the calls may
            come by one connection; further ones wait at the client.
        read_seconds: From an HTTP request's first byte to its last, and for the client to take the
            response; from the start of a gRPC call to the last byte of its request.
        idle_seconds: How long an HTTP connection may wait for its next request.
    """

    request_bytes: int = 32 << 20
    connections: int = connections_for(RUNNING, WAITING)
    read_seconds: float = 10.0
    idle_seconds: float = 60.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(
                    f"`{field.name}` must be positive. Received: `{field.name}={value!r}`"
                )
