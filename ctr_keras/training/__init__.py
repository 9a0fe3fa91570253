"""The training and evaluation jobs: a prepared folder in, a model and its metrics out."""

from ctr_keras.training.build import build_model, takes_item_vectors
from ctr_keras.training.checkpoint import best_metrics
from ctr_keras.training.evaluate import Evaluation, evaluate, load_model
from ctr_keras.training.evaluate_by_frequency import FrequencyEvaluation, evaluate_by_frequency
from ctr_keras.training.evaluate_cold_start import (
    ColdStartEvaluation,
    Slice,
    evaluate_cold_start,
)
from ctr_keras.training.gate_usage import GateUsage, gate_usage
from ctr_keras.training.pair_sources import pair_accuracy
from ctr_keras.training.pretrain import Pretraining, PretrainingConfig, pretrain
from ctr_keras.training.train import Training, TrainingConfig, train

__all__ = [
    "ColdStartEvaluation",
    "Evaluation",
    "FrequencyEvaluation",
    "GateUsage",
    "Pretraining",
    "PretrainingConfig",
    "Slice",
    "Training",
    "TrainingConfig",
    "best_metrics",
    "build_model",
    "evaluate",
    "evaluate_by_frequency",
    "evaluate_cold_start",
    "gate_usage",
    "load_model",
    "pair_accuracy",
    "pretrain",
    "takes_item_vectors",
    "train",
]
