"""The similarity of each past item to the target item."""

from typing import Any

import keras
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.layers.argument_checks import check_mask, mask_of
from ctr_keras.layers.similarity import check_representations, similarity


@export
class SimScore(keras.layers.Layer):
    """Similarity of each past item to the target item, as side information of that item.

        s_l = v_l . v_target          0 where masked

    The representations `v` are unit vectors, made by an encoder; the product is clipped to
    [-1, 1]. A vector of zeros, which stands for an item without a representation, has 0.

    Args:
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        target: Float tensor of shape `(batch, width)`.
        history: Float tensor of shape `(batch, length, width)`.
        mask: Optional boolean tensor of shape `(batch, length)`, `True` where there is a past item.
            Without it, the mask that Keras attached to `history`, if any.

    Output shape:
        `(batch, length)`.

    Example:

    >>> target, history = np.array([[1.0, 0.0]]), np.array([[[1.0, 0.0], [0.0, 1.0]]])
    >>> np.asarray(SimScore()(target, history)).tolist()
    [[1.0, 0.0]]

    Reference:

    - [Sheng et al., 2024: Enhancing Taobao Display Advertising with Multimodal
      Representations](https://arxiv.org/abs/2407.19467), section on observations
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, target_shape, history_shape, mask_shape=None):
        check_representations(target_shape, history_shape)

    def call(self, target: Any, history: Any, mask: Any = None) -> Any:
        mask = mask_of(mask, history)
        check_mask(mask, history, "mask")
        # Those of unit vectors exceed 1 by rounding.
        scores = ops.clip(similarity(target, history), -1.0, 1.0)
        if mask is not None:
            scores = ops.where(ops.cast(mask, "bool"), scores, 0.0)
        return ops.cast(scores, self.compute_dtype)

    def compute_output_spec(self, target, history, mask=None):
        return keras.KerasTensor(tuple(history.shape[:2]), dtype=self.compute_dtype)

    def compute_output_shape(self, target_shape, history_shape, mask_shape=None):
        return tuple(history_shape[:2])

    def compute_mask(self, *args, **kwargs):
        return None  # A number a position, no longer a vector.
