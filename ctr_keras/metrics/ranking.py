"""Pairs in the right order, counted by sorting: what AUC and GAUC share."""

import numpy as np


def _starts(*columns: np.ndarray) -> np.ndarray:
    """Where the value of any of the sorted `columns` changes, the first row included."""
    changed = np.zeros(len(columns[0]), dtype=bool)
    changed[0] = True
    for column in columns:
        changed[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(changed)


def ordered_pairs(
    groups: np.ndarray, scores: np.ndarray, positive: np.ndarray, negative: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By group: the weight of (click, no click) pairs in order, of clicks, and of the others.

    A pair is in order when the click has the higher score; pairs with equal scores count half. The
    groups come out in ascending order.
    """
    order = np.argsort(scores)
    order = order[np.argsort(groups[order], kind="stable")]
    groups, scores = groups[order], scores[order]

    ties = _starts(groups, scores)
    positive = np.add.reduceat(positive[order], ties)
    negative = np.add.reduceat(negative[order], ties)

    first = _starts(groups[ties])
    below = np.cumsum(negative) - negative
    below -= np.repeat(below[first], np.diff(first, append=len(ties)))
    pairs = positive * (below + negative / 2)
    return (
        np.add.reduceat(pairs, first),
        np.add.reduceat(positive, first),
        np.add.reduceat(negative, first),
    )
