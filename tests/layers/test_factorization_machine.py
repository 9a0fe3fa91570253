import itertools

import numpy as np
import pytest

from ctr_keras.layers import FactorizationMachine
from tests.conformance import run_layer_conformance


def sum_of_pairs(v):
    """The definition, pair by pair."""
    return np.array(
        [[sum(row[i] @ row[j] for i, j in itertools.combinations(range(len(row)), 2))] for row in v]
    )


def test_conformance():
    v = np.random.default_rng(0).normal(size=(6, 4, 3)).astype("float32")
    run_layer_conformance(FactorizationMachine, {}, v, (6, 1), trains=True)


@pytest.mark.parametrize("fields", [1, 2, 7])
def test_equals_the_sum_over_pairs(fields):
    v = np.random.default_rng(fields).normal(size=(5, fields, 4)).astype("float32")
    np.testing.assert_allclose(FactorizationMachine()(v), sum_of_pairs(v), rtol=1e-5, atol=1e-5)


def test_half_precision_does_not_subtract_in_half():
    v = np.random.default_rng(0).normal(size=(64, 30, 8)).astype("float32")
    v = np.asarray(v.astype("float16"), "float32")
    got = np.asarray(FactorizationMachine(dtype="mixed_float16")(v), "float32")
    np.testing.assert_allclose(got, sum_of_pairs(v), rtol=2e-3, atol=2e-2)


def test_refuses_other_ranks():
    with pytest.raises(
        ValueError, match=r"\(batch, fields, width\).*Received: `input_shape=\(2, 3\)"
    ):
        FactorizationMachine()(np.ones((2, 3), "float32"))
