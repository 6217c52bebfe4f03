"""Images as a whole: space to channels and back, blocks to images, centred crops.

Source: ONNX DepthToSpace-28, SpaceToDepth-28, Col2Im-18, CenterCropPad-18.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from .conv import conv_input_grad
from .dims import Shape, product
from .errors import ShapeError
from .extent import axis_of
from .layout import reshape, swap, transpose
from .op import namespace, op
from .types import TensorType
from .window import Window

Entries: TypeAlias = tuple[Callable[[], Any] | None, ...]


@op()
def center_crop_pad(x: TensorType, *, shape: Shape, axes: tuple[int, ...]) -> TensorType:
    """Crop or pad axes evenly to these sizes; an odd element more goes to the end.

    Source: ONNX CenterCropPad-18.
    """
    sizes = x.shape
    for axis, size in zip(axes, shape, strict=True):
        sizes = swap(sizes, axis_of(axis, x.ndim, "center_crop_pad"), size)
    return TensorType(x.dtype, sizes)


@center_crop_pad.defvjp
def _center_crop_pad_vjp(g: Any, y: Any, x: Any, *, shape: Shape, axes: tuple[int, ...]) -> Entries:
    return (lambda: center_crop_pad(g, shape=tuple(x.shape[a] for a in axes), axes=axes),)


@op()
def col2im(x: TensorType, *, size: Shape, block: Shape, win: Window) -> TensorType:
    """Add up the columns of sliding blocks where they overlap: the adjoint of taking the blocks out.

    Shapes: (N, C * product(block), how many blocks) -> (N, C, *size).
    Source: ONNX Col2Im-18.
    """
    return TensorType(x.dtype, (x.shape[0], x.shape[1] // product(block), *size))


@col2im.compose
def _col2im(x: Any, *, size: Shape, block: tuple[int, ...], win: Window) -> Any:
    """Transpose a convolution whose filters each pick one element of the block."""
    taps = int(np.prod(block))
    channels = x.shape[1] // taps
    picks = np.tile(np.eye(taps), (channels, 1)).reshape(channels * taps, 1, *block).astype(x.dtype)
    picks = namespace(getattr(x, "array", x)).asarray(picks)
    columns = reshape(x, shape=(x.shape[0], x.shape[1], *win.out(size, block)))
    each = Window(win.strides, win.pads, win.dilations, channels)
    return conv_input_grad(columns, picks, win=each, size=size)


def depth_to_space(x: Any, *, block: int, mode: str = "DCR") -> Any:
    """Move channels into blocks of space; mode CRD has the channel outermost, DCR the block.

    Shapes: (N, C * block^2, H, W) -> (N, C, H * block, W * block).
    """
    _whole_blocks(block)
    n, c, h, w = x.shape
    deep = c // (block * block)
    if mode == "DCR":
        y = transpose(reshape(x, shape=(n, block, block, deep, h, w)), perm=(0, 3, 4, 1, 5, 2))
    else:
        y = transpose(reshape(x, shape=(n, deep, block, block, h, w)), perm=(0, 1, 4, 2, 5, 3))
    return reshape(y, shape=(n, deep, h * block, w * block))


def _whole_blocks(block: int) -> None:
    if block < 1:
        raise ShapeError(f"the block size is {block}, wanted 1 or more")


def space_to_depth(x: Any, *, block: int, mode: str = "DCR") -> Any:
    """Move blocks of space into channels: the inverse of `depth_to_space`.

    Shapes: (N, C, H, W) -> (N, C * block^2, H / block, W / block).
    """
    _whole_blocks(block)
    n, c, h, w = x.shape
    perm = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    y = transpose(reshape(x, shape=(n, c, h // block, block, w // block, block)), perm=perm)
    return reshape(y, shape=(n, c * block * block, h // block, w // block))
