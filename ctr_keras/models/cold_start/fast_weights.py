"""What an inner loop changes, for each task."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from ctr_keras.models.cold_start.decision_layers import TaskSteps
from ctr_keras.models.cold_start.task_batch import TaskRows
from ctr_keras.models.cold_start.task_vectors import TaskVectors


@dataclasses.dataclass(frozen=True)
class FastWeights:
    """How far the decision layers and embeddings of each task have moved.

    Attributes:
        steps: Of each decision layer; empty before the first step.
        touched: The embeddings that move, or `None`.
        moves: How far each has moved: `(touched, width)`.
    """

    steps: list[TaskSteps]
    touched: TaskVectors | None = None
    moves: tf.Tensor | None = None

    def stepped(self, steps: list[TaskSteps], moves: tf.Tensor | None) -> FastWeights:
        """After one more step of the layers, and with these moves of the embeddings."""
        if self.steps:
            pairs = zip(self.steps, steps, strict=True)
            steps = [before.followed_by(last) for before, last in pairs]
        return FastWeights(steps, self.touched, moves)

    def moved(self, rows: TaskRows, vectors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The embeddings of rows, as they are for each row's task."""
        if self.touched is None:
            return vectors
        return self.touched.move(vectors, self.moves, self.touched.places(rows))
