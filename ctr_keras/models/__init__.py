"""Functional models that map features to click probability."""

from ctr_keras.models.auxiliary import AT4CTR, CL4CTR, DMR, DeepMCP
from ctr_keras.models.cold_start import MAML, DropoutNet, MeLU, MetaEmb
from ctr_keras.models.ctr_model import CTRModel
from ctr_keras.models.multi_scenario import PLE, MMoE, ScenarioDNN, SharedBottom
from ctr_keras.models.multimodal import (
    MAKE,
    KnowledgeExtractor,
    SimScore,
    SimTier,
    SimTierMAKE,
    TunedTexts,
    VectorFusion,
)
from ctr_keras.models.ranking import DIEN, DIN, DNN, FM, DBPMaN, DeepFM, WideDeep

__all__ = [
    "AT4CTR",
    "CL4CTR",
    "CTRModel",
    "DBPMaN",
    "DIEN",
    "DIN",
    "DMR",
    "DNN",
    "DeepFM",
    "DeepMCP",
    "DropoutNet",
    "FM",
    "KnowledgeExtractor",
    "MAKE",
    "MAML",
    "MMoE",
    "MeLU",
    "MetaEmb",
    "PLE",
    "ScenarioDNN",
    "SharedBottom",
    "SimScore",
    "SimTier",
    "SimTierMAKE",
    "TunedTexts",
    "VectorFusion",
    "WideDeep",
]
