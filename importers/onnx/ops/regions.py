"""Bindings: pooling inside boxes, crops, and choosing among boxes that overlap."""

from __future__ import annotations

from typing import Any

from ....ops import regions
from ....runtime.graph.contents import dims_of
from ..node import NodeView
from ..registry import binds


@binds("RoiAlign", 10, 16, 22)
def roi_align(node: NodeView, x: Any, boxes: Any, images: Any) -> Any:
    """RoiAlign: before opset 16 coordinates were not shifted by half an element."""
    half_pixel = False
    if node.since_version >= 16:
        kinds = ("half_pixel", "output_half_pixel")
        half_pixel = node.one_of("coordinate_transformation_mode", "half_pixel", kinds) == "half_pixel"
    return regions.roi_align(
        x, boxes, images,
        size=(int(node.attr("output_height", 1)), int(node.attr("output_width", 1))),
        mode=node.one_of("mode", "avg", ("avg", "max")), samples=int(node.attr("sampling_ratio", 0)),
        scale=node.attr("spatial_scale", 1.0), half_pixel=half_pixel,
    )  # fmt: skip


@binds("MaxRoiPool", 1, 22)
def max_roi_pool(node: NodeView, x: Any, boxes: Any) -> Any:
    height, width = node.attr("pooled_shape")
    return regions.max_roi_pool(x, boxes, size=(height, width), scale=node.attr("spatial_scale", 1.0))


@binds("CropAndResize", 1, domain="com.microsoft")
def crop_and_resize(node: NodeView, x: Any, boxes: Any, images: Any, crop_size: Any) -> Any:
    height, width = (int(d) for d in dims_of(crop_size))
    return regions.crop_and_resize(
        x, boxes, images, size=(height, width), mode=node.one_of("mode", "bilinear", ("bilinear", "nearest")),
        outside=node.attr("extrapolation_value", 0.0),
    )  # fmt: skip


@binds("NonMaxSuppression", 10, 11)
def non_max_suppression(
    node: NodeView, boxes: Any, scores: Any, most: Any = None, overlap: Any = None, least: Any = None
) -> Any:
    center = bool(node.attr("center_point_box", 0))
    return regions.non_max_suppression(boxes, scores, most, overlap, least, center=center)
