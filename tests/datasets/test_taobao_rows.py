import numpy as np
import pytest

from ctr_keras.datasets.taobao_rows import Catalog, NegativeSampler

CATALOG = Catalog(np.array([10, 20, 30, 40]), np.array([1, 1, 2, 2]), np.array([1, 5, 3, 1]))


@pytest.mark.parametrize("sampling, weight", [("frequency", [1, 5, 3, 1]), ("uniform", [1] * 4)])
def test_negatives_have_the_documented_distribution(sampling, weight):
    sampler = NegativeSampler(CATALOG, sampling, (3,))
    weight = np.array(weight)
    for positive in range(4):
        drawn = sampler.draw(np.full(40_000, positive))
        expected = np.where(np.arange(4) == positive, 0, weight / (weight.sum() - weight[positive]))
        shares = np.bincount(drawn, minlength=4) / 40_000
        assert shares[positive] == 0
        np.testing.assert_allclose(shares, expected, atol=0.012)


def test_of_two_items_the_other_is_drawn():
    two = Catalog(np.array([10, 20]), np.array([1, 1]), np.array([1000, 1]))
    for sampling in ("frequency", "uniform"):
        drawn = NegativeSampler(two, sampling, (0,)).draw(np.array([0, 1, 0, 1]))
        assert drawn.tolist() == [1, 0, 1, 0]


def test_draws_depend_on_the_seed_alone():
    positive = np.arange(1000) % 4
    first = NegativeSampler(CATALOG, "frequency", (1, 2)).draw(positive)
    again = NegativeSampler(CATALOG, "frequency", (1, 2))
    # However the rows are cut into chunks.
    parts = [again.draw(part) for part in np.array_split(positive, 7)]
    np.testing.assert_array_equal(first, np.concatenate(parts))
    assert (first != NegativeSampler(CATALOG, "frequency", (1, 3)).draw(positive)).any()
