"""The layers that decide on a click, with weights that all rows share or each task's own."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from ctr_keras.api_export import export
from ctr_keras.layers.mlp import check_units


@dataclasses.dataclass(frozen=True)
class TaskSteps:
    """How far steps of gradient descent have moved one dense layer, for each of several tasks.

    The gradient of a kernel is a sum over rows of outer products, `X^T G`, with `X` the inputs of
    the layer and `G` the gradient of what it puts out. So a layer that has moved by `-rate X^T G`
    need not be there as a kernel a task:

        x (W - rate X^T G) + b - rate sum_s G_s = x W + b - rate (x X^T + 1) G

    On the right the large product is one for all tasks, and what belongs to a task costs its
    support rows times the layer's width, not the size of the kernel.

    Attributes:
        inputs: `X`, of all steps: `(tasks, support, in)`.
        gradients: `rate G`: `(tasks, support, out)`, 0 where padded.
    """

    inputs: KerasTensor
    gradients: KerasTensor

    def change(self, x: KerasTensor) -> KerasTensor:
        """What the steps add to the layer's output for inputs `(tasks, rows, in)`."""
        alike = ops.matmul(x, ops.transpose(self.inputs, (0, 2, 1)))
        return -ops.matmul(alike + 1, self.gradients)

    def followed_by(self, last: "TaskSteps") -> "TaskSteps":
        return TaskSteps(
            ops.concatenate([self.inputs, last.inputs], axis=1),
            ops.concatenate([self.gradients, last.gradients], axis=1),
        )


@export
class DecisionLayers(keras.layers.Layer):
    """Dense layers with an activation between them, down to a logit.

        x_(l+1) = activation(x_l W_l + b_l),    logit = x_n W_n + b_n

    It computes in float32, whatever the policy: a small step of the weights would vanish in less.

    Args:
        units: Widths of the layers before the logit.
        activation: Activation between the layers.
        **kwargs: `name` of `keras.layers.Layer`.

    Call arguments:
        inputs: `(..., width)`.

    Output shape:
        `(..., 1)`.
    """

    def __init__(self, units: Sequence[int], activation: str = "relu", **kwargs: Any):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.units = check_units(units)
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        widths = [input_shape[-1], *self.units, 1]
        self.kernels, self.biases = [], []
        for i, shape in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            self.kernels.append(
                self.add_weight(name=f"kernel_{i}", shape=shape, initializer="glorot_uniform")
            )
            self.biases.append(
                self.add_weight(name=f"bias_{i}", shape=shape[1:], initializer="zeros")
            )

    def call(self, inputs):
        return self.of_tasks(inputs, [], [])[0]

    def of_tasks(self, inputs, steps: list[TaskSteps], nudges: list) -> tuple[Any, list]:
        """The logit as of each task, and what goes into each layer.

        Args:
            inputs: `(tasks, rows, width)`.
            steps: How far each layer has moved; empty where none has.
            nudges: Zeros `(tasks, rows, out)` for each layer, added to what it puts out so that
                there is something to take its gradient by; or empty.
        """
        x, entering = inputs, []
        for i, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            entering.append(x)
            y = ops.matmul(x, kernel) + bias
            if steps:
                y = y + steps[i].change(x)
            if nudges:
                y = y + nudges[i]
            x = self.activation(y) if i < len(self.units) else y
        return x, entering

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 1)
