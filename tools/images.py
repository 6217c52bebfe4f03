"""Photos as model inputs: size and layout from what the input declares, scale and mean from the caller."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..ops.dims import show
from ..ops.errors import InputError, MissingExtraError
from ..ops.types import Array, DType, is_float

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..ops.dims import DimLike, Shape

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Preparation:
    """How a photo's bytes (0 to 255) become an input: `(bytes * scale - mean) / std`.

    Attributes:
        scale: 1/255 brings bytes to 0..1; models that take raw bytes want 1.
        mean, std: in the units after scaling; one value a channel, or one for all.
        crop: keep the proportions and cut the middle out, rather than squeeze the whole photo in.
        bgr: order the channels blue, green, red, as OpenCV does.
    """

    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    crop: bool = False
    bgr: bool = False


IMAGENET = Preparation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop=True)
"""What models trained on ImageNet in PyTorch expect."""


@dataclass(frozen=True)
class Layout:
    """Where channels, height and width stand in an image input."""

    rank: int
    channel_axis: int | None
    channels: int
    height: int | None
    width: int | None


def layout_of(shape: Shape) -> Layout:
    """Return the layout that an input shape has: (N)CHW, (N)HWC or HW, whichever has 1, 3 or 4 channels.

    Raises:
        InputError: if it is none of these.
    """
    if len(shape) == 2:
        return Layout(2, None, 1, _known(shape[0]), _known(shape[1]))
    if len(shape) in (3, 4):
        first, last = len(shape) - 3, len(shape) - 1
        if (channels := shape[first]) in MODES and isinstance(channels, int):
            return Layout(len(shape), first, channels, _known(shape[-2]), _known(shape[-1]))
        if (channels := shape[last]) in MODES and isinstance(channels, int):
            return Layout(len(shape), last, channels, _known(shape[first]), _known(shape[first + 1]))
    raise InputError(
        f"shape {show(shape)} is not an image's: wanted (N, C, H, W) or (N, H, W, C) with 1, 3 or 4 channels"
    )


def _known(d: DimLike) -> int | None:
    return d if isinstance(d, int) else None


def read_image(
    path: Path, dtype: DType, shape: Shape, preparation: Preparation, view: np.random.Generator | None = None
) -> Array:
    """Return a photo as an input of this element type and shape; sizes left open are the photo's.

    Args:
        path: the photo.
        dtype: of the input.
        shape: of the input.
        preparation: how bytes become numbers.
        view: take a random part of the photo, mirrored by chance, to train on.

    Raises:
        InputError: if the file is not an image, or the shape not an image's.
        MissingExtraError: if Pillow is not installed.
    """
    layout = layout_of(shape)
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingExtraError("reading images needs Pillow: pip install 'onnxgrad[explain]'") from error
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert(MODES[layout.channels])
    except FileNotFoundError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not an image that can be read: {error}") from error
    size = (layout.width or image.width, layout.height or image.height)
    resized = _resized(image, size, preparation.crop) if view is None else _part(image, size, view)
    pixels = np.asarray(resized)
    return arrange(pixels.reshape(size[1], size[0], layout.channels), dtype, layout, preparation)


def _resized(image: Image, size: tuple[int, int], crop: bool) -> Image:
    from PIL import Image as Images, ImageOps

    if crop:
        return ImageOps.fit(image, size, Images.Resampling.BILINEAR)
    return image.resize(size, Images.Resampling.BILINEAR)


def _part(image: Image, size: tuple[int, int], generator: np.random.Generator) -> Image:
    """Return 40 to 100% of an image, its proportions stretched by up to 4:3, mirrored half of the time."""
    from PIL import Image as Images, ImageOps

    area = generator.uniform(0.4, 1) * image.width * image.height
    stretch = np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3))) * size[0] / size[1]
    wide = max(1, min(image.width, int(np.sqrt(area * stretch))))
    high = max(1, min(image.height, int(np.sqrt(area / stretch))))
    left = int(generator.integers(0, image.width - wide + 1))
    top = int(generator.integers(0, image.height - high + 1))
    box = (left, top, left + wide, top + high)
    part = image.resize(size, Images.Resampling.BILINEAR, box=box)
    return ImageOps.mirror(part) if generator.random() < 0.5 else part


def arrange(pixels: Array, dtype: DType, layout: Layout, preparation: Preparation) -> Array:
    """Return height x width x channels bytes as an input.

    Raises:
        InputError: if mean or std has not one value, or one a channel.
    """
    if preparation.bgr:
        pixels = np.concatenate([pixels[..., 2::-1], pixels[..., 3:]], axis=-1)
    if is_float(dtype):
        mean, std = (
            _per_channel(v, n, layout.channels) for v, n in ((preparation.mean, "mean"), (preparation.std, "std"))
        )
        pixels = ((pixels * np.float32(preparation.scale) - mean) / std).astype(dtype)
    else:
        pixels = pixels.astype(dtype)
    if layout.channel_axis is None:
        return pixels[..., 0]
    if layout.channel_axis == layout.rank - 3:
        pixels = pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels[None] if layout.rank == 4 else pixels)


def _per_channel(values: tuple[float, ...], name: str, channels: int) -> Array:
    if len(values) not in (1, channels):
        raise InputError(f"{name} has {len(values)} values, the input has {channels} channels")
    return np.array(values, np.float32)
