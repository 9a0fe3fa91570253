"""Similarity of past items to the target item, by frozen representations."""

from typing import Any

import keras
from keras import ops

from ctr_keras.layers.argument_checks import check_mask

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


def check_representations(target_shape: Any, history_shape: Any) -> None:
    """Refuse what is not a target `(batch, width)` and a history `(batch, length, width)`."""
    if (
        len(target_shape) != 2
        or len(history_shape) != 3
        or target_shape[-1] is None
        or target_shape[-1] != history_shape[-1]
    ):
        raise ValueError(
            "`target` must have shape (batch, width) and `history` (batch, length, width). "
            f"Received: `target.shape={tuple(target_shape)}`, "
            f"`history.shape={tuple(history_shape)}`"
        )


def similarity(target: Any, history: Any, mask: Any) -> tuple[Any, Any]:
    """Scalar products with the target, and the mask as bool or `None`: `(batch, length)` each.

    The products are float32, clipped to [-1, 1]: those of unit vectors exceed 1 by rounding. A NaN
    stays one.
    """
    check_mask(mask, history, "mask")
    target, history = ops.cast(target, "float32"), ops.cast(history, "float32")
    if keras.backend.backend() == "tensorflow":
        # Half the time of the same as `history @ target`, which walks the history column by column.
        products = tf.matmul(target[:, None, :], history, transpose_b=True)[:, 0]
    else:
        products = ops.sum(history * target[:, None, :], axis=-1)
    mask = None if mask is None else ops.cast(mask, "bool")
    return ops.clip(products, -1.0, 1.0), mask
