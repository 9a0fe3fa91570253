"""The one decorator that makes a class known to Keras' serialization."""

import keras


def export(cls: type) -> type:
    """Register `cls` under the package name, so that files written with it load again.

    Models have a name space of their own: `ck.models.MMoE` is built on `ck.layers.MMoE`.

    Example:

    >>> @export
    ... class Twice(keras.layers.Layer):
    ...     def call(self, x):
    ...         return 2 * x
    >>> keras.saving.get_registered_name(Twice)
    'ctr_keras>Twice'
    """
    package = "ctr_keras.models" if issubclass(cls, keras.Model) else "ctr_keras"
    return keras.saving.register_keras_serializable(package=package)(cls)
