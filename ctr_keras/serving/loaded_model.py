"""One version of a model in memory."""

import os
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from ctr_keras.serving.c_session import CSession
from ctr_keras.serving.deadline import Deadline
from ctr_keras.serving.errors import (
    InvalidArgumentError,
    ServingError,
    UnavailableError,
    error_of_code,
)
from ctr_keras.serving.signature import Signature, callable_protos
from ctr_keras.serving.versions import SCHEMA_FILE, require_text, saved_schema


class LoadedModel:
    """A SavedModel, ready to run.

    It runs in a session, as in TF Serving: against `tf.saved_model.load` it loads in two thirds of
    the time and without Python's lock, never traces again, and gives its memory back when it is
    closed.

    Args:
        folder: A version's folder.

    Raises:
        tf.errors.OpError, OSError, ValueError: it cannot be loaded.
        ImportError: it takes texts, and the extra `text` is not installed.

    Example:

    >>> model = LoadedModel("saved_models/din/1")
    >>> model.run("serving_default", {"user_id": np.array([196]), ...})
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = pathlib.Path(folder)
        if (self.folder / SCHEMA_FILE).exists():  # `export` wrote it
            require_text(saved_schema(self.folder))
        session = CSession(self.folder)
        meta_graph = session.meta_graph()
        _check_variables(self.folder, meta_graph)
        self._session: CSession | None = session
        self.signature_protos = callable_protos(meta_graph.signature_def)
        self.signatures = {
            name: Signature.from_proto(name, proto) for name, proto in self.signature_protos.items()
        }

    def signature(self, name: str) -> Signature:
        """A signature by name."""
        found = self.signatures.get(name)
        if found is None:
            raise InvalidArgumentError(
                f"Serving signature name: {name!r} not found in signature def; there are "
                f"{', '.join(self.signatures)}"
            )
        return found

    def run(
        self,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Iterable[str] = (),
        deadline: Deadline = Deadline(),  # noqa: B008 (it is frozen)
    ) -> dict[str, np.ndarray]:
        """Outputs by name.

        Args:
            signature: Name of a signature.
            inputs: Every input, of the signature's data types and shapes.
            outputs: Names of the outputs to compute. Defaults to all.
            deadline: When to give up.

        Raises:
            InvalidArgumentError: it does not take these inputs.
            DeadlineExceededError: it took too long.
            ServingError: it failed on them.
        """
        found, chosen = self.accept(signature, inputs, outputs)
        return self.run_checked(found, inputs, chosen, deadline)

    def accept(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Iterable[str] = ()
    ) -> tuple[Signature, list[str]]:
        """What a request asks for: the signature, and the outputs to compute.

        Raises:
            InvalidArgumentError: the model does not take it.
        """
        found = self.signature(signature)
        chosen = found.chosen_outputs(outputs)
        found.check(inputs)
        return found, chosen

    def run_checked(
        self,
        signature: Signature,
        inputs: Mapping[str, np.ndarray],
        outputs: Iterable[str],
        deadline: Deadline = Deadline(),  # noqa: B008 (it is frozen)
    ) -> dict[str, np.ndarray]:
        """The same of inputs that the signature is known to take.

        Args:
            signature: One of this model's.
            inputs: What `signature.check` let pass.
            outputs: Names of outputs, at least one.
            deadline: When to give up.
        """
        chosen = list(outputs)
        fetches = [signature.outputs[name].tensor for name in chosen]
        feeds = {signature.inputs[name].tensor: array for name, array in inputs.items()}
        session = self._session  # It stays until this run has ended, even if `close` is called.
        if session is None:
            raise UnavailableError("The model was unloaded")
        try:
            return dict(zip(chosen, session.run(fetches, feeds, deadline.remaining()), strict=True))
        except tf.errors.OpError as error:
            raise _serving_error(error) from None

    def close(self) -> None:
        """Give the memory back, when what is under way has ended."""
        self._session = None


def _check_variables(folder: pathlib.Path, meta_graph: meta_graph_pb2.MetaGraphDef) -> None:
    """Raise `NotFoundError` if there are none to restore, which TensorFlow would only log."""
    index = folder / "variables" / "variables.index"
    if any(node.op == "VarHandleOp" for node in meta_graph.graph_def.node) and not index.exists():
        raise tf.errors.NotFoundError(None, None, f"The variables are missing: {index}")


def _serving_error(error: tf.errors.OpError) -> ServingError:
    # What went wrong; further lines say where in the graph.
    message = next(iter((error.message or "").splitlines()), "")
    for name, code in tf.errors.__dict__.items():
        if name.isupper() and code == error.error_code:
            return error_of_code(name, message)
    return ServingError(message)
