"""The training and evaluation jobs: a prepared folder in, a model and its metrics out."""

from ctr_keras.training.build import build_model
from ctr_keras.training.evaluate import Evaluation, evaluate, load_model
from ctr_keras.training.train import Training, TrainingConfig, train

__all__ = [
    "Evaluation",
    "Training",
    "TrainingConfig",
    "build_model",
    "evaluate",
    "load_model",
    "train",
]
