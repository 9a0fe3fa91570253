"""Optimizers whose step costs the rows a batch touches, whatever the size of the tables."""

from ctr_keras.optimizers.lazy_adam import LazyAdam
from ctr_keras.optimizers.loss_scale_optimizer import LossScaleOptimizer
from ctr_keras.optimizers.rowwise_adagrad import RowwiseAdagrad

__all__ = ["LazyAdam", "LossScaleOptimizer", "RowwiseAdagrad"]
