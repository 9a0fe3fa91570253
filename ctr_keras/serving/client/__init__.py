"""A client that speaks TF Serving's protocols."""

from ctr_keras.serving.client.client import Client
from ctr_keras.serving.client.model_metadata import ModelMetadata
from ctr_keras.serving.client.options import ClientOptions

__all__ = ["Client", "ClientOptions", "ModelMetadata"]
