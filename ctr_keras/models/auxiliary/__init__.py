"""Base models trained together with auxiliary tasks."""

from ctr_keras.models.auxiliary.at4ctr import AT4CTR
from ctr_keras.models.auxiliary.cl4ctr import CL4CTR
from ctr_keras.models.auxiliary.deep_mcp import DeepMCP
from ctr_keras.models.auxiliary.dmr import DMR

__all__ = ["AT4CTR", "CL4CTR", "DMR", "DeepMCP"]
