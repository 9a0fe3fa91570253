"""A part of a model that computes as in inference and does not learn with it."""

import keras


class InferenceGraph(keras.Model):
    """Functional model that is never in training mode, as a part of other models.

    A `CTRModel` that it is a part of does not train its weights; they stay trainable elsewhere.
    `graph(x, training=False)` inside of another functional model would not do: Keras replaces the
    argument by that of the call of the outer model.
    """

    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=False, mask=mask)


# As that of any other functional model: Keras calls weights in a file by it, and `candidates` knows
# a graph by it.
InferenceGraph.__name__ = "Functional"
