"""How far an inner loop moves the id embeddings of each task: only those that it touches."""

import dataclasses

import tensorflow as tf

from ctr_keras.custom_gradient import custom_gradient
from ctr_keras.models.cold_start.task_batch import TaskRows
from ctr_keras.optimizers.sparse_rows import sum_by_place
from ctr_keras.schema import Schema

_NOBODY = -1


@dataclasses.dataclass(frozen=True)
class TaskVectors:
    """The moves of the embeddings that tasks share with no one, one for each (task, id).

    Ids that occur several times in a task, or in several features of one table, have one move, to
    which each occurrence adds its gradient. Everything costs what the batch holds, whatever the
    size of the table.

    Attributes:
        keys: Distinct integers, one for each (task, feature, id), the first one standing for none:
            int64 `(1 + touched,)`.
        owners: Feature name -> the number of the feature whose embeddings it uses.
        size: More than any id.
    """

    keys: tf.Tensor
    owners: dict[str, int]
    size: int

    @classmethod
    def touched_by(cls, schema: Schema, rows: TaskRows) -> "TaskVectors":
        """Those of the ids in the rows."""
        ids = [f for f in schema.inputs if f.is_embedded]
        names = sorted({f.shares or f.name for f in ids})
        owners = {f.name: names.index(f.shares or f.name) for f in ids}
        vocabularies = [schema.vocabulary(name) for name in names]
        size = max((v.size for v in vocabularies if v is not None), default=0)
        none = cls(tf.constant([_NOBODY], tf.int64), owners, size)
        if not owners:
            return none
        return cls(tf.unique(tf.concat([none.keys, none._keys_of(rows)], axis=0)).y, owners, size)

    def zeros(self, width: int) -> tf.Tensor:
        """No move yet: `(touched, width)`."""
        return tf.zeros((tf.shape(self.keys)[0] - 1, width))

    def places(self, rows: TaskRows) -> tf.Tensor:
        """1 + the move of each id in the rows, 0 where it has none; all features in one."""
        if not self.owners:
            return tf.zeros((0,), tf.int32)
        # Behind keys that are all distinct, a key's number is its place among them, or a new one.
        count = tf.shape(self.keys)[0]
        place = tf.unique(tf.concat([self.keys, self._keys_of(rows)], axis=0)).idx[count:]
        return tf.where(place < count, place, 0)

    def move(
        self, vectors: dict[str, tf.Tensor], moves: tf.Tensor, places: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Embeddings `(unpadded, ..., width)` of each feature, moved."""
        if not self.owners:
            return vectors
        width = moves.shape[1]
        parts = {name: vectors[name] for name in self.owners}
        sizes = [tf.size(part) // width for part in parts.values()]
        steps = tf.split(_spread(moves, places), sizes)
        moved = {
            name: part + tf.reshape(step, tf.shape(part))
            for (name, part), step in zip(parts.items(), steps, strict=True)
        }
        return {**vectors, **moved}

    def _keys_of(self, rows: TaskRows) -> tf.Tensor:
        keys = []
        for name, owner in self.owners.items():
            ids = tf.cast(rows.features[name], tf.int64)
            task = rows.task if len(ids.shape) == 1 else rows.task[:, tf.newaxis]
            start = (task * (max(self.owners.values()) + 1) + owner) * self.size
            keys.append(
                tf.reshape(tf.where(ids == 0, tf.cast(_NOBODY, tf.int64), start + ids), [-1])
            )
        return tf.concat(keys, axis=0)


# The two are each other's gradient. That of `tf.gather` is an unsorted sum, several times slower.


@custom_gradient
def _spread(moves, places):
    """`moves[places - 1]`, zeros where the place is 0."""
    count = tf.shape(moves)[0]
    padded = tf.pad(moves, [[1, 0], [0, 0]])
    return tf.gather(padded, places), lambda upstream: (_collect(upstream, places, count), None)


@custom_gradient
def _collect(vectors, places, count):
    """Sums of the vectors of each place from 1 to `count`."""
    total = sum_by_place(vectors, tf.cast(places, tf.int64), tf.cast(count, tf.int64) + 1)[1:]
    return total, lambda upstream: (_spread(upstream, places), None, None)
