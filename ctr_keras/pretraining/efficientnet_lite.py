"""EfficientNet-Lite0: a published network that knows what pictures show."""

import itertools
from collections.abc import Iterator

import keras
import numpy as np
from keras import layers

SIZE = 224
WIDTH = 1280
_STEM = 32
# Of each stage: blocks, kernel, stride of the first block, expansion, filters.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def efficientnet_lite0(size: int = SIZE) -> keras.Model:
    """The network without its classes: a convolution, 16 inverted residual blocks, and a mean.

    As EfficientNet-B0, but without squeeze and excitation, and with `min(max(x, 0), 6)` in place of
    swish.

    Args:
        size: Side of the square pictures, in pixels; it was trained on those of 224.

    Returns:
        A functional model from `(batch, size, size, 3)`, of `(pixel - 127) / 128`, to
        `(batch, 1280)`.

    Reference:
        - [Tan and Le, 2019: EfficientNet](https://arxiv.org/abs/1905.11946)
        - [Higher accuracy on vision models with EfficientNet-Lite](
          https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html)
    """
    pictures = layers.Input((size, size, 3), name="pictures")
    x = _active(_convolution(pictures, _STEM, "stem", kernel=3, strides=2))
    number = itertools.count()
    for blocks, kernel, strides, expansion, filters in _STAGES:
        for block in range(blocks):
            name = f"block_{next(number)}"
            x = _block(x, name, kernel, 1 if block else strides, expansion, filters)
    x = _active(_convolution(x, WIDTH, "head"))
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(pictures, x, name="efficientnet_lite0")


def _block(x, name: str, kernel: int, strides: int, expansion: int, filters: int):
    before, y = x, x
    if expansion > 1:
        y = _active(_convolution(y, expansion * x.shape[-1], f"{name}_expand"))
    name_of = f"{name}_depthwise"
    y = layers.DepthwiseConv2D(kernel, strides, padding="same", use_bias=False, name=name_of)(y)
    y = _active(_normalized(y, name_of))
    y = _convolution(y, filters, f"{name}_project")
    return layers.Add(name=f"{name}_add")([before, y]) if before.shape == y.shape else y


def _convolution(x, filters: int, name: str, kernel: int = 1, strides: int = 1):
    convolution = layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False, name=name)
    return _normalized(convolution(x), name)


def _normalized(x, name: str):
    return layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=f"{name}_norm")(x)


def _active(x):
    return layers.ReLU(max_value=6.0)(x)


def set_torch_weights(model: keras.Model, weights: dict[str, np.ndarray]) -> None:
    """Give the network the weights of the package `efficientnet-lite-pytorch`.

    Args:
        model: Made by `efficientnet_lite0`.
        weights: Arrays by PyTorch's names. Those of the classes, `_fc`, are left aside.

    Raises:
        ValueError: a weight is missing, is of another shape, or has no place in the network.
    """
    left = {name: w for name, w in weights.items() if not name.startswith("_fc.")}
    left = {name: w for name, w in left.items() if not name.endswith(".num_batches_tracked")}
    for layer, convolution, norm in _torch_names():
        kernel = left.pop(f"{convolution}.weight", None)
        found = [left.pop(f"{norm}.{part}", None) for part in _NORM]
        if kernel is None or any(part is None for part in found):
            raise ValueError(f"`weights` must hold {convolution!r} and {norm!r}, whole")
        # PyTorch keeps (out, in, height, width); of a depthwise one, `in` is 1.
        axes = (2, 3, 0, 1) if layer.endswith("depthwise") else (2, 3, 1, 0)
        model.get_layer(layer).set_weights([kernel.transpose(axes)])
        model.get_layer(f"{layer}_norm").set_weights(found)
    if left:
        raise ValueError(f"The network has no place for some of `weights`. Received: {list(left)}")


_NORM = ("weight", "bias", "running_mean", "running_var")


def _torch_names() -> Iterator[tuple[str, str, str]]:
    """Of each convolution: its layer, and PyTorch's names of it and its normalization."""
    yield "stem", "_conv_stem", "_bn0"
    number = itertools.count()
    for blocks, _, _, expansion, _ in _STAGES:
        for _ in range(blocks):
            n = next(number)
            ours, theirs = f"block_{n}", f"_blocks.{n}"
            if expansion > 1:
                yield f"{ours}_expand", f"{theirs}._expand_conv", f"{theirs}._bn0"
            yield f"{ours}_depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1"
            yield f"{ours}_project", f"{theirs}._project_conv", f"{theirs}._bn2"
    yield "head", "_conv_head", "_bn1"
