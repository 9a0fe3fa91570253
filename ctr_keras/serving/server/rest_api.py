"""TF Serving's REST API: from a request's path and body to a response."""

import dataclasses
import json
import re
import urllib.parse
from typing import Any

from google.protobuf import json_format

from ctr_keras.serving.deadline import Deadline
from ctr_keras.serving.errors import InvalidArgumentError, ServingError, UnimplementedError
from ctr_keras.serving.protocol import metadata_pb2
from ctr_keras.serving.server.answering import Answering
from ctr_keras.serving.server.describe import model_metadata, model_status
from ctr_keras.serving.server.gate import Gate
from ctr_keras.serving.server.json_tensors import (
    format_columns,
    format_rows,
    parse_columns,
    parse_rows,
)
from ctr_keras.serving.server.manager import ModelManager
from ctr_keras.serving.server.metrics import Metrics
from ctr_keras.serving.server.model_name import DEFAULT_SIGNATURE, ModelName

METRICS_PATH = "/monitoring/prometheus/metrics"
_VERSION = r"(?:/versions/(?P<version>\d{1,18})|/labels/(?P<label>[^/:]+))?"
_MODEL = r"/v1/models/(?P<name>[^/:]+)" + _VERSION
_POST = re.compile(_MODEL + r":(?P<method>classify|regress|predict)", re.IGNORECASE | re.ASCII)
_GET = re.compile(_MODEL + r"(?P<method>/metadata)?", re.IGNORECASE | re.ASCII)


@dataclasses.dataclass(frozen=True)
class Response:
    """What goes back over HTTP."""

    status: int
    body: bytes
    content_type: str = "application/json"


class RestApi:
    """Answers requests.

    Args:
        manager: The models.
        gate: Admits so many predictions at a time.
        metrics: Counts requests.
        timeout_seconds: How long a prediction may wait for its turn.
    """

    def __init__(self, manager: ModelManager, gate: Gate, metrics: Metrics, timeout_seconds: float):
        self._manager = manager
        self._gate = gate
        self._metrics = metrics
        self._timeout_seconds = timeout_seconds
        self._answering = Answering(manager, metrics, "rest")

    def respond(self, verb: str, path: str, body: bytes) -> Response:
        """The response to a request; `verb` is `GET` or `POST`."""
        path = path.partition("?")[0]
        if verb == "GET" and path == METRICS_PATH:
            text = self._metrics.text(self._manager)
            return Response(200, text, "text/plain; version=0.0.4; charset=utf-8")
        match = (_POST if verb == "POST" else _GET).fullmatch(path)
        if match is None:
            return error_response(400, f"Malformed request: {verb} {path}")
        model = _model_name(match)
        method = (match["method"] or "status").lower().removeprefix("/")
        try:
            return self._answering.run(
                model.name,
                method.capitalize(),
                lambda: Response(200, _json(self._answer(method, model, body))),
            )
        except ServingError as error:
            return error_response(error.http_status, str(error))

    def _answer(self, method: str, model: ModelName, body: bytes) -> Any:
        if method == "status":
            return _message(model_status(self._manager, model))
        if method == "metadata":
            return self._metadata(model)
        if method == "predict":
            return self._predict(model, body)
        raise UnimplementedError(f"Method {method} is not implemented; use predict")

    def _predict(self, model: ModelName, body: bytes) -> dict:
        deadline = Deadline.after(self._timeout_seconds)
        with self._gate.admitted(), self._manager.lease(model) as (_, servable):
            request = _request(body)
            name = request.get("signature_name") or DEFAULT_SIGNATURE
            signature = servable.model.signature(name)
            if "instances" in request:
                inputs = parse_rows(signature, request["instances"])
                return {"predictions": format_rows(servable.run(name, inputs, (), deadline))}
            inputs = parse_columns(signature, request["inputs"])
            return {"outputs": format_columns(servable.run(name, inputs, (), deadline))}

    def _metadata(self, model: ModelName) -> dict:
        response = model_metadata(self._manager, model)
        signatures = metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        return {
            "model_spec": _message(response.model_spec),
            "metadata": {"signature_def": _message(signatures)},
        }


def error_response(status: int, message: str) -> Response:
    """TF Serving's form of an error."""
    return Response(status, _json({"error": message}))


def _model_name(match: re.Match) -> ModelName:
    label = match["label"]
    return ModelName(
        urllib.parse.unquote(match["name"]),
        int(match["version"]) if match["version"] else None,
        urllib.parse.unquote(label) if label else None,
    )


def _request(body: bytes) -> dict:
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"JSON Parse error: {error}") from None
    if not isinstance(request, dict):
        raise InvalidArgumentError("The request must be an object with 'instances' or 'inputs'")
    unknown = sorted(set(request) - {"instances", "inputs", "signature_name"})
    if unknown:
        raise InvalidArgumentError(f"The request must not have the keys {unknown}")
    if ("instances" in request) == ("inputs" in request):
        raise InvalidArgumentError("The request must have either 'instances' or 'inputs'")
    if not isinstance(request.get("signature_name", ""), str):
        raise InvalidArgumentError("'signature_name' must be a string")
    return request


def _message(proto) -> dict:
    return json_format.MessageToDict(
        proto, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
