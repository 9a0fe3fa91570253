"""Self-attention over a history."""

from typing import Any

import keras
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.layers.argument_checks import check_dropout, check_mask, check_sequence_shape


@export
class SelfAttention(keras.layers.Layer):
    """Every item of a history looks at all of them: multi-head scaled dot-product attention.

    With `Q, K, V` the inputs times a kernel each, for each head of width `d = width / num_heads`

        head = softmax(Q K^T / sqrt(d)) V               over the unmasked positions
        out  = [head_1, ..., head_n] W + b

    and zeros at masked positions. There is neither residual nor normalization: add what you need.

    Attention itself knows no order. With `max_length` a learned vector of each position, counted
    from the oldest item, is added to the inputs. The default is without.

    Args:
        num_heads: Positive integer that divides the width. Defaults to `1`.
        dropout: Float in `[0, 1)`, the share of attention weights dropped in training. Defaults to
            `0.0`.
        use_bias: Boolean, whether queries, values and outputs get a bias; one of the keys would
            move all scores of a query alike and change nothing. Defaults to `True`.
        max_length: `None`, or the number of positions to learn a vector for. Defaults to `None`.
        kernel_initializer: Initializer of the kernels. Defaults to `"glorot_uniform"`.
        seed: Optional integer, the seed of dropout. Defaults to `None`.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(batch, length, width)`.
        mask: Optional boolean tensor of shape `(batch, length)`, `True` where a position counts.
        training: Boolean, passed to dropout.

    Output shape:
        The same as the input's.

    Example:

    >>> x = np.ones((2, 5, 8), "float32")
    >>> mask = np.arange(5) < np.array([[3], [0]])
    >>> tuple(SelfAttention(num_heads=2)(x, mask).shape)
    (2, 5, 8)

    Reference:

    - [Vaswani et al., 2017: Attention Is All You Need](https://arxiv.org/abs/1706.03762), section
      3.2
    """

    def __init__(
        self,
        num_heads: int = 1,
        dropout: float = 0.0,
        use_bias: bool = True,
        max_length: int | None = None,
        kernel_initializer: Any = "glorot_uniform",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if max_length is not None:
            check_positive_integer("max_length", max_length)
        self.num_heads = check_positive_integer("num_heads", num_heads)
        self.dropout = check_dropout(dropout)
        self.use_bias = use_bias
        self.max_length = max_length
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.seed = seed
        self.supports_masking = True
        self.drop = keras.layers.Dropout(dropout, seed=seed, dtype=self.dtype_policy, name="drop")

    def build(self, inputs_shape, mask_shape=None):
        check_sequence_shape("inputs", inputs_shape)
        width = inputs_shape[-1]
        if width % self.num_heads:
            raise ValueError(
                "The width of the inputs must be a multiple of `num_heads`. Received: "
                f"`inputs.shape={tuple(inputs_shape)}`, `num_heads={self.num_heads}`"
            )
        self.query_kernel = self._add_kernel("query_kernel", width)
        self.key_kernel = self._add_kernel("key_kernel", width)
        self.value_kernel = self._add_kernel("value_kernel", width)
        self.output_kernel = self._add_kernel("output_kernel", width)
        if self.use_bias:
            self.query_bias = self._add_bias("query_bias", width)
            self.value_bias = self._add_bias("value_bias", width)
            self.output_bias = self._add_bias("output_bias", width)
        if self.max_length is not None:
            self.positions = self.add_weight(
                name="positions",
                shape=(self.max_length, width),
                initializer=keras.initializers.RandomNormal(stddev=0.02, seed=self.seed),
            )

    def _add_kernel(self, name, width):
        initializer = self.kernel_initializer
        if isinstance(initializer, keras.initializers.Initializer):
            # One initializer object used twice would draw the same numbers twice.
            initializer = initializer.clone()
        return self.add_weight(name=name, shape=(width, width), initializer=initializer)

    def _add_bias(self, name, width):
        return self.add_weight(name=name, shape=(width,), initializer="zeros")

    def call(self, inputs: Any, mask: Any = None, training: bool = False) -> Any:
        check_mask(mask, inputs, "mask")
        if mask is not None:
            mask = ops.cast(mask, "bool")
        x = self._add_positions(inputs)
        query, key, value = self._project(x)
        # Softmax in half precision loses the tail of a long history.
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        # Scaled here: there are fewer queries than pairs.
        query = query * (x.shape[-1] // self.num_heads) ** -0.5
        scores = ops.cast(ops.matmul(query, ops.swapaxes(key, 2, 3)), dtype)
        visible = self._visible(mask, ops.shape(x)[1])
        if visible is not None:
            scores = ops.where(visible, scores, -1e9)
        weights = ops.cast(ops.softmax(scores, axis=-1), self.compute_dtype)
        heads = ops.matmul(self.drop(weights, training=training), value)
        outputs = ops.matmul(self._join_heads(heads, x), self.output_kernel)
        if self.use_bias:
            outputs = outputs + self.output_bias
        if mask is not None:
            outputs = ops.where(mask[:, :, None], outputs, ops.zeros((), outputs.dtype))
        return outputs

    def _visible(self, mask, length):
        """Which keys (last axis) each query (the one before) sees; `None` for all."""
        return None if mask is None else mask[:, None, None, :]

    def _add_positions(self, x):
        if self.max_length is None:
            return x
        length = x.shape[1]
        if length is not None and length > self.max_length:
            raise ValueError(
                "The inputs are longer than there are positions. Received: "
                f"`inputs.shape={tuple(x.shape)}`, `max_length={self.max_length}`"
            )
        return x + ops.convert_to_tensor(self.positions)[: ops.shape(x)[1]]

    def _project(self, x):
        """Queries, keys and values, each `(batch, heads, length, width / heads)`."""
        kernels = (self.query_kernel, self.key_kernel, self.value_kernel)
        query, key, value = (ops.matmul(x, kernel) for kernel in kernels)
        if self.use_bias:
            query, value = query + self.query_bias, value + self.value_bias
        if self.num_heads == 1:
            return [ops.expand_dims(part, 1) for part in (query, key, value)]
        shape = (*ops.shape(x)[:2], self.num_heads, x.shape[-1] // self.num_heads)
        return [ops.swapaxes(ops.reshape(part, shape), 1, 2) for part in (query, key, value)]

    def _join_heads(self, heads, x):
        if self.num_heads == 1:
            return ops.squeeze(heads, axis=1)
        return ops.reshape(ops.swapaxes(heads, 1, 2), ops.shape(x))

    def compute_output_shape(self, inputs_shape, mask_shape=None):
        return tuple(inputs_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            "max_length": self.max_length,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "seed": self.seed,
        }
