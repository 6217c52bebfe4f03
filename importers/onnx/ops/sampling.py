"""Bindings: grid sampling and deformable convolution."""

from __future__ import annotations

from typing import Any

from ....ops import sampling
from ....ops.window import Window
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


@binds("DeformConv", 19, 22)
def deform_conv(node: NodeView, x: Any, w: Any, offset: Any, bias: Any = None, mask: Any = None) -> Any:
    """DeformConv: groups of channels and of offsets, an optional bias and mask."""
    win = window(node, x.shape[2:], w.shape[2:])
    win = Window(win.strides, win.pads, win.dilations, node.attr("group", 1))
    y = sampling.deform_conv(x, w, offset, mask, win=win, offset_group=node.attr("offset_group", 1))
    return add_channel_bias(y, bias)
