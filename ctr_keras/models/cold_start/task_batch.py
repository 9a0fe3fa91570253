"""Batches of tasks: rows `(tasks, rows, ...)`, some of them padding."""

import dataclasses
from typing import Any

import tensorflow as tf

from ctr_keras.layers.unpadded import index_unpadded, put_unpadded


@dataclasses.dataclass(frozen=True)
class TaskRows:
    """One half of a batch of tasks, its support or its query.

    Attributes:
        features: Without the padding, all tasks one behind the other: `(unpadded, ...)`.
        task: The number of each one's task: int64 `(unpadded,)`.
        label: `(tasks, rows)`.
        weight: `(tasks, rows)`, 0 where padded.
        positions: Where the unpadded rows are among `tasks * rows`.
        slots: The way back, see `index_unpadded`.
    """

    features: dict[str, tf.Tensor]
    task: tf.Tensor
    label: tf.Tensor
    weight: tf.Tensor
    positions: tf.Tensor
    slots: tf.Tensor

    @classmethod
    def of(cls, features: dict, label: Any, weight: Any, names: list[str]) -> "TaskRows":
        """Of features `(tasks, rows, ...)`, of which `names` are kept."""
        missing = [name for name in names if name not in features]
        if missing:
            raise ValueError(
                f"The model needs the feature {missing[0]!r}. "
                f"Received: `features={sorted(features)}`"
            )
        label, weight = tf.cast(label, tf.float32), tf.cast(weight, tf.float32)
        if len(label.shape) != 2 or len(weight.shape) != 2:
            raise ValueError(
                "Label and weight of tasks must have shape (tasks, rows). Received: "
                f"`label.shape={label.shape}`, `weight.shape={weight.shape}`"
            )
        positions, slots = index_unpadded(tf.reshape(weight, [-1]) > 0)
        task = tf.cast(positions // tf.shape(weight)[1], tf.int64)
        kept = {name: _unpadded(features[name], positions) for name in names}
        return cls(kept, task, label, weight, positions, slots)

    def unpadded(self, values: tf.Tensor) -> tf.Tensor:
        """Values `(tasks, rows, ...)` without the padding: `(unpadded, ...)`."""
        return _unpadded(values, self.positions)

    def padded(self, vectors: tf.Tensor) -> tf.Tensor:
        """Vectors `(unpadded, width)` at their places, else zeros: `(tasks, rows, width)`."""
        flat = put_unpadded(vectors, self.positions, self.slots)
        return tf.reshape(flat, tf.concat([tf.shape(self.label), [vectors.shape[1]]], axis=0))

    def mean(self, values: tf.Tensor) -> tf.Tensor:
        """Weighted mean of `(tasks, rows)` by task, 0 for a task without rows: `(tasks,)`."""
        total = tf.reduce_sum(values * self.weight, axis=1)
        return tf.math.divide_no_nan(total, tf.reduce_sum(self.weight, axis=1))

    @property
    def mean_weight(self) -> tf.Tensor:
        """Weights `(tasks, rows)` with which a mean over all places is the mean of task means."""
        of_task = tf.reduce_sum(self.weight, axis=1, keepdims=True)
        tasks = tf.math.count_nonzero(of_task, dtype=tf.float32)
        share = tf.math.divide_no_nan(self.weight, of_task * tasks)
        return share * tf.cast(tf.size(share), tf.float32)


def halves(data: Any, names: list[str]) -> tuple[TaskRows, TaskRows]:
    """Support and query of a batch as `ck.data.read_tasks` yields it."""
    if not isinstance(data, dict) or set(data) != {"support", "query"}:
        found = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise ValueError(
            "The model learns from batches of tasks, as `ck.data.read_tasks` yields them: "
            "{'support': (features, label, weight), 'query': (features, label, weight)}. "
            f"Received: `data={found}`"
        )
    parts = []
    for half in ("support", "query"):
        features, label, weight = data[half]
        parts.append(TaskRows.of(features, label, weight, names))
    return parts[0], parts[1]


def joined_rows(first: TaskRows, second: TaskRows) -> dict[str, tf.Tensor]:
    """The unpadded rows of both, those of `first` in front."""
    return {
        name: tf.concat([x, second.features[name]], axis=0) for name, x in first.features.items()
    }


def _unpadded(values: Any, positions: tf.Tensor) -> tf.Tensor:
    values = tf.convert_to_tensor(values)
    flat = tf.reshape(values, tf.concat([[-1], tf.shape(values)[2:]], axis=0))
    rows = tf.gather(flat, positions)
    return tf.ensure_shape(rows, (None, *values.shape[2:]))
