"""A loaded model behind the queues that keep it from being asked too much at once."""

import os
from collections.abc import Iterable, Mapping

import numpy as np

from ctr_keras.serving.deadline import Deadline
from ctr_keras.serving.loaded_model import LoadedModel
from ctr_keras.serving.server.background import in_background
from ctr_keras.serving.server.batching import Batcher, BatchingConfig
from ctr_keras.serving.server.gate import Gate
from ctr_keras.serving.server.warmup import warm_up
from ctr_keras.serving.signature import Signature
from ctr_keras.serving.versions import SCHEMA_FILE, saved_schema


class Servable:
    """Runs signatures of independent rows in batches, if asked to, and others one by one.

    Args:
        model: The model.
        gate: Gives turns to the runs, of all models together, that are not batched.
        batching: How to batch; `None` batches nothing.
    """

    def __init__(self, model: LoadedModel, gate: Gate, batching: BatchingConfig | None = None):
        self.model = model
        self._gate = gate
        self._batchers: dict[str, Batcher] = {}
        for name, signature in model.signatures.items():
            if batching is not None and signature.rows_are_independent:
                padding = _padding(model, signature) if batching.pad_variable_length_inputs else {}
                self._batchers[name] = Batcher(_runner(model, signature), batching, padding)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike,
        gate: Gate,
        batching: BatchingConfig | None = None,
        gently: bool = False,
    ) -> "Servable":
        """Load a version and warm it up; gently, if others answer meanwhile."""

        def ready() -> LoadedModel:
            model = LoadedModel(folder)
            warm_up(model, gently)
            return model

        return cls(in_background(ready) if gently else ready(), gate, batching)

    def run(
        self,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Iterable[str] = (),
        deadline: Deadline = Deadline(),  # noqa: B008 (it is frozen)
    ) -> dict[str, np.ndarray]:
        """Outputs by name, when it is the request's turn.

        Raises:
            InvalidArgumentError: the signature does not take the inputs.
            ResourceExhaustedError: the batching queue is full.
            DeadlineExceededError: the deadline passed in the queue.
        """
        found, chosen = self.model.accept(signature, inputs, outputs)
        deadline.check()
        batcher = self._batchers.get(signature)
        if batcher is None:
            with self._gate.turn(deadline):
                return self.model.run_checked(found, inputs, chosen, deadline)
        results = batcher.run(inputs, deadline)
        return {name: results[name] for name in chosen}

    def close(self) -> None:
        """Give the memory back; no request may be under way."""
        for batcher in self._batchers.values():
            batcher.close()
        self.model.close()


def _padding(model: LoadedModel, signature: Signature) -> dict[str, bytes | int]:
    """What fills up the signature's sequences, by the schema that an export wrote."""
    if not (model.folder / SCHEMA_FILE).exists():
        return {}
    schema = saved_schema(model.folder)
    found = {f.name: schema.padding(f.name) for f in schema.inputs if f.is_sequence}
    return {
        name: value.encode() if isinstance(value, str) else value
        for name, value in found.items()
        if name in signature.inputs
    }


def _runner(model: LoadedModel, signature: Signature):
    # Each request was checked before it was queued.
    return lambda inputs: model.run_checked(signature, inputs, signature.outputs)
