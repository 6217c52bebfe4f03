"""Bindings: space to channels and back, blocks to images, centred crops."""

from __future__ import annotations

from typing import Any

from ....ops import spatial
from ....ops.window import Window
from ....runtime.graph.contents import dims_of
from ..node import NodeView
from ..registry import binds
from .layout import axis_in, pad_pairs


@binds("DepthToSpace", 1, 11, 13, 28)
def depth_to_space(node: NodeView, x: Any) -> Any:
    return spatial.depth_to_space(x, block=node.attr("blocksize"), mode=node.one_of("mode", "DCR", ("DCR", "CRD")))


@binds("SpaceToDepth", 1, 13, 28)
def space_to_depth(node: NodeView, x: Any) -> Any:
    return spatial.space_to_depth(x, block=node.attr("blocksize"), mode=node.one_of("mode", "DCR", ("DCR", "CRD")))


@binds("CenterCropPad", 18)
def center_crop_pad(node: NodeView, x: Any, shape: Any) -> Any:
    axes = tuple(axis_in(x, a) for a in node.attr("axes", range(x.ndim)))
    return spatial.center_crop_pad(x, shape=dims_of(shape), axes=axes)


@binds("Col2Im", 18)
def col2im(node: NodeView, x: Any, image_shape: Any, block_shape: Any) -> Any:
    size, block = dims_of(image_shape), dims_of(block_shape)
    rank = len(block)
    win = Window(
        tuple(node.attr("strides", [1] * rank)), pad_pairs(node.attr("pads", [0] * 2 * rank)),
        tuple(node.attr("dilations", [1] * rank)),
    )  # fmt: skip
    return spatial.col2im(x, size=size, block=block, win=win)
