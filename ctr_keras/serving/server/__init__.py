"""The embedded server: TF Serving's protocols for one machine and tests."""

from ctr_keras.serving.loaded_model import LoadedModel
from ctr_keras.serving.server.batching import BatchingConfig
from ctr_keras.serving.server.batching_file import read_batching_file
from ctr_keras.serving.server.limits import Limits
from ctr_keras.serving.server.manager import ModelManager
from ctr_keras.serving.server.model_config import ModelConfig, VersionPolicy, read_models_config
from ctr_keras.serving.server.run import run
from ctr_keras.serving.server.server import Server, ServerConfig

__all__ = [
    "BatchingConfig",
    "Limits",
    "LoadedModel",
    "ModelConfig",
    "ModelManager",
    "Server",
    "ServerConfig",
    "VersionPolicy",
    "read_batching_file",
    "read_models_config",
    "run",
]
