"""Keras layers for ranking, one idea a file, usable in any Keras model."""

from ctr_keras.layers.dice import Dice
from ctr_keras.layers.factorization_machine import FactorizationMachine
from ctr_keras.layers.feature_embedding import FeatureEmbedding
from ctr_keras.layers.mlp import MLP
from ctr_keras.layers.target_attention import TargetAttention

__all__ = ["Dice", "FactorizationMachine", "FeatureEmbedding", "MLP", "TargetAttention"]
