"""A simulated world of users and items, and the files that it would have left behind."""

from ctr_keras.datasets.simulator import antm2c, impressions, pictures, taobao
from ctr_keras.datasets.simulator.antm2c_exposures import AntM2CConfig
from ctr_keras.datasets.simulator.impression_log import ImpressionsConfig
from ctr_keras.datasets.simulator.pictures import PicturesConfig
from ctr_keras.datasets.simulator.world import World, WorldConfig

__all__ = [
    "AntM2CConfig",
    "ImpressionsConfig",
    "PicturesConfig",
    "World",
    "WorldConfig",
    "antm2c",
    "impressions",
    "pictures",
    "taobao",
]
