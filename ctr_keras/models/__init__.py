"""Functional models that map features to click probability."""

from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.ranking import DIN, FM, DeepFM, WideDeep

__all__ = ["CTRModel", "DIN", "FM", "DeepFM", "WideDeep"]
