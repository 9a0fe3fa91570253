"""Requests over REST."""

import base64
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format

from ctr_keras.extras import require
from ctr_keras.serving.client.model_metadata import ModelMetadata
from ctr_keras.serving.client.options import ClientOptions
from ctr_keras.serving.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    UnavailableError,
    error_of_http_status,
)
from ctr_keras.serving.protocol import metadata_pb2, status_pb2
from ctr_keras.serving.signature import Signature, TensorSpec

urllib3: Any = require("urllib3", "serving", "A client of models")


class RestTransport:
    """One attempt at a request, that ends after some seconds if given; the client tries again.

    Args:
        address: `host:port`.
        options: Encryption and token.
    """

    def __init__(self, address: str, options: ClientOptions):
        scheme = "https" if options.tls else "http"
        self._url = f"{scheme}://{address}/v1/models"
        trust = {} if options.tls_ca is None else {"ca_certs": str(options.tls_ca)}
        self._pool = urllib3.PoolManager(maxsize=64, retries=False, **trust)
        self._headers = {"Content-Type": "application/json"}
        if options.token:
            self._headers["Authorization"] = f"Bearer {options.token}"

    def predict(
        self, spec, signature: Signature, inputs: Mapping[str, np.ndarray], seconds: float | None
    ) -> dict[str, np.ndarray]:
        values = {name: _values(array) for name, array in inputs.items()}
        body = json.dumps({"signature_name": signature.name, "inputs": values}).encode()
        answer = self._call("POST", f"{_path(spec)}:predict", seconds, body)["outputs"]
        if len(signature.outputs) == 1 and not _is_named(answer):
            answer = {next(iter(signature.outputs)): answer}
        if not _is_named(answer) or set(answer) != set(signature.outputs):
            raise InvalidArgumentError(f"The outputs are not {sorted(signature.outputs)} any more")
        return {name: _array(value, signature.outputs[name]) for name, value in answer.items()}

    def metadata(self, spec, seconds: float | None) -> ModelMetadata:
        answer = self._call("GET", f"{_path(spec)}/metadata", seconds)
        found = json_format.ParseDict(
            answer["metadata"]["signature_def"], metadata_pb2.SignatureDefMap()
        )
        return ModelMetadata.of(spec.name, int(answer["model_spec"]["version"]), found)

    def status(self, spec, seconds: float | None):
        answer = self._call("GET", _path(spec), seconds)
        return json_format.ParseDict(answer, status_pb2.GetModelStatusResponse())

    def close(self) -> None:
        self._pool.clear()

    def _call(self, verb: str, path: str, seconds: float | None, body: bytes | None = None) -> dict:
        timeout = urllib3.Timeout(total=seconds)
        try:
            response = self._pool.request(
                verb, self._url + path, body=body, headers=self._headers, timeout=timeout
            )
        except urllib3.exceptions.NewConnectionError as error:  # called a timeout, which it is not
            raise UnavailableError(str(error)) from None
        except urllib3.exceptions.TimeoutError as error:
            raise DeadlineExceededError(str(error)) from None
        except urllib3.exceptions.HTTPError as error:
            raise UnavailableError(str(error)) from None
        try:
            answer = json.loads(response.data)
        except ValueError:
            answer = {"error": response.data[:200].decode(errors="replace")}
        if not isinstance(answer, dict) or response.status != 200 or "error" in answer:
            message = answer["error"] if "error" in answer else str(answer)[:200]
            raise error_of_http_status(response.status, message)
        return answer


def _path(spec) -> str:
    path = f"/{urllib.parse.quote(spec.name, safe='')}"
    kind = spec.WhichOneof("version_choice")
    if kind == "version":
        return f"{path}/versions/{spec.version.value}"
    if kind == "version_label":
        return f"{path}/labels/{urllib.parse.quote(spec.version_label, safe='')}"
    return path


def _values(array: np.ndarray) -> Any:
    if array.dtype.kind not in "OSU":
        return array.tolist()
    flat = np.empty(array.size, object)
    flat[:] = [_string(item) for item in array.reshape(-1)]
    return flat.reshape(array.shape).tolist()


def _string(item: str | bytes) -> Any:
    return item if isinstance(item, str) else {"b64": base64.b64encode(item).decode()}


def _is_named(answer: Any) -> bool:
    """Whether it is an object of tensors, and not a string in base 64."""
    return isinstance(answer, dict) and set(answer) != {"b64"}


def _array(value: Any, spec: TensorSpec) -> np.ndarray:
    if spec.dtype != tf.string:
        return np.array(value, spec.dtype.as_numpy_dtype)
    nested = np.array(value, object)
    flat = np.empty(nested.size, object)
    flat[:] = [
        base64.b64decode(item["b64"]) if isinstance(item, dict) else item.encode()
        for item in nested.reshape(-1)
    ]
    return flat.reshape(nested.shape)
