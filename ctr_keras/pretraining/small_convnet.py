"""A small convolutional network, to be trained from nothing."""

import keras
from keras import layers

_FILTERS = (32, 64, 128)
_GROUPS = 8


def small_convnet(width: int, size: int) -> keras.Model:
    """Pictures to features by three halvings, each with a residual block, and a mean.

    Normalization is by groups of channels within a picture, not over the batch: a batch tells
    nothing of its other rows, and training and inference compute the same.

    Args:
        width: Of the features.
        size: Side of the square pictures, in pixels.

    Returns:
        A functional model from `(batch, size, size, 3)` to `(batch, width)`.
    """
    pictures = layers.Input((size, size, 3), name="pictures")
    x = pictures
    for filters in _FILTERS:
        x = _convolution(x, filters, strides=2)
        x = layers.Add()([x, _convolution(x, filters, strides=1)])
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(pictures, layers.Dense(width, name="features")(x), name="small_convnet")


def _convolution(x, filters: int, strides: int):
    x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
    return layers.Activation("relu")(layers.GroupNormalization(_GROUPS)(x))
