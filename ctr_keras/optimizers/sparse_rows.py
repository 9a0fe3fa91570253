"""What optimizers for row tables share: rows merged, clipped as rows, nothing dense by accident."""

import keras

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    class _Divisible(tf.IndexedSlices):
        """A sparse gradient as Keras unscales it: divided by the loss scale."""

        @classmethod
        def of(cls, gradient):
            return cls(gradient.values, gradient.indices, gradient.dense_shape)

        def __truediv__(self, scale):
            return tf.IndexedSlices(self.values / scale, self.indices, self.dense_shape)


def merge_rows(gradient):
    """Sums the slices of equal index, so that each row occurs once.

    Args:
        gradient: `tf.IndexedSlices`, its indices in any order and with repeats.

    Returns:
        `tf.IndexedSlices` with distinct indices, the same dense gradient.
    """
    rows, places = tf.unique(gradient.indices, out_idx=tf.int64)
    values = sum_by_place(gradient.values, places, tf.size(rows, out_type=tf.int64))
    return tf.IndexedSlices(values, rows, gradient.dense_shape)


def sum_by_place(values, places, count):
    """Sums the rows of `values` `(slices, width)` of equal place: `(count, width)`."""
    if tf.config.list_physical_devices("GPU") or len(values.shape) != 2:
        return tf.math.unsorted_segment_sum(values, places, count)
    # The product with the 0/1 matrix of (place, slice): on a CPU a third of the time of
    # `unsorted_segment_sum`, to the same bits.
    slices = tf.size(places, out_type=tf.int64)
    index = tf.stack([places, tf.range(slices)], axis=1)
    ones = tf.ones(tf.expand_dims(slices, 0), values.dtype)
    matrix = tf.SparseTensor(index, ones, tf.stack([count, slices]))
    return tf.sparse.sparse_dense_matmul(matrix, values)


class SparseRows:
    """Mixin for Keras optimizers: each row of an `IndexedSlices` gradient once, and only those.

    Put it before the Keras optimizer among the bases, and let `update_step` call `merge_rows` on a
    sparse gradient. Merging belongs there and not earlier: between replicas, gradients are joined
    after clipping and may then hold the same row twice.
    """

    def _refuse_dense_options(self):
        """Raises on what would silently read or write whole tables each step."""
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                f"`{type(self).__name__}` works on sparse gradients of the TensorFlow backend; use "
                f"an optimizer of Keras. Received: `backend={keras.backend.backend()}`"
            )
        if self.use_ema:
            raise ValueError(
                "`use_ema` averages whole tables each step and is not supported. "
                f"Received: `use_ema={self.use_ema}`"
            )
        if self.gradient_accumulation_steps:
            raise ValueError(
                "`gradient_accumulation_steps` needs a dense gradient of each table and is not "
                "supported. Received: "
                f"`gradient_accumulation_steps={self.gradient_accumulation_steps}`"
            )

    def apply(self, grads, trainable_variables=None):
        if self.loss_scale_factor is not None:
            grads = [_Divisible.of(g) if _is_sparse(g) else g for g in grads]
        return super().apply(grads, trainable_variables)

    def _backend_apply_gradients(self, grads, trainable_variables):
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            if _is_sparse(gradient) and getattr(variable, "constraint", None) is not None:
                raise ValueError(
                    "A constraint would rewrite a whole table each step and is not supported. "
                    f"Received: `variable={variable.path}`, `constraint={variable.constraint}`"
                )
        grads = self._clip_gradients(grads)
        dense = [v for g, v in zip(grads, trainable_variables, strict=True) if not _is_sparse(g)]
        self._apply_weight_decay(dense)
        self._backend_update_step(grads, trainable_variables, self.learning_rate)

    def _clip_gradients(self, grads):
        if not (self.clipnorm or self.global_clipnorm or self.clipvalue):
            return grads
        # The values of merged rows have the norm and the elements of the dense gradient.
        grads = [merge_rows(g) if _is_sparse(g) else g for g in grads]
        values = [g.values if _is_sparse(g) else g for g in grads]
        clipped = super()._clip_gradients(values)
        return [_with_values(g, x) for g, x in zip(grads, clipped, strict=True)]

    def _row_decay(self, variable, learning_rate):
        """The share of each touched row that decoupled weight decay takes, or `None`."""
        if self.weight_decay is None or not self._use_weight_decay(variable):
            return None
        return tf.cast(learning_rate, variable.dtype) * self.weight_decay


def _is_sparse(gradient):
    return isinstance(gradient, tf.IndexedSlices)


def _with_values(gradient, values):
    if _is_sparse(gradient):
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return values
