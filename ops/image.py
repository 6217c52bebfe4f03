"""Images that come as the bytes of a file.

Source: ONNX ImageDecoder-20.
"""

from __future__ import annotations

import numpy as np

from .dims import Dim
from .errors import DTypeError
from .op import op
from .types import TensorType

CHANNELS = {"RGB": 3, "BGR": 3, "Grayscale": 1}


@op(dtype="uint8")
def decode_image(data: TensorType, *, pixel_format: str = "RGB") -> TensorType:
    """Return the pixels of an image file (BMP, JPEG, JPEG 2000, PNG, PNM, TIFF, WebP); no gradient flows.

    Shapes: (bytes,) -> (height, width, channels), of height and width 0 where it is no image that can be read.

    Raises:
        DTypeError: if the data are no uint8.
        MissingExtraError: at run time, without Pillow.
        OpError: at run time, if the image has more pixels than Pillow's limit.
    """
    if data.dtype != np.uint8:
        raise DTypeError(f"decode_image: wants the bytes of a file as uint8, found {data.dtype}")
    return TensorType(np.dtype(np.uint8), (Dim.fresh(), Dim.fresh(), CHANNELS[pixel_format]))
