"""Images in other colours. Source: torchvision.transforms.functional."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ops.errors import InputError
from ...runtime.tensor.joining import stack
from ...runtime.tensor.tensor import Tensor
from .pillow import is_picture, pillow
from .pixels import channels_of, checked, largest

LUMA = (0.2989, 0.587, 0.114)
"""What red, green and blue of a Tensor add to its grey (ITU-R 601-2)."""


def rgb_to_grayscale(img: Any, num_output_channels: int = 1) -> Any:
    """Return an image in grey, in one channel or in three equal ones.

    Raises:
        InputError: if other channels are wanted or found.
    """
    if num_output_channels not in (1, 3):
        raise InputError("num_output_channels should be either 1 or 3")
    if is_picture(checked(img)):
        grey = img.convert("L")
        return grey if num_output_channels == 1 else pillow().merge("RGB", (grey, grey, grey))
    if (found := channels_of(img)) not in (1, 3):
        raise InputError(f"Input image tensor permitted channel values are [1, 3], but found {found}")
    grey = _grey(img)
    return grey if num_output_channels == 1 else stack([grey[..., 0, :, :]] * 3, -3)


to_grayscale = rgb_to_grayscale


def _grey(img: Tensor) -> Tensor:
    if channels_of(img) == 1:
        return img
    r, g, b = (img[..., i : i + 1, :, :] for i in range(3))
    return (LUMA[0] * r + LUMA[1] * g + LUMA[2] * b).to(dtype=img.dtype)


def adjust_brightness(img: Any, brightness_factor: float) -> Any:
    """Return an image mixed with black: 0 is black, 1 the image, 2 twice as bright."""
    _check_factor("brightness_factor", brightness_factor)
    if is_picture(checked(img)):
        from PIL import ImageEnhance

        return ImageEnhance.Brightness(img).enhance(brightness_factor)
    return _mixed(img, img * 0, brightness_factor)


def adjust_contrast(img: Any, contrast_factor: float) -> Any:
    """Return an image mixed with its mean grey: 0 is grey, 1 the image."""
    _check_factor("contrast_factor", contrast_factor)
    if is_picture(checked(img)):
        from PIL import ImageEnhance

        return ImageEnhance.Contrast(img).enhance(contrast_factor)
    dtype = img.dtype if img.is_floating_point() else np.float32
    return _mixed(img, _grey(img).to(dtype=dtype).mean((-3, -2, -1), keepdim=True), contrast_factor)


def adjust_saturation(img: Any, saturation_factor: float) -> Any:
    """Return an image mixed with its grey version: 0 is grey, 1 the image."""
    _check_factor("saturation_factor", saturation_factor)
    if is_picture(checked(img)):
        from PIL import ImageEnhance

        return ImageEnhance.Color(img).enhance(saturation_factor)
    return img if channels_of(img) == 1 else _mixed(img, _grey(img), saturation_factor)


def _check_factor(name: str, factor: float) -> None:
    if factor < 0:
        raise InputError(f"{name} ({factor}) is not non-negative.")


def _mixed(img: Tensor, other: Any, ratio: float) -> Tensor:
    mixed = (ratio * img + (1.0 - ratio) * other).clamp(0, largest(img.dtype))
    return mixed.to(dtype=img.dtype)  # type: ignore[no-any-return]


def adjust_hue(img: Any, hue_factor: float) -> Any:
    """Return an image with its hues turned: by the factor, from -0.5 to 0.5 of the whole circle.

    Raises:
        InputError: if the factor is outside.
    """
    if not -0.5 <= hue_factor <= 0.5:
        raise InputError(f"hue_factor ({hue_factor}) is not in [-0.5, 0.5].")
    if not is_picture(checked(img)):
        return _turned(img, hue_factor)
    if img.mode in ("L", "1", "I", "F"):
        return img
    hue, saturation, value = img.convert("HSV").split()
    turned = (np.asarray(hue).astype(np.int32) + int(hue_factor * 255)) % 256
    hue = pillow().fromarray(turned.astype(np.uint8))
    return pillow().merge("HSV", (hue, saturation, value)).convert(img.mode)


def _turned(img: Tensor, hue_factor: float) -> Tensor:
    """Return a Tensor of red, green and blue with its hues turned; by the hexcone model (Smith 1978)."""
    if channels_of(img) == 1:
        return img
    pixels: Any = np.asarray(img.detach().cpu().numpy())
    scale = largest(pixels.dtype)
    rgb = pixels.astype(np.float64 if pixels.dtype == np.float64 else np.float32) / scale
    r, g, b = np.moveaxis(rgb, -3, 0)
    high, low = rgb.max(-3), rgb.min(-3)
    spread = high - low
    divisor = np.where(spread == 0, 1, spread)
    red, green, blue = ((high - c) / divisor for c in (r, g, b))
    hue = np.where(high == r, blue - green, np.where(high == g, 2 + red - blue, 4 + green - red))
    hue = (np.where(spread == 0, 0, hue) / 6 + hue_factor) % 1
    saturation = spread / np.where(spread == 0, 1, high)
    offsets = np.array([5, 3, 1], rgb.dtype).reshape(3, *[1] * hue.ndim)
    k = (offsets + hue[None] * 6) % 6
    made = np.moveaxis(high - high * saturation * np.clip(np.minimum(k, 4 - k), 0, 1), 0, -3)
    if pixels.dtype.kind in "iu":
        made = made * (scale + 1.0 - 1e-3)
    return Tensor(made.astype(pixels.dtype)).to(device=img.device)


def invert(img: Any) -> Any:
    """Return an image in its complementary colours."""
    if is_picture(checked(img)):
        from PIL import ImageOps

        return ImageOps.invert(img)
    return largest(img.dtype) - img
