"""Content beside ids: texts, and representations of items."""

from ctr_keras.models.multimodal.make import MAKE, KnowledgeExtractor, SimTierMAKE
from ctr_keras.models.multimodal.sim_score import SimScore
from ctr_keras.models.multimodal.sim_tier import SimTier
from ctr_keras.models.multimodal.tuned_texts import TunedTexts
from ctr_keras.models.multimodal.vector_fusion import VectorFusion

__all__ = [
    "MAKE",
    "KnowledgeExtractor",
    "SimScore",
    "SimTier",
    "SimTierMAKE",
    "TunedTexts",
    "VectorFusion",
]
