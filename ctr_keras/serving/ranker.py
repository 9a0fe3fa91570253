"""The best items for a user, by a SavedModel and TensorFlow alone."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from ctr_keras.columns import Ragged, canonical_column
from ctr_keras.schema import Feature
from ctr_keras.serving.versions import require_text, saved_schema, version_folder

_BATCH = 4096


class Ranker:
    """Scores items for one user with an exported SavedModel; the model's code is not needed.

    By the signature `rank`, in which the user's side is computed once. Where a model has none, or
    the items bring a feature of the user's side of their own, each item is a row with the user's
    features repeated.

    Args:
        path: Base path of a model (its highest version is loaded) or a version.

    Example:

    >>> ranker = Ranker("saved_models/movielens-din")
    >>> ranker.rank({"user_id": 196, "history_item_id": [242, 51]}, items, top=10)
    """

    def __init__(self, path: str | os.PathLike):
        self.folder = version_folder(path)
        self.schema = saved_schema(self.folder)
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
            if feature.name in items:
                values = list(items[feature.name])
            elif feature.name in user:
                rows = 1 if at_once and feature.name in of_user else len(items)
                values = [user[feature.name]] * rows
            else:
                raise ValueError(
                    f"Neither the user nor the items have the feature {feature.name!r}; give it "
                    f"with the user (`--set {feature.name}=...`). "
                    f"Received: `user={sorted(user)}`, `items={list(items)}`"
                )
            columns[feature.name] = self._tensor(feature, values)
        score = self._rank if self._rank is not None and at_once else self._score
        return score(**columns)["probability"].numpy()

    def _tensor(self, feature: Feature, values: list) -> tf.Tensor:
        rows = _lists(feature, values) if feature.is_sequence else values
        column = canonical_column(self.schema, feature, rows)
        if isinstance(column, Ragged):
            column = column.to_padded(self.schema.padding(feature.name))
        return tf.constant(column, tf.as_dtype(feature.dtype))


def _lists(feature: Feature, values: list) -> Ragged:
    for value in values:
        if isinstance(value, str):
            raise ValueError(
                f"Feature {feature.name!r} is a list of values. Received: `value={value!r}`"
            )
    return Ragged.from_lists(values)
