"""The recurrence of DIEN: a GRU whose update gate is scaled by attention."""

from typing import Any

import keras
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.layers.argument_checks import check_mask, check_sequence_shape, mask_of

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    from ctr_keras.layers.packed_recurrence import packed_states
    from ctr_keras.layers.packed_rows import PackedRows


@export
class AUGRU(keras.layers.Layer):
    """Gated recurrence whose update gate is scaled by an attention score (AUGRU, DIEN).

    For each unmasked step `t` with input `x_t` and score `a_t`

        u_t = sigmoid(x_t Wu + h_{t-1} Ru + bu)
        r_t = sigmoid(x_t Wr + h_{t-1} Rr + br)
        c_t = tanh(x_t Wc + r_t * (h_{t-1} Rc) + bc)
        h_t = (1 - a_t u_t) * h_{t-1} + a_t u_t * c_t

    and `h_0 = 0`. A masked step leaves the state as it is. Without scores (all are 1) this is a
    plain GRU. As in the paper's equation 4 the reset gate comes after the recurrent matmul, so that
    a step needs one matmul, and there is one bias a gate. The kernels hold update gate, reset gate
    and candidate side by side, in this order.

    The inputs of all steps are projected at once. On TensorFlow masked steps are not computed at
    all, the walk ends with the longest row of the batch, and the gradient is written by hand. The
    state is kept in float32 whatever the layer's policy.

    Args:
        units: Positive integer, the width of the state.
        return_sequences: Boolean, whether to return the state after each step, zeros where masked,
            and not only the last one. Defaults to `False`.
        kernel_initializer: Initializer of the input kernel. Defaults to `"glorot_uniform"`.
        recurrent_initializer: Initializer of the recurrent kernel. Defaults to `"orthogonal"`.
        bias_initializer: Initializer of the bias. Defaults to `"zeros"`.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(batch, length, width)`, oldest first.
        scores: Optional float tensor of shape `(batch, length)`, in `[0, 1]`; `None` stands for 1.
        mask: Optional boolean tensor of shape `(batch, length)`, `True` where a step counts.
            Without it, the mask that Keras attached to `inputs`, if any.

    Output shape:
        `(batch, units)`, zeros for a row without any unmasked step; `(batch, length, units)` with
        `return_sequences`.

    Example:

    >>> inputs, scores = np.ones((2, 5, 8), "float32"), np.ones((2, 5), "float32")
    >>> mask = np.arange(5) < np.array([[3], [0]])
    >>> tuple(AUGRU(4)(inputs, scores, mask).shape)
    (2, 4)

    Reference:

    - [Zhou et al., 2018: Deep Interest Evolution Network](https://arxiv.org/abs/1809.03672),
      equations 2 to 5 and section "Interest Evolving Layer"
    """

    def __init__(
        self,
        units: int,
        return_sequences: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units = check_positive_integer("units", units)
        self.return_sequences = return_sequences
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.supports_masking = True
        if keras.backend.backend() == "tensorflow":
            # How many steps are unmasked is known only at run time, which XLA cannot compile.
            self.supports_jit = False

    def build(self, inputs_shape, scores_shape=None, mask_shape=None):
        check_sequence_shape("inputs", inputs_shape)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(inputs_shape[-1], 3 * self.units),
            initializer=self.kernel_initializer,
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel",
            shape=(self.units, 3 * self.units),
            initializer=self.recurrent_initializer,
            autocast=False,
        )
        self.bias = self.add_weight(
            name="bias", shape=(3 * self.units,), initializer=self.bias_initializer
        )

    def call(self, inputs: Any, scores: Any = None, mask: Any = None) -> Any:
        mask = mask_of(mask, inputs)
        check_mask(scores, inputs, "scores")
        check_mask(mask, inputs, "mask")
        if mask is None:
            mask = ops.ones(ops.shape(inputs)[:2], dtype="bool")
        mask = ops.cast(mask, "bool")
        if keras.backend.backend() == "tensorflow":
            return self._walk_packed(inputs, scores, mask)
        return self._walk_all(inputs, scores, mask)

    def _project(self, inputs):
        projected = ops.matmul(inputs, self.kernel) + self.bias
        return ops.cast(projected, self._state_dtype())

    def _state_dtype(self):
        return keras.backend.result_type(self.compute_dtype, "float32")

    def _walk_all(self, inputs, scores, mask):
        """Every step computed, the state put back where masked."""
        x = self._project(inputs)
        if scores is None:
            scores = ops.ones_like(mask, dtype=x.dtype)
        kernel = ops.convert_to_tensor(self.recurrent_kernel)

        def step(h, at):
            x, score, unmasked = at
            gates_x, candidate_x = ops.split(x, [2 * self.units], axis=-1)
            gates_h, candidate_h = ops.split(ops.matmul(h, kernel), [2 * self.units], axis=-1)
            update, reset = ops.split(ops.sigmoid(gates_x + gates_h), 2, axis=-1)
            candidate = ops.tanh(candidate_x + reset * candidate_h)
            after = h + score[:, None] * update * (candidate - h)
            h = ops.where(unmasked[:, None], after, h)
            return h, h

        steps = tuple(ops.swapaxes(t, 0, 1) for t in (x, ops.cast(scores, x.dtype), mask))
        last, states = ops.scan(step, ops.zeros((ops.shape(x)[0], self.units), x.dtype), steps)
        if not self.return_sequences:
            return ops.cast(last, self.compute_dtype)
        states = ops.where(mask[:, :, None], ops.swapaxes(states, 0, 1), 0.0)
        return ops.cast(states, self.compute_dtype)

    def _walk_packed(self, inputs, scores, mask):
        """The same, and only the unmasked steps computed."""
        rows = PackedRows.of(mask)
        x = self._project(rows.pack(inputs))
        if scores is not None:
            scores = rows.pack(tf.cast(scores, x.dtype)[:, :, None])
        # A custom gradient of a variable would have to be of its reads: hand it a tensor.
        kernel = tf.convert_to_tensor(self.recurrent_kernel)
        states = packed_states(x, scores, kernel, rows.counts, rows.offsets)
        states = tf.cast(states, self.compute_dtype)
        return rows.unpack(states) if self.return_sequences else rows.last_of(states)

    def compute_output_shape(self, inputs_shape, scores_shape=None, mask_shape=None):
        if self.return_sequences:
            return (*inputs_shape[:2], self.units)
        return (inputs_shape[0], self.units)

    def compute_mask(self, inputs, previous_mask=None):
        return previous_mask if self.return_sequences else None

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "return_sequences": self.return_sequences,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "recurrent_initializer": keras.initializers.serialize(self.recurrent_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }
