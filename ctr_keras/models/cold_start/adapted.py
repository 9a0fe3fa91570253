"""A model as it is for some tasks, after learning from their support rows."""

import dataclasses
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from ctr_keras.models.cold_start.task_batch import TaskRows


class Adaptable(Protocol):
    """What can be adapted: it scores the rows of each task by that task's weights."""

    input: dict[str, Any]

    def adapted_probability(self, rows: TaskRows, fast: Any) -> tf.Tensor:
        """Click probabilities `(tasks, rows)`."""


@dataclasses.dataclass(frozen=True)
class Adapted:
    """A model adapted to some tasks; its `adapt` makes it.

    Attributes:
        model: The model, with the shared weights.
        fast: What the tasks have changed.
        is_single: Whether it is one task, without an axis of its own.
    """

    model: Adaptable
    fast: Any
    is_single: bool

    def predict(self, features: dict[str, Any]) -> np.ndarray:
        """Click probabilities.

        Args:
            features: `(tasks, rows, ...)`, of the tasks that were adapted to in their order, or
                `(rows, ...)` for one.

        Returns:
            float32 `(tasks, rows)`, or `(rows,)` for one task.
        """
        return self.probability(features).numpy()

    def probability(self, features: dict[str, Any]) -> tf.Tensor:
        """As `predict`, in a graph too."""
        tensors = {name: tf.convert_to_tensor(value) for name, value in features.items()}
        if self.is_single:
            tensors = _as_one_task(tensors)
        shape = tf.shape(next(iter(tensors.values())))[:2]
        rows = TaskRows.of(tensors, tf.zeros(shape), tf.ones(shape), list(self.model.input))
        probability = self.model.adapted_probability(rows, self.fast)
        return probability[0] if self.is_single else probability


def support_rows(support: tuple, names: list[str]) -> tuple[TaskRows, bool]:
    """The rows to adapt to, as `adapt` takes them, and whether they are those of one task."""
    features, label, weight = keras.utils.unpack_x_y_sample_weight(support)
    tensors = {name: tf.convert_to_tensor(value) for name, value in features.items()}
    label = tf.convert_to_tensor(label)
    weight = tf.ones_like(label) if weight is None else tf.convert_to_tensor(weight)
    is_single = len(label.shape) == 1
    if is_single:
        tensors = _as_one_task(tensors)
        label, weight = label[tf.newaxis], weight[tf.newaxis]
    return TaskRows.of(tensors, label, weight, names), is_single


def _as_one_task(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {name: value[tf.newaxis] for name, value in features.items()}
