"""Models for users and items that training hardly knows."""

from ctr_keras.models.cold_start.dropout_net import DropoutNet
from ctr_keras.models.cold_start.maml import MAML
from ctr_keras.models.cold_start.melu import MeLU
from ctr_keras.models.cold_start.meta_emb import MetaEmb

__all__ = ["DropoutNet", "MAML", "MeLU", "MetaEmb"]
