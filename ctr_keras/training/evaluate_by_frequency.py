"""How good a model's probabilities are for rare and for frequent items."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ctr_keras import data, metrics
from ctr_keras.models import CTRModel
from ctr_keras.training.evaluate import model_for, predictions


@dataclasses.dataclass(frozen=True)
class FrequencyEvaluation:
    """Metrics by group of items, from the rarest group to the most frequent.

    Attributes:
        rows: Rows of each group.
        clicks: Clicks of each group.
        auc: Area under the ROC curve; NaN where a group has not both classes.
        log_loss: Mean binary cross entropy, in nats; NaN where a group has no row.
    """

    rows: list[int]
    clicks: list[int]
    auc: list[float]
    log_loss: list[float]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_text(self) -> str:
        lines = [f"{'items':<14}{'rows':>12}{'clicks':>10}{'AUC':>10}{'log loss':>10}"]
        names = ["rarest", *map(str, range(2, len(self.rows))), "most frequent"][: len(self.rows)]
        for name, *cells in zip(
            names, self.rows, self.clicks, self.auc, self.log_loss, strict=True
        ):
            rows, clicks, auc, loss = cells
            lines.append(f"{name:<14}{rows:>12,}{clicks:>10,}{auc:>10.4f}{loss:>10.4f}")
        return "\n".join([*lines, "groups of equally many items, by their training rows"])


def evaluate_by_frequency(
    model: CTRModel | str | os.PathLike,
    train: str | os.PathLike,
    path: str | os.PathLike,
    *,
    groups: int = 8,
    item: str | None = None,
    batch_size: int = 4096,
    progress: Callable[[int], Any] | None = None,
) -> FrequencyEvaluation:
    """Evaluate a model on the rows of rare and of frequent items apart.

    Args:
        model: A model, or a `.keras` file.
        train: The rows it was trained on: they tell how frequent an item is.
        path: The rows to evaluate on.
        groups: Number of groups, see `ck.data.frequency_groups`.
        item: Column that tells items apart; by default the item's id.
        batch_size: Rows a batch.
        progress: Called with the number of rows after each batch.

    Raises:
        ValueError: there are fewer items than groups, the model is no model of this package,
            the data has other columns, or vectors that others made than those that the model
            learned from.

    Reference:
        [Sheng et al., 2024: Enhancing Taobao Display Advertising with Multimodal
        Representations](https://arxiv.org/abs/2407.19467), figure 6 b
    """
    model = model_for(model, path)
    group = data.frequency_groups(train, path, groups, item=item)
    found = predictions(model, data.read(path, model.schema, batch_size), progress)
    parts = [
        (found.labels[group == number], found.scores[group == number]) for number in range(groups)
    ]
    return FrequencyEvaluation(
        rows=[len(labels) for labels, _ in parts],
        clicks=[int(labels.sum()) for labels, _ in parts],
        auc=[_or_nan(metrics.auc, *part) for part in parts],
        log_loss=[_or_nan(metrics.log_loss, *part) for part in parts],
    )


def _or_nan(metric: Callable[..., float], labels: np.ndarray, scores: np.ndarray) -> float:
    return float(metric(labels, scores)) if len(labels) else float("nan")
