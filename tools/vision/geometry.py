"""Images of other sizes: resized, cropped, padded, mirrored. Source: torchvision.transforms.functional."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np

from ...ops.errors import InputError
from ...runtime.nn.functional.resample import interpolate
from ...runtime.tensor.tensor import Tensor
from .pillow import is_picture, pillow
from .pixels import channels_of, checked, size_of


class InterpolationMode(Enum):
    """How pixels between pixels are found."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


_PILLOW = {"nearest": 0, "nearest-exact": 0, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5, "lanczos": 1}
_BY_NUMBER = {0: "nearest", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming", 1: "lanczos"}


def mode_of(interpolation: Any) -> InterpolationMode:
    """Return an interpolation mode, also by Pillow's number.

    Raises:
        TypeError: if it is none.
    """
    if isinstance(interpolation, InterpolationMode):
        return interpolation
    if isinstance(interpolation, int) and int(interpolation) in _BY_NUMBER:
        return InterpolationMode(_BY_NUMBER[int(interpolation)])
    raise TypeError(
        f"Argument interpolation should be a InterpolationMode or a corresponding Pillow integer constant, but got "
        f"{interpolation!r}"
    )


def resize(
    img: Any,
    size: int | Sequence[int],
    interpolation: Any = InterpolationMode.BILINEAR,
    max_size: int | None = None,
    antialias: bool | None = True,
) -> Any:
    """Return an image of another size.

    Args:
        img: a picture or a Tensor.
        size: height and width; or the shorter side alone, and the other side follows.
        interpolation: how pixels are found.
        max_size: of the longer side, where the shorter one is given.
        antialias: of Tensors: widen the filter where the image shrinks, which Pillow always does.

    Raises:
        InputError: if the sizes are no sizes.
    """
    mode, old = mode_of(interpolation), size_of(checked(img))
    high, wide = _new_size(old, size, max_size)
    if (high, wide) == old:
        return img
    if is_picture(img):
        return img.resize((wide, high), _PILLOW[mode.value])
    return _resampled(img, (high, wide), mode, bool(antialias))


def _new_size(old: tuple[int, int], size: Any, max_size: int | None) -> tuple[int, int]:
    sizes: list[Any] = [size] if isinstance(size, numbers.Number) else list(size)
    if len(sizes) not in (1, 2):
        raise InputError(f"Size must be an int or a 1 or 2 element tuple/list, not a {len(sizes)} element tuple/list")
    if len(sizes) == 2:
        if max_size is not None:
            raise InputError(
                "max_size should only be passed if size specifies the length of the smaller edge, i.e. size should be "
                "an int or a sequence of length 1"
            )
        return int(sizes[0]), int(sizes[1])
    short, long = min(old), max(old)
    new_short, new_long = int(sizes[0]), int(sizes[0] * long / short)
    if max_size is not None:
        if max_size <= sizes[0]:
            raise InputError(
                f"max_size = {max_size} must be strictly greater than the requested size for the smaller edge size = "
                f"{size}"
            )
        if new_long > max_size:
            new_short, new_long = int(max_size * new_short / new_long), max_size
    return (new_long, new_short) if old[1] <= old[0] else (new_short, new_long)


def _resampled(img: Tensor, size: tuple[int, int], mode: InterpolationMode, antialias: bool) -> Tensor:
    how = mode.value
    if how not in ("nearest", "nearest-exact", "bilinear", "bicubic"):
        raise InputError(f"Tensors are resized with nearest, nearest-exact, bilinear or bicubic, found {how}")
    smooth = how in ("bilinear", "bicubic")
    x: Any = img.reshape(-1, *img.shape[-3:]) if img.ndim > 2 else img.reshape(1, 1, *img.shape)
    whole = not x.is_floating_point()
    if whole and smooth:
        x = x.to(dtype=np.float32)
    x = interpolate(x, size=size, mode=how, align_corners=False if smooth else None, antialias=antialias and smooth)
    if whole and smooth:
        if how == "bicubic" and img.dtype == np.uint8:
            x = x.clamp(0, 255)
        x = x.round().to(dtype=img.dtype)
    return x.reshape(*img.shape[:-2], *size)  # type: ignore[no-any-return]


def crop(img: Any, top: int, left: int, height: int, width: int) -> Any:
    """Return a part of an image; what lies outside it is 0."""
    if is_picture(checked(img)):
        return img.crop((left, top, left + width, top + height))
    h, w = size_of(img)
    part = img[..., max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    if min(left, top) >= 0 and left + width <= w and top + height <= h:
        return part
    before = min(max(-left, 0), width), min(max(-top, 0), height)
    after = width - before[0] - part.shape[-1], height - before[1] - part.shape[-2]
    return _padded(part, (before[0], before[1], after[0], after[1]), 0, "constant")


def center_crop(img: Any, output_size: int | Sequence[int]) -> Any:
    """Return the middle of an image; a smaller one is padded with 0 first."""
    high, wide = both_of(output_size)
    h, w = size_of(checked(img))
    if wide > w or high > h:
        more = max(wide - w, 0), max(high - h, 0)
        img = pad(img, [more[0] // 2, more[1] // 2, (more[0] + 1) // 2, (more[1] + 1) // 2])
        h, w = size_of(img)
        if (high, wide) == (h, w):
            return img
    return crop(img, round((h - high) / 2), round((w - wide) / 2), high, wide)


def both_of(size: Any) -> tuple[int, int]:
    """Return height and width, which may be given as one number.

    Raises:
        InputError: if there are more.
    """
    if isinstance(size, numbers.Number):
        return int(size), int(size)  # type: ignore[call-overload]
    if len(size) == 1:
        return int(size[0]), int(size[0])
    if len(size) != 2:
        raise InputError("Please provide only two dimensions (h, w) for size.")
    return int(size[0]), int(size[1])


def pad(img: Any, padding: int | Sequence[int], fill: Any = 0, padding_mode: str = "constant") -> Any:
    """Return an image with a border.

    Args:
        img: a picture or a Tensor.
        padding: the width of the border: everywhere; left and right, then top and bottom; or left, top, right, bottom.
        fill: what a constant border is filled with: a number, or one a channel.
        padding_mode: `constant`, `edge`, `reflect` (without repeating the edge) or `symmetric` (with).

    Raises:
        TypeError: if an argument is of another type.
        InputError: if there are too many numbers, or there is no such mode.
    """
    checked(img)
    if not isinstance(padding, numbers.Number | tuple | list):
        raise TypeError("Got inappropriate padding arg")
    if not isinstance(fill, numbers.Number | tuple | list | str):
        raise TypeError("Got inappropriate fill arg")
    if padding_mode not in ("constant", "edge", "reflect", "symmetric"):
        raise InputError("Padding mode should be either constant, edge, reflect or symmetric")
    sides: list[Any] = [padding] if isinstance(padding, numbers.Number) else list(padding)
    if len(sides) not in (1, 2, 4):
        raise InputError(f"Padding must be an int or a 1, 2, or 4 element tuple, not a {len(sides)} element tuple")
    left, top, right, bottom = (int(s) for s in sides * (4 // len(sides)))
    if not is_picture(img):
        return _padded(img, (left, top, right, bottom), fill, padding_mode)
    if padding_mode != "constant":
        return _bordered(img, (left, top, right, bottom), padding_mode)
    from PIL import ImageOps

    made = ImageOps.expand(img, (left, top, right, bottom), fill=filling(img, fill))
    if img.mode == "P":
        made.putpalette(img.getpalette())
    return made


def filling(img: Any, fill: Any) -> Any:
    """Return what fills a picture: one number a channel.

    Raises:
        InputError: if there are more or fewer.
    """
    n = channels_of(img)
    if isinstance(fill, numbers.Number):
        return fill if n == 1 else (int(fill),) * n  # type: ignore[call-overload]
    if isinstance(fill, list | tuple):
        if len(fill) != n:
            raise InputError(
                f"The number of elements in 'fill' does not match the number of channels of the image "
                f"({len(fill)} != {n})"
            )
        return tuple(fill) if n > 1 else fill[0]
    return fill


def _bordered(img: Any, sides: tuple[int, int, int, int], mode: str) -> Any:
    """Return a picture with a border made of its own pixels."""
    left, top, right, bottom = sides
    pixels = np.asarray(img)
    widths = [(max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0)), *[(0, 0)] * (pixels.ndim - 2)]
    made = pillow().fromarray(np.pad(pixels, widths, mode=mode))  # type: ignore[call-overload]
    if min(sides) < 0:
        cut = [max(-s, 0) for s in sides]
        made = made.crop((cut[0], cut[1], made.width - cut[2], made.height - cut[3]))
    if img.mode == "P":
        made.putpalette(img.getpalette())
    return made


def _padded(img: Tensor, sides: tuple[int, int, int, int], fill: Any, mode: str) -> Tensor:
    left, top, right, bottom = sides
    high, wide = size_of(img)
    img = img[..., max(-top, 0) : high - max(-bottom, 0), max(-left, 0) : wide - max(-right, 0)]
    sides = max(left, 0), max(top, 0), max(right, 0), max(bottom, 0)
    left, top, right, bottom = sides
    if mode != "constant":
        for axis, before, after in ((-2, top, bottom), (-1, left, right)):
            numbers_ = np.pad(np.arange(img.shape[axis]), (before, after), mode=mode)  # type: ignore[call-overload]
            img = img.index_select(axis % img.ndim, Tensor(numbers_))
        return img
    from ...runtime.tensor.creation import full

    values = list(fill) if isinstance(fill, list | tuple) else [fill]
    shape = (*img.shape[:-2], img.shape[-2] + top + bottom, img.shape[-1] + left + right)
    out = full(shape, values[0], dtype=img.dtype, device=img.device)
    if len(values) > 1:
        out = out * 0 + Tensor(np.asarray(values, img.dtype).reshape(-1, 1, 1)).to(device=img.device)
    out[..., top : top + img.shape[-2], left : left + img.shape[-1]] = img
    return out


def hflip(img: Any) -> Any:
    """Return an image mirrored left to right."""
    if is_picture(checked(img)):
        return img.transpose(pillow().Transpose.FLIP_LEFT_RIGHT)
    return img.flip(-1)


def vflip(img: Any) -> Any:
    """Return an image mirrored top to bottom."""
    if is_picture(checked(img)):
        return img.transpose(pillow().Transpose.FLIP_TOP_BOTTOM)
    return img.flip(-2)


def resized_crop(
    img: Any,
    top: int,
    left: int,
    height: int,
    width: int,
    size: int | Sequence[int],
    interpolation: Any = InterpolationMode.BILINEAR,
    antialias: bool | None = True,
) -> Any:
    """Return a part of an image, resized."""
    return resize(crop(img, top, left, height, width), size, interpolation, antialias=antialias)


def rotate(
    img: Any,
    angle: float,
    interpolation: Any = InterpolationMode.NEAREST,
    expand: bool = False,
    center: Sequence[float] | None = None,
    fill: Any = 0,
) -> Any:
    """Return a picture turned counter-clockwise by an angle in degrees.

    Raises:
        TypeError: if it is no picture of Pillow's.
    """
    if not is_picture(img):
        raise TypeError(f"rotate takes a PIL Image (use it before ToTensor). Got {type(img)}")
    return img.rotate(angle, _PILLOW[mode_of(interpolation).value], expand, center, fillcolor=filling(img, fill))
