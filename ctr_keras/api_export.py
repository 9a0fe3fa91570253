"""The one decorator that makes a class known to Keras' serialization."""

import keras


def export(cls: type) -> type:
    """Register `cls` under the package name, so that files written with it load again.

    Example:

    >>> @export
    ... class Twice(keras.layers.Layer):
    ...     def call(self, x):
    ...         return 2 * x
    >>> keras.saving.get_registered_name(Twice)
    'ctr_keras>Twice'
    """
    return keras.saving.register_keras_serializable(package="ctr_keras")(cls)
