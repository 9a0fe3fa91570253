"""The attention of DIN: how much each past item matters to the target item."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.layers.argument_checks import mask_of
from ctr_keras.layers.mlp import (
    MLP,
    apply_layer,
    check_units,
    get_activation,
    make_activation,
    serialize_activation,
)

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    from ctr_keras.layers.pairs import dice_network, score_pairs
    from ctr_keras.layers.unpadded import (
        index_unpadded,
        put_unpadded,
        repeat_rows,
        take_unpadded,
    )


@export
class TargetAttention(keras.layers.Layer):
    """Pools a history by how much each of its items matters to the target item (DIN).

    A small network scores each pair of query `q` and key `k`, and the keys are summed with the
    scores as weights:

        a(q, k) = MLP([q, k, q - k, q * k])
        out     = sum_l  a(q, k_l) k_l             over the unmasked positions

    As in the paper the scores are not normalised, so that the intensity of interest is kept. With
    `normalize="softmax"` the weights are `softmax_l(a(q, k_l) / sqrt(width))`. A row without any
    unmasked position gives zeros.

    The first dense layer is computed in its factored form

        [q, k, q - k, q * k] W + b = (q (Wq + Wd) + b) + [k, q * k] [Wk - Wd; Wp]

    whose first term is one a row, not one a position. The kernel is stored whole, `(4 * width,
    units)` with the blocks in the order `q, k, q - k, q * k`. On TensorFlow masked positions are
    not computed at all. The statistics of `Dice` never see them on any backend.

    Many queries may share one history, as when candidate items are ranked for a user: then `keys`
    and `mask` have batch 1. In inference on TensorFlow what depends on the keys alone is computed
    once, and there is no gradient.

    Args:
        units: Sequence of positive integers, the widths of the scoring network's hidden layers; a
            linear layer of width 1 follows. Defaults to `(80, 40)`.
        activation: Activation of the hidden layers: `"dice"`, or any Keras activation. Defaults to
            `"dice"`.
        normalize: `None` or `"softmax"`. Defaults to `None`.
        kernel_initializer: Initializer of the kernels. Defaults to `"glorot_uniform"`.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        query: Float tensor of shape `(batch, width)`.
        keys: Float tensor of shape `(batch, length, width)`, or `(1, length, width)`.
        mask: Optional boolean tensor of shape `keys.shape[:2]`, `True` where a key counts.
            Without it, the mask that Keras attached to `keys`, if any.
        return_attention_scores: Boolean, whether to also return the weights of the keys, zero where
            masked.
        training: Boolean, passed to `Dice`.

    Output shape:
        `(batch, width)`, and with `return_attention_scores` also `(batch, length)`.

    Example:

    >>> query, keys = np.ones((2, 8), "float32"), np.ones((2, 5, 8), "float32")
    >>> mask = np.arange(5) < np.array([[3], [0]])
    >>> tuple(TargetAttention()(query, keys, mask).shape)
    (2, 8)

    Reference:

    - [Zhou et al., 2018: Deep Interest Network](https://arxiv.org/abs/1706.06978), section 4.3; the
      difference `q - k` and the softmax are those of the authors' public code
    """

    def __init__(
        self,
        units: Sequence[int] = (80, 40),
        activation: str | Callable | None = "dice",
        normalize: str | None = None,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if normalize not in (None, "softmax"):
            raise ValueError(
                f'`normalize` must be None or "softmax". Received: `normalize={normalize}`'
            )
        self.units = check_units(units)
        self.activation = get_activation(activation)
        self.normalize = normalize
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True
        if keras.backend.backend() == "tensorflow":
            # How many positions are unmasked is known only at run time, which XLA cannot compile.
            self.supports_jit = False
        dtype = self.dtype_policy
        self.first_activation = make_activation(self.activation, dtype, "first_activation")
        self.hidden = None
        if self.units[1:]:
            self.hidden = MLP(
                self.units[1:],
                self.activation,
                kernel_initializer=self._new_initializer(),
                dtype=dtype,
                name="hidden",
            )
        self.score = keras.layers.Dense(
            1, kernel_initializer=self._new_initializer(), dtype=dtype, name="score"
        )

    def _new_initializer(self):
        initializer = self.kernel_initializer
        return initializer.clone() if hasattr(initializer, "clone") else initializer

    def build(self, query_shape, keys_shape, mask_shape=None):
        width = query_shape[-1]
        if (
            len(query_shape) != 2
            or len(keys_shape) != 3
            or width is None
            or keys_shape[-1] != width
        ):
            raise ValueError(
                "`query` must have shape (batch, width) and `keys` (batch, length, width). "
                f"Received: `query.shape={tuple(query_shape)}`, `keys.shape={tuple(keys_shape)}`"
            )
        first = self.units[0]
        self.kernel = self.add_weight(
            name="kernel", shape=(4 * width, first), initializer=self._new_initializer()
        )
        self.bias = self.add_weight(name="bias", shape=(first,), initializer="zeros")
        self.first_activation.build((None, first))
        if self.hidden is not None:
            self.hidden.build((None, first))
        self.score.build((None, self.units[-1]))

    def call(
        self,
        query: Any,
        keys: Any,
        mask: Any = None,
        return_attention_scores: bool = False,
        training: bool = False,
    ) -> Any:
        mask = self._check_mask(mask_of(mask, keys), keys)
        if keys.shape[0] == 1 and query.shape[0] != 1:
            if self._has_pair_network and not training:
                return self._attend_to_one(query, keys, mask, return_attention_scores)
            rows = ops.shape(query)[0]
            keys = ops.repeat(keys, rows, axis=0)
            mask = None if mask is None else ops.repeat(mask, rows, axis=0)
        if keras.backend.backend() == "tensorflow" and mask is not None:
            scores = self._score_unmasked(query, keys, mask, training)
        else:
            scores = self._score_all(query, keys, mask, training)
        weights = self._normalize(scores, mask, query.shape[-1])
        outputs = ops.squeeze(ops.matmul(weights[:, None, :], keys), axis=1)
        return (outputs, weights) if return_attention_scores else outputs

    def _check_mask(self, mask, keys):
        if mask is None:
            return None
        if len(mask.shape) != 2:
            raise ValueError(
                "`mask` must have shape (batch, length). "
                f"Received: `mask.shape={tuple(mask.shape)}`, `keys.shape={tuple(keys.shape)}`"
            )
        return ops.cast(mask, "bool")

    def _factored_kernel(self):
        """The part of the first kernel for `q`, and the one for `[k, q * k]`."""
        for_q, for_k, for_difference, for_product = ops.split(self.kernel, 4, axis=0)
        of_keys = ops.concatenate([for_k - for_difference, for_product], axis=0)
        return for_q + for_difference, of_keys

    def _score_all(self, query, keys, mask, training):
        """Scores of shape `(batch, length)`, every position computed."""
        of_query, of_keys = self._factored_kernel()
        per_row = ops.matmul(query, of_query) + self.bias
        pairs = ops.concatenate([keys, query[:, None, :] * keys], axis=-1)
        x = ops.matmul(pairs, of_keys) + per_row[:, None, :]
        return ops.squeeze(self._score_hidden(x, mask, training), axis=-1)

    def _score_unmasked(self, query, keys, mask, training):
        """The same with zeros where masked, and only the other positions computed."""
        batch, length = ops.shape(mask)
        positions, slots = index_unpadded(tf.reshape(mask, (-1,)))
        k = take_unpadded(tf.reshape(keys, (-1, keys.shape[-1])), positions, slots)
        rows = positions // length
        of_query, of_keys = self._factored_kernel()
        per_row = tf.matmul(query, of_query) + self.bias
        pairs = tf.concat([k, repeat_rows(query, rows) * k], axis=-1)
        x = tf.matmul(pairs, of_keys) + repeat_rows(per_row, rows)
        scores = self._score_hidden(x, None, training)
        return tf.reshape(put_unpadded(scores, positions, slots), (batch, length))

    def _attend_to_one(self, query, keys, mask, return_attention_scores):
        """All queries to the unmasked keys of one history."""
        if mask is None:
            mask = tf.ones(tf.shape(keys)[:2], tf.bool)
        positions, slots = index_unpadded(mask[0])
        keys = take_unpadded(keys[0], positions, slots)
        weights = self._normalize(self._score_pairs(query, keys), None, query.shape[-1])
        outputs = tf.matmul(weights, keys)
        if not return_attention_scores:
            return outputs
        return outputs, tf.transpose(put_unpadded(tf.transpose(weights), positions, slots))

    def _score_pairs(self, query, keys):
        """Scores of all pairs of `(queries, width)` and `(length, width)`: `(queries, length)`."""
        width = keys.shape[-1]
        hidden = [] if self.hidden is None else self.hidden.stages
        dices = [self.first_activation, *(stage[1] for stage in hidden)]
        scale, network = dice_network(dices, [*(stage[0] for stage in hidden), self.score])
        of_query, of_keys = (kernel * scale for kernel in self._factored_kernel())
        # q (Wq + Wd) + (q * k) Wp is q times a matrix that the key alone tells.
        kernels = of_query[:, None] + tf.transpose(keys)[:, :, None] * of_keys[width:, None]
        biases = tf.matmul(keys, of_keys[:width]) + self.bias * scale
        return score_pairs(query, kernels, biases, network)

    @property
    def _has_pair_network(self):
        """Whether `score_pairs` can do it, whose function may hold tensors, but no variables: it
        runs on the CPU, be the variables on a GPU."""
        is_tensorflow = keras.backend.backend() == "tensorflow"
        return is_tensorflow and self.activation == "dice" and self.compute_dtype == "float32"

    def _score_hidden(self, x, mask, training):
        x = apply_layer(self.first_activation, x, training, mask)
        if self.hidden is not None:
            x = self.hidden(x, training=training, mask=mask)
        return self.score(x)

    def _normalize(self, scores, mask, width):
        if self.normalize == "softmax":
            # Softmax in half precision loses the tail of a long history.
            x = ops.cast(scores, keras.backend.result_type(scores.dtype, "float32"))
            x = x / width**0.5
            if mask is not None:
                x = ops.where(mask, x, -1e9)
            scores = ops.cast(ops.softmax(x, axis=-1), scores.dtype)
        if mask is not None:
            scores = ops.where(mask, scores, ops.zeros((), scores.dtype))
        return scores

    def compute_output_spec(
        self, query, keys, mask=None, return_attention_scores=False, training=False
    ):
        outputs = keras.KerasTensor((query.shape[0], keys.shape[-1]), dtype=self.compute_dtype)
        if not return_attention_scores:
            return outputs
        scores = (query.shape[0], keys.shape[1])
        return outputs, keras.KerasTensor(scores, dtype=self.compute_dtype)

    def compute_output_shape(self, query_shape, keys_shape, mask_shape=None):
        return (query_shape[0], keys_shape[-1])

    def compute_mask(self, *args, **kwargs):
        return None  # The masked axis is gone.

    def get_config(self):
        return {
            **super().get_config(),
            "units": list(self.units),
            "activation": serialize_activation(self.activation),
            "normalize": self.normalize,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
