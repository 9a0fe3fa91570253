"""One seed for everything random."""

import keras


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow, so that the same script gives the same run twice.

    Args:
        seed: Integer.
    """
    if not isinstance(seed, int):
        raise TypeError(f"`seed` must be an integer. Received: `seed={seed!r}`")
    keras.utils.set_random_seed(seed)
