"""The weights that belong to tasks: what an inner loop changes."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from ctr_keras.models.cold_start.task_batch import TaskRows
from ctr_keras.models.cold_start.task_vectors import TaskVectors


@dataclasses.dataclass(frozen=True)
class FastWeights:
    """Decision layers of each task, and how far its embeddings have moved.

    Attributes:
        decision: Kernels and biases of the decision layers, `(tasks, ...)`.
        touched: The embeddings that move, or `None`.
        moves: How far each has moved: `(touched, width)`.
    """

    decision: list[tf.Tensor]
    touched: TaskVectors | None = None
    moves: tf.Tensor | None = None

    @property
    def values(self) -> list[tf.Tensor]:
        return self.decision if self.moves is None else [*self.decision, self.moves]

    def stepped(self, gradients: list[tf.Tensor], learning_rate: float) -> FastWeights:
        """After a step of gradient descent; `gradients` are those of `values`."""
        new = [x - learning_rate * g for x, g in zip(self.values, gradients, strict=True)]
        count = len(self.decision)
        return FastWeights(new[:count], self.touched, None if self.touched is None else new[count])

    def moved(self, rows: TaskRows, vectors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The embeddings of rows, as they are for each row's task."""
        if self.touched is None:
            return vectors
        return self.touched.move(vectors, self.moves, self.touched.places(rows))
