"""Checks of layer arguments that several layers share."""

from typing import Any

from keras.src.backend import get_keras_mask  # JAX's arrays cannot hold it as an attribute.


def check_mask(mask: Any, inputs: Any, name: str) -> None:
    """Refuse a mask (or anything else that is one number a position) of another rank than 2."""
    if mask is not None and len(mask.shape) != 2:
        raise ValueError(
            f"`{name}` must have shape (batch, length). Received: "
            f"`{name}.shape={tuple(mask.shape)}`, `inputs.shape={tuple(inputs.shape)}`"
        )


def mask_of(mask: Any, sequence: Any) -> Any:
    """The mask that was passed, or else the one that Keras attached to the sequence, if any.

    Keras itself passes that on only to layers that take no other tensor.
    """
    return get_keras_mask(sequence) if mask is None else mask


def check_sequence_shape(name: str, shape: Any) -> None:
    """Refuse what is not `(batch, length, width)` of known width."""
    if len(shape) != 3 or shape[-1] is None:
        raise ValueError(
            f"`{name}` must have shape (batch, length, width). "
            f"Received: `{name}.shape={tuple(shape)}`"
        )


def check_matrix_shape(name: str, shape: Any) -> None:
    """Refuse what is not `(batch, features)`."""
    if len(shape) != 2:
        raise ValueError(
            f"`{name}` must have shape (batch, features). Received: `{name}.shape={tuple(shape)}`"
        )


def check_dropout(dropout: Any) -> float:
    """`dropout` if it is a share below 1, else a `ValueError`."""
    if not 0 <= dropout < 1:
        raise ValueError(f"`dropout` must be in [0, 1). Received: `dropout={dropout}`")
    return dropout
