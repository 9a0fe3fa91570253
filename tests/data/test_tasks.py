import numpy as np
import pytest

import ctr_keras as ck
from ctr_keras.schema import MISSING_INT


def tasks_of(dataset):
    """Each task as two lists of its unpadded rows: (features of the row, label)."""
    found = []
    for batch in dataset.as_numpy_iterator():
        for task in range(len(batch["query"][1])):
            parts = {}
            for name, (x, y, weight) in batch.items():
                rows = np.flatnonzero(weight[task])
                assert (rows == np.arange(len(rows))).all()  # padding comes last
                for column in (*x.values(), y):
                    assert not column[task, len(rows) :].any()
                parts[name] = [({n: c[task, r] for n, c in x.items()}, y[task, r]) for r in rows]
            found.append(parts)
    return found


def read(data, schema, key="user_id", **kwargs):
    return ck.data.read_tasks(data, schema, key, **{"support": 8, "query": 4, **kwargs})


@pytest.mark.parametrize("support, query", [(8, 4), (30, 10), (1, 1)])
def test_tasks_are_the_last_rows_of_each_user(small_data, small_schema, small_rows, support, query):
    found = tasks_of(read(small_data, small_schema, support=support, query=query, tasks=5))
    users = sorted(set(small_rows["user_id"]))
    assert len(found) == len(users)
    for user, task in zip(users, found, strict=True):
        rows = np.flatnonzero(small_rows["user_id"] == user)
        queries = min(query, max(1, round(len(rows) * query / (support + query))))
        expected = {"query": rows[-queries:], "support": rows[:-queries][-support:]}
        for name, numbers in expected.items():
            assert len(task[name]) == len(numbers)
            for (x, y), row in zip(task[name], numbers, strict=True):
                assert x["user_id"] == user and x["age"] == small_rows["age"][row]
                assert y == small_rows["label"][row]


def test_shuffled_tasks_are_a_new_sample_each_epoch_and_the_same_in_each_run(
    small_data, small_schema, small_rows
):
    first, again = (read(small_data, small_schema, shuffle=True, seed=3) for _ in range(2))
    epochs = [tasks_of(first), tasks_of(first)]
    repeated = [tasks_of(again), tasks_of(again)]
    resumed = tasks_of(read(small_data, small_schema, shuffle=True, seed=3, epoch=1))

    def ages(tasks):
        return [[x["age"] for part in task.values() for x, _ in part] for task in tasks]

    assert ages(epochs[0]) == ages(repeated[0]) and ages(epochs[1]) == ages(repeated[1])
    assert ages(epochs[1]) == ages(resumed) and ages(epochs[0]) != ages(epochs[1])
    for task in epochs[0]:
        rows = task["support"] + task["query"]
        assert len({x["user_id"] for x, _ in rows}) == 1
        assert len({x["age"] for x, _ in rows}) == len(rows)  # no row twice
    users = {task["query"][0][0]["user_id"] for task in epochs[0]}
    assert users == set(small_rows["user_id"])


def test_out_of_vocabulary_is_no_task(small_data, small_schema):
    items = {x["item_id"] for t in tasks_of(read(small_data, small_schema, "item_id"))
             for x, _ in t["query"]}  # fmt: skip
    assert items == set(range(2, 42))
    groups = tasks_of(read(small_data, small_schema, "group"))
    assert len(groups) == 28


def test_rows_without_a_group_are_no_task(tmp_path, small_schema, small_rows):
    rows = {name: list(column) for name, column in small_rows.items()}
    rows["group"] = ["" if n % 3 else group for n, group in enumerate(rows["group"])]
    ck.data.write(tmp_path, small_schema, rows)
    found = tasks_of(read(tmp_path, small_schema, "group", every_row=True))
    assert all(x["group"] != MISSING_INT for t in found for x, _ in t["support"] + t["query"])
    assert sum(len(t["support"]) + len(t["query"]) for t in found) <= 200


def test_a_key_with_one_row_is_left_out_or_a_query_alone(tmp_path, small_schema, small_rows):
    one = {name: list(column[:3]) for name, column in small_rows.items()}
    one["user_id"] = [5, 6, 6]
    ck.data.write(tmp_path, small_schema, one)
    assert len(tasks_of(read(tmp_path, small_schema))) == 1
    alone = tasks_of(read(tmp_path, small_schema, min_rows=1))[0]
    assert len(alone["support"]) == 0 and len(alone["query"]) == 1
    with pytest.raises(ValueError, match="`min_rows=3`"):
        read(tmp_path, small_schema, min_rows=3)


def test_negative_ratio_is_passed_on(small_data, small_schema):
    sampled = read(small_data, small_schema, negative_ratio=0.5)
    assert sampled.negative_ratio == 0.5
    labels = [y for task in tasks_of(sampled) for _, y in task["support"] + task["query"]]
    assert np.mean(labels) > 0.55


def test_bad_arguments(small_data, small_schema):
    for name in ("support", "query", "tasks", "min_rows"):
        with pytest.raises(ValueError, match=f"`{name}` must be a positive .*`{name}=0`"):
            read(small_data, small_schema, **{name: 0})
    for key in ("age", "history_item_id", "colour"):
        with pytest.raises(ValueError, match=f"Received: `key='{key}'`"):
            read(small_data, small_schema, key)


@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_may_go_through_every_row(small_data, small_schema, small_rows, shuffle):
    dataset = read(small_data, small_schema, every_row=True, shuffle=shuffle, tasks=5)
    for _ in range(2):
        found = tasks_of(dataset)
        assert len(list(dataset)) == len(dataset) == -(-len(found) // 5)
        ages = [x["age"] for task in found for part in task.values() for x, _ in part]
        np.testing.assert_array_equal(np.sort(ages), np.sort(small_rows["age"]))
        for task in found:
            assert len({x["user_id"] for part in task.values() for x, _ in part}) == 1
    _, pieces = np.unique(
        [task["query"][0][0]["user_id"] for task in found], return_counts=True
    )  # fmt: skip
    rows = np.unique(small_rows["user_id"], return_counts=True)[1]
    np.testing.assert_array_equal(pieces, -(-rows // 12))  # no more than it takes
    sizes = [sum(map(len, task.values())) for task in found]
    assert max(sizes) <= 12 and min(sizes) >= rows.min() // 2
