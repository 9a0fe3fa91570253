"""How good a model's probabilities are on a data set."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ctr_keras import data, metrics
from ctr_keras.models import CTRModel
from ctr_keras.models.inference import inference_function
from ctr_keras.schema import MISSING_INT, Vocabulary
from ctr_keras.training.checkpoint import UNREADABLE
from ctr_keras.training.made_by import check_vectors_beside


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Metrics of a model on a data set.

    Attributes:
        rows: Rows of the data set.
        click_rate: Clicks a row.
        auc: Area under the ROC curve; NaN if there is one class only.
        log_loss: Mean binary cross entropy, in nats.
        gauc: Impression-weighted mean AUC by group; `None` without a group feature.
        gauc_row_share: Share of the rows whose group has both classes.
        calibration_ratio: Predicted over actual clicks.
        calibration_error: Expected calibration error.
        negative_ratio: Share of the negatives that the data set holds. Below 1 the click rate, log
            loss and calibration are those of its rows, not of all that were shown.
        scenario_auc: Area by the name of the scenario, NaN where its rows are of one class; `None`
            without a scenario feature.
    """

    rows: int
    click_rate: float
    auc: float
    log_loss: float
    gauc: float | None
    gauc_row_share: float | None
    calibration_ratio: float
    calibration_error: float
    negative_ratio: float = 1.0
    scenario_auc: dict[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_text(self) -> str:
        lines = [
            f"rows               {self.rows:>10,}",
            f"click rate         {self.click_rate:>10.4f}",
            f"AUC                {self.auc:>10.4f}",
            f"log loss           {self.log_loss:>10.4f}",
            f"predicted/actual   {self.calibration_ratio:>10.4f}",
            f"calibration error  {self.calibration_error:>10.4f}",
        ]
        if self.gauc is not None:
            share = f"(of {self.gauc_row_share:.1%} of the rows: groups with both classes)"
            lines.insert(3, f"GAUC               {self.gauc:>10.4f}  {share}")
        if self.negative_ratio < 1:
            lines.append(
                f"negatives kept     {self.negative_ratio:>10.4f}  (so click rate, log loss and "
                "predicted/actual are not those of all rows)"
            )
        for scenario, area in (self.scenario_auc or {}).items():
            lines.append(f"  {'AUC in ' + scenario:<17}{area:>10.4f}")
        return "\n".join(lines)


def evaluate(
    model: CTRModel | str | os.PathLike,
    path: str | os.PathLike,
    *,
    batch_size: int = 4096,
    progress: Callable[[int], Any] | None = None,
) -> Evaluation:
    """Evaluate a model on a folder that `ck.data.write` made.

    Args:
        model: A model, or a `.keras` file.
        path: The data. It is read with the schema the model was trained with.
        batch_size: Rows a batch.
        progress: Called with the number of rows after each batch.

    Raises:
        ValueError: the file is no model of this package, the data has other columns, or vectors
            that others made than those that the model learned from.
    """
    model = model_for(model, path)
    rows = data.read(path, model.schema, batch_size)
    found = _evaluation(predictions(model, rows, progress))
    return dataclasses.replace(found, negative_ratio=rows.negative_ratio)


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a model says of all rows of a data set, in their order.

    Attributes:
        labels: `(rows,)`.
        scores: Click probabilities `(rows,)`.
        groups: `(rows,)`, or `None` without a group feature.
        scenarios: Names of the scenarios `(rows,)`, or `None` without a scenario feature.
    """

    labels: np.ndarray
    scores: np.ndarray
    groups: np.ndarray | None
    scenarios: np.ndarray | None


def predictions(
    model: CTRModel, rows: tf.data.Dataset, progress: Callable[[int], Any] | None = None
) -> Predictions:
    """The predictions of a model for `rows`, as `ck.data.read` yields them."""
    predict = inference_function(model)
    groups = [feature.name for feature in model.schema.by_role("group")]
    scenarios = model.schema.by_role("scenario")
    labels, scores, keys, scenes = [], [], [], []
    for x, y in rows:
        labels.append(y.numpy())
        scores.append(predict(x).numpy()[:, 0])
        if groups:
            found = x[groups[0]].numpy()
            keys.append(np.where(model.schema.is_known(groups[0], found), found, MISSING_INT))
        if scenarios:
            scenes.append(x[scenarios[0].name].numpy())
        if progress is not None:
            progress(len(y))
    return Predictions(
        np.concatenate(labels),
        np.concatenate(scores),
        np.concatenate(keys) if groups else None,
        scenario_names(scenarios[0].vocabulary, np.concatenate(scenes)) if scenarios else None,
    )


def gauc_of(
    labels: np.ndarray, scores: np.ndarray, groups: np.ndarray | None
) -> tuple[float | None, float | None]:
    """GAUC and the share of the rows that it is of, `None` without groups.

    Rows without a group are not one group.
    """
    if groups is None:
        return None, None
    found = metrics.gauc(labels, scores, groups, groups != MISSING_INT)
    return float(found.value), (found.num_rows - found.skipped_rows) / len(labels)


def scenario_names(vocabulary: Vocabulary | None, ids: np.ndarray) -> np.ndarray:
    """The names of scenarios, where a vocabulary file tells them, else their numbers."""
    if vocabulary is None or vocabulary.file is None:
        return ids.astype(str)
    values = pathlib.Path(vocabulary.file).read_text("utf-8").removesuffix("\n").split("\n")
    return np.array(["(none)", "(unknown)", *values])[ids]


def model_for(model: CTRModel | str | os.PathLike, *splits: str | os.PathLike) -> CTRModel:
    """The model, or that of a `.keras` file, whose training tells which vectors it may be shown.

    Raises:
        ValueError: the file is no model of this package, or another encoder made the vectors that
            go with a split.
    """
    if isinstance(model, CTRModel):
        return model
    loaded = load_model(model)
    for split in splits:
        check_vectors_beside(model, split)
    return loaded


def load_model(path: str | os.PathLike) -> CTRModel:
    """Load a `.keras` file that holds a model of this package."""
    if os.path.isdir(path):
        raise ValueError(
            f"{path} is a folder; expected a `.keras` file, such as the `best.keras` of a training."
            f" Received: `path={os.fspath(path)!r}`"
        )
    try:
        model = keras.models.load_model(path)
    except UNREADABLE as error:
        raise ValueError(f"{path} could not be loaded as a Keras model: {error}") from error
    if not isinstance(model, CTRModel):
        raise ValueError(f"{path} is no model of ctr_keras. Received: `model={model!r}`")
    return model


def _evaluation(found: Predictions) -> Evaluation:
    labels, scores = found.labels, found.scores
    gauc, gauc_row_share = gauc_of(labels, scores, found.groups)
    areas = None
    if found.scenarios is not None:
        areas = metrics.scenario_auc(labels, scores, found.scenarios).by_scenario
    return Evaluation(
        rows=len(labels),
        click_rate=float(labels.mean()),
        auc=float(metrics.auc(labels, scores)),
        log_loss=float(metrics.log_loss(labels, scores)),
        gauc=gauc,
        gauc_row_share=gauc_row_share,
        calibration_ratio=float(metrics.calibration_ratio(labels, scores)),
        calibration_error=float(metrics.calibration_error(labels, scores)),
        scenario_auc=areas,
    )
