"""The interest extractor of DIEN: a GRU over the history, taught to foresee the next item."""

from typing import Any

import keras
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.layers.argument_checks import check_mask, check_sequence_shape
from ctr_keras.layers.augru import AUGRU

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    from ctr_keras.layers.unpadded import index_unpadded, take_unpadded


@export
class InterestExtractor(keras.layers.Layer):
    """The user's interest after each past item: a GRU over the history (DIEN).

        h_t = GRU(e_t, h_{t-1})                         at unmasked positions

    A masked position does not advance the state, and its own output is zeros. The recurrence is
    that of `AUGRU` without scores.

    `auxiliary_loss` teaches the states to tell the item that came next from one that did not:

        loss = mean_t [ -log sigmoid(<h_t, e_{t+1}>) - log(1 - sigmoid(<h_t, n_{t+1}>)) ]

    over all positions `t` of the batch that are unmasked and followed by an unmasked one, unless
    the negative is the very item that came next.

    Args:
        units: Positive integer, the width of the states. The auxiliary loss needs that of the keys.
        kernel_initializer: Initializer of the input kernel. Defaults to `"glorot_uniform"`.
        recurrent_initializer: Initializer of the recurrent kernel. Defaults to `"orthogonal"`.
        bias_initializer: Initializer of the bias. Defaults to `"zeros"`.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        keys: Float tensor of shape `(batch, length, width)`, the past items, oldest first.
        mask: Optional boolean tensor of shape `(batch, length)`, `True` where there is an item.

    Output shape:
        `(batch, length, units)`.

    Example:

    >>> keys, negatives = np.ones((2, 5, 8), "float32"), np.zeros((2, 5, 8), "float32")
    >>> mask = np.arange(5) < np.array([[3], [0]])
    >>> extractor = InterestExtractor(8)
    >>> states = extractor(keys, mask)
    >>> tuple(states.shape)
    (2, 5, 8)
    >>> loss = extractor.auxiliary_loss(states, keys, negatives, mask)

    Reference:

    - [Zhou et al., 2018: Deep Interest Evolution Network](https://arxiv.org/abs/1809.03672),
      section "Interest Extractor Layer", equations 2 to 6
    """

    def __init__(
        self,
        units: int,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.gru = AUGRU(
            units,
            return_sequences=True,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            dtype=self.dtype_policy,
            name="gru",
        )
        self.units = units
        self.kernel_initializer = self.gru.kernel_initializer
        self.recurrent_initializer = self.gru.recurrent_initializer
        self.bias_initializer = self.gru.bias_initializer
        self.supports_masking = True
        self.supports_jit = self.gru.supports_jit

    def build(self, keys_shape, mask_shape=None):
        check_sequence_shape("keys", keys_shape)
        self.gru.build(keys_shape)

    def call(self, keys: Any, mask: Any = None) -> Any:
        return self.gru(keys, mask=mask)

    def auxiliary_loss(self, states: Any, keys: Any, negatives: Any, mask: Any = None) -> Any:
        """How badly each state foresees the next item.

        Args:
            states: What the layer returned for `keys`.
            keys: The past items, `(batch, length, units)`.
            negatives: For each position an item that was not there, shaped like `keys`.
            mask: Boolean `(batch, length)`, or `None`. A position that is `False` takes no part,
                neither as one that foresees nor as one that is foreseen.

        Returns:
            A float32 scalar, 0 if there is no position to average over.
        """
        self._check_widths(states, keys, negatives)
        check_mask(mask, keys, "mask")
        if mask is None:
            mask = ops.ones(ops.shape(keys)[:2], dtype="bool")
        mask = ops.cast(mask, "bool")
        pairs = _unmasked_pairs if keras.backend.backend() == "tensorflow" else _all_pairs
        return self._mean_loss(*pairs(states, keys, negatives, mask))

    def _mean_loss(self, states, following, negatives, valid):
        """Of states and what followed them, each `(..., units)`, where `valid` `(...)`."""
        valid = ops.logical_and(valid, ops.any(ops.not_equal(following, negatives), axis=-1))
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        states, following, negatives = (ops.cast(x, dtype) for x in (states, following, negatives))
        of_next = ops.sum(states * following, axis=-1)
        of_other = ops.sum(states * negatives, axis=-1)
        losses = ops.where(valid, ops.softplus(-of_next) + ops.softplus(of_other), 0.0)
        return ops.sum(losses) / ops.maximum(ops.sum(ops.cast(valid, dtype)), 1.0)

    def _check_widths(self, states, keys, negatives):
        shapes = {"states": states.shape, "keys": keys.shape, "negatives": negatives.shape}
        if any(len(s) != 3 or s[-1] != self.units for s in shapes.values()):
            received = ", ".join(f"`{name}.shape={tuple(s)}`" for name, s in shapes.items())
            raise ValueError(
                "The auxiliary loss takes inner products of states and items, so all must have "
                "shape (batch, length, units), the items as wide as the states. "
                f"Received: `units={self.units}`, {received}"
            )

    def compute_output_shape(self, keys_shape, mask_shape=None):
        return (*keys_shape[:2], self.units)

    def compute_mask(self, keys, previous_mask=None):
        return previous_mask

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "recurrent_initializer": keras.initializers.serialize(self.recurrent_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


def _all_pairs(states, keys, negatives, mask):
    """Each state, the item after it, its negative, and whether both positions are unmasked."""
    valid = ops.logical_and(mask[:, :-1], mask[:, 1:])
    return states[:, :-1], keys[:, 1:], negatives[:, 1:], valid


def _unmasked_pairs(states, keys, negatives, mask):
    """The same of the unmasked positions alone, `(pairs, units)`, on TensorFlow."""
    valid = tf.pad(tf.logical_and(mask[:, :-1], mask[:, 1:]), [[0, 0], [0, 1]])
    positions, slots = index_unpadded(tf.reshape(valid, (-1,)))
    # The very last position is never valid: what comes round to the front is a 0.
    after = (positions + 1, tf.roll(slots, 1, axis=0))
    return (
        take_unpadded(tf.reshape(states, (-1, states.shape[-1])), positions, slots),
        take_unpadded(tf.reshape(keys, (-1, keys.shape[-1])), *after),
        take_unpadded(tf.reshape(negatives, (-1, negatives.shape[-1])), *after),
        tf.ones_like(positions, "bool"),
    )
