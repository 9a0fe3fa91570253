"""TFRecord writing and reading, splits and descriptions."""

from ctr_keras.columns import Ragged
from ctr_keras.data.describe import Description, describe, plot
from ctr_keras.data.history import past_items
from ctr_keras.data.manifest import Manifest
from ctr_keras.data.read import read
from ctr_keras.data.split import time_split
from ctr_keras.data.write import write

__all__ = [
    "Description",
    "Manifest",
    "Ragged",
    "describe",
    "past_items",
    "plot",
    "read",
    "time_split",
    "write",
]
