"""GAUC of rows held as tensors, in static shapes, so that it can be compiled."""

from typing import Any

import keras
from keras import ops


def segment_auc(groups: Any, scores: Any, positive: Any, negative: Any) -> Any:
    """Impression-weighted mean AUC by group: a scalar, NaN without a group of both classes.

    Args:
        groups: Integer ids, in shape `(rows,)`.
        scores: Finite numbers, in shape `(rows,)`.
        positive: Weight of the row as a click, else 0, in shape `(rows,)`.
        negative: Weight of the row as no click, else 0. A row where both are 0 is not there.
    """
    rows = ops.shape(groups)[0]
    order = _stable_argsort(scores)
    order = ops.take(order, _stable_argsort(ops.take(groups, order)))
    positive, negative = ops.take(positive, order), ops.take(negative, order)
    starts = _changes(ops.take(groups, order))
    tie_starts = ops.logical_or(starts, _changes(ops.take(scores, order)))
    group = ops.cumsum(ops.cast(starts, "int32")) - 1
    tie = ops.cumsum(ops.cast(tie_starts, "int32")) - 1

    # Of the negatives of a row's group, those up to its tie, and half of those in the tie, are
    # below it.
    if keras.backend.backend() == "tensorflow":
        upto = _running_sum_float64(negative, group, rows)
    else:
        upto = _running_sum(negative, starts)
    tied = ops.take(ops.segment_sum(ops.cast(negative, upto.dtype), tie, num_segments=rows), tie)
    upto = ops.take(ops.segment_max(upto, tie, num_segments=rows), tie)
    pairs = ops.cast(positive, upto.dtype) * (upto - tied / 2)

    def by_group(values: Any) -> Any:
        return ops.segment_sum(ops.cast(values, upto.dtype), group, num_segments=rows)

    return _impression_weighted(by_group(pairs), by_group(positive), by_group(negative))


def _impression_weighted(pairs: Any, clicks: Any, others: Any) -> Any:
    both = ops.logical_and(clicks > 0, others > 0)
    area = pairs / ops.where(both, clicks, 1) / ops.where(both, others, 1)
    impressions = ops.where(both, clicks + others, 0)
    total = ops.sum(impressions)
    value = ops.sum(impressions * area) / ops.where(total > 0, total, 1)
    # The sum over all rows is NaN when any row is, also one in a group that is left out.
    defined = ops.logical_and(total > 0, ops.sum(clicks + others) >= 0)
    return ops.where(defined, value, float("nan"))


def _stable_argsort(values: Any) -> Any:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # TensorFlow promises a stable order only when asked for it; JAX gives one by default.
        return tf.argsort(values, stable=True)
    return ops.argsort(values)


def _changes(values: Any) -> Any:
    """Where a sorted tensor has another value than one row before; true in the first row."""
    first = ops.ones_like(values[:1], dtype="bool")
    return ops.concatenate([first, values[1:] != values[:-1]])


def _running_sum(values: Any, starts: Any) -> Any:
    """Sum of `values` since the last of `starts`, in float32.

    A scan within the groups: the difference of two sums over all rows would lose what a small group
    holds, as float32 has 24 bits.
    """

    def combine(left: Any, right: Any) -> Any:
        total = ops.where(right[1], right[0], left[0] + right[0])
        return total, ops.logical_or(left[1], right[1])

    return ops.associative_scan(combine, (values, starts))[0]


def _running_sum_float64(values: Any, group: Any, rows: Any) -> Any:
    """The same in float64, which can afford the difference of sums over all rows.

    On TensorFlow alone: JAX has no float64 by default, and there `ops.associative_scan` does not
    compile under XLA in all sizes.
    """
    values = ops.cast(values, "float64")
    upto = ops.cumsum(values)
    before = ops.segment_min(upto - values, group, num_segments=rows)
    return upto - ops.take(before, group)
