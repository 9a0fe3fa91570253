"""TFRecord writing and reading, splits and descriptions."""

from ctr_keras.data.columns import Ragged
from ctr_keras.data.manifest import Manifest
from ctr_keras.data.read import read
from ctr_keras.data.write import write

__all__ = ["Manifest", "Ragged", "read", "write"]
