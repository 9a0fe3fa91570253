"""Probabilities of a model that first adapts to what training knows of each user or item."""

import os
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ctr_keras import data, metrics
from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.data.tasks import HeldRows, RowGroups, check_key, places_of
from ctr_keras.models import CTRModel, MetaEmb
from ctr_keras.schema import Schema
from ctr_keras.training.evaluate import predictions

_READ_ROWS = 65_536
_SCORED_ROWS = 4096
_TASKS, _ROWS = 64, 32


def adapted_scores(
    model: CTRModel,
    train: str | os.PathLike,
    path: str | os.PathLike,
    key: str,
    scores: np.ndarray,
    *,
    support: int = 16,
    tasks: int = _TASKS,
    rows: int = _ROWS,
) -> np.ndarray:
    """Scores of the rows of a split, each by the model as adapted to the training rows of its key.

    Args:
        model: One with `adapt`, such as MAML.
        train: The rows to adapt to.
        path: The rows to score.
        key: The feature that names a task, as for `ck.data.read_tasks`; of `MetaEmb` the id whose
            embeddings it generates.
        scores: Those of the model without adapting, `(rows,)`: they stay for rows whose key is
            missing or out of vocabulary, or has no training row.
        support: Training rows of a key to adapt to, the last ones.
        tasks: Tasks at a time.
        rows: Rows of a task that are scored at a time.

    Returns:
        float32 `(rows,)`, in the order in which `ck.data.read` yields them.
    """
    return _Scorer(model, train, path, key, support, tasks, rows).scores(scores)


class _Scorer:
    """The rows of both splits and the traced model, for as often as they are wanted."""

    def __init__(
        self,
        model: CTRModel,
        train: str | os.PathLike,
        path: str | os.PathLike,
        key: str,
        support: int,
        tasks: int,
        rows: int,
    ):
        if not hasattr(model, "adapt"):
            raise ValueError(f"The model must have `adapt`, as MAML has. Received: `{model.name}`")
        check_positive_integer("support", support)
        check_key(model.schema, key)
        check_tasks(model, key)
        known = HeldRows.of(_as_learned_from(model, train))
        asked = HeldRows.of(data.read(path, model.schema, _READ_ROWS))
        past, groups = (held.groups(model.schema, key) for held in (known, asked))
        where = np.searchsorted(past.key, groups.key)
        where = np.minimum(where, len(past.key) - 1) if len(past.key) else where
        is_known = past.key[where] == groups.key if len(past.key) else np.zeros(len(where), bool)
        self.support, self.tasks, self.rows = support, tasks, rows
        self.known, self.asked, self.past, self.groups = known, asked, past, groups
        self.where = where
        self.pieces = _pieces(groups, np.flatnonzero(is_known), rows)
        self.probability = tf.function(
            lambda support, x: model.adapt(support).probability(x), reduce_retracing=True
        )

    def scores(self, scores: np.ndarray) -> np.ndarray:
        """As `adapted_scores`."""
        past = self.past
        scores = scores.copy()
        for first in range(0, len(self.pieces), self.tasks):
            group, start, stop = self.pieces[first : first + self.tasks].T
            theirs = self.where[group]
            last = np.minimum(past.count[theirs], self.support)
            end = past.start[theirs] + past.count[theirs]
            to_adapt = places_of(past.order, end - last, last, self.support)
            to_score = places_of(self.groups.order, start, stop - start, self.rows)
            rows = self.asked.take(to_score)[0]
            found = self.probability(self.known.take(to_adapt), rows).numpy()
            scores[to_score[to_score >= 0]] = found[to_score >= 0]
        return scores


class AdaptedAUC(keras.callbacks.Callback):
    """Makes the validation AUC of each epoch that of the adapted model: it is what was trained.

    Args:
        folder: Prepared folder with `train` and `valid`.
        key: The feature that names a task.
        support: Training rows of a key to adapt to.
    """

    def __init__(self, folder: str | os.PathLike, key: str, support: int):
        super().__init__()
        self.train, self.valid = (pathlib.Path(folder) / name for name in ("train", "valid"))
        self.key = key
        self.support = support
        self._scorer: _Scorer | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is None:
            return
        found = predictions(self.model, data.read(self.valid, self.model.schema, _SCORED_ROWS))
        if self._scorer is None:
            self._scorer = _Scorer(
                self.model, self.train, self.valid, self.key, self.support, _TASKS, _ROWS
            )
        logs["val_auc"] = float(metrics.auc(found.labels, self._scorer.scores(found.scores)))


def check_tasks(model: CTRModel, key: str) -> None:
    """Refuse tasks by another feature than the one whose embeddings a model generates."""
    if isinstance(model, MetaEmb):
        check_generated(model.schema, model.key, key)


def check_generated(schema: Schema, role: str, key: str) -> None:
    """As `check_tasks`, of a `MetaEmb` that generates embeddings for the id of a role."""
    if key != schema.key(role):
        raise ValueError(
            f"The tasks of a MetaEmb are those of the id that it generates embeddings for, "
            f"{schema.key(role)!r}. Received: `{key!r}`"
        )


def _as_learned_from(model: CTRModel, train: str | os.PathLike) -> tf.data.Dataset:
    """Training rows, with as many of the negatives as the model learned from."""
    ratio = model.negative_ratio / data.Manifest.load(train).negative_ratio
    return data.read(train, model.schema, _READ_ROWS, negative_ratio=min(ratio, 1.0))


def _pieces(groups: RowGroups, chosen: np.ndarray, rows: int) -> np.ndarray:
    """Group, start and stop of pieces of at most `rows` rows: `(pieces, 3)`."""
    count = -(-groups.count[chosen] // rows)
    group = np.repeat(chosen, count)
    number = np.arange(len(group)) - np.repeat(np.cumsum(count) - count, count)
    start = groups.start[group] + number * rows
    stop = np.minimum(start + rows, groups.start[group] + groups.count[group])
    return np.stack([group, start, stop], axis=1)
