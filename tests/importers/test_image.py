"""ImageDecoder: files that Pillow writes, and files that are none."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest

from onnxgrad.ops.errors import MissingExtraError, OpError

from .one_node import run_node

Image = pytest.importorskip("PIL.Image")
PIXELS = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)


def file(kind: str, pixels: np.ndarray = PIXELS, **how) -> np.ndarray:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **how)
    return np.frombuffer(out.getvalue(), np.uint8)


def decoded(data: np.ndarray, **how) -> np.ndarray:
    (y,) = run_node("ImageDecoder", [data], opset=20, **how)
    return y


@pytest.mark.parametrize(
    ("kind", "how"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("PPM", {}), ("WEBP", {"lossless": True}), ("JPEG2000", {})],
)
def test_formats_without_loss(kind, how) -> None:
    data = file(kind, **how)
    np.testing.assert_array_equal(decoded(data), PIXELS)
    np.testing.assert_array_equal(decoded(data, pixel_format="BGR"), PIXELS[..., ::-1])


def test_jpeg() -> None:
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    assert np.abs(decoded(file("JPEG", flat)).astype(int) - flat).max() <= 2


def test_gray() -> None:
    gray = PIXELS[..., 0]
    np.testing.assert_array_equal(decoded(file("PNG", gray), pixel_format="Grayscale"), gray[..., None])
    np.testing.assert_array_equal(decoded(file("PNG", gray)), np.repeat(gray[..., None], 3, axis=2))
    shades = decoded(file("PNG"), pixel_format="Grayscale")[..., 0]
    np.testing.assert_allclose(shades, PIXELS @ [0.299, 0.587, 0.114], atol=1)


def test_a_transparent_image_loses_its_transparency() -> None:
    clear = np.concatenate([PIXELS, np.full((7, 5, 1), 128, np.uint8)], axis=2)
    np.testing.assert_array_equal(decoded(file("PNG", clear)), PIXELS)


@pytest.mark.parametrize("data", [file("PNG")[:40], np.arange(100, dtype=np.uint8), np.zeros(0, np.uint8)])
def test_what_is_no_image_is_empty(data) -> None:
    assert decoded(data).shape == (0, 0, 3)


def test_a_huge_image_is_refused() -> None:
    data = np.frombuffer(b"P6 100000 100000 255\n", np.uint8)
    with pytest.raises(OpError, match=r"ImageDecoder-20 'node'.*pixels"):
        decoded(data)


def test_without_pillow_the_extra_is_named(monkeypatch) -> None:
    data = file("PPM")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match="pip install"):
        decoded(data)
