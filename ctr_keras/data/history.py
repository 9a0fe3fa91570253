"""A user's past as of a moment: what a ranker may know when it scores a row."""

import dataclasses

import numpy as np

from ctr_keras.columns import Ragged

_SLICE_ROWS = 65_536


@dataclasses.dataclass(frozen=True)
class PastEvents:
    """Events sorted by user and time, so that the past of any moment is one slice of them.

    Make it with `PastEvents.of`.

    Attributes:
        order: Number of each event among the arrays given to `of`, sorted by user and time.
        users: Distinct users, ascending.
        times: Distinct times, ascending.
        keys: Rank of each sorted event's user and time as one integer, ascending.
    """

    order: np.ndarray
    users: np.ndarray
    times: np.ndarray
    keys: np.ndarray

    @classmethod
    def of(cls, user: np.ndarray, time: np.ndarray) -> "PastEvents":
        """Sort events; of equal user and time, the one given first counts as the older.

        Args:
            user: Integer or string array `(events,)`.
            time: Array `(events,)`.
        """
        users, user_rank = np.unique(user, return_inverse=True)
        times, time_rank = np.unique(time, return_inverse=True)
        keys = user_rank.astype(np.int64) * (len(times) + 1) + time_rank
        order = np.argsort(keys, kind="stable")
        return cls(order, users, times, keys[order])

    def bounds(self, user: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the events of `user` strictly before `time` start and end in `order`."""
        rank = np.searchsorted(self.users, user)
        known = rank < len(self.users)
        known[known] = self.users[rank[known]] == np.asarray(user)[known]
        base = rank.astype(np.int64) * (len(self.times) + 1)
        start = np.searchsorted(self.keys, base)
        stop = np.searchsorted(self.keys, base + np.searchsorted(self.times, time))
        return start, np.where(known, stop, start)

    def before(self, user: np.ndarray, time: np.ndarray, length: int | None = None) -> Ragged:
        """The numbers of each user's events strictly before a time, oldest first.

        Args:
            user: Array `(rows,)`.
            time: Array `(rows,)`, in the unit of the events' times.
            length: How many events a row keeps, the newest.
        """
        start, stop = self.bounds(user, time)
        if length is not None:
            start = np.maximum(start, stop - length)
        lengths = stop - start
        # Position within the row, plus where the row starts: one flat index, no loop.
        first = np.cumsum(lengths) - lengths
        position = np.arange(lengths.sum()) + np.repeat(start - first, lengths)
        return Ragged(self.order[position], lengths.astype(np.int32))

    def count_before(self, user: np.ndarray, time: np.ndarray) -> np.ndarray:
        """How many events each user has strictly before a time: int64 `(rows,)`."""
        start, stop = self.bounds(user, time)
        return stop - start


def past_items(
    user: np.ndarray, time: np.ndarray, item: np.ndarray, liked: np.ndarray, length: int
) -> Ragged:
    """For each row, the items its user liked strictly before the row's time.

    Args:
        user: Integer or string array `(rows,)`.
        time: Array `(rows,)`, any unit. Rows of equal time do not see each other.
        item: Array `(rows,)` of what histories hold.
        liked: Boolean array `(rows,)`: which rows enter later histories.
        length: How many items a row keeps, the newest.

    Returns:
        `Ragged` of `item` values, oldest first.

    Raises:
        ValueError: the time of a row is missing (NaN or NaT).

    Example:

    >>> past_items([7, 7, 7], [1, 2, 3], np.array([10, 20, 30]), [True, False, True], length=5)
    Ragged(values=array([10, 10]), lengths=array([0, 1, 1], dtype=int32))
    """
    user, time, item = np.asarray(user), np.asarray(time), np.asarray(item)
    missing = np.isnat(time) if time.dtype.kind in "mM" else time != time
    if missing.any():
        # It would sort behind all others, and its row see the future.
        raise ValueError(f"`time` must be there. Received: row {np.argmax(missing)} of `time`")
    events = np.flatnonzero(liked)
    past = PastEvents.of(user[events], time[events])
    item = item[events]
    parts = []
    # Slices bound the index arrays, which are several times the size of the result.
    for start in range(0, max(len(user), 1), _SLICE_ROWS):
        rows = slice(start, start + _SLICE_ROWS)
        found = past.before(user[rows], time[rows], length)
        parts.append(Ragged(item[found.values], found.lengths))
    return Ragged(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.lengths for part in parts]),
    )
