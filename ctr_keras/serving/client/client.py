"""A client of TF Serving's protocols."""

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from ctr_keras.serving.client.grpc_transport import GrpcTransport
from ctr_keras.serving.client.model_metadata import ModelMetadata
from ctr_keras.serving.client.options import ClientOptions
from ctr_keras.serving.client.rest_transport import RestTransport
from ctr_keras.serving.deadline import Deadline
from ctr_keras.serving.errors import InvalidArgumentError, UnavailableError
from ctr_keras.serving.protocol import grpc, model_pb2, status_pb2
from ctr_keras.serving.signature import Signature
from ctr_keras.serving.status import State, VersionStatus

_TRANSPORTS: dict[str, Callable] = {"grpc": GrpcTransport, "rest": RestTransport}
_Answer = TypeVar("_Answer")


class Client:
    """Asks a model server: the embedded one or TensorFlow's own.

    It may be used by several threads. A request is tried again, with growing pauses, only when the
    server is unavailable.

    Args:
        address: `host:port`.
        protocol: `"grpc"` or `"rest"`.
        options: Timeout, retries, encryption and token.

    Example:

    >>> client = Client("127.0.0.1:8500")
    >>> client.predict("din", {"user_id": [196], "item_id": [242], ...})["probability"]
    >>> client.rank("din", user={"user_id": 196, ...}, items={"item_id": [242, 302], ...})
    """

    def __init__(self, address: str, protocol: str = "grpc", options: ClientOptions | None = None):
        if protocol not in _TRANSPORTS:
            raise ValueError(
                f"`protocol` must be one of {', '.join(_TRANSPORTS)}. "
                f"Received: `protocol={protocol!r}`"
            )
        self.address, self.protocol = address, protocol
        self.options = options or ClientOptions()
        self._transport = _TRANSPORTS[protocol](address, self.options)
        self._signatures: dict[tuple, Signature] = {}

    def predict(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        signature: str = "serving_default",
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Run a signature.

        Args:
            model: Name of the model.
            inputs: Arrays or lists, by name; they are given the signature's data types.
            signature: Name of the signature.
            version: Version to ask. Defaults to the highest that is available.
            label: Label of the version to ask, in place of `version`.
            timeout: Seconds until the answer must be there. Defaults to that of the options.

        Returns:
            The outputs, by name.

        Raises:
            ValueError: an input cannot be given the signature's data type.
            ServingError: there is no answer; its class says why.
        """
        deadline = self._deadline(timeout)
        spec = _spec(model, version, label)
        known = self._signature(spec, signature, deadline)
        try:
            return self._run(spec, known, inputs, deadline)
        except (InvalidArgumentError, ValueError):
            # A new version may take something else than the one we know of.
            fresh = self._signature(spec, signature, deadline, refresh=True)
            if fresh == known:
                raise
        return self._run(spec, fresh, inputs, deadline)

    def rank(
        self,
        model: str,
        user: Mapping[str, Any],
        items: Mapping[str, Any],
        *,
        signature: str = "rank",
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> np.ndarray:
        """Click probability of each item for one user, `(items,)`.

        Args:
            model: Name of the model.
            user: The user's features, history and context: one value each, or a list if the
                feature is one.
            items: Features of the items: as many values each as there are items.
            signature: Name of a signature that takes the user's features once.
            version: Version to ask. Defaults to the highest that is available.
            label: Label of the version to ask, in place of `version`.
            timeout: Seconds until the answer must be there. Defaults to that of the options.

        Raises:
            ValueError: a feature belongs to both, or has not the signature's data type.
            ServingError: there is no answer; its class says why.
        """
        both = sorted(set(user) & set(items))
        if both:
            raise ValueError(
                f"A feature is the user's or the items'. Received: {both} in `user` and `items`"
            )
        outputs = self.predict(
            model,
            {**{name: [value] for name, value in user.items()}, **items},
            signature=signature,
            version=version,
            label=label,
            timeout=timeout,
        )
        return outputs["probability"]

    def metadata(
        self,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> ModelMetadata:
        """The signatures of a version, by default of the highest that is available."""
        spec = _spec(model, version, label)
        return self._metadata(spec, self._deadline(timeout))

    def status(
        self, model: str, *, version: int | None = None, timeout: float | None = None
    ) -> list[VersionStatus]:
        """Where a version, by default each, is in its life."""
        spec = _spec(model, version, None)
        response = self._try(
            lambda seconds: self._transport.status(spec, seconds), self._deadline(timeout)
        )
        return [_version_status(proto) for proto in response.model_version_status]

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline.after(self.options.timeout_seconds if timeout is None else timeout)

    def _run(self, spec, signature: Signature, inputs: Mapping[str, Any], deadline: Deadline):
        arrays = signature.arrays(inputs)
        return self._try(
            lambda seconds: self._transport.predict(spec, signature, arrays, seconds), deadline
        )

    def _signature(self, spec, name: str, deadline: Deadline, refresh: bool = False) -> Signature:
        key = (spec.name, spec.version.value, spec.version_label, name)
        if refresh or key not in self._signatures:
            signatures = self._metadata(spec, deadline).signatures
            if name not in signatures:
                raise InvalidArgumentError(
                    f"Model {spec.name!r} has the signatures {', '.join(signatures)}. "
                    f"Received: `signature={name!r}`"
                )
            self._signatures[key] = signatures[name]
        return self._signatures[key]

    def _metadata(self, spec, deadline: Deadline) -> ModelMetadata:
        return self._try(lambda seconds: self._transport.metadata(spec, seconds), deadline)

    def _try(self, attempt: Callable[[float | None], _Answer], deadline: Deadline) -> _Answer:
        """The answer of an attempt, or of a later one as long as the server is unavailable."""
        for number in itertools.count(1):
            deadline.check()
            try:
                return attempt(deadline.remaining())
            except UnavailableError:
                wait, left = self.options.wait_seconds(number), deadline.remaining()
                if number > self.options.retries or (left is not None and wait >= left):
                    raise
            time.sleep(wait)
        raise AssertionError("unreachable")


def _spec(model: str, version: int | None, label: str | None):
    if version is not None and label is not None:
        raise ValueError(
            "`version` and `label` exclude each other. "
            f"Received: `version={version}`, `label={label!r}`"
        )
    spec = model_pb2.ModelSpec(name=model)
    if version is not None:
        spec.version.value = version
    if label is not None:
        spec.version_label = label
    return spec


def _version_status(proto) -> VersionStatus:
    state = status_pb2.ModelVersionStatus.State.Name(proto.state)
    codes = {code.value[0]: code.name for code in grpc.StatusCode}
    code = codes.get(proto.status.error_code, "UNKNOWN")
    return VersionStatus(proto.version, State(state), code, proto.status.error_message)
