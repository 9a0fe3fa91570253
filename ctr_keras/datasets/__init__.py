"""Raw public files, anybody's CSV or Parquet, and simulated logs, as TFRecords."""

from ctr_keras.datasets import movielens, simulator, tabular, taobao

__all__ = ["movielens", "simulator", "tabular", "taobao"]
