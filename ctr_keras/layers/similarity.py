"""Similarity of past items to the target item, by frozen representations."""

from typing import Any

import keras
from keras import ops

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


def similarity(target: Any, history: Any) -> Any:
    """Scalar products of past items with the target: float32 `(batch, length)`."""
    target, history = ops.cast(target, "float32"), ops.cast(history, "float32")
    if keras.backend.backend() == "tensorflow":
        # What `tf.matmul` calls is handed to oneDNN, which takes half as long again for products of
        # one row.
        products = tf.raw_ops.BatchMatMulV3(
            x=target[:, None, :], y=history, adj_y=True, Tout=tf.float32
        )
        return products[:, 0]
    return ops.sum(history * target[:, None, :], axis=-1)
