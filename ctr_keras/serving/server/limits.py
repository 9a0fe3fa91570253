"""How much a listener takes on, and for how long."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """Of requests and connections, by default such that none can harm the others.

    Attributes:
        request_bytes: Size of the largest request.
        connections: HTTP connections, and gRPC calls, at a time.
        read_seconds: From a request's first byte to its last, and for the client to take the
            response.
        idle_seconds: How long a connection may wait for its next request.
    """

    request_bytes: int = 32 << 20
    connections: int = 256
    read_seconds: float = 10.0
    idle_seconds: float = 60.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(
                    f"`{field.name}` must be positive. Received: `{field.name}={value!r}`"
                )
