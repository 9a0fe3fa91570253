"""The second-order term of a factorization machine."""

from typing import Any

import keras
from keras import ops

from ctr_keras.api_export import export


@export
class FactorizationMachine(keras.layers.Layer):
    """Sum of the inner products of all pairs of field embeddings.

    Computes, in time linear in the number of fields `F`,

        sum_{i<j} <v_i, v_j> = 1/2 sum_d [ (sum_i v_id)^2 - sum_i v_id^2 ]

    The bias and the first-order weights of the whole machine are the model's: they are not in this
    layer. A sequence field enters as one vector, the mean over its unpadded positions.

    Args:
        **kwargs: Base layer keyword arguments, such as `name` and `dtype`.

    Call arguments:
        inputs: Float tensor of shape `(batch, fields, width)`.

    Output shape:
        `(batch, 1)`.

    Example:

    >>> v = np.array([[[1.0, 2.0], [3.0, 4.0]]], dtype="float32")
    >>> float(FactorizationMachine()(v)[0, 0])  # 1 * 3 + 2 * 4
    11.0

    Reference:

    - [Rendle, 2010: Factorization Machines](https://doi.org/10.1109/ICDM.2010.127)
    """

    def build(self, input_shape):
        if len(input_shape) != 3:
            raise ValueError(
                "The input must have shape (batch, fields, width). "
                f"Received: `input_shape={tuple(input_shape)}`"
            )

    def call(self, inputs: Any) -> Any:
        # The difference of two large squares loses digits in half precision.
        v = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        pairs = ops.square(ops.sum(v, axis=1)) - ops.sum(ops.square(v), axis=1)
        return ops.cast(0.5 * ops.sum(pairs, axis=-1, keepdims=True), inputs.dtype)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 1)
