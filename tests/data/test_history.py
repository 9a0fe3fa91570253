import numpy as np
import pytest

from ctr_keras.data import history
from ctr_keras.data.history import PastEvents, past_items


def naive(user, time, item, liked, length):
    rows = []
    for row in range(len(user)):
        past = [
            (time[other], other)
            for other in range(len(user))
            if user[other] == user[row] and liked[other] and time[other] < time[row]
        ]
        rows.append([item[other] for _, other in sorted(past)][-length:])
    return rows


@pytest.mark.parametrize("length", [1, 3, 100])
@pytest.mark.parametrize("dtype", [np.int64, str])
def test_equals_the_naive_loop(monkeypatch, length, dtype):
    monkeypatch.setattr(history, "_SLICE_ROWS", 64)
    rng = np.random.default_rng(length)
    rows = 300
    user = rng.integers(0, 9, rows).astype(dtype)
    time = rng.integers(0, 60, rows)
    item = rng.integers(0, 40, rows)
    liked = rng.random(rows) < 0.6
    found = past_items(user, time, item, liked, length)
    assert [
        found.values[start:stop].tolist()
        for start, stop in zip(found.offsets[:-1], found.offsets[1:], strict=True)
    ] == naive(user, time, item, liked, length)


def test_equal_times_do_not_see_each_other_and_order_is_kept():
    found = past_items([1, 1, 1], [5, 5, 6], [10, 20, 30], [True, True, True], length=9)
    assert found.lengths.tolist() == [0, 0, 2]
    assert found.values.tolist() == [10, 20]


def test_nobody_liked_anything():
    found = past_items([1, 2], [1, 2], np.array([3, 4]), [False, False], length=5)
    assert found.lengths.tolist() == [0, 0] and len(found.values) == 0


def test_users_and_times_that_have_no_event():
    past = PastEvents.of(np.array([2, 4, 4]), np.array([10, 10, 20]))
    assert past.count_before([1, 2, 3, 4, 4, 9], [99, 10, 99, 20, 21, 99]).tolist() == [
        0, 0, 0, 1, 2, 0,
    ]  # fmt: skip
    assert past.before([4], [99]).values.tolist() == [1, 2]


def test_a_million_rows_take_seconds():
    import time as clock

    rng = np.random.default_rng(0)
    rows = 1_000_000
    user, time = rng.integers(0, 6000, rows), rng.integers(0, 10**8, rows)
    start = clock.process_time()
    found = past_items(user, time, rng.integers(0, 4000, rows), rng.random(rows) < 0.5, 50)
    assert len(found) == rows
    assert clock.process_time() - start < 15


@pytest.mark.parametrize("times", [[1.0, np.nan, 3.0], np.array([1, "NaT", 3], "datetime64[s]")])
def test_a_row_without_a_time_does_not_see_the_future(times):
    with pytest.raises(ValueError, match="Received: row 1 of `time`"):
        past_items([7, 7, 7], times, np.array([1, 2, 3]), [True] * 3, 5)
