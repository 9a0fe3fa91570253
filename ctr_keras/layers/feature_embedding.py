"""Embeddings of all id features, one fused table a width."""

from typing import Any

import keras
import numpy as np
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.layers.id_checks import check_dtype, check_range
from ctr_keras.layers.table_layout import check_shared, check_sizes, lay_out, width_of_each

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    from ctr_keras.layers.unpadded import index_unpadded, put_unpadded


@export
class FeatureEmbedding(keras.layers.Layer):
    """Looks up the embeddings of many id features in one fused table.

    Features of the same width lie one below the other in one table, each at its own offset, so that
    a call costs one gather a width instead of one a feature:

        out[f][..., :] = table[offset_f + ids_f]     where ids_f != 0
        out[f][..., :] = 0                           where ids_f == 0 (padding)

    Id 0 is padding: its vector is exactly zero and it never receives a gradient. Id 1 is by
    convention the out-of-vocabulary id, a row like any other.

    On TensorFlow the rows are read from the variable's resource, never from a copy of it, and the
    gradient is a `tf.IndexedSlices` of the rows of unpadded ids. With an optimizer that touches
    only those rows (`ctr_keras.optimizers.LazyAdam`, `RowwiseAdagrad`) a training step costs the
    same whatever the size of the tables. XLA would turn all this dense: the layer declares that it
    does not support it, so `compile(jit_compile="auto")` leaves it off.

    Args:
        sizes: Dict of feature name -> number of ids, 0 (padding) and 1 (out of vocabulary)
            included: ids lie in `[0, size)`.
        width: Integer, the width of every feature, or dict of feature name -> width.
        shared: Optional dict of feature name -> name of the feature in `sizes` whose rows it uses,
            for example `{"history_item_id": "item_id"}`.
        embeddings_initializer: Initializer of the tables. It is called once a table with shape
            `(rows, width)`, so one that depends on the shape (Glorot, He) would shrink with the
            number of ids. Defaults to `"uniform"`, between -0.05 and 0.05.
        l2: Float, the weight of the mini-batch-aware L2 penalty: `l2 * sum ||row||^2` over the
            distinct rows that the batch looks up, each once however often it occurs, added to the
            model's loss in training. Defaults to `0.0`, no penalty.
        validate_ids: Boolean, whether to check each call that ids lie in `[0, size)`. In a fused
            table an id out of range would silently read the neighbour's row. On JAX under `jit`
            there is no way to raise, so only eager calls are checked. Defaults to `True`.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Dict of feature name -> integer tensor of any dtype and shape, commonly `(batch,)`
            or `(batch, length)`. Any non-empty subset of the features may be given; only those are
            computed.
        training: Boolean, whether to add the L2 penalty.

    Output shape:
        Dict with the keys of the input: `ids.shape + (width,)`.

    Example:

    >>> layer = FeatureEmbedding(
    ...     {"user_id": 100, "item_id": 50}, width=8, shared={"history": "item_id"}
    ... )
    >>> out = layer({"user_id": np.array([3]), "history": np.array([[7, 9, 0]])})
    >>> tuple(out["history"].shape)
    (1, 3, 8)

    Reference:

    - [Zhou et al., 2018: Deep Interest Network](https://arxiv.org/abs/1706.06978), section 5.1, for
      the mini-batch-aware penalty (its division by an id's total count is left out)
    """

    def __init__(
        self,
        sizes: dict[str, int],
        width: int | dict[str, int],
        shared: dict[str, str] | None = None,
        embeddings_initializer: Any = "uniform",
        l2: float = 0.0,
        validate_ids: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_sizes(sizes)
        if l2 < 0:
            raise ValueError(f"`l2` must not be negative. Received: `l2={l2}`")
        self.sizes = dict(sizes)
        self.shared = dict(shared or {})
        check_shared(self.sizes, self.shared)
        self.width = dict(width) if isinstance(width, dict) else width
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.l2 = l2
        self.validate_ids = validate_ids
        self._widths = width_of_each(self.sizes, self.shared, self.width)
        self._offsets, self._rows = lay_out(self.sizes, self._widths)
        self.tables: dict[str, Any] = {}
        if keras.backend.backend() == "tensorflow":
            self.supports_jit = False

    def build(self, input_shape=None):
        for width, rows in self._rows.items():
            initializer = self.embeddings_initializer
            if isinstance(initializer, keras.initializers.Initializer):
                initializer = initializer.clone()
            table = self.add_weight(
                name=f"embeddings_{width}",
                shape=(rows, width),
                initializer=initializer,
                # A cast variable is a dense copy of the table: gather first, cast the rows.
                autocast=False,
            )
            table.sparse_rows = True
            self.tables[str(width)] = table

    def call(self, inputs: dict[str, Any], training: bool = False) -> dict[str, Any]:
        self._check_names(inputs)
        ids = {name: check_dtype(name, ops.convert_to_tensor(x)) for name, x in inputs.items()}
        if self.validate_ids:
            ids = check_range(ids, {name: self._size(name) for name in ids})
        outputs = {}
        for width in dict.fromkeys(self._widths[name] for name in ids):
            group = {name: x for name, x in ids.items() if self._widths[name] == width}
            outputs.update(self._look_up(self.tables[str(width)], group, training))
        return {name: outputs[name] for name in inputs}

    def _look_up(self, table, ids, training):
        """The rows of one table for the features that lie in it."""
        dtype = _index_dtype(table)
        flat = {name: ops.reshape(ops.cast(x, dtype), (-1,)) for name, x in ids.items()}
        unpadded = _concatenate(list(flat.values())) != 0
        positions = _concatenate([x + self._offset(name) for name, x in flat.items()])
        if keras.backend.backend() == "tensorflow":
            rows, touched = _gather_unpadded(table.value, positions, unpadded)
        else:
            rows = _take(table.value, positions)
            rows = ops.where(unpadded[:, None], rows, ops.zeros((), rows.dtype))
            touched = None
        if self.l2 and training:
            self.add_loss(self.l2 * _squares_of_distinct(table, positions, unpadded, touched))
        rows = ops.cast(rows, self.compute_dtype)
        return _split_like(rows, ids, table.shape[1])

    def rows(self, name: str) -> np.ndarray:
        """One feature's vectors as lookups return them.

        Args:
            name: Feature name.

        Returns:
            NumPy array of shape `(size, width)`, row 0 all zero.
        """
        table, start, size = self._place(name)
        # A gather, for the same reason as in `call`: a slice would first copy the whole table.
        rows = _take(table.value, ops.arange(start, start + size, dtype=_index_dtype(table)))
        rows = np.array(ops.convert_to_numpy(rows))
        rows[0] = 0
        return rows

    def assign_rows(self, name: str, values: Any, ids: Any = None) -> None:
        """Overwrites vectors of one feature, and of those that share its rows.

        Args:
            name: Feature name.
            values: Array of shape `(len(ids), width)`.
            ids: Integer array of the ids to overwrite. Defaults to all ids in order, with
                `values[0]`, the row of the padding id, ignored.
        """
        table, start, size = self._place(name)
        values = np.asarray(ops.convert_to_numpy(values))
        if ids is None:
            expected, ids = size, np.arange(1, size)
            rows = values[1:]
        else:
            ids, rows = np.asarray(ids), values
            expected = len(ids)
            if np.any(ids < 1) or np.any(ids >= size):
                raise ValueError(
                    f"`ids` of feature '{name}' must lie in [1, {size}): row 0 is the padding's "
                    f"and stays zero. Received: `ids={ids}`"
                )
        if values.shape != (expected, table.shape[1]):
            raise ValueError(
                f"`values` must have shape {(expected, table.shape[1])}. "
                f"Received: `values.shape={values.shape}`"
            )
        _write_rows(table, ids.astype("int64") + start, rows)

    def compute_output_shape(self, input_shape):
        self._check_names(input_shape)
        return {name: (*shape, self._widths[name]) for name, shape in input_shape.items()}

    def compute_output_spec(self, inputs, training=False):
        self._check_names(inputs)
        return {
            name: keras.KerasTensor(
                (*check_dtype(name, x).shape, self._widths[name]), self.compute_dtype
            )
            for name, x in inputs.items()
        }

    def get_config(self):
        return {
            **super().get_config(),
            "sizes": dict(self.sizes),
            "width": dict(self.width) if isinstance(self.width, dict) else self.width,
            "shared": dict(self.shared),
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
            "l2": self.l2,
            "validate_ids": self.validate_ids,
        }

    def _owner(self, name):
        return self.shared.get(name, name)

    def _size(self, name):
        return self.sizes[self._owner(name)]

    def _offset(self, name):
        return self._offsets[self._owner(name)]

    def _place(self, name):
        self._check_names({name: None})
        if not self.built:
            self.build()
        return self.tables[str(self._widths[name])], self._offset(name), self._size(name)

    def _check_names(self, inputs):
        if not isinstance(inputs, dict) or not inputs:
            raise TypeError(
                "The input must be a non-empty dict of feature name -> ids. "
                f"Received: `inputs={inputs}`"
            )
        unknown = [name for name in inputs if name not in self._widths]
        if unknown:
            raise ValueError(
                f"{self.name} knows the features {sorted(self._widths)}. "
                f"Received: `inputs={unknown}`"
            )


def _index_dtype(table):
    return "int64" if table.shape[0] > np.iinfo("int32").max else "int32"


def _take(table, positions):
    """Rows of a table; on TensorFlow from the variable's resource, without reading the rest."""
    if keras.backend.backend() == "tensorflow":
        return tf.gather(table, positions)
    return ops.take(table, positions, axis=0)


def _concatenate(parts):
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=0)


def _gather_unpadded(table, positions, unpadded):
    """Rows at `positions`, zeros where padded, and the positions that were read.

    Padding is neither read nor, in the gradient, written: half of a history is padding, and each of
    its positions would cost the optimizer a row to merge.
    """
    index, slots = index_unpadded(unpadded)
    touched = tf.gather(positions, index)
    return put_unpadded(_take(table, touched), index, slots), touched


def _squares_of_distinct(table, positions, unpadded, touched):
    """Sum of squares over the distinct unpadded rows."""
    if touched is not None:
        return tf.reduce_sum(tf.square(_take(table.value, tf.unique(touched).y)))
    # No `unique` of static shape: in sorted order the first of each run stands for it.
    order = ops.sort(ops.where(unpadded, positions, -1))
    first = ops.concatenate([ops.ones((1,), "bool"), order[1:] != order[:-1]])
    rows = _take(table.value, ops.maximum(order, 0))
    keep = ops.cast(ops.logical_and(first, order >= 0), rows.dtype)
    return ops.sum(ops.square(rows) * keep[:, None])


def _split_like(rows, ids, width):
    """Cuts the rows back into one tensor a feature."""
    shapes = [(*ops.shape(x), width) for x in ids.values()]
    if len(ids) == 1:
        parts = [rows]
    elif keras.backend.backend() == "tensorflow":
        # One op, whose gradient is one concatenation; slices would each pad theirs to full size.
        parts = tf.split(rows, [tf.size(x) for x in ids.values()])
    else:
        ends = np.cumsum([ops.size(x) for x in ids.values()])
        parts = ops.split(rows, ends[:-1])
    return {name: ops.reshape(x, shape) for name, x, shape in zip(ids, parts, shapes, strict=True)}


def _write_rows(table, positions, values):
    if keras.backend.backend() == "tensorflow":
        values = tf.cast(values, table.value.dtype)
        table.value.scatter_update(tf.IndexedSlices(values, tf.constant(positions)))
    else:
        table.assign(ops.scatter_update(table.value, positions[:, None], values))
