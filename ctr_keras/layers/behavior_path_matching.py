"""The path matching of DBPMaN: what followed the paths that resemble the user's current one."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.layers.argument_checks import check_mask, mask_of
from ctr_keras.layers.mlp import serialize_activation
from ctr_keras.layers.target_attention import TargetAttention


@export
class BehaviorPathMatching(keras.layers.Layer):
    """Matches the user's current path with past ones, and pools what followed those (DBPMaN).

    The path of position `t` is the `path_length` positions before it, the current path that before
    the item to come, that is the last ones of the row. Three steps:

        enhance    w_t = top(softmax_j([e_{t-P}, ..., e_{t-1}] W_r + b_r))
        match      m_t = softmax_t(sum_j (w_now,j e_now,j)^T M (w_t,j e_{t-j}))
        aggregate  out = sum_t  m_t a(q, e_t) e_t

    - Enhancing weighs the places of a path: a linear router sees the whole path, its softmax is
      over the places that hold an item, and all but the `kept` largest weights become zero. What
      remains is not normalized again.
    - Matching compares two enhanced paths place by place, in the order of time, through one
      learned matrix. Positions with at least one item before them take part. The current path is
      the query, and no gradient flows into it.
    - Aggregating activates what followed each path by the target item with the unit of
      `TargetAttention`, not normalized, as in DIN.

    A row in which no item follows another gives zeros.

    The paper leaves room, filled as follows. The router, the number of kept places and the absence
    of normalization and of the query's gradient are those of public code; the place-by-place match
    and the product of the two levels are chosen here: they need no path written out, only inner
    products within the history. An item is whatever vector it comes as: concatenated features, not
    their sum. The contrastive loss between augmented paths is no part of this layer.

    Args:
        path_length: Positive integer, the number of positions in a path. Defaults to `10`.
        kept: Positive integer up to `path_length`, the number of weights of a path that remain.
            Defaults to `5`.
        units: Widths of the activation unit's hidden layers. Defaults to `(80, 40)`.
        activation: Their activation: `"dice"`, or any Keras activation. Defaults to `"dice"`.
        kernel_initializer: Initializer of the kernels. Defaults to `"glorot_uniform"`.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        target: Float tensor of shape `(batch, width)`.
        items: Float tensor of shape `(batch, length, width)`, the past items, oldest first.
        mask: Optional boolean tensor of shape `(batch, length)`, `True` where there is an item.
            Without it, the mask that Keras attached to `items`, if any.
        training: Boolean, passed to `Dice`.

    Output shape:
        `(batch, width)`.

    Example:

    >>> target, items = np.ones((2, 8), "float32"), np.ones((2, 5, 8), "float32")
    >>> mask = np.arange(5) < np.array([[3], [0]])
    >>> tuple(BehaviorPathMatching(path_length=3, kept=2)(target, items, mask).shape)
    (2, 8)

    Reference:

    - [Dong et al., 2023: A Deep Behavior Path Matching Network for Click-Through Rate
      Prediction](https://arxiv.org/abs/2302.00302)
    """

    def __init__(
        self,
        path_length: int = 10,
        kept: int = 5,
        units: Sequence[int] = (80, 40),
        activation: str | Callable | None = "dice",
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.path_length = check_positive_integer("path_length", path_length)
        self.kept = check_positive_integer("kept", kept)
        if kept > path_length:
            raise ValueError(
                "`kept` must not exceed `path_length`. "
                f"Received: `kept={kept}`, `path_length={path_length}`"
            )
        self.activation_unit = TargetAttention(
            units,
            activation=activation,
            kernel_initializer=kernel_initializer,
            dtype=self.dtype_policy,
            name="activation_unit",
        )
        self.units = self.activation_unit.units
        self.activation = self.activation_unit.activation
        self.kernel_initializer = self.activation_unit.kernel_initializer
        self.supports_masking = True
        self.supports_jit = self.activation_unit.supports_jit

    def build(self, target_shape, items_shape, mask_shape=None):
        if len(target_shape) != 2 or len(items_shape) != 3 or target_shape[-1] != items_shape[-1]:
            raise ValueError(
                "`target` must have shape (batch, width) and `items` (batch, length, width). "
                f"Received: `target.shape={tuple(target_shape)}`, "
                f"`items.shape={tuple(items_shape)}`"
            )
        self.activation_unit.build(target_shape, items_shape)
        width, places = items_shape[-1], self.path_length
        # The choice of weights must not depend on rounding: it stays in full precision.
        self.router_kernel = self._add_kernel("router_kernel", (places, width, places))
        self.router_bias = self.add_weight(
            name="router_bias", shape=(places,), initializer="zeros", autocast=False
        )
        self.match_kernel = self._add_kernel("match_kernel", (width, width))

    def _add_kernel(self, name, shape):
        initializer = self.kernel_initializer
        if isinstance(initializer, keras.initializers.Initializer):
            # One initializer object used twice would draw the same numbers twice.
            initializer = initializer.clone()
        return self.add_weight(name=name, shape=shape, initializer=initializer, autocast=False)

    def call(self, target: Any, items: Any, mask: Any = None, training: bool = False) -> Any:
        mask = mask_of(mask, items)
        check_mask(mask, items, "mask")
        if mask is None:
            mask = ops.ones(ops.shape(items)[:2], dtype="bool")
        mask = ops.cast(mask, "bool")
        # The path of position t is `padded[:, t : t + path_length]`, the current one included.
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        known = ops.where(mask[:, :, None], ops.cast(items, dtype), 0.0)
        padded = ops.pad(known, [[0, 0], [self.path_length, 0], [0, 0]])
        present = self._windows(ops.pad(ops.cast(mask, "int32"), [[0, 0], [self.path_length, 0]]))
        present = ops.cast(present, "bool")
        weights = self._enhance(padded, present)
        follows_path = ops.logical_and(mask, ops.any(present[:, :-1], axis=-1))
        matches = self._match(padded, weights, mask, follows_path)
        _, activations = self.activation_unit(
            target, items, follows_path, return_attention_scores=True, training=training
        )
        pooling = ops.cast(matches, activations.dtype) * activations
        return ops.squeeze(ops.matmul(pooling[:, None, :], items), axis=1)

    def _windows(self, x):
        """`(batch, path_length + length)` -> `(batch, length + 1, path_length)`."""
        number = ops.shape(x)[1] - self.path_length + 1
        return ops.stack([x[:, p : p + number] for p in range(self.path_length)], axis=-1)

    def _enhance(self, padded, present):
        """The weight of each place of each path, `(batch, length + 1, path_length)`."""
        kernel = ops.convert_to_tensor(self.router_kernel)
        # One convolution is the router on all paths, without writing them out.
        logits = ops.conv(padded, kernel, padding="valid", data_format="channels_last")
        # Of no rows TensorFlow's has the shape of its inputs; a reshape to the same rank would be
        # optimized away.
        logits = ops.reshape(logits, (-1, self.path_length)) + self.router_bias
        logits = ops.where(present, ops.reshape(logits, ops.shape(present)), -1e9)
        weights = ops.where(present, ops.softmax(logits, axis=-1), 0.0)
        least = ops.top_k(weights, self.kept)[0][:, :, -1:]
        return ops.where(weights >= least, weights, 0.0)

    def _match(self, padded, weights, mask, follows_path):
        """How well the path before each position matches the current one, `(batch, length)`."""
        ends = ops.arange(1, ops.shape(mask)[1] + 1) * ops.cast(mask, "int32")
        current = ops.max(ends, axis=1, keepdims=True, initial=0)
        query = ops.take_along_axis(weights, current[:, :, None], axis=1)
        places = current + ops.arange(self.path_length)
        query = ops.swapaxes(query, 1, 2) * ops.take_along_axis(padded, places[:, :, None], axis=1)
        query = ops.matmul(ops.stop_gradient(query), ops.convert_to_tensor(self.match_kernel))
        # Of the products of all items with all places of the query, those of equal place.
        products = ops.matmul(padded, ops.swapaxes(query, 1, 2))
        number = ops.shape(mask)[1]
        scores = sum(
            weights[:, :number, p] * products[:, p : p + number, p] for p in range(self.path_length)
        )
        scores = ops.softmax(ops.where(follows_path, scores, -1e9), axis=-1)
        return ops.where(follows_path, scores, 0.0)

    def compute_output_shape(self, target_shape, items_shape, mask_shape=None):
        return (target_shape[0], items_shape[-1])

    def compute_mask(self, *args, **kwargs):
        return None  # The masked axis is gone.

    def get_config(self):
        return {
            **super().get_config(),
            "path_length": self.path_length,
            "kept": self.kept,
            "units": list(self.units),
            "activation": serialize_activation(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
