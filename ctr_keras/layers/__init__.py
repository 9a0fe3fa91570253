"""Keras layers for ranking, one idea a file, usable in any Keras model."""

from ctr_keras.layers.augru import AUGRU
from ctr_keras.layers.behavior_path_matching import BehaviorPathMatching
from ctr_keras.layers.causal_self_attention import CausalSelfAttention
from ctr_keras.layers.dice import Dice
from ctr_keras.layers.factorization_machine import FactorizationMachine
from ctr_keras.layers.feature_embedding import FeatureEmbedding
from ctr_keras.layers.interest_extractor import InterestExtractor
from ctr_keras.layers.mlp import MLP
from ctr_keras.layers.mmoe import MMoE
from ctr_keras.layers.multimodal_knowledge_extractor import MultimodalKnowledgeExtractor
from ctr_keras.layers.parallel_mlp import ParallelMLP
from ctr_keras.layers.ple import PLE
from ctr_keras.layers.scenario_towers import ScenarioTowers
from ctr_keras.layers.self_attention import SelfAttention
from ctr_keras.layers.shared_bottom import SharedBottom
from ctr_keras.layers.sim_score import SimScore
from ctr_keras.layers.sim_tier import SimTier
from ctr_keras.layers.target_attention import TargetAttention

__all__ = [
    "AUGRU",
    "BehaviorPathMatching",
    "CausalSelfAttention",
    "Dice",
    "FactorizationMachine",
    "FeatureEmbedding",
    "InterestExtractor",
    "MLP",
    "MMoE",
    "MultimodalKnowledgeExtractor",
    "PLE",
    "ParallelMLP",
    "ScenarioTowers",
    "SelfAttention",
    "SharedBottom",
    "SimScore",
    "SimTier",
    "TargetAttention",
]
