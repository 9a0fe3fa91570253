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


def bin_sums(probabilities: Any, columns: list[Any], num_bins: int) -> Any:
    """The sums of `columns` over the rows of each bin, in shape `(num_bins, len(columns))`."""
    values = ops.cast(ops.stack(columns, axis=-1), sum_dtype())
    return ops.segment_sum(values, logit_bin(probabilities, num_bins), num_segments=num_bins)
