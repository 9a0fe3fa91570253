"""What frozen representations tell about clicks, learned apart from the ranker (MAKE)."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.layers.argument_checks import check_dropout, mask_of
from ctr_keras.layers.mlp import MLP, check_units, get_activation, serialize_activation
from ctr_keras.layers.similarity import check_representations
from ctr_keras.layers.target_attention import TargetAttention


@export
class MultimodalKnowledgeExtractor(keras.layers.Layer):
    """DIN over item representations, and an MLP on top: MAKE.

        v_make = sum_l a(v_l, v_target) v_l
        h_0    = [v_make, v_target],    h_i = activation(h_{i-1} W_i + b_i)
        logit  = h_n w + b
        knowledge = [v_make, h_1, ..., h_n]

    It is trained on clicks by its own logit, over as many epochs as representations need, and then
    hands its knowledge to a ranker, whose ids overfit after one epoch. `stop_gradient` keeps the
    ranker's loss out of it; the logit still trains it.

    Args:
        units: Widths of the MLP's hidden layers; with the logit it has one layer more. Defaults to
            `(128, 64, 32)`, the paper's four layers.
        projection: Width that representations are brought to first, or `None` to leave them.
        attention_units: Widths of the hidden layers of the attention's scoring network.
        activation: Activation of the MLP.
        attention_normalize: `None` or `"softmax"`, as `normalize` of `TargetAttention`.
        dropout: Share of the hidden layers' outputs dropped in training.
        stop_gradient: Whether no gradient flows into it through the knowledge. Defaults to `True`.
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        target: Float tensor of shape `(batch, width)`.
        history: Float tensor of shape `(batch, length, width)`.
        mask: Optional boolean tensor of shape `(batch, length)`, `True` where there is a past item.
            Without it, the mask that Keras attached to `history`, if any.
        training: Boolean, passed to `Dice` and dropout.

    Output shape:
        A tuple: the logit `(batch, 1)`, and the knowledge `(batch, width + sum(units))`, with
        `projection` in the place of `width` where it is given.

    Example:

    >>> target, history = np.ones((2, 8), "float32"), np.ones((2, 5, 8), "float32")
    >>> logit, knowledge = MultimodalKnowledgeExtractor(units=(16, 4))(target, history)
    >>> tuple(logit.shape), tuple(knowledge.shape)
    ((2, 1), (2, 28))

    Reference:

    - [Sheng et al., 2024: Enhancing Taobao Display Advertising with Multimodal
      Representations](https://arxiv.org/abs/2407.19467), section on MAKE
    """

    def __init__(
        self,
        units: Sequence[int] = (128, 64, 32),
        projection: int | None = None,
        attention_units: Sequence[int] = (80, 40),
        activation: str | Callable | None = "relu",
        attention_normalize: str | None = None,
        dropout: float = 0.0,
        stop_gradient: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units = check_units(units)
        if projection is not None:
            check_positive_integer("projection", projection)
        self.projection = projection
        self.attention_units = check_units(attention_units, "attention_units")
        self.activation = get_activation(activation)
        self.attention_normalize = attention_normalize
        self.dropout = check_dropout(dropout)
        self.stop_gradient = stop_gradient
        self.supports_masking = True
        dtype = self.dtype_policy
        self.project = None
        if projection is not None:
            self.project = keras.layers.Dense(
                projection, use_bias=False, dtype=dtype, name="project"
            )
        self.attention = TargetAttention(
            self.attention_units, normalize=attention_normalize, dtype=dtype, name="attention"
        )
        self.supports_jit = self.attention.supports_jit
        self.hidden = [
            MLP([width], self.activation, dropout, dtype=dtype, name=f"hidden_{number}")
            for number, width in enumerate(self.units)
        ]
        self.score = keras.layers.Dense(1, dtype=dtype, name="score")

    def build(self, target_shape, history_shape, mask_shape=None):
        check_representations(target_shape, history_shape)
        if self.project is not None:
            self.project.build(target_shape)
        width = self._width(target_shape)
        self.attention.build((None, width), (*history_shape[:2], width))
        shape = (None, 2 * width)
        for layer in self.hidden:
            layer.build(shape)
            shape = (None, *layer.units)
        self.score.build(shape)

    def call(self, target: Any, history: Any, mask: Any = None, training: bool = False) -> Any:
        mask = mask_of(mask, history)
        if self.project is not None:
            target, history = self.project(target), self.project(history)
        interest = self.attention(target, history, mask=mask, training=training)
        outputs, x = [interest], ops.concatenate([interest, target], axis=-1)
        for layer in self.hidden:
            x = layer(x, training=training)
            outputs.append(x)
        knowledge = ops.concatenate(outputs, axis=-1)
        if self.stop_gradient:
            knowledge = ops.stop_gradient(knowledge)
        return self.score(x), knowledge

    def _width(self, target_shape):
        return target_shape[-1] if self.projection is None else self.projection

    def compute_output_spec(self, target, history, mask=None, training=False):
        shapes = self.compute_output_shape(target.shape, history.shape)
        return tuple(keras.KerasTensor(shape, dtype=self.compute_dtype) for shape in shapes)

    def compute_output_shape(self, target_shape, history_shape, mask_shape=None):
        width = self._width(target_shape) + sum(self.units)
        return (target_shape[0], 1), (target_shape[0], width)

    def compute_mask(self, *args, **kwargs):
        return None

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "projection": self.projection,
            "attention_units": self.attention_units,
            "activation": serialize_activation(self.activation),
            "attention_normalize": self.attention_normalize,
            "dropout": self.dropout,
            "stop_gradient": self.stop_gradient,
        }
