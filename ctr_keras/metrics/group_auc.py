"""GAUC: area under the ROC curve within each user."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from ctr_keras.api_export import export
from ctr_keras.metrics.arrays import check_groups, check_labels, check_scores, check_weights
from ctr_keras.metrics.ranking import ordered_pairs
from ctr_keras.metrics.rows import binary_rows, check_length
from ctr_keras.metrics.rows import one_per_row as one_tensor_per_row
from ctr_keras.metrics.segment_auc import segment_auc


@dataclass(frozen=True)
class GAUCResult:
    """The value of GAUC and what it leaves out.

    Attributes:
        value: Impression-weighted mean AUC of the groups with both classes; NaN if there is none.
        num_groups: Number of groups in all.
        skipped_groups: Number of groups of one class only, which have no AUC.
        num_rows: Number of rows in all. Rows of weight 0 are not counted.
        skipped_rows: Number of rows in the skipped groups.
    """

    value: float
    num_groups: int
    skipped_groups: int
    num_rows: int
    skipped_rows: int

    @property
    def skipped_group_share(self) -> float:
        """Share of the groups left out, in [0, 1]."""
        return self.skipped_groups / max(self.num_groups, 1)

    @property
    def skipped_row_share(self) -> float:
        """Share of the rows left out, in [0, 1]."""
        return self.skipped_rows / max(self.num_rows, 1)


def gauc(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    sample_weight: ArrayLike | None = None,
) -> GAUCResult:
    """Exact impression-weighted mean AUC by group, most often by user.

    With `n_u` the number of rows of group `u` (with weights, their sum), over the groups with both
    classes:

    `sum_u n_u AUC_u / sum_u n_u`

    Groups of one class have no AUC. They are left out and counted in the result.

    Args:
        labels: Zeros and ones, in shape `(rows,)` or `(rows, 1)`.
        scores: Finite numbers, probabilities or logits: only their order within a group matters.
        groups: The group of each row: integers, strings or anything of one type that sorts.
        sample_weight: Optional weight of each row. Rows of weight 0 are left out.

    Returns:
        A `GAUCResult`.

    Example:

    >>> result = gauc([0, 1, 1, 0, 1], [0.1, 0.4, 0.3, 0.3, 0.8], ["a", "a", "b", "b", "c"])
    >>> result.value, result.skipped_groups, result.skipped_row_share
    (0.75, 1, 0.2)

    Reference:
        - Zhu et al., "Optimized Cost per Click in Taobao Display Advertising", KDD 2017.
        - Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018.
    """
    clicks = check_labels(labels)
    scores = check_scores(scores, len(clicks))
    weights = check_weights(sample_weight, len(clicks))
    groups = check_groups("groups", groups, len(clicks))
    present = weights > 0
    if not present.any():
        return GAUCResult(float("nan"), 0, 0, 0, 0)

    clicks, scores, weights = clicks[present], scores[present], weights[present]
    _, index = np.unique(groups[present], return_inverse=True)
    pairs, positive, negative = ordered_pairs(
        index, scores, weights * clicks, weights * (1 - clicks)
    )
    both = (positive > 0) & (negative > 0)
    area = pairs[both] / (positive[both] * negative[both])
    impressions = positive[both] + negative[both]
    rows = np.bincount(index)
    return GAUCResult(
        value=float(impressions @ area / impressions.sum()) if both.any() else float("nan"),
        num_groups=len(both),
        skipped_groups=int((~both).sum()),
        num_rows=int(rows.sum()),
        skipped_rows=int(rows[~both].sum()),
    )


@export
class GAUC(keras.metrics.Metric):
    """Streaming GAUC: exact impression-weighted mean AUC by group, most often by user.

    With `n_u` the number of rows of group `u` (with weights, their sum), over the groups with both
    classes:

    `sum_u n_u AUC_u / sum_u n_u`

    Groups of one class have no AUC and are left out; `report` says how many. Without a group of
    both classes the result is NaN. It is NaN, too, until `reset_state`, once a row had a label
    other than 0 and 1 or a score that is not finite. Rows of weight 0 are left out, whatever they
    hold.

    AUC within a user needs all rows of that user at once, so the metric holds every row, 20 bytes
    each, up to `capacity`, and sorts them in `result`. More rows than that are an error, never a
    value of a part of them:

    - On TensorFlow `update_state` raises `tf.errors.InvalidArgumentError`; under
      `jit_compile=True`, where XLA drops assertions, `result` raises `ValueError`.
    - On JAX, where a compiled step cannot raise, `result` is NaN and `report` raises `ValueError`.

    Keras asks every metric for its result after every batch. To sort all rows that often would cost
    far more than the model, so inside a `tf.function` the result is NaN; the value that `fit` and
    `evaluate` return, log and hand to callbacks at the end of an epoch is asked for outside of it,
    and is exact. For the same reason, on JAX, call a compiled `stateless_result` once, at the end.

    The groups are not among the arguments with which Keras calls a compiled metric. A model that is
    to support it passes `groups=x[metric.group]` for every metric that has the attribute `group`,
    as the models of this package do. They give rows without a group the weight 0, and, where the
    group is an id with a vocabulary, rows whose id is missing (0) or out of vocabulary (1): all
    users that training has not seen are not one user. A feature of the role `"group"` without a
    vocabulary tells those apart. The metric cannot be made under a strategy of several replicas,
    of which none has all rows of a user.

    Args:
        group: Name of the feature that holds the group of a row. Defaults to `"user_id"`.
        capacity: Number of rows the metric can hold. Defaults to `2**20`, in 20 MiB.
        name: Optional name of the metric instance. Defaults to `"gauc"`.
        dtype: Optional dtype of the result.

    Call arguments:
        y_true: Zeros and ones, in shape `(batch,)` or `(batch, 1)`.
        y_pred: Scores, probabilities or logits, in shape `(batch,)` or `(batch, 1)`.
        sample_weight: Optional weight of each row.
        groups: Integer ids, in shape `(batch,)` or `(batch, 1)`: of 64 bits on TensorFlow, of 32 on
            JAX.

    Output: a scalar.

    Example:

    >>> metric = GAUC(capacity=8)
    >>> groups = np.array([1, 1, 2, 2, 3])
    >>> metric.update_state([0, 1, 1, 0, 1], [0.1, 0.4, 0.3, 0.3, 0.8], groups=groups)
    >>> float(metric.result())
    0.75
    >>> metric.report().skipped_groups
    1

    Reference:
        - Zhu et al., "Optimized Cost per Click in Taobao Display Advertising", KDD 2017.
        - Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018.
    """

    leaves_out_unknown = True  # A model's rows of ids below those of the vocabulary do not count.

    def __init__(
        self,
        group: str = "user_id",
        capacity: int = 2**20,
        name: str | None = "gauc",
        dtype: str | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if not isinstance(group, str) or not group:
            raise TypeError(f"`group` must be the name of a feature. Received: `group={group!r}`")
        if isinstance(capacity, bool) or not isinstance(capacity, int):
            raise TypeError(f"`capacity` must be an integer. Received: `capacity={capacity!r}`")
        if capacity < 1:
            raise ValueError(f"`capacity` must be 1 or more. Received: `capacity={capacity}`")
        _check_one_device()
        self.group = group
        self.capacity = capacity
        id_dtype = "int64" if _on_tensorflow() else "int32"
        # A row not yet written has weight 0 as a click and as none: it counts for nothing.
        self._groups = self._buffer("groups", id_dtype)
        self._scores = self._buffer("scores", "float32")
        self._positive = self._buffer("positive", "float32")
        self._negative = self._buffer("negative", "float32")
        self._rows = self.add_variable((), "zeros", dtype="int32", name="rows")

    def _buffer(self, name: str, dtype: str) -> Any:
        return self.add_variable((self.capacity,), "zeros", dtype=dtype, name=name)

    def update_state(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None, groups: Any = None
    ) -> None:
        """Hold the rows of a batch; `groups` is required."""
        labels, scores, weights = binary_rows(y_true, y_pred, sample_weight, probabilities=False)
        ids = self._ids(groups, labels)
        rows = labels.shape[0]
        if rows is not None and rows > self.capacity:
            raise ValueError(
                f"`capacity` must be at least the {rows} rows of one batch. "
                f"Received: `capacity={self.capacity}`"
            )
        columns = [ids, scores, weights * labels, weights * (1 - labels)]
        buffers = [self._groups, self._scores, self._positive, self._negative]
        if _on_tensorflow():
            self._append_in_place(buffers, columns)
        else:
            self._append(buffers, columns)

    def _ids(self, groups: Any, labels: Any) -> Any:
        if groups is None:
            raise ValueError(
                f"`groups` must hold the group of each row, the feature {self.group!r}: call "
                "`update_state(y_true, y_pred, groups=x[metric.group])`, as the models of this "
                "package do for a metric with the attribute `group`. Received: `groups=None`"
            )
        if not hasattr(groups, "dtype"):
            groups = np.asarray(groups)
        kind = getattr(groups.dtype, "name", str(groups.dtype))
        if "int" not in kind:
            raise TypeError(f"`groups` must hold integer ids. Received: `groups.dtype={kind}`")
        wanted = self._groups.dtype
        if isinstance(groups, np.ndarray) and groups.size and wanted == "int32":
            # JAX would cut wider ids to 32 bits in silence and so merge users.
            low, high = int(groups.min()), int(groups.max())
            if low < -(2**31) or high >= 2**31:
                raise ValueError(
                    f"`groups` must fit in 32 bits on JAX. Received: `groups` from {low} to {high}"
                )
        ids = one_tensor_per_row("groups", ops.cast(ops.convert_to_tensor(groups), wanted))
        check_length("groups", ids, labels)
        return ids

    def _append(self, buffers: list[Any], columns: list[Any]) -> None:
        """Write a batch behind the rows held, by way of a copy of each buffer."""
        start = self._rows.value
        for buffer, column in zip(buffers, columns, strict=True):
            buffer.assign(ops.slice_update(buffer.value, (start,), column))
        self._rows.assign(start + ops.shape(columns[0])[0])

    def _append_in_place(self, buffers: list[Any], columns: list[Any]) -> None:
        """The same by a scatter into each `tf.Variable`: its cost does not grow with `capacity`."""
        import tensorflow as tf

        start = self._rows.value
        rows = ops.shape(columns[0])[0]
        fits = tf.debugging.assert_less_equal(
            start + rows,
            self.capacity,
            message=f"`{self.name}`: more rows than `capacity`. Set it to the number of rows of "
            f"an evaluation. Received: `capacity={self.capacity}`",
        )
        with tf.control_dependencies([] if fits is None else [fits]):
            # Not `tf.range(start, end)`: XLA takes its length for unknown, and copies the buffers.
            places = (tf.range(rows) + start)[:, None]
        if not isinstance(buffers[0].value, tf.Variable):  # In a stateless call.
            return self._append(buffers, columns)
        for buffer, column in zip(buffers, columns, strict=True):
            buffer.value.scatter_nd_update(places, column)
        self._rows.assign(start + rows)

    def result(self) -> Any:
        """GAUC of the rows since the last reset; NaN inside a `tf.function`."""
        if _on_tensorflow():
            import tensorflow as tf

            if not tf.executing_eagerly():
                return ops.cast(float("nan"), self.dtype)
            columns = [column[: max(self._held(), 1)] for column in self._columns()]
            return ops.cast(segment_auc(*columns), self.dtype)
        value = ops.where(
            self._rows.value <= self.capacity, segment_auc(*self._columns()), float("nan")
        )
        return ops.cast(value, self.dtype)

    def report(self) -> GAUCResult:
        """The value with the counts of all groups and rows, and of those left out.

        It runs on the host, outside of compiled code, and raises `ValueError` when more rows came
        than `capacity` or when a row was not a proper one.
        """
        rows = self._held()
        if rows == 0:
            return GAUCResult(float("nan"), 0, 0, 0, 0)
        groups, scores, positive, negative = (
            ops.convert_to_numpy(column)[:rows] for column in self._columns()
        )
        weights = positive + negative
        if np.isnan(weights).any():
            row = int(np.argmax(np.isnan(weights)))
            raise ValueError(
                "A row must have a label 0 or 1, a finite score and a finite weight of 0 or more. "
                f"Received: row {row} since `reset_state` with another, `weight=nan`"
            )
        return gauc(positive > 0, scores, groups, weights)

    def _columns(self) -> list[Any]:
        buffers = [self._groups, self._scores, self._positive, self._negative]
        return [buffer.value for buffer in buffers]

    def _held(self) -> int:
        rows = int(ops.convert_to_numpy(self._rows.value))
        if rows > self.capacity:
            raise ValueError(
                f"`capacity` must be at least the number of rows, {rows}. "
                f"Received: `capacity={self.capacity}`"
            )
        return rows

    def get_config(self) -> dict[str, Any]:
        """The arguments with which `from_config` makes the same metric."""
        return {**super().get_config(), "group": self.group, "capacity": self.capacity}


def _check_one_device() -> None:
    if not _on_tensorflow():
        return
    import tensorflow as tf

    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas > 1:
        raise ValueError(
            "GAUC needs all rows of a group at once: compile without it, and evaluate on one "
            f"device. Received: a strategy of {replicas} replicas"
        )


def _on_tensorflow() -> bool:
    return keras.backend.backend() == "tensorflow"
