"""Elements put elsewhere: channels to space and back, groups of channels, sliding blocks and their sum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ....ops import index as index_ops, layout
from ....ops.errors import OpError, ShapeError
from .spatial import beside, known


def pixel_shuffle(input: Any, upscale_factor: int) -> Any:
    """Move channels into blocks of space.

    Shapes: (*, C r^2, H, W) -> (*, C, H r, W r).

    Raises:
        ShapeError: if there are fewer than three axes, or the channels do not divide.
    """
    r = upscale_factor
    if input.ndim < 3:
        raise ShapeError(
            f"pixel_shuffle expects input to have at least 3 dimensions, but got input with {input.ndim} dimension(s)"
        )
    if r <= 0:
        raise OpError(f"pixel_shuffle expects a positive upscale_factor, but got {r}")
    *lead, c, h, w = input.shape
    if known((c,)) and c % (r * r):
        raise ShapeError(
            "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square of upscale_factor, "
            f"but input.size(-3)={c} is not divisible by {r * r}"
        )
    n = len(lead)
    apart = layout.reshape(input, shape=(*lead, c // (r * r), r, r, h, w))
    moved = layout.transpose(apart, perm=(*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return layout.reshape(moved, shape=(*lead, c // (r * r), h * r, w * r))


def pixel_unshuffle(input: Any, downscale_factor: int) -> Any:
    """Move blocks of space into channels: the inverse of `pixel_shuffle`.

    Shapes: (*, C, H r, W r) -> (*, C r^2, H, W).

    Raises:
        ShapeError: if there are fewer than three axes, or the sizes do not divide.
    """
    r = downscale_factor
    if input.ndim < 3:
        raise ShapeError(
            f"pixel_unshuffle expects input to have at least 3 dimensions, but got input with {input.ndim} dimension(s)"
        )
    if r <= 0:
        raise OpError(f"pixel_unshuffle expects a positive downscale_factor, but got {r}")
    *lead, c, h, w = input.shape
    for what, at, size in (("height", -2, h), ("width", -1, w)):
        if known((size,)) and size % r:
            raise ShapeError(
                f"pixel_unshuffle expects {what} to be divisible by downscale_factor, but input.size({at})={size} is "
                f"not divisible by {r}"
            )
    n = len(lead)
    apart = layout.reshape(input, shape=(*lead, c, h // r, r, w // r, r))
    moved = layout.transpose(apart, perm=(*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return layout.reshape(moved, shape=(*lead, c * r * r, h // r, w // r))


def channel_shuffle(input: Any, groups: int) -> Any:
    """Interleave the channels of so many groups. Shapes: (N, C, *), unchanged.

    Raises:
        ShapeError: if there are no axes after the channels, or they do not divide.
    Source: Zhang et al. 2018, "ShuffleNet".
    """
    if input.ndim <= 2:
        raise ShapeError(f"channel_shuffle expects input with > 2 dims, but got input with sizes {list(input.shape)}")
    if groups <= 0:
        raise OpError(f"Number of groups to divide channels in must be positive. Value of groups:{groups}")
    c = input.shape[1]
    if known((c,)) and c % groups:
        raise ShapeError(f"Number of channels must be divisible by groups. Got {c} channels and {groups} groups.")
    rest = tuple(range(3, input.ndim + 1))
    apart = layout.reshape(input, shape=(input.shape[0], groups, c // groups, *input.shape[2:]))
    return layout.reshape(layout.transpose(apart, perm=(0, 2, 1, *rest)), shape=tuple(input.shape))


native_channel_shuffle = channel_shuffle


def _pair(value: Any, name: str) -> tuple[int, int]:
    given = (value, value) if isinstance(value, int | np.integer) else tuple(value)
    given = given * 2 if len(given) == 1 else given
    if len(given) != 2:
        raise ShapeError(f"It is expected {name} equals to 2, but got size {len(given)}")
    return int(given[0]), int(given[1])


Pair = tuple[int, int]


def _checked(kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> tuple[Pair, Pair, Pair, Pair]:
    kernel, steps = _pair(kernel_size, "kernel_size"), _pair(stride, "stride")
    dilations, pads = _pair(dilation, "dilation"), _pair(padding, "padding")
    for name, short, values in (
        ("kernel size", "kernel", kernel), ("dilation", "dilation", dilations), ("stride", "stride", steps)
    ):  # fmt: skip
        if min(values) < 1:
            raise OpError(
                f"{name} should be greater than zero, but got {short}_height: {values[0]} {short}_width: {values[1]}"
            )
    if min(pads) < 0:
        raise OpError(f"padding should be non-negative, but got pad_height: {pads[0]} pad_width: {pads[1]}")
    return kernel, dilations, pads, steps


def _places(size: int, kernel: int, dilation: int, stride: int) -> np.ndarray[Any, Any]:
    """Return where the elements of the blocks of an axis are: (kernel, blocks)."""
    count = (size - dilation * (kernel - 1) - 1) // stride + 1
    return np.arange(kernel)[:, None] * dilation + np.arange(max(count, 0)) * stride


def unfold(input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """Return the sliding blocks of images as columns.

    Args:
        input: the images.
        kernel_size: the sizes of a block.
        dilation: the distance of the elements of a block.
        padding: zeros on both sides.
        stride: how far the block moves.

    Shapes: (N, C, H, W) or (C, H, W) -> (N, C * product(kernel_size), blocks) or without N.

    Raises:
        ShapeError: if ranks do not fit, or no block does.
    """
    kernel, dilations, pads, steps = _checked(kernel_size, dilation, padding, stride)
    if input.ndim not in (3, 4) or not known(input.shape[-3:]):
        raise ShapeError(
            "Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero dimensions for input, "
            f"but got: {list(input.shape)}"
        )
    x = input if input.ndim == 4 else layout.unsqueeze(input, axes=(0,))
    n, c, h, w = x.shape
    if any(pads):
        x = layout.pad(x, None, pads=((0, 0), (0, 0), (pads[0], pads[0]), (pads[1], pads[1])))
    rows, columns = (
        _places(s + 2 * p, k, d, step) for s, p, k, d, step in zip((h, w), pads, kernel, dilations, steps, strict=True)
    )
    if not rows.shape[1] or not columns.shape[1]:
        raise ShapeError(
            f"Given input with spatial size ({h}, {w}), kernel_size={kernel}, dilation={dilations}, padding={pads}, "
            f"calculated shape of the array of sliding blocks as ({rows.shape[1]}, {columns.shape[1]}), but its "
            "components must be at least one."
        )
    x = index_ops.gather(x, beside(x, rows), axis=2)
    x = index_ops.gather(x, beside(x, columns), axis=4)
    x = layout.transpose(x, perm=(0, 1, 2, 4, 3, 5))
    y = layout.reshape(x, shape=(n, c * math.prod(kernel), rows.shape[1] * columns.shape[1]))
    return y if input.ndim == 4 else layout.squeeze(y, axes=(0,))


def fold(input: Any, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """Add up the columns of sliding blocks where they overlap: the adjoint of `unfold`.

    Args:
        input: the columns.
        output_size: the sizes of the images.
        kernel_size: the sizes of a block.
        dilation: the distance of the elements of a block.
        padding: how much of the sum is cut off on both sides.
        stride: how far the block moves.

    Shapes: (N, C * product(kernel_size), blocks) or without N -> (N, C, *output_size) or without N.

    Raises:
        ShapeError: if ranks or sizes do not fit.
    """
    kernel, dilations, pads, steps = _checked(kernel_size, dilation, padding, stride)
    size = _pair(output_size, "output_size")
    if input.ndim not in (2, 3):
        raise ShapeError(
            "Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch size and non-zero dimensions for "
            f"input, but got: {list(input.shape)}"
        )
    x = input if input.ndim == 3 else layout.unsqueeze(input, axes=(0,))
    n, depth, blocks = x.shape
    taps = math.prod(kernel)
    if depth % taps:
        raise ShapeError(
            "Expected size of input's dimension 1 to be divisible by the product of kernel_size, but got "
            f"input.size(1)={depth} and kernel_size={kernel}."
        )
    rows, columns = (
        _places(s + 2 * p, k, d, step) for s, p, k, d, step in zip(size, pads, kernel, dilations, steps, strict=True)
    )
    high, wide = rows.shape[1], columns.shape[1]
    if known((blocks,)) and blocks != high * wide:
        raise ShapeError(
            f"Given output_size={size}, kernel_size={kernel}, dilation={dilations}, padding={pads}, stride={steps}, "
            f"expected size of input's dimension 2 to match the calculated number of sliding blocks {high} * {wide} = "
            f"{high * wide}, but got input.size(2)={blocks}."
        )
    x = layout.reshape(x, shape=(n, depth // taps, *kernel, high, wide))
    x = layout.transpose(x, perm=(0, 1, 2, 4, 3, 5))
    x = index_ops.gather_grad(x, beside(x, columns), axis=4, size=size[1] + 2 * pads[1])
    y = index_ops.gather_grad(x, beside(x, rows), axis=2, size=size[0] + 2 * pads[0])
    if any(pads):
        y = layout.pad(y, None, pads=((0, 0), (0, 0), (-pads[0], -pads[0]), (-pads[1], -pads[1])))
    return y if input.ndim == 3 else layout.squeeze(y, axes=(0,))
