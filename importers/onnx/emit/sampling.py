"""Emitters: grid sampling and deformable convolution, and the rows that they are made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops import create, index, layout, pointwise as pw, reduce as red, sampling as ops
from ....ops.dims import DimLike
from ....ops.window import Window
from ....runtime.graph.graph import Value
from .conv import written_pads
from .registry import emits, expands
from .writer import Writer

BEFORE_20 = {"linear": "bilinear", "cubic": "bicubic", "nearest": "nearest"}


@emits(ops.grid_sample)
def grid_sample(
    w: Writer, x: Value, grid: Value, *, mode: str = "linear", padding: str = "zeros", align_corners: bool = False
) -> Any:
    named = mode if w.opset >= 20 else BEFORE_20[mode]
    return w.add(
        "GridSample", x, w.cast(grid, x.dtype), mode=named, padding_mode=padding, align_corners=int(align_corners)
    )


@emits(ops.deform_conv)
def deform_conv(
    w: Writer, x: Value, weight: Value, offset: Value, mask: Any = None, *, win: Window, offset_group: int
) -> Any:
    pads = written_pads(win.pads)
    if w.opset < 19 or pads is None:
        return None
    return w.add(
        "DeformConv", x, weight, offset, None, mask, strides=win.strides, pads=pads, dilations=win.dilations,
        group=win.group, offset_group=offset_group, kernel_shape=weight.shape[2:],
    )  # fmt: skip


@expands(ops.mix_rows)
def mix_rows(x: Any, at: Any, weights: Any) -> Any:
    """Take rows, weigh them, add them up."""
    rows = index.gather_nd(x, layout.unsqueeze(at, axes=(3,)), batch_dims=1)
    return red.sum_(pw.mul(rows, layout.unsqueeze(weights, axes=(3,))), axes=(2,))


@expands(ops.taps_at)
def taps_at(positions: Any, *, size: DimLike, taps: int, padding: str, align_corners: bool = False) -> tuple[Any, Any]:
    """Find the places that are read at positions, as the array kernel does."""
    dtype = str(positions.dtype)
    axis = positions.ndim
    first = pw.sub(pw.floor(positions), 1.0) if taps == 4 else pw.floor(positions)
    steps = np.arange(taps, dtype=positions.dtype)
    places = pw.add(layout.unsqueeze(first, axes=(axis,)), steps)
    if padding == "reflection":
        places = _mirrored(places, float(size), align_corners)
    inside = pw.clip(places, 0.0, float(size) - 1)
    counts = (
        pw.cast(pw.equal(places, inside), dtype=dtype)
        if padding == "zeros"
        else create.full_like(inside, shape=tuple(inside.shape), value=1)
    )
    return pw.cast(inside, dtype="int64"), counts


def _mirrored(places: Any, size: float, align_corners: bool) -> Any:
    """Return whole places mirrored at the outermost places, or at their edges."""
    period = 2 * (size - 1) if align_corners else 2 * size
    if period <= 0:
        return pw.mul(places, 0.0)
    t = pw.sub(places, pw.mul(pw.floor(pw.div(places, period)), period))
    back = pw.sub(period if align_corners else period - 1, t)
    return pw.minimum(t, back)
