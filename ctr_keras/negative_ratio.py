"""The share of negatives that down-sampling kept: one number, checked the same way everywhere."""

from typing import Any

import numpy as np


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
