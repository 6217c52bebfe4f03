"""Spatial kernels."""

from __future__ import annotations

from ...dims import Shape
from ...layout import pad
from ...spatial import center_crop_pad
from ...types import Array


@center_crop_pad.kernel("array", half="native")
def _center_crop_pad(x: Array, *, shape: Shape, axes: tuple[int, ...]) -> Array:
    more = [size - x.shape[axis] for axis, size in zip(axes, shape, strict=True)]
    low = [m // 2 if m >= 0 else -(-m // 2) for m in more]
    return pad.run(x, pads=tuple((a, m - a) for a, m in zip(low, more, strict=True)), axes=axes)
