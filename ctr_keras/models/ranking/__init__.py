"""Single-task rankers."""

from ctr_keras.models.ranking.dbpman import DBPMaN
from ctr_keras.models.ranking.deep_fm import DeepFM
from ctr_keras.models.ranking.dien import DIEN
from ctr_keras.models.ranking.din import DIN
from ctr_keras.models.ranking.dnn import DNN
from ctr_keras.models.ranking.fm import FM
from ctr_keras.models.ranking.wide_deep import WideDeep

__all__ = ["DBPMaN", "DIEN", "DIN", "DNN", "FM", "DeepFM", "WideDeep"]
