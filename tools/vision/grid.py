"""Many pictures in one. Source: torchvision.utils."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...ops.errors import ShapeError
from ...runtime.tensor.tensor import Tensor
from .pillow import pillow


def make_grid(
    tensor: Any,
    nrow: int = 8,
    padding: int = 2,
    normalize: bool = False,
    value_range: tuple[float, float] | None = None,
    scale_each: bool = False,
    pad_value: float = 0.0,
) -> Tensor:
    """Return pictures side by side, as one.

    Args:
        tensor: (N, C, H, W), or a list of (C, H, W); one grey channel becomes three.
        nrow: how many in a row.
        padding: pixels between them.
        normalize: shift and scale to 0 to 1.
        value_range: what 0 and 1 stand for then; the smallest and largest value by default.
        scale_each: scale each picture by itself.
        pad_value: between the pictures.

    Raises:
        TypeError: if there are no Tensors.
        ShapeError: if they are no pictures.
    """
    given = tensor if isinstance(tensor, list | tuple) else [tensor]
    if not given or not all(isinstance(t, Tensor) for t in given):
        raise TypeError(f"tensor or list of tensors expected, got {type(tensor)}")
    arrays = [np.asarray(t.detach().cpu().numpy()) for t in given]
    images = np.stack(arrays) if isinstance(tensor, list | tuple) else arrays[0]
    if images.ndim not in (2, 3, 4):
        raise ShapeError(f"make_grid takes (N, C, H, W), (C, H, W) or (H, W), found {images.shape}")
    if images.ndim == 2:
        images = images[None]
    if images.ndim == 3:
        images = images[None]
    if images.shape[1] == 1:
        images = np.repeat(images, 3, axis=1)
    if normalize:
        images = np.stack([_scaled(i, value_range) for i in images]) if scale_each else _scaled(images, value_range)
    if len(images) == 1:
        return Tensor(images[0].copy())
    n, channels, high, wide = images.shape
    across = min(nrow, n)
    high, wide = high + padding, wide + padding
    grid = np.full((channels, high * math.ceil(n / across) + padding, wide * across + padding), pad_value, images.dtype)
    for i, image in enumerate(images):
        top, left = high * (i // across) + padding, wide * (i % across) + padding
        grid[:, top : top + image.shape[1], left : left + image.shape[2]] = image
    return Tensor(grid)


def _scaled(images: Any, value_range: tuple[float, float] | None) -> Any:
    low, high = (float(images.min()), float(images.max())) if value_range is None else value_range
    return ((np.clip(images, low, high) - low) / max(high - low, 1e-5)).astype(images.dtype, copy=False)


def save_image(tensor: Any, fp: Any, format: str | None = None, **kwargs: Any) -> None:
    """Write a picture, or many in one, to a file.

    Args:
        tensor: as `make_grid` takes it, from 0 to 1.
        fp: where to: a name, or an open file.
        format: of the file; by its name by default.
        **kwargs: settings of `make_grid`.
    """
    grid = make_grid(tensor, **kwargs)._array
    pixels = np.clip(grid * 255 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    pillow().fromarray(np.ascontiguousarray(pixels)).save(fp, format=format)
