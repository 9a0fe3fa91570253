"""Metrics of click-through-rate ranking: streaming, for `compile`, and exact, for arrays."""

from ctr_keras.metrics.calibration import (
    CalibrationError,
    CalibrationRatio,
    calibration_error,
    calibration_ratio,
)
from ctr_keras.metrics.group_auc import GAUC, GAUCResult, gauc
from ctr_keras.metrics.logloss import LogLoss, log_loss
from ctr_keras.metrics.relative_improvement import relative_improvement
from ctr_keras.metrics.roc_auc import AUC, auc
from ctr_keras.metrics.scenario_auc import ScenarioAUC, ScenarioAUCResult, scenario_auc
from ctr_keras.metrics.top_n_accuracy import top_n_accuracy

__all__ = [
    "AUC",
    "GAUC",
    "CalibrationError",
    "CalibrationRatio",
    "GAUCResult",
    "LogLoss",
    "ScenarioAUC",
    "ScenarioAUCResult",
    "auc",
    "calibration_error",
    "calibration_ratio",
    "gauc",
    "log_loss",
    "relative_improvement",
    "scenario_auc",
    "top_n_accuracy",
]
