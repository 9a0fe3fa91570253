"""The fine histogram of probabilities behind streaming metrics that need an order of the rows."""

from typing import Any

from keras import ops

from ctr_keras.metrics.rows import sum_dtype

# Where float32 ends: the largest probability below 1 has a logit of 16.6.
LIMIT = 16.0


def logit_bin(probabilities: Any, num_bins: int) -> Any:
    """The bin of each probability, among `num_bins` of equal width in the logit from -16 to 16.

    Bins of equal width in the probability would put all rows of a 0.1% click rate in a few of them;
    in the logit a bin is as fine, relative to the rate, at 0.1% as at 10%.
    """
    logits = ops.log(probabilities) - ops.log1p(-probabilities)
    share = (ops.clip(logits, -LIMIT, LIMIT) + LIMIT) / (2 * LIMIT)
    return ops.minimum(ops.cast(share * num_bins, "int32"), num_bins - 1)


def bin_sums(
    probabilities: Any, columns: list[Any], num_bins: int, group: Any = None, num_groups: int = 1
) -> Any:
    """The sums of `columns` over the rows of each bin.

    Args:
        probabilities: `(rows,)`.
        columns: Tensors `(rows,)`.
        num_bins: Number of bins.
        group: Optional int32 `(rows,)` from 0 to `num_groups`, exclusive: each has bins of its own.
        num_groups: Number of groups.

    Returns:
        `(num_groups * num_bins, len(columns))`, group by group.
    """
    values = ops.cast(ops.stack(columns, axis=-1), sum_dtype())
    place = logit_bin(probabilities, num_bins)
    if group is not None:
        place = place + group * num_bins
    return ops.segment_sum(values, place, num_segments=num_groups * num_bins)


def areas_of_bins(counts: Any) -> tuple[Any, Any]:
    """Area under the ROC curve of rows counted in bins, those of one bin as ties.

    Args:
        counts: `(..., num_bins, 2)`: clicks and other rows, bins in ascending order.

    Returns:
        `(areas, both)` of shape `(...)`: the areas, and where there are rows of both classes;
        elsewhere an area means nothing.
    """
    positive, negative = counts[..., 0], counts[..., 1]
    below = ops.cumsum(negative, axis=-1) - negative
    pairs = ops.sum(positive * (below + negative / 2), axis=-1)
    clicks, others = ops.sum(positive, axis=-1), ops.sum(negative, axis=-1)
    both = ops.logical_and(clicks > 0, others > 0)
    return pairs / ops.where(both, clicks, 1) / ops.where(both, others, 1), both
