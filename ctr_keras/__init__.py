"""Click-through-rate ranking with Keras 3 and TensorFlow."""

import importlib
from typing import Any

from ctr_keras import data, layers, losses, metrics, models, optimizers
from ctr_keras.schema import Feature, Schema, Vocabulary
from ctr_keras.seed import set_seed

__all__ = [
    "Feature",
    "Schema",
    "Vocabulary",
    "data",
    "datasets",
    "experiments",
    "layers",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "pretraining",
    "serving",
    "set_seed",
    "training",
]

# These load pandas and the like, which most scripts do not need.
_ON_FIRST_USE = ("datasets", "experiments", "pretraining", "serving", "training")


def __getattr__(name: str) -> Any:
    if name in _ON_FIRST_USE:
        return importlib.import_module(f"ctr_keras.{name}")
    raise AttributeError(f"module 'ctr_keras' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
