"""Self-attention in which no position sees a later one."""

from typing import Any

from keras import ops

from ctr_keras.api_export import export
from ctr_keras.layers.self_attention import SelfAttention


@export
class CausalSelfAttention(SelfAttention):
    """Self-attention in which position `t` sees the positions up to `t`, itself included.

    What `SelfAttention` computes, with the softmax of position `t` over the unmasked positions
    `1, ..., t`: the output at `t` is a reading of the first `t` items alone, so that it may be
    compared with the item after them.

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
        inputs: Float tensor of shape `(batch, length, width)`, oldest first.
        mask: Optional boolean tensor of shape `(batch, length)`, `True` where a position counts.
        training: Boolean, passed to dropout.

    Output shape:
        The same as the input's.

    Example:

    >>> x = np.ones((2, 5, 8), "float32")
    >>> mask = np.arange(5) < np.array([[3], [0]])
    >>> tuple(CausalSelfAttention(num_heads=2)(x, mask).shape)
    (2, 5, 8)

    Reference:

    - [Vaswani et al., 2017: Attention Is All You Need](https://arxiv.org/abs/1706.03762), section
      3.2.3
    """

    def _visible(self, mask: Any, length: Any) -> Any:
        at = ops.arange(length)
        earlier = (at[None, :] <= at[:, None])[None, None]
        unmasked = super()._visible(mask, length)
        return earlier if unmasked is None else ops.logical_and(earlier, unmasked)
