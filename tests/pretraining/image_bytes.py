"""Encoded images, made of arrays."""

import io

import numpy as np
from PIL import Image


def encoded(pixels, kind="PNG", **options):
    """The bytes of a file with these pixels: uint8 `(height, width, channels)`."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, kind, **options)
    return file.getvalue()


def plain(color, height=8, width=8, kind="PNG"):
    """An image of one color."""
    return encoded(np.broadcast_to(np.uint8(color), (height, width, 3)), kind)
