"""How far an inner loop moves the id embeddings of each task: only those that it touches."""

import dataclasses

import tensorflow as tf

from ctr_keras.models.cold_start.task_batch import TaskRows
from ctr_keras.schema import Schema

_NOBODY = -1


@dataclasses.dataclass(frozen=True)
class TaskVectors:
    """The moves of the embeddings that tasks share with no one, one for each (task, id).

    Ids that occur several times in a task, or in several features of one table, have one move, to
    which each occurrence adds its gradient. Everything costs what the batch holds, whatever the
    size of the table.

    Attributes:
        keys: Integer for each (task, feature, id), ascending, the first one standing for none:
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
        ids = [f for f in schema.inputs if f.kind in ("id", "text")]
        names = sorted({f.shares or f.name for f in ids})
        owners = {f.name: names.index(f.shares or f.name) for f in ids}
        size = max((v.size for f in ids if (v := f.vocabulary) is not None), default=0)
        none = cls(tf.constant([_NOBODY], tf.int64), owners, size)
        if not owners:
            return none
        keys = tf.unique(tf.sort(none._keys_of(rows))).y
        keys = tf.concat([none.keys, keys[keys > _NOBODY]], axis=0)
        return cls(keys, owners, size)

    def zeros(self, width: int) -> tf.Tensor:
        """No move yet: `(touched, width)`."""
        return tf.zeros((tf.shape(self.keys)[0] - 1, width))

    def places(self, rows: TaskRows) -> tf.Tensor:
        """1 + the move of each id in the rows, 0 where it has none; all features in one."""
        if not self.owners:
            return tf.zeros((0,), tf.int32)
        wanted = self._keys_of(rows)
        place = tf.searchsorted(self.keys, wanted)
        place = tf.minimum(place, tf.shape(self.keys)[0] - 1)
        return tf.where(tf.gather(self.keys, place) == wanted, place, 0)

    def move(
        self, vectors: dict[str, tf.Tensor], moves: tf.Tensor, places: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Embeddings `(unpadded, ..., width)` of each feature, moved."""
        width = moves.shape[1]
        moves = tf.concat([tf.zeros((1, width)), moves], axis=0)
        parts = {name: vectors[name] for name in self.owners}
        sizes = [tf.size(part) // width for part in parts.values()]
        steps = tf.split(tf.gather(moves, places), sizes) if parts else []
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
