"""A secret that requests must bring along."""

import hmac

from ctr_keras.serving.errors import UnauthenticatedError
from ctr_keras.serving.protocol import grpc
from ctr_keras.serving.server.grpc_status import abort

HEALTH_SERVICE = "/grpc.health.v1.Health/"


class Token:
    """Checks `Authorization: Bearer <token>`.

    Args:
        value: The token; `None` lets every request pass.
    """

    def __init__(self, value: str | None):
        if value is not None and not (value and value.isascii() and value.isprintable()):
            raise ValueError("`value` must be printable ASCII characters. Received: another text")
        self._expected = None if value is None else f"Bearer {value}".encode()

    def check(self, authorization: str | None) -> None:
        """Raise `UnauthenticatedError` unless this is the header's right value."""
        if self._expected is None:
            return
        given = (authorization or "").encode(errors="replace")
        if not hmac.compare_digest(given, self._expected):
            raise UnauthenticatedError("The bearer token is missing or wrong")


class TokenInterceptor(grpc.ServerInterceptor):
    """Checks every call but those that ask for the server's health."""

    def __init__(self, token: Token):
        self._token = token

    def intercept_service(self, continuation, handler_call_details):
        if not handler_call_details.method.startswith(HEALTH_SERVICE):
            metadata = dict(handler_call_details.invocation_metadata)
            try:
                self._token.check(metadata.get("authorization"))
            except UnauthenticatedError as error:
                return _refusal(error)
        return continuation(handler_call_details)


def _refusal(error: UnauthenticatedError):
    def refuse(request, context):
        abort(context, error)

    return grpc.unary_unary_rpc_method_handler(refuse)
