"""The best items for a user, by a SavedModel and TensorFlow alone."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from ctr_keras.columns import Ragged, canonical_column, flat
from ctr_keras.data.vector_table import VectorTable
from ctr_keras.schema import Feature, Schema
from ctr_keras.serving.made_by import check_item_vectors
from ctr_keras.serving.versions import require_text, saved_schema, version_folder

_BATCH = 4096


class Ranker:
    """Scores items for one user with an exported SavedModel; the model's code is not needed.

    By the signature `rank`, in which the user's side is computed once. Where a model has none, or
    the items bring a feature of the user's side of their own, each item is a row with the user's
    features repeated.

    Args:
        path: Base path of a model (its highest version is loaded) or a version.
        item_vectors: Of a model of item vectors: where they are looked up, by the ids that the user
            and the items bring; an item without a vector has zeros. By default they are features
            like others.

    Raises:
        ValueError: no SavedModel is there, or the vectors have another width than the model's, or
            another encoder made them than its model card tells.

    Example:

    >>> ranker = Ranker("saved_models/movielens-din")
    >>> ranker.rank({"user_id": 196, "history_item_id": [242, 51]}, items, top=10)
    """

    def __init__(self, path: str | os.PathLike, item_vectors: VectorTable | None = None):
        self.folder = version_folder(path)
        self.schema = saved_schema(self.folder)
        self._item_vectors = item_vectors
        if item_vectors is not None:
            _check_width(self.schema, item_vectors)
            check_item_vectors(self.folder, item_vectors)
        require_text(self.schema)
        self._model = tf.saved_model.load(str(self.folder))
        signatures = self._model.signatures
        self._score = signatures["serving_default"]
        self._rank = signatures["rank"] if "rank" in signatures else None

    def rank(self, user: Mapping[str, Any], items: pd.DataFrame, top: int = 10) -> pd.DataFrame:
        """The items with the highest click probability.

        Args:
            user: Raw values of the user, history and context features.
            items: A row an item: raw values of the item features, and whatever is to be shown.
            top: Number of items.

        Returns:
            The best rows of `items`, best first, with the column `probability`.
        """
        if top < 1:
            raise ValueError(f"`top` must be positive. Received: `top={top}`")
        scores = self.score(user, items)
        best = np.argsort(-scores, kind="stable")[:top]
        return items.iloc[best].assign(probability=scores[best])

    def score(self, user: Mapping[str, Any], items: pd.DataFrame) -> np.ndarray:
        """Click probability of each item, float32 `(len(items),)`."""
        parts = [
            self._score_batch(user, items.iloc[start : start + _BATCH])
            for start in range(0, len(items), _BATCH)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _score_batch(self, user: Mapping[str, Any], items: pd.DataFrame) -> np.ndarray:
        of_user = [f.name for f in self.schema.inputs if not self.schema.is_of_item(f.name)]
        at_once = self._rank is not None and not set(of_user) & set(items)
        columns = {}
        for feature in self.schema.inputs:
            rows = 1 if at_once and feature.name in of_user else len(items)
            columns[feature.name] = self._column(feature, user, items, rows)
        score = self._rank if self._rank is not None and at_once else self._score
        return score(**columns)["probability"].numpy()

    def _column(
        self, feature: Feature, user: Mapping[str, Any], items: pd.DataFrame, rows: int
    ) -> tf.Tensor:
        values = _values(feature.name, user, items, rows)
        if values is not None:
            return self._tensor(feature, values)
        hint = f"give it with the user (`--set {feature.name}=...`)"
        if feature.of is not None:
            ids = _values(feature.of, user, items, rows)
            if ids is not None and self._item_vectors is not None:
                return self._looked_up(feature, self._item_vectors, ids)
            hint = "`item_vectors` must have it; `ctr-keras encode --items` makes them of the data"
        raise ValueError(
            f"Neither the user nor the items have the feature {feature.name!r}; {hint}. "
            f"Received: `user={sorted(user)}`, `items={list(items)}`"
        )

    def _looked_up(self, feature: Feature, table: VectorTable, ids: list) -> tf.Tensor:
        """The vectors `(rows, ...)` of the items whose raw ids these are."""
        source = self.schema[str(feature.of)]
        column = canonical_column(self.schema, source, _rows(source, ids))
        numbers = table.rows_of(
            tf.constant(flat(column), tf.as_dtype(source.dtype)), required=False
        )
        if isinstance(column, Ragged):
            # As far as the history reaches: row 0 of the table is that of no item.
            rows = tf.RaggedTensor.from_row_lengths(numbers, column.lengths)
            numbers = rows.to_tensor(0, shape=(None, feature.length))
        return table.take(numbers)

    def _tensor(self, feature: Feature, values: list) -> tf.Tensor:
        column = canonical_column(self.schema, feature, _rows(feature, values))
        if isinstance(column, Ragged):
            column = column.to_padded(self.schema.padding(feature.name))
        return tf.constant(column, tf.as_dtype(feature.dtype))


def _values(name: str, user: Mapping[str, Any], items: pd.DataFrame, rows: int) -> list | None:
    """A feature of each item, or the user's, so many times; `None` if neither has it."""
    if name in items:
        return list(items[name])
    return [user[name]] * rows if name in user else None


def _rows(feature: Feature, values: list) -> list | Ragged:
    """Values, or lists of values, as columns are made of them."""
    return _lists(feature, values) if feature.is_sequence else values


def _lists(feature: Feature, values: list) -> Ragged:
    for value in values:
        if isinstance(value, str):
            raise ValueError(
                f"Feature {feature.name!r} is a list of values. Received: `value={value!r}`"
            )
    return Ragged.from_lists(values)


def _check_width(schema: Schema, table: VectorTable) -> None:
    for feature in schema.inputs:
        if feature.of is not None and feature.width != table.width:
            raise ValueError(
                f"The model was trained with vectors of items that are {feature.width} wide, "
                f"{feature.name!r}. Received: `item_vectors.width={table.width}`"
            )
