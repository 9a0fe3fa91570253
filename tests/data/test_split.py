import numpy as np
import pytest

from ctr_keras.data.split import time_boundaries, time_split
from ctr_keras.datasets import movielens, tabular, taobao
from ctr_keras.datasets.simulator import impressions


def test_every_row_of_a_split_is_older_than_the_next():
    times = np.random.default_rng(0).integers(0, 300, 5000)
    split = time_split(times)
    for index in (0, 1):
        assert times[split == index].max() < times[split == index + 1].min()
    np.testing.assert_allclose(np.bincount(split) / 5000, (0.8, 0.1, 0.1), atol=0.01)


def test_equal_times_stay_together_and_the_cut_is_the_nearest():
    assert time_split([1, 1, 1, 1, 2, 3], (0.5, 0.25, 0.25)).tolist() == [0, 0, 0, 0, 1, 2]


def test_boundaries_of_counted_times_are_those_of_the_rows():
    times = np.random.default_rng(1).integers(0, 50, 1000)
    distinct, counts = np.unique(times, return_counts=True)
    assert (time_boundaries(times) == time_boundaries(distinct, counts=counts)).all()


@pytest.mark.parametrize(
    "times, fractions, message",
    [
        ([5, 5, 5, 5], (0.8, 0.1, 0.1), "valid split would be empty: 4 rows with 1 distinct"),
        ([1, 1, 1, 2], (0.8, 0.1, 0.1), "test split would be empty"),
        ([], (0.8, 0.2), "shape=.0,"),
        ([1.0, np.nan], (0.5, 0.5), "row 1: expected a finite time"),
        (np.array([1, "NaT"], "datetime64[s]"), (0.5, 0.5), "row 1: expected a finite time"),
        ([1, 2], (0.8, 0.1), "fractions=.0.8, 0.1"),
        ([1, 2], (1.2, -0.2), "positive numbers"),
    ],
)
def test_errors_name_what_is_wrong(times, fractions, message):
    with pytest.raises(ValueError, match=message):
        time_split(times, fractions)


def test_a_preparation_writes_three_splits(tmp_path):
    for fractions in ((0.25,) * 4, (0.8, 0.2)):
        for prepare in (
            lambda f: movielens.prepare(tmp_path / "out", fractions=f),
            lambda f: impressions.prepare(tmp_path / "out", fractions=f),
            lambda f: tabular.prepare(tmp_path / "out", tmp_path, fractions=f),
            lambda f: taobao.prepare(tmp_path / "out", raw=tmp_path, split="users", fractions=f),
        ):
            with pytest.raises(ValueError, match="`fractions` must be 3 numbers, of train, valid"):
                prepare(fractions)
