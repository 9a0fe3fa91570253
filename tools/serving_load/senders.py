"""Ways to send a request and be told when it is answered."""

import concurrent.futures
import json
from collections.abc import Callable

import grpc
import numpy as np
import urllib3
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis.prediction_service_pb2 import DESCRIPTOR

from ctr_keras.serving.tensors import put_arrays

Done = Callable[[str], None]
_PREDICT = f"/{DESCRIPTOR.package}.PredictionService/Predict"


class GrpcSender:
    """Sends messages that were made beforehand, so that the load costs little."""

    def __init__(self, address: str, timeout: float):
        self._channel = grpc.insecure_channel(
            address, [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        )
        self._call = self._channel.unary_unary(_PREDICT)
        self._timeout = timeout

    def prepare(self, model: str, signature: str, inputs: dict[str, np.ndarray]) -> bytes:
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = model, signature
        put_arrays(request.inputs, inputs)
        return request.SerializeToString()

    def send(self, request: bytes, done: Done) -> None:
        future = self._call.future(request, timeout=self._timeout)
        future.add_done_callback(lambda answered: done(answered.code().name))

    def ask(self, request: bytes) -> None:
        """Send a request and wait for the answer."""
        self._call(request, timeout=self._timeout)

    def close(self) -> None:
        self._channel.close()


class RestSender:
    """The same in JSON, by threads."""

    def __init__(self, address: str, timeout: float, threads: int = 64):
        self._url = f"http://{address}/v1/models"
        self._pool = urllib3.PoolManager(maxsize=threads, retries=False)
        self._threads = concurrent.futures.ThreadPoolExecutor(threads)
        self._timeout = timeout

    def prepare(
        self, model: str, signature: str, inputs: dict[str, np.ndarray]
    ) -> tuple[str, bytes]:
        values = {name: _decoded(array) for name, array in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": values}).encode()
        return f"{self._url}/{model}:predict", body

    def send(self, request: tuple[str, bytes], done: Done) -> None:
        self._threads.submit(lambda: done(self._send(request)))

    def ask(self, request: tuple[str, bytes]) -> None:
        """Send a request and wait for the answer."""
        code = self._send(request)
        if code != "OK":
            raise RuntimeError(f"The server refused. Received: `code={code!r}`")

    def close(self) -> None:
        self._threads.shutdown()
        self._pool.clear()

    def _send(self, request: tuple[str, bytes]) -> str:
        url, body = request
        try:
            answer = self._pool.request("POST", url, body=body, timeout=self._timeout)
            return "OK" if answer.status == 200 else f"HTTP {answer.status}"
        except urllib3.exceptions.HTTPError as error:
            return type(error).__name__


SENDERS = {"grpc": GrpcSender, "rest": RestSender}


def _decoded(array: np.ndarray) -> list:
    if array.dtype.kind != "O":
        return array.tolist()
    text = [item.decode() if isinstance(item, bytes) else item for item in array.reshape(-1)]
    return np.array(text, object).reshape(array.shape).tolist()
