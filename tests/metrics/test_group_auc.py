import dataclasses
import math

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.metrics import roc_auc_score

from ctr_keras.metrics import GAUC, gauc
from ctr_keras.metrics.segment_auc import _running_sum, _running_sum_float64

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
tensorflow_only = pytest.mark.skipif(not ON_TENSORFLOW, reason="a path of TensorFlow alone")
jax_only = pytest.mark.skipif(keras.backend.backend() != "jax", reason="a rule of JAX alone")


def _by_loop(labels, scores, groups, weights=None):
    """GAUC as the formula reads, with scikit-learn's AUC of each group."""
    weights = np.ones(len(labels)) if weights is None else weights
    total, impressions, skipped_groups, skipped_rows = 0.0, 0.0, 0, 0
    for group in set(np.asarray(groups).tolist()):
        mine = np.asarray(groups) == group
        if len(set(labels[mine])) == 2:
            weight = weights[mine].sum()
            total += weight * roc_auc_score(labels[mine], scores[mine], sample_weight=weights[mine])
            impressions += weight
        else:
            skipped_groups += 1
            skipped_rows += mine.sum()
    return total / impressions, skipped_groups, skipped_rows


def _fill(metric, rows, size=130, weighted=False):
    for labels, probabilities, groups, weights in rows.batches(size):
        metric.update_state(labels, probabilities, weights if weighted else None, groups=groups)
    return metric


@pytest.mark.parametrize("weighted", [False, True])
def test_gauc_is_the_loop_over_users(make_rows, weighted):
    rows = make_rows(600, 0.1, users=80)
    rows.probabilities = np.round(rows.probabilities, 2)
    weights = rows.weights if weighted else None
    value, skipped_groups, skipped_rows = _by_loop(
        rows.labels, rows.probabilities, rows.groups, weights
    )
    result = gauc(rows.labels, rows.probabilities, rows.groups, weights)
    assert result.value == pytest.approx(value, abs=1e-12)
    assert (result.skipped_groups, result.skipped_rows) == (skipped_groups, skipped_rows)
    assert (result.num_groups, result.num_rows) == (len(set(rows.groups)), 600)
    assert 0 < skipped_groups < result.num_groups


def test_users_weigh_by_their_impressions():
    labels = [1, 0] + [0, 1, 1, 1]
    result = gauc(labels, [0.9, 0.1] + [0.5] * 4, [1, 1, 2, 2, 2, 2])
    assert result.value == pytest.approx((2 * 1.0 + 4 * 0.5) / 6)


def test_equal_scores_of_two_users_are_no_tie():
    labels, scores, groups = [0, 1, 1, 0], [0.1, 0.5, 0.5, 0.9], np.array([1, 1, 2, 2])
    assert gauc(labels, scores, groups).value == 0.5
    metric = GAUC(capacity=8)
    metric.update_state(labels, scores, groups=groups)
    assert float(metric.result()) == 0.5


def test_one_class_users_are_left_out_and_counted():
    result = gauc([1, 0, 1, 1, 0], [0.9, 0.1, 0.2, 0.3, 0.4], [1, 1, 2, 2, 3])
    assert result.value == 1.0
    assert (result.num_groups, result.skipped_groups) == (3, 2)
    assert (result.num_rows, result.skipped_rows) == (5, 3)
    assert result.skipped_group_share == pytest.approx(2 / 3)
    assert result.skipped_row_share == pytest.approx(3 / 5)


def test_only_one_class_users_is_not_defined():
    result = gauc([1, 0], [0.9, 0.1], [1, 2])
    assert math.isnan(result.value)
    assert (result.skipped_groups, result.skipped_group_share) == (2, 1.0)
    metric = GAUC(capacity=4)
    metric.update_state([1, 0], [0.9, 0.1], groups=[1, 2])
    assert math.isnan(float(metric.result()))
    # The rows of a batch without a pair pair up with later ones.
    metric.update_state([0], [0.5], groups=[1])
    assert float(metric.result()) == 1.0


def test_rows_of_weight_0_are_not_there():
    result = gauc([1, 0, 0], [0.9, 0.1, 0.95], [1, 1, 1], [1, 1, 0])
    assert (result.value, result.num_rows) == (1.0, 2)
    result = gauc([1, 0], [0.9, 0.1], [1, 2], [0, 0])
    assert math.isnan(result.value)
    assert (result.num_groups, result.skipped_row_share) == (0, 0.0)


@pytest.mark.parametrize(
    "convert",
    [
        lambda groups: np.array([f"user-{group}" for group in groups]),
        lambda groups: np.array([f"user-{group}" for group in groups], dtype=object),
        lambda groups: [f"user-{group}" for group in groups],
        lambda groups: groups.astype("float32"),
        lambda groups: groups.astype("int64") * 2**40,
        lambda groups: np.array([(group, "a") for group in groups.tolist()] + [0], object)[:-1],
        lambda groups: groups[:, None],
    ],
    ids=["str", "object", "list", "float", "wide", "tuples", "column"],
)
def test_groups_of_any_type(rows, convert):
    expected = gauc(rows.labels, rows.probabilities, rows.groups)
    found = gauc(rows.labels, rows.probabilities, convert(rows.groups))
    # The order in which groups are summed is that of their names.
    assert found.value == pytest.approx(expected.value, rel=1e-12)
    assert dataclasses.replace(found, value=expected.value) == expected


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        ([1], ValueError, r"as many rows as `labels`, 2. Received: `len\(groups\)=1`"),
        ([1.0, math.nan], ValueError, r"missing. Received: `groups\[1\]=nan`"),
        (np.array(["a", None], object), TypeError, "with NoneType, str"),
        (np.array(["a", math.nan], object), TypeError, "with float, str"),
        ([[1, 2], [3, 4]], ValueError, r"Received: `groups.shape=\(2, 2\)`"),
    ],
)
def test_bad_groups(groups, error, message):
    with pytest.raises(error, match=message):
        gauc([0, 1], [0.1, 0.2], groups)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [1, 130, 500])
def test_streaming_is_the_plain_function(make_rows, size, weighted):
    rows = make_rows(60 if size == 1 else 500, 0.3, users=20)
    rows.probabilities = np.round(rows.probabilities, 2)
    metric = _fill(GAUC(capacity=500), rows, size, weighted)
    weights = rows.weights if weighted else None
    expected = gauc(rows.labels, rows.probabilities, rows.groups, weights)
    assert float(metric.result()) == pytest.approx(expected.value, abs=2e-6)
    report = metric.report()
    assert report.value == pytest.approx(expected.value, abs=1e-6)
    assert report.skipped_rows == expected.skipped_rows
    assert report.num_groups == expected.num_groups


def test_a_full_buffer_is_not_too_full(rows):
    metric = _fill(GAUC(capacity=500), rows, 125)
    expected = gauc(rows.labels, rows.probabilities, rows.groups).value
    assert float(metric.result()) == pytest.approx(expected, abs=2e-6)


def test_reset_forgets_the_rows(rows):
    metric = _fill(GAUC(capacity=500), rows)
    metric.reset_state()
    assert math.isnan(float(metric.result()))
    assert metric.report().num_rows == 0
    metric.update_state([1, 0], [0.9, 0.1], groups=[-50, -50])
    assert float(metric.result()) == 1.0


def test_scores_may_be_logits():
    metric = GAUC(capacity=8)
    metric.update_state([0, 1, 0, 1], [-9.0, -3.0, 2.0, 40.0], groups=[5, 5, 5, 5])
    assert float(metric.result()) == 0.75


def test_a_heavy_group_does_not_blur_a_light_one():
    # In float32 a sum over all rows would stand at 2e9 and not feel weights of 1.
    groups = np.array([0, 0, 1, 1, 1, 1])
    labels, scores = [0, 0, 0, 1, 0, 1], [0.1, 0.2, 0.1, 0.3, 0.2, 0.15]
    weights = [1e9, 1e9, 1, 1, 1, 1]
    metric = GAUC(capacity=8)
    metric.update_state(labels, scores, weights, groups=groups)
    assert float(metric.result()) == 0.75


def test_a_bad_score_reaches_the_result_also_from_a_user_left_out():
    metric = GAUC(capacity=8)
    metric.update_state([0, 1], [0.1, 0.2], groups=[1, 1])
    metric.update_state([1], [math.nan], groups=[2])
    assert math.isnan(float(metric.result()))
    with pytest.raises(ValueError, match="Received: row 2 since `reset_state`"):
        metric.report()


def test_ids_wider_than_32_bits():
    groups = np.array([1, 1, 2**32 + 1, 2**32 + 1])
    metric = GAUC(capacity=8)
    if ON_TENSORFLOW:
        metric.update_state([0, 1, 1, 0], [0.1, 0.2, 0.05, 0.15], groups=groups)
        assert float(metric.result()) == 0.5
        assert metric.report().num_groups == 2
    else:
        with pytest.raises(ValueError, match="32 bits on JAX. Received: `groups` from 1 to"):
            metric.update_state([0, 1, 1, 0], [0.1, 0.2, 0.05, 0.15], groups=groups)


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        (None, ValueError, "feature 'shop'.*Received: `groups=None`"),
        (np.array(["a", "b"]), TypeError, "integer ids. Received: `groups.dtype=str"),
        (np.array([1.0, 2.0]), TypeError, "integer ids. Received: `groups.dtype=float64`"),
        (np.array([1, 2, 3]), ValueError, r"as many rows as `y_true`, 2. Received: `groups.shape"),
        (np.array([[1, 2], [3, 4]]), ValueError, r"Received: `groups.shape=\(2, 2\)`"),
    ],
)
def test_bad_groups_in_a_batch(groups, error, message):
    with pytest.raises(error, match=message):
        GAUC(group="shop", capacity=8).update_state([0, 1], [0.1, 0.2], groups=groups)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"capacity": 0}, ValueError, "1 or more. Received: `capacity=0`"),
        ({"capacity": 1e6}, TypeError, "integer. Received: `capacity=1000000.0`"),
        ({"group": ""}, TypeError, "name of a feature. Received: `group=''`"),
        ({"group": 3}, TypeError, "name of a feature. Received: `group=3`"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        GAUC(**arguments)


def test_a_batch_larger_than_the_capacity():
    metric = GAUC(capacity=2)
    with pytest.raises(ValueError, match="3 rows of one batch. Received: `capacity=2`"):
        metric.update_state([0, 1, 1], [0.1, 0.2, 0.3], groups=[1, 1, 1])


@jax_only
def test_more_rows_than_the_capacity_is_nan_on_jax():
    metric = GAUC(capacity=3)
    metric.update_state([0, 1], [0.1, 0.2], groups=[1, 1])
    metric.update_state([0, 1], [0.1, 0.2], groups=[1, 1])
    assert math.isnan(float(metric.result()))
    with pytest.raises(ValueError, match="number of rows, 4. Received: `capacity=3`"):
        metric.report()


@tensorflow_only
@pytest.mark.parametrize("compiled", [False, True])
def test_more_rows_than_the_capacity_raises_on_tensorflow(compiled):
    import tensorflow as tf

    metric = GAUC(capacity=3)

    def update():
        metric.update_state([0, 1], [0.1, 0.2], groups=np.array([1, 1]))

    if compiled:
        update = tf.function(update)
    update()
    with pytest.raises(tf.errors.InvalidArgumentError, match="Received: `capacity=3`"):
        update()


@tensorflow_only
def test_more_rows_than_the_capacity_raises_after_xla():
    import tensorflow as tf

    metric = GAUC(capacity=3)

    @tf.function(jit_compile=True)
    def update():
        metric.update_state([0, 1], [0.1, 0.2], groups=np.array([1, 1]))

    update()
    assert float(metric.result()) == 1.0
    update()
    with pytest.raises(ValueError, match="number of rows, 4. Received: `capacity=3`"):
        metric.result()


@tensorflow_only
@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_updates_are_the_plain_function(rows, jit_compile):
    import tensorflow as tf

    metric = GAUC(capacity=500)

    @tf.function(jit_compile=jit_compile)
    def step(labels, probabilities, groups):
        metric.update_state(labels, probabilities, groups=groups)
        return metric.result()

    for labels, probabilities, groups, _ in rows.batches(100):
        within = step(tf.constant(labels), tf.constant(probabilities), tf.constant(groups))
        assert math.isnan(float(within))
    expected = gauc(rows.labels, rows.probabilities, rows.groups).value
    assert float(metric.result()) == pytest.approx(expected, abs=1e-6)


@tensorflow_only
def test_append_in_place_is_append(rows):
    in_place, generic = GAUC(capacity=500), GAUC(capacity=500)
    _fill(in_place, rows, weighted=True)
    generic._append_in_place = generic._append
    _fill(generic, rows, weighted=True)
    for left, right in zip(in_place.variables, generic.variables, strict=True):
        np.testing.assert_array_equal(left.numpy(), right.numpy())
    assert int(generic._rows) == 500
    assert float(generic.result()) == float(in_place.result())


@tensorflow_only
def test_the_running_sum_in_float64_is_the_scan():
    rng = np.random.default_rng(0)
    group = ops.convert_to_tensor(np.sort(rng.integers(0, 9, 50)).astype("int32"))
    starts = ops.convert_to_tensor(np.diff(group, prepend=-1) > 0)
    values = ops.convert_to_tensor(rng.random(50).astype("float32"))
    expected = np.concatenate(
        [np.cumsum(np.array(values)[np.array(group) == one]) for one in range(9)]
    )
    np.testing.assert_allclose(_running_sum(values, starts), expected, rtol=1e-6)
    np.testing.assert_allclose(_running_sum_float64(values, group, 50), expected, rtol=1e-6)


class GroupedModel(keras.Model):
    """What a model does for a metric with the attribute `group`."""

    def call(self, x):
        return x["score"]

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self.gauc.update_state(y, y_pred, groups=x[self.gauc.group])
        return super().compute_metrics(x, y, y_pred, sample_weight)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_evaluate_returns_the_exact_value(rows, jit_compile):
    model = GroupedModel()
    model.gauc = GAUC(group="shop", capacity=500)
    model.compile(loss="mse", jit_compile=jit_compile)
    groups = rows.groups.astype("int32")
    x = {"score": rows.probabilities[:, None], "shop": groups}
    for _ in range(2):
        logs = model.evaluate(x, rows.labels, batch_size=130, verbose=0, return_dict=True)
        expected = gauc(rows.labels, rows.probabilities, rows.groups).value
        assert logs["gauc"] == pytest.approx(expected, abs=2e-6)
