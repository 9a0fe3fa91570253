import numpy as np
import pytest

import ctr_keras as ck
from tests.conftest import make_rows


@pytest.fixture(scope="module")
def rows():
    rows = make_rows(90, seed=1)
    rows["item_id"] = ["" if n % 17 == 0 else i for n, i in enumerate(rows["item_id"])]
    rows["item_id"][1] = "never shown"
    return rows


@pytest.fixture(scope="module")
def path(tmp_path_factory, small_schema, rows):
    folder = tmp_path_factory.mktemp("test")
    ck.data.write(folder, small_schema, rows, block_rows=32)
    return folder


def test_groups_are_of_as_many_items_from_rare_to_frequent(small_data, small_rows, path, rows):
    found = ck.data.frequency_groups(small_data, path, groups=4)
    shown = {item: small_rows["item_id"].count(item) for item in rows["item_id"]}
    items = {group: set() for group in range(4)}
    for item, group in zip(rows["item_id"], found, strict=True):
        assert (group == -1) == (item == "")
        if item:
            items[group].add(item)
    assert found[1] == 0  # That of no training row.
    for group in range(3):
        assert max(shown[i] for i in items[group]) <= min(shown[i] for i in items[group + 1])
    # 44 items of the training rows and one more; not all of them are in the test rows.
    assert [len(items[group]) <= size for group, size in enumerate((12, 11, 11, 11))] == [True] * 4
    assert sum(map(len, items.values())) == len(set(rows["item_id"]) - {""})


def test_every_item_in_a_group_of_its_own(small_data):
    found = ck.data.frequency_groups(small_data, small_data, groups=44)
    assert set(np.unique(found, return_counts=True)[1]) == set(
        ck.data.exposure_counts(small_data, "item_id").values()
    )
    assert (np.diff(np.bincount(found)) >= 0).all()


def test_bad_arguments(small_data, path):
    with pytest.raises(ValueError, match="`groups` must be a positive integer.*`groups=0`"):
        ck.data.frequency_groups(small_data, path, 0)
    with pytest.raises(ValueError, match="at most the number of items, 45. Received: `groups=46`"):
        ck.data.frequency_groups(small_data, path, 46)
    with pytest.raises(ValueError, match="'age'"):
        ck.data.frequency_groups(small_data, path, item="age")
