"""Why a request was not answered; the server raises what the client raises again."""


class ServingError(Exception):
    """A request was not answered.

    Attributes:
        code: gRPC's name of the reason, such as `"INVALID_ARGUMENT"`.
        http_status: Status of the HTTP response.
    """

    code = "INTERNAL"
    http_status = 500


class InvalidArgumentError(ServingError):
    """The request is wrong and will be wrong again."""

    code = "INVALID_ARGUMENT"
    http_status = 400


class NotFoundError(ServingError):
    """There is no such model or version."""

    code = "NOT_FOUND"
    http_status = 404


class FailedPreconditionError(ServingError):
    """What was asked for cannot be done as things are."""

    code = "FAILED_PRECONDITION"
    http_status = 412


class UnauthenticatedError(ServingError):
    """The token is missing or wrong."""

    code = "UNAUTHENTICATED"
    http_status = 401


class DeadlineExceededError(ServingError):
    """The answer would have come too late."""

    code = "DEADLINE_EXCEEDED"
    http_status = 504


class ResourceExhaustedError(ServingError):
    """The server has as much to do as it will take on, or the request is too large."""

    code = "RESOURCE_EXHAUSTED"
    http_status = 429


class UnavailableError(ServingError):
    """The server is not there, or not for the moment."""

    code = "UNAVAILABLE"
    http_status = 503


class UnimplementedError(ServingError):
    """The server does not know the method."""

    code = "UNIMPLEMENTED"
    http_status = 501


_KINDS = (
    InvalidArgumentError,
    NotFoundError,
    FailedPreconditionError,
    UnauthenticatedError,
    DeadlineExceededError,
    ResourceExhaustedError,
    UnavailableError,
    UnimplementedError,
)
_BY_CODE = {kind.code: kind for kind in _KINDS}
_BY_HTTP_STATUS = {kind.http_status: kind for kind in _KINDS} | {413: ResourceExhaustedError}


def error_of_code(code: str, message: str) -> ServingError:
    """The error of a gRPC status; one without a class of its own keeps its code."""
    error = _BY_CODE.get(code, ServingError)(message)
    error.code = code
    return error


def error_of_http_status(status: int, message: str) -> ServingError:
    """The error of an HTTP response."""
    error = _BY_HTTP_STATUS.get(status, ServingError)(message)
    error.http_status = status
    return error
