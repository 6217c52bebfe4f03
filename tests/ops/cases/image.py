"""Images as files: the rows of the op table."""

from __future__ import annotations

import numpy as np

from onnxgrad.ops.image import decode_image

from ..case import OpCase

PIXELS = np.array([[[255, 0, 0], [0, 255, 0], [7, 8, 9]], [[0, 0, 255], [1, 2, 3], [250, 251, 252]]], np.uint8)
PPM = np.frombuffer(b"P6 3 2 255\n" + PIXELS.tobytes(), np.uint8)
GRAY = np.array([[1, 2], [3, 250], [0, 9]], np.uint8)
PGM = np.frombuffer(b"P5 2 3 255\n" + GRAY.tobytes(), np.uint8)


def row(data: np.ndarray, wanted: np.ndarray, how: str = "RGB") -> OpCase:
    return OpCase(decode_image, (data,), lambda _: wanted, {"pixel_format": how}, order=0, symbolic=False)


CASES = [
    row(PPM, PIXELS),
    row(PPM, PIXELS[..., ::-1], "BGR"),
    row(PGM, GRAY[..., None], "Grayscale"),
    row(PGM, np.repeat(GRAY[..., None], 3, axis=2)),
    row(PPM[:-3], np.zeros((0, 0, 3), np.uint8)),
    row(np.arange(9, dtype=np.uint8), np.zeros((0, 0, 1), np.uint8), "Grayscale"),
]
