"""Image files, read by Pillow on the host."""

from __future__ import annotations

import io
import warnings

import numpy as np

from ...errors import MissingExtraError, OpError
from ...image import CHANNELS, decode_image
from ...op import namespace
from ...places import to_numpy
from ...types import Array

FORMATS = ("BMP", "JPEG", "JPEG2000", "TIFF", "PNG", "WEBP", "PPM")


@decode_image.kernel("array", half="native")
def _decode_image(data: Array, *, pixel_format: str = "RGB") -> Array:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("decode_image needs Pillow: pip install 'onnxgrad[explain]'") from error
    content = to_numpy(data).tobytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            pixels = np.asarray(image.convert("L" if pixel_format == "Grayscale" else "RGB"))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise OpError(f"decode_image: {error}") from error
    except (OSError, SyntaxError, ValueError):
        pixels = np.zeros((0, 0, CHANNELS[pixel_format]), np.uint8)
    pixels = pixels.reshape(*pixels.shape[:2], CHANNELS[pixel_format])
    return namespace(data).asarray(pixels[..., ::-1] if pixel_format == "BGR" else pixels)
