"""Bindings: resizing."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from ....ops import layout, resize as resize_ops
from ....ops.dims import Dim, DimLike
from ....ops.errors import UnsupportedAttributeError
from ....ops.resize import Interpolation
from ....runtime.graph.contents import dims_of
from ..node import NodeView
from ..registry import binds

COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def scaled_size(n: DimLike, scale: float) -> DimLike:
    """Return floor(n * scale), rounded as float32 does."""
    if not isinstance(n, Dim):
        return int(np.float32(n) * np.float32(scale))
    exact = Fraction(scale)
    simple = exact.limit_denominator(1000)
    ratio = simple if abs(simple - exact) <= exact / 2**23 else exact
    return n * ratio.numerator // ratio.denominator


def by_scales(x: Any, scales: Any, axes: tuple[int, ...], how: Interpolation, **crop: Any) -> Any:
    """Resize by factors: a list of floats, or a value that is constant or that run time computes."""
    if not isinstance(scales, list):
        if not scales.is_constant:
            return resize_ops.resize(x, scales, crop.pop("roi", None), axes=axes, how=how, **crop)
        scales = [float(v) for v in scales.array.reshape(-1)]
    size = tuple(scaled_size(x.shape[a], s) for a, s in zip(axes, scales, strict=True))
    return changed(x, axes, size, tuple(scales), how, **crop)


def changed(x: Any, axes: tuple[int, ...], size: Any, factors: Any, how: Interpolation, **crop: Any) -> Any:
    """Resize the axes that a map of their own size would not leave alone."""
    if crop:
        roi = crop.pop("roi")
        return resize_ops.resize(x, None, roi, axes=axes, size=size, factors=factors, how=how, **crop)
    kept = [
        i for i, (a, n, f) in enumerate(zip(axes, size, factors, strict=True)) if x.shape[a] != n or f not in (None, 1)
    ]
    if not kept:
        return layout.identity(x)
    return resize_ops.resize(
        x,
        axes=tuple(axes[i] for i in kept),
        size=tuple(size[i] for i in kept),
        factors=tuple(factors[i] for i in kept),
        how=how,
    )


@binds("Upsample", 1, 7, 9, 10)
def upsample(node: NodeView, x: Any, scales: Any = None) -> Any:
    """Upsample: factors in attributes (1, 7) or in an input (9)."""
    mode = node.one_of("mode", "nearest", ("nearest", "linear", "bilinear"))
    how = Interpolation(mode.removeprefix("bi"), "asymmetric", "simple")
    if node.since_version == 1:
        scales = [1.0, 1.0, node.attr("height_scale"), node.attr("width_scale")]
    elif node.since_version == 7:
        scales = list(node.attr("scales"))
    return by_scales(x, scales, tuple(range(x.ndim)), how)


@binds("Resize", 10)
def resize_10(node: NodeView, x: Any, scales: Any) -> Any:
    mode = node.one_of("mode", "nearest", ("nearest", "linear", "bilinear"))
    return by_scales(x, scales, tuple(range(x.ndim)), Interpolation(mode.removeprefix("bi"), "asymmetric", "simple"))


@binds("Resize", 11, 13, 18, 19)
def resize(node: NodeView, x: Any, roi: Any = None, scales: Any = None, sizes: Any = None) -> Any:
    """Resize: by scales or to sizes, of all axes or of some."""
    mode = node.one_of("mode", "nearest", ("nearest", "linear", "cubic"))
    antialias = bool(node.attr("antialias", 0)) and mode != "nearest"
    how = Interpolation(
        mode=mode,
        coordinates=node.one_of("coordinate_transformation_mode", "half_pixel", COORDINATES),
        nearest=node.one_of("nearest_mode", "round_prefer_floor", NEAREST),
        cubic_a=node.attr("cubic_coeff_a", -0.75),
        exclude_outside=bool(node.attr("exclude_outside", 0)) and (mode == "cubic" or antialias),
        antialias=antialias,
    )
    axes = tuple(a % x.ndim for a in node.attr("axes", list(range(x.ndim))))
    policy = node.one_of("keep_aspect_ratio_policy", "stretch", ("stretch", "not_larger", "not_smaller"))
    outside = node.attr("extrapolation_value", 0.0)
    crop: dict[str, Any] = {}
    if how.coordinates == "tf_crop_and_resize":
        if roi is None:
            raise UnsupportedAttributeError(f"{node}: tf_crop_and_resize wants a roi")
        crop = {"roi": roi, "outside": outside}
    if scales is not None and not empty(scales):
        if how.coordinates == "align_corners" and node.since_version >= 19:
            how = replace(how, coordinates="align_scaled_corners")
        return by_scales(x, scales, axes, how, **crop)
    if sizes is None or empty(sizes):
        raise UnsupportedAttributeError(f"{node}: wants scales or sizes, found neither")
    size = dims_of(sizes)
    if policy == "stretch":
        return changed(x, axes, size, (None,) * len(axes), how, **crop)
    return resize_ops.resize(x, None, crop.pop("roi", None), axes=axes, size=size, fit=policy, how=how, **crop)


def empty(value: Any) -> bool:
    """Whether an input that older versions require was left empty."""
    return bool(value.type.known_shape == (0,))
