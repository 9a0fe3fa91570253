"""A simulated world of users and items, and the files that it would have left behind."""

from ctr_keras.datasets.simulator import impressions, taobao
from ctr_keras.datasets.simulator.impression_log import ImpressionsConfig
from ctr_keras.datasets.simulator.world import World, WorldConfig

__all__ = ["ImpressionsConfig", "World", "WorldConfig", "impressions", "taobao"]
