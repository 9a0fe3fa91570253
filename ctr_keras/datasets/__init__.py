"""Raw public files, and anybody's CSV or Parquet, as TFRecords."""

from ctr_keras.datasets import movielens, tabular

__all__ = ["movielens", "tabular"]
