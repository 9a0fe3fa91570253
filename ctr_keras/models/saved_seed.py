"""Random draws that go on after a model is saved and loaded."""

from typing import Any

import keras
import tensorflow as tf


class SavedSeed(keras.layers.Layer):
    """Seeds for TensorFlow's stateless random functions, another one each time.

    They depend on a seed and a counter that are saved with the weights, as the state of a
    `keras.random.SeedGenerator` is not: a training that goes on from a file draws what an
    uninterrupted one would.

    Args:
        seed: Optional integer; by default it follows `keras.utils.set_random_seed`.
        **kwargs: Base layer keyword arguments.
    """

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = seed
        start = keras.random.SeedGenerator(seed).state[0]
        self.draws = self.add_weight(
            name="draws",
            shape=(2,),
            dtype="int64",
            initializer=lambda shape, dtype: tf.cast(tf.stack([start, 0]), dtype),
            trainable=False,
        )
        self.built = True

    def next(self) -> tf.Tensor:
        """A seed, int64 `(2,)`."""
        seed = tf.convert_to_tensor(self.draws)
        self.draws.assign_add([0, 1])
        return seed

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}
