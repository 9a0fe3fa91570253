"""How good a model's probabilities are for users and items that training hardly knows."""

import dataclasses
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ctr_keras import data, metrics
from ctr_keras.models import CTRModel
from ctr_keras.training.adapted_scores import adapted_scores
from ctr_keras.training.evaluate import gauc_of, model_for, predictions


@dataclasses.dataclass(frozen=True)
class Slice:
    """Metrics of some rows of a data set.

    Attributes:
        rows: Their number.
        click_rate: Clicks a row; `None` if there is no row.
        auc: Area under the ROC curve; `None` if there is one class only, or no row.
        gauc: Impression-weighted mean AUC by group; `None` without a group feature, or if no group
            has both classes.
        gauc_row_share: Share of the rows whose group has both classes; `None` where `gauc` is.
    """

    rows: int
    click_rate: float | None
    auc: float | None
    gauc: float | None
    gauc_row_share: float | None


@dataclasses.dataclass(frozen=True)
class ColdStartEvaluation:
    """Metrics of a model on all rows and on those of cold users and items.

    Attributes:
        few: From how many training rows on a user or an item is no longer cold.
        slices: By name: `all`, and those of `ck.data.cold_slices`.
    """

    few: int
    slices: dict[str, Slice]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_text(self) -> str:
        lines = [f"{'':<16}{'rows':>12}{'clicks':>10}{'AUC':>10}{'GAUC':>10}"]
        for name, found in self.slices.items():
            values = (found.click_rate, found.auc, found.gauc)
            cells = "".join(f"{'' if x is None else f'{x:.4f}':>10}" for x in values)
            lines.append(f"{name:<16}{found.rows:>12,}{cells}".rstrip())
        return "\n".join([*lines, f"few-shot: fewer than {self.few} training rows"])


def evaluate_cold_start(
    model: CTRModel | str | os.PathLike,
    train: str | os.PathLike,
    path: str | os.PathLike,
    *,
    few: int = 100,
    user: str | None = None,
    item: str | None = None,
    adapt: str | None = None,
    support: int = 16,
    batch_size: int = 4096,
    progress: Callable[[int], Any] | None = None,
) -> ColdStartEvaluation:
    """Evaluate a model on the zero- and few-shot rows of a split, by user and by item.

    Args:
        model: A model, or a `.keras` file.
        train: The rows it was trained on, a folder that `ck.data.write` made: they tell who is
            cold.
        path: The rows to evaluate on. Both are read with the schema of the model.
        few: From how many training rows on a user or an item is no longer cold.
        user: Column that tells users apart, see `ck.data.cold_slices`.
        item: Column that tells items apart.
        adapt: For MAML and MeLU: the feature whose training rows the model first adapts to, such
            as the user's id. By default the shared weights predict.
        support: The number of those rows, the last ones. Both splits are then held in memory.
        batch_size: Rows a batch.
        progress: Called with the number of rows after each batch.

    Raises:
        ValueError: `few` is not positive, the model is no model of this package, it cannot adapt,
            the data has other columns, or vectors that others made than those that the model
            learned from.
    """
    model = model_for(model, path, *([] if adapt is None else [train]))
    slices = data.cold_slices(train, path, few, user=user, item=item)
    rows = data.read(path, model.schema, batch_size)
    found = predictions(model, rows, progress)
    labels, scores, groups = found.labels, found.scores, found.groups
    if adapt is not None:
        scores = adapted_scores(model, train, path, adapt, scores, support=support)
    every = np.ones(len(labels), bool)
    by_name = {
        name: _slice(labels[kept], scores[kept], None if groups is None else groups[kept])
        for name, kept in {"all": every, **slices}.items()
    }
    return ColdStartEvaluation(few, by_name)


def _slice(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray | None) -> Slice:
    if not len(labels):
        return Slice(0, None, None, None, None)
    gauc, gauc_row_share = gauc_of(labels, scores, groups)
    if gauc is not None and math.isnan(gauc):
        gauc = gauc_row_share = None
    auc = float(metrics.auc(labels, scores))
    return Slice(
        rows=len(labels),
        click_rate=float(labels.mean()),
        auc=None if math.isnan(auc) else auc,
        gauc=gauc,
        gauc_row_share=gauc_row_share,
    )
