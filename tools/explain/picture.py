"""Heat maps and overlays as pictures, by Pillow and matplotlib."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from ...ops.errors import InputError
from ...ops.types import Array

COLOURS = "inferno"
STRENGTH = 0.85
"""How much the hottest spots of an overlay cover the image."""
SMALLEST = 256
"""Smaller images are enlarged, pixel by pixel, to about this many pixels a side."""


def fitted(image: Any, size: tuple[int, int]) -> Image.Image:
    """Return a picture of this size (width, height): the middle of an image, a path or an array.

    Raises:
        InputError: if it is not an image that can be read.
    """
    if isinstance(image, str | os.PathLike):
        try:
            with Image.open(image) as opened:
                image = ImageOps.exif_transpose(opened).convert("RGB")
        except (OSError, ValueError) as error:
            raise InputError(f"{os.fspath(image)}: not an image that can be read: {error}") from error
    elif not isinstance(image, Image.Image):
        image = of_pixels(np.asarray(image, np.float64))
    ratio = max(size[0] / image.width, size[1] / image.height)
    if ratio > 1:
        return ImageOps.fit(image.convert("RGB"), size, Image.Resampling.BICUBIC)
    kept = (round(size[0] / ratio), round(size[1] / ratio))
    return ImageOps.fit(image.convert("RGB"), kept, Image.Resampling.BICUBIC)


def of_pixels(pixels: Array) -> Image.Image:
    """Return height x width (x channels) numbers as a picture, dark to bright over their own range."""
    low, high = pixels.min(), pixels.max()
    grey = (pixels - low) / (high - low) if high > low else np.zeros_like(pixels)
    grey = grey[..., None] if grey.ndim == 2 else grey
    return Image.fromarray((np.repeat(grey, 3 // grey.shape[-1], axis=-1) * 255).round().astype(np.uint8))


def coloured(heat: Array, size: tuple[int, int]) -> Image.Image:
    """Return a heat map as a picture of this size."""
    colours = (colormaps[COLOURS](heat)[..., :3] * 255).round().astype(np.uint8)
    return Image.fromarray(colours).resize(size, _enlarging(heat.shape, size))


def overlay(heat: Array, image: Image.Image, strength: float) -> Image.Image:
    """Return the image with the heat laid over it: the hotter, the more it covers."""
    image = enlarged(image)
    colours = np.asarray(coloured(heat, image.size), np.float64)
    mask = Image.fromarray((heat * 255).round().astype(np.uint8)).resize(image.size, _enlarging(heat.shape, image.size))
    cover = (np.asarray(mask, np.float64)[..., None] / 255) ** 0.6 * strength
    grey = np.asarray(image.convert("L").convert("RGB"), np.float64)
    dimmed = 0.35 * grey + 0.5 * np.asarray(image, np.float64)
    return Image.fromarray((dimmed * (1 - cover) + colours * cover).clip(0, 255).round().astype(np.uint8))


def enlarged(image: Image.Image) -> Image.Image:
    """Return a small image with each pixel drawn as a square."""
    factor = max(1, round(SMALLEST / max(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _enlarging(shape: tuple[int, ...], size: tuple[int, int]) -> Image.Resampling:
    """Return how a heat map is enlarged: pixel by pixel where the image is too."""
    return Image.Resampling.NEAREST if max(shape) < SMALLEST // 2 else Image.Resampling.BILINEAR


def save(path: str | os.PathLike[str], heat: Array, image: Image.Image, title: str, note: str) -> None:
    """Write the image, the heat map and the overlay side by side, with a title and a colour scale."""
    shown = enlarged(image)
    panels = [("image", shown), ("heat map", coloured(heat, shown.size)), ("overlay", overlay(heat, image, STRENGTH))]
    side = 3.2
    tall = side * shown.height / shown.width
    figure = Figure(figsize=(3 * side + 1.1, tall + 0.95), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    for ax, (name, panel) in zip(axes, panels, strict=True):
        ax.imshow(np.asarray(panel), interpolation="none")
        ax.set_title(name, fontsize=9, color="0.35", pad=5)
        ax.set_axis_off()
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(cmap=COLOURS), ax=axes, fraction=0.02, pad=0.015, aspect=28)
    bar.set_ticks([0, 1], labels=["0", "1"])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8, labelcolor="0.35")
    figure.suptitle(title, fontsize=12)
    if note:
        figure.supxlabel(note, fontsize=8, color="0.5")
    figure.savefig(path)
