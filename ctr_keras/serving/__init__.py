"""Export to SavedModel, and ranking with what was exported."""

from ctr_keras.serving.catalog import Catalog
from ctr_keras.serving.check import Check, check
from ctr_keras.serving.export import export
from ctr_keras.serving.ranked_list import RankedList
from ctr_keras.serving.ranker import Ranker

__all__ = ["Catalog", "Check", "RankedList", "Ranker", "check", "export"]
