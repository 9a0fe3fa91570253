"""Raw public files, anybody's CSV or Parquet, and simulated logs, as TFRecords."""

from ctr_keras.datasets import (
    antm2c,
    movielens,
    search_pairs,
    simulator,
    tabular,
    taobao,
    titled_pictures,
)

__all__ = [
    "antm2c",
    "movielens",
    "search_pairs",
    "simulator",
    "tabular",
    "taobao",
    "titled_pictures",
]
