"""Bindings: grid sampling, the grids of affine maps, and deformable convolution."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops import create, cumulative, index as ix, layout, pointwise as pw, sampling
from ....ops.broadcast import broadcast_to
from ....ops.errors import UnsupportedAttributeError
from ....ops.window import Window
from ....runtime.graph.contents import dims_of
from ..node import NodeView
from ..registry import binds
from .conv import add_channel_bias, window

MODES = {"bilinear": "linear", "linear": "linear", "nearest": "nearest", "bicubic": "cubic", "cubic": "cubic"}


@binds("GridSample", 16, 20, 22)
@binds("GridSample", 1, domain="com.microsoft")
def grid_sample(node: NodeView, x: Any, grid: Any) -> Any:
    """GridSample: any number of spatial axes; the modes by their names before and since opset 20."""
    mode = node.one_of("mode", "linear", tuple(MODES))
    padding = node.one_of("padding_mode", "zeros", sampling.PADDINGS)
    corners = bool(node.attr("align_corners", 0))
    return sampling.grid_sample(x, grid, mode=MODES[mode], padding=padding, align_corners=corners)


@binds("AffineGrid", 20)
def affine_grid(node: NodeView, theta: Any, size: Any) -> Any:
    """AffineGrid: where each pixel of an image of this size comes from; one pixel along an axis is its centre.

    The schema's own body goes wrong for a batch of 1.
    """
    rank = theta.shape[1]
    if not isinstance(rank, int) or theta.ndim != 3:
        raise UnsupportedAttributeError(f"{node}: wants theta of (N, 2, 3) or (N, 3, 4), found {theta.shape}")
    corners = bool(node.attr("align_corners", 0))
    between = tuple(range(1, rank + 1))
    grid = layout.unsqueeze(ix.gather(theta, np.asarray(rank), axis=2), axes=between)
    for axis in range(rank):
        n = ix.gather(size, np.asarray(axis + 2), axis=0)
        ones = create.fill(ix.gather(size, np.asarray([axis + 2]), axis=0), value=1.0, dtype=str(theta.dtype))
        i, count = cumulative.cumsum(ones, axis=0, exclusive=True), pw.cast(n, dtype=str(theta.dtype))
        over = pw.maximum(pw.sub(count, 1.0), 1.0) if corners else count
        place = pw.div(pw.sub(pw.mul(i, 2.0), pw.sub(count, 1.0)), over)
        column = layout.unsqueeze(ix.gather(theta, np.asarray(rank - 1 - axis), axis=2), axes=between)
        grid = pw.add(grid, pw.mul(layout.unsqueeze(place, axes=tuple(range(1, rank - axis + 1))), column))
    return broadcast_to(grid, shape=(theta.shape[0], *dims_of(size)[2:], rank))  # which refuses negative sizes


@binds("DeformConv", 19, 22)
def deform_conv(node: NodeView, x: Any, w: Any, offset: Any, bias: Any = None, mask: Any = None) -> Any:
    """DeformConv: groups of channels and of offsets, an optional bias and mask."""
    win = window(node, x.shape[2:], w.shape[2:])
    win = Window(win.strides, win.pads, win.dilations, node.attr("group", 1))
    y = sampling.deform_conv(x, w, offset, mask, win=win, offset_group=node.attr("offset_group", 1))
    return add_channel_bias(y, bias)
