"""What the streaming metrics make of a batch."""

from typing import Any

import keras
from keras import ops


def sum_dtype() -> str:
    """The dtype of running sums: float32 stops counting single clicks at 2**24 of them."""
    return "float64" if keras.backend.backend() == "tensorflow" else "float32"


def one_per_row(name: str, tensor: Any) -> Any:
    """`tensor`, of shape `(batch,)` or `(batch, 1)`, in shape `(batch,)`."""
    unknown_rank = getattr(tensor.shape, "rank", 0) is None
    shape = None if unknown_rank else tuple(tensor.shape)
    if shape is not None and (len(shape) not in (1, 2) or shape[1:] not in ((), (1,), (None,))):
        raise ValueError(
            f"`{name}` must hold one value a row, in shape (batch,) or (batch, 1). "
            f"Received: `{name}.shape={shape}`"
        )
    return ops.reshape(tensor, (-1,))


def check_length(name: str, tensor: Any, like: Any) -> None:
    """Refuse `tensor` where it is known to have another length than the labels, `like`."""
    length, expected = tensor.shape[0], like.shape[0]
    if None not in (length, expected) and length != expected:
        raise ValueError(
            f"`{name}` must have as many rows as `y_true`, {expected}. "
            f"Received: `{name}.shape={tuple(tensor.shape)}`"
        )


def _float_rows(name: str, values: Any) -> Any:
    return one_per_row(name, ops.cast(ops.convert_to_tensor(values), "float32"))


def _weights(sample_weight: Any, labels: Any) -> Any:
    if sample_weight is None:
        return ops.ones_like(labels)
    weights = ops.cast(ops.convert_to_tensor(sample_weight), "float32")
    if len(weights.shape) == 0:
        return ops.ones_like(labels) * weights
    weights = one_per_row("sample_weight", weights)
    check_length("sample_weight", weights, labels)
    return weights


def binary_rows(
    y_true: Any, y_pred: Any, sample_weight: Any = None, probabilities: bool = True
) -> tuple[Any, Any, Any]:
    """Labels, predictions and weights of a batch, each float32 of shape `(batch,)`.

    A row of weight 0 is neutral whatever it holds. Any other row which is not a proper one (label 0
    or 1, a finite prediction, in [0, 1] where `probabilities`, a finite weight of 0 or more) gets
    the weight NaN: an exception cannot leave a compiled step on every backend, a NaN reaches the
    result.
    """
    labels = _float_rows("y_true", y_true)
    predictions = _float_rows("y_pred", y_pred)
    check_length("y_pred", predictions, labels)
    weights = _weights(sample_weight, labels)

    proper = ops.logical_or(labels == 0, labels == 1)
    low, high = (0.0, 1.0) if probabilities else (-3e38, 3e38)
    proper = ops.logical_and(proper, ops.logical_and(predictions >= low, predictions <= high))
    proper = ops.logical_and(proper, ops.logical_and(weights >= 0, weights <= 3e38))

    neutral = 0.5 if probabilities else 0.0
    labels = ops.where(proper, labels, 0.0)
    predictions = ops.where(proper, predictions, neutral)
    counted = ops.logical_or(proper, weights == 0)
    return labels, predictions, ops.where(counted, weights, float("nan"))
