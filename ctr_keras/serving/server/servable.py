"""A loaded model behind the queues that keep it from being asked too much at once."""

import os
from collections.abc import Iterable, Mapping

import numpy as np

from ctr_keras.serving.deadline import Deadline
from ctr_keras.serving.loaded_model import LoadedModel
from ctr_keras.serving.server.batching import Batcher, BatchingConfig
from ctr_keras.serving.server.gate import Gate
from ctr_keras.serving.server.warmup import warm_up
from ctr_keras.serving.signature import Signature


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
                self._batchers[name] = Batcher(_runner(model, signature), batching)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike,
        gate: Gate,
        batching: BatchingConfig | None = None,
        gently: bool = False,
    ) -> "Servable":
        """Load a version and warm it up; gently, if another one answers meanwhile."""
        model = LoadedModel(folder)
        try:
            warm_up(model, gently)
        except BaseException:
            model.close()
            raise
        return cls(model, gate, batching)

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
        found = self.model.signature(signature)
        chosen = found.chosen_outputs(outputs)
        found.check(inputs)
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


def _runner(model: LoadedModel, signature: Signature):
    # Each request was checked before it was queued.
    return lambda inputs: model.run_checked(signature, inputs, signature.outputs)
