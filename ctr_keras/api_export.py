"""The one decorator that makes a class known to Keras' serialization."""

import keras


def export(cls: type) -> type:
    """Register `cls` under the package name, so that files written with it load again.

    A model with the name of a layer, such as `MMoE`, is registered apart from it.

    Example:

    >>> @export
    ... class Twice(keras.layers.Layer):
    ...     def call(self, x):
    ...         return 2 * x
    >>> keras.saving.get_registered_name(Twice)
    'ctr_keras>Twice'
    """
    layer = keras.saving.get_registered_object(f"ctr_keras>{cls.__name__}")
    is_taken = layer is not None and not issubclass(layer, keras.Model)
    package = "ctr_keras.models" if is_taken and issubclass(cls, keras.Model) else "ctr_keras"
    return keras.saving.register_keras_serializable(package=package)(cls)
