"""TFRecord writing and reading, splits, down-sampling and descriptions."""

from ctr_keras.columns import Ragged
from ctr_keras.data.cold_slices import cold_slices, exposure_counts
from ctr_keras.data.describe import Description, describe, plot
from ctr_keras.data.frequency_groups import frequency_groups
from ctr_keras.data.history import past_items
from ctr_keras.data.manifest import Manifest
from ctr_keras.data.negatives import down_sample_negatives, recalibrate
from ctr_keras.data.read import read
from ctr_keras.data.split import time_split
from ctr_keras.data.tasks import read_tasks
from ctr_keras.data.vector_coverage import VectorCoverage, vector_coverage
from ctr_keras.data.vector_table import VectorTable
from ctr_keras.data.write import write

__all__ = [
    "Description",
    "Manifest",
    "Ragged",
    "VectorCoverage",
    "VectorTable",
    "cold_slices",
    "describe",
    "down_sample_negatives",
    "exposure_counts",
    "frequency_groups",
    "past_items",
    "plot",
    "read",
    "read_tasks",
    "recalibrate",
    "time_split",
    "vector_coverage",
    "write",
]
