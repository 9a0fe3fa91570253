"""Where a version of a model is in its life."""

import dataclasses
import enum


class State(enum.Enum):
    """The states of a version; the names are TF Serving's."""

    UNKNOWN = "UNKNOWN"
    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """What a server tells of a version.

    Attributes:
        version: Its number.
        state: Where it is in its life.
        code: gRPC's name of what went wrong, `"OK"` if nothing did.
        message: What went wrong.
    """

    version: int
    state: State
    code: str = "OK"
    message: str = ""
