"""Checks of what the plain functions receive."""

import numpy as np
from numpy.typing import ArrayLike


def one_per_row(name: str, values: ArrayLike) -> np.ndarray:
    """`values` as an array of shape `(rows,)`; `(rows, 1)`, as a model predicts it, is accepted."""
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"`{name}` must hold one value a row, in shape (rows,) or (rows, 1). "
            f"Received: `{name}.shape={array.shape}`"
        )
    return array


def _numbers(name: str, values: ArrayLike) -> np.ndarray:
    array = one_per_row(name, values)
    if array.dtype.kind in "OSUMmc":
        raise TypeError(f"`{name}` must hold numbers. Received: `{name}.dtype={array.dtype}`")
    # float32 stays as it is: `log_loss` clips by the precision the model predicted with.
    return array if array.dtype == np.float32 else array.astype(np.float64)


def _check_length(name: str, array: np.ndarray, rows: int) -> None:
    if len(array) != rows:
        raise ValueError(
            f"`{name}` must have as many rows as `labels`, {rows}. "
            f"Received: `len({name})={len(array)}`"
        )


def _check_all(name: str, array: np.ndarray, allowed: np.ndarray, expected: str) -> None:
    if not allowed.all():
        row = int(np.argmin(allowed))
        raise ValueError(f"`{name}` must be {expected}. Received: `{name}[{row}]={array[row]}`")


def check_weights(sample_weight: ArrayLike | None, rows: int) -> np.ndarray:
    """The weight of each of `rows` rows, 1 without `sample_weight`."""
    if sample_weight is None:
        return np.ones(rows)
    weights = _numbers("sample_weight", sample_weight).astype(np.float64)
    _check_length("sample_weight", weights, rows)
    expected = "finite and not negative"
    _check_all("sample_weight", weights, np.isfinite(weights) & (weights >= 0), expected)
    return weights


def check_labels(labels: ArrayLike) -> np.ndarray:
    """`labels` as float64 zeros and ones, at least one of them."""
    array = _numbers("labels", labels).astype(np.float64)
    if not len(array):
        raise ValueError("`labels` must hold at least one row. Received: `len(labels)=0`")
    _check_all("labels", array, (array == 0) | (array == 1), "0 or 1")
    return array


def check_scores(scores: ArrayLike, rows: int) -> np.ndarray:
    """`scores` as `rows` finite floats."""
    array = _numbers("scores", scores)
    _check_length("scores", array, rows)
    _check_all("scores", array, np.isfinite(array), "finite")
    return array


def check_probabilities(probabilities: ArrayLike, rows: int) -> np.ndarray:
    """`probabilities` as `rows` floats in [0, 1]."""
    array = _numbers("probabilities", probabilities)
    _check_length("probabilities", array, rows)
    inside = (array >= 0) & (array <= 1)
    _check_all("probabilities", array, inside, "probabilities in [0, 1], after the sigmoid")
    return array


def check_bins(name: str, value: int) -> int:
    """`value` as a number of bins: an integer of 2 or more."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"`{name}` must be an integer. Received: `{name}={value!r}`")
    if value < 2:
        raise ValueError(f"`{name}` must be 2 or more. Received: `{name}={value}`")
    return int(value)


def check_groups(name: str, groups: ArrayLike, rows: int) -> np.ndarray:
    """What each row belongs to: values of one type that sorts, none of them missing."""
    array = one_per_row(name, groups)
    if len(array) != rows:
        raise ValueError(
            f"`{name}` must have as many rows as `labels`, {rows}. "
            f"Received: `len({name})={len(array)}`"
        )
    if array.dtype == object:
        array = _of_one_type(name, array)
    if array.dtype.kind in "fc" and np.isnan(array).any():
        row = int(np.argmax(np.isnan(array)))
        raise ValueError(f"`{name}` must not be missing. Received: `{name}[{row}]={array[row]}`")
    return array


def _of_one_type(name: str, array: np.ndarray) -> np.ndarray:
    """An object array in the dtype of its values: strings then sort five times as fast."""
    types = sorted({type(value).__name__ for value in array})
    if len(types) > 1 or types == ["NoneType"]:
        raise TypeError(
            f"`{name}` must hold ids of one type, none of them missing. "
            f"Received: `{name}` with {', '.join(types)}"
        )
    typed = np.array(array.tolist())
    return typed if typed.shape == array.shape else array
