"""The share of negatives that down-sampling kept: one number, checked the same way everywhere."""

from typing import Any

import numpy as np
import tensorflow as tf


def check_negative_ratio(argument: str, value: Any) -> float:
    """The ratio as a Python float.

    Args:
        argument: What the caller calls it, for the error.
        value: Share of the negatives that are kept: in (0, 1], 1 for all of them.

    Raises:
        ValueError: it is no number in (0, 1].
    """
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not is_number or not 0 < value <= 1:
        raise ValueError(
            f"`{argument}` must be a number in (0, 1]: the share of negatives that are kept. "
            f"Received: `{argument}={value!r}`"
        )
    return float(value)


def negative_ratio_of(rows: Any) -> float | None:
    """The share of the negatives that rows hold: their attribute `negative_ratio`, or that of the
    data set that `map`, `take`, `zip` and the like made them of.

    Args:
        rows: What `fit` takes.

    Returns:
        The ratio, or `None` where nothing tells it. Of several data sets, those of which nothing
        tells it are left aside.

    Raises:
        ValueError: they are of several data sets that hold different shares.
    """
    ratio = getattr(rows, "negative_ratio", None)
    if ratio is not None:
        return ratio
    # TensorFlow has no public way to a data set's inputs. Without this one nothing is told, as of
    # rows that are no data set.
    inputs = getattr(rows, "_inputs", list) if isinstance(rows, tf.data.Dataset) else list
    found = [negative_ratio_of(dataset) for dataset in inputs()]
    ratios = {ratio for ratio in found if ratio is not None}
    if len(ratios) > 1:
        raise ValueError(
            "The rows are of data sets that hold different shares of the negatives: set the "
            "attribute `negative_ratio` of what is made of them to the share that it holds. "
            f"Received: `negative_ratio={sorted(ratios)}`"
        )
    return ratios.pop() if ratios else None
