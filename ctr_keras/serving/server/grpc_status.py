"""How a gRPC call ends that is not answered."""

from ctr_keras.serving.errors import ServingError
from ctr_keras.serving.protocol import grpc

# Of a message, as TF Serving sends it: it travels among the headers, for which clients have no more
# than a few kilobytes.
_MOST_BYTES = 1024


def abort(context: grpc.ServicerContext, error: ServingError) -> None:
    """End a call with the status of an error, its message cut if it is long."""
    context.abort(grpc.StatusCode[error.code], _cut(str(error)))


def _cut(message: str) -> str:
    start = message.encode(errors="replace")[:_MOST_BYTES].decode(errors="ignore")
    return message if len(message) == len(start) else f"{start}...TRUNCATED"
