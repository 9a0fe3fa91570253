import numpy as np
import pytest

from ctr_keras.metrics import top_n_accuracy

RNG = np.random.default_rng(0)


def by_hand(queries, keys, n, own):
    hits = 0
    for query, mine in zip(queries, own, strict=True):
        better = sum(query @ key >= query @ keys[mine] for m, key in enumerate(keys) if m != mine)
        hits += better < n
    return hits / len(queries)


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("block_rows", [1, 7, 1024])
def test_by_hand(n, block_rows):
    # Small integers: products are exact, and many of them equal.
    keys, own = RNG.integers(-2, 3, (20, 4)), RNG.integers(0, 20, 30)
    queries = keys[own] + RNG.integers(-1, 2, (30, 4))
    found = top_n_accuracy(queries, keys, n, own, block_rows)
    assert found == pytest.approx(by_hand(queries, keys, n, own))
    assert found > 0


def test_ties_count_against():
    assert top_n_accuracy(np.ones((2, 3)), np.ones((2, 3))) == 0
    assert top_n_accuracy(np.ones((2, 3)), np.ones((2, 3)), n=2) == 1
    assert top_n_accuracy(np.eye(3), np.eye(3)) == 1
    assert np.isnan(top_n_accuracy(np.zeros((0, 3)), np.eye(3)))


def test_bad_arguments():
    with pytest.raises(ValueError, match="`n=0`"):
        top_n_accuracy(np.eye(3), np.eye(3), n=0)
    with pytest.raises(ValueError, match=r"`keys.shape=\(2, 2\)`"):
        top_n_accuracy(np.eye(3), np.eye(2))
    with pytest.raises(ValueError, match="one of the 2 keys for each of the 3 queries"):
        top_n_accuracy(np.eye(3), np.eye(3)[:2])
    with pytest.raises(ValueError, match="NaN. Received: row 4 of `queries`"):
        queries = np.eye(5)
        queries[4, 0] = np.nan
        top_n_accuracy(queries, np.eye(5), block_rows=2)
