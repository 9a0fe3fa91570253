import numpy as np
import pytest

import ctr_keras as ck
from tests.conftest import make_rows


@pytest.fixture(scope="module")
def test_rows():
    rows = make_rows(120, seed=1)
    # One row in ten is of a user that training does not know, some have no item.
    rows["group"] = [f"new{g}" if n % 10 == 0 else g for n, g in enumerate(rows["group"])]
    rows["item_id"] = ["" if n % 17 == 0 else i for n, i in enumerate(rows["item_id"])]
    return rows


@pytest.fixture(scope="module")
def test_data(tmp_path_factory, small_schema, test_rows):
    folder = tmp_path_factory.mktemp("test")
    ck.data.write(folder, small_schema, test_rows, block_rows=32)
    return folder


def test_counts_are_those_of_the_rows(small_data, small_rows):
    counts = ck.data.exposure_counts(small_data, "item_id")
    values, expected = np.unique(small_rows["item_id"], return_counts=True)
    assert counts == {v.encode(): n for v, n in zip(values, expected, strict=True)}
    # Four items are out of vocabulary; they stay apart.
    assert len(counts) == 44
    assert ck.data.exposure_counts(small_data, "user_id").total() == 600


@pytest.mark.parametrize("few", [1, 14, 100])
def test_slices_row_by_row(small_data, small_rows, test_data, test_rows, few):
    slices = ck.data.cold_slices(small_data, test_data, few)
    assert set(slices) == {"user_zero_shot", "user_few_shot", "item_zero_shot", "item_few_shot"}
    for role, column in (("user", "group"), ("item", "item_id")):
        for row, value in enumerate(test_rows[column]):
            count = list(small_rows[column]).count(value)
            assert slices[f"{role}_zero_shot"][row] == (count == 0 and value != "")
            assert slices[f"{role}_few_shot"][row] == (0 < count < few)
    assert slices["user_zero_shot"].sum() == 12 and not slices["item_zero_shot"].any()


def test_slices_follow_the_order_of_the_reader(small_data, test_data, small_schema):
    by_id = ck.data.cold_slices(small_data, test_data, 14, user="user_id")
    counts = ck.data.exposure_counts(small_data, "user_id")
    rows = ck.data.read(test_data, small_schema, 50)
    users = np.concatenate([x["user_id"] for x, _ in rows])
    np.testing.assert_array_equal(by_id["user_few_shot"], [0 < counts[u] < 14 for u in users])


@pytest.mark.parametrize("few", [0, -3, 1.5, True])
def test_few_must_be_positive(small_data, test_data, few):
    with pytest.raises(ValueError, match="`few` must be a positive integer. Received: `few="):
        ck.data.cold_slices(small_data, test_data, few)


def test_only_ids_of_one_value_are_counted(small_data, test_data):
    for name in ("history_item_id", "age", "colour"):
        with pytest.raises(ValueError, match=f"Received: `feature='{name}'`"):
            ck.data.exposure_counts(small_data, name)
    with pytest.raises(ValueError, match="'age'"):
        ck.data.cold_slices(small_data, test_data, user="age")
