"""Splits by time: what a model learns from lies before what it is judged on."""

from collections.abc import Sequence

import numpy as np

SPLITS = ("train", "valid", "test")


def time_split(times: np.ndarray, fractions: Sequence[float] = (0.8, 0.1, 0.1)) -> np.ndarray:
    """Assign rows to splits by one global order of time.

    Every row of a split is strictly older than every row of the next: rows of equal time are
    never separated, so the shares differ a little from `fractions`.

    Args:
        times: `(rows,)`, in any order and unit.
        fractions: Share of rows of each split, oldest first.

    Returns:
        int8 array `(rows,)`: 0 for the first split, 1 for the next.

    Raises:
        ValueError: a split would be empty (it is named), a time is not finite, or `fractions`
            are not positive numbers that sum to 1.

    Example:

    >>> time_split(np.array([30, 10, 10, 20]), fractions=(0.5, 0.25, 0.25))
    array([2, 0, 0, 1], dtype=int8)
    """
    times = np.asarray(times)
    return np.searchsorted(time_boundaries(times, fractions), times, side="right").astype(np.int8)


def time_boundaries(
    times: np.ndarray,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    counts: np.ndarray | None = None,
) -> np.ndarray:
    """The first time of each split after the first.

    Args:
        times: `(rows,)`; with `counts`, distinct times in ascending order.
        fractions: Share of rows of each split, oldest first.
        counts: Rows of each of `times`, for data that is counted elsewhere.

    Returns:
        Array `(len(fractions) - 1,)`, ascending. A row belongs to split `k` if `k` of the
        boundaries are at or before its time.
    """
    check_fractions(fractions)
    times = np.asarray(times)
    if times.ndim != 1 or not len(times):
        raise ValueError(f"`times` must be `(rows,)` with rows. Received: `shape={times.shape}`")
    if times.dtype.kind in "fmM" and not np.isfinite(times).all():
        row = int(np.argmin(np.isfinite(times)))
        raise ValueError(f"`times`, row {row}: expected a finite time. Received: `{times[row]}`")
    if counts is None:
        times, counts = np.unique(times, return_counts=True)
    if len(times) < len(fractions):
        raise ValueError(
            f"The {split_name(len(times))} split would be empty: {np.sum(counts)} rows with "
            f"{len(times)} distinct times. Received: `fractions={tuple(fractions)}`"
        )
    before = np.cumsum(counts) - counts
    cuts: list[int] = []
    for index, share in enumerate(np.cumsum(fractions)[:-1]):
        # Of the places between two distinct times, the one nearest to the wanted share that
        # leaves no split empty.
        first = cuts[-1] + 1 if cuts else 1
        last = len(times) - (len(fractions) - 1 - index)
        distance = np.abs(before[first : last + 1] - share * np.sum(counts))
        cuts.append(first + int(np.argmin(distance)))
    return times[cuts]


def split_name(index: int) -> str:
    return SPLITS[index] if index < len(SPLITS) else f"{index}th"


def check_fractions(fractions: Sequence[float], count: int | None = None) -> None:
    """Refuse shares that do not describe a split, or another number of them than `count`."""
    if count is not None and len(fractions) != count:
        raise ValueError(
            f"`fractions` must be {count} numbers, of {', '.join(SPLITS)}. "
            f"Received: `fractions={tuple(fractions)}`"
        )
    if len(fractions) < 2 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            "`fractions` must be two or more positive numbers that sum to 1. "
            f"Received: `fractions={tuple(fractions)}`"
        )
