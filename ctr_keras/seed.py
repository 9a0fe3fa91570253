"""One seed for everything random."""

import keras


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow, so that the same script gives the same run twice.

    On a GPU some sums depend on the order of its threads, unless
    `tf.config.experimental.enable_op_determinism()` is called too.

    Args:
        seed: Integer from 0 to `2^32 - 1`, which is what NumPy takes.
    """
    if not isinstance(seed, int):
        raise TypeError(f"`seed` must be an integer. Received: `seed={seed!r}`")
    if not 0 <= seed < 2**32:
        raise ValueError(f"`seed` must be from 0 to 2^32 - 1. Received: `seed={seed}`")
    keras.utils.set_random_seed(seed)
