"""Reading an image between its elements: grid sampling and deformable convolution.

Everything becomes weighted sums of rows of an image laid out as (places, channels). The three ops of that family
are the partial derivatives of one trilinear form  T(x, w, g) = <g, mix_rows(x, at, w)>,  so each VJP is the other two.
Weights are made of coordinates by pointwise ops, which is where the gradient by the coordinates comes from.

Axes: N batch, C channels, S input sizes, O output sizes, D how many of them, B batch, P points, T taps of a point.
Source: ONNX GridSample-22, DeformConv-22; Jaderberg et al. 2015; Dai et al. 2017; Zhu et al. 2018; Keys 1981.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from . import layout, pointwise as pw
from .create import full_like
from .cumulative import cumsum
from .dims import DimLike, Shape, product, show
from .errors import OpError, ShapeError
from .matmul import matmul
from .op import op
from .types import HALF, TensorType, is_float
from .window import Window

Entries: TypeAlias = tuple[Callable[[], Any] | None, ...]

TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
PADDINGS = ("zeros", "border", "reflection")
INT64 = np.dtype(np.int64)


@op()
def mix_rows(x: TensorType, at: TensorType, w: TensorType) -> TensorType:
    """Return for each point the sum of some rows of x, each times its weight.

    Shapes: (B, S, C), (B, P, T) places below S, (B, P, T) -> (B, P, C).

    Raises:
        ShapeError: if the batches differ.
    """
    if isinstance(x.shape[0], int) and isinstance(at.shape[0], int) and x.shape[0] != at.shape[0]:
        raise ShapeError(f"mix_rows: x is {show(x.shape)}, its places {show(at.shape)}")
    return TensorType(x.dtype, (*at.shape[:2], x.shape[2]))


@op()
def put_rows(g: TensorType, at: TensorType, w: TensorType, *, size: DimLike) -> TensorType:
    """Return the adjoint of `mix_rows` in x: (B, P, C), (B, P, T), (B, P, T) -> (B, size, C)."""
    return TensorType(g.dtype, (g.shape[0], size, g.shape[2]))


@op()
def match_rows(g: TensorType, x: TensorType, at: TensorType) -> TensorType:
    """Return the adjoint of `mix_rows` in w: (B, P, C), (B, S, C), (B, P, T) -> (B, P, T)."""
    return TensorType(g.dtype, at.shape)


@mix_rows.defvjp
def _mix_rows_vjp(g: Any, y: Any, x: Any, at: Any, w: Any) -> Entries:
    return lambda: put_rows(g, at, w, size=x.shape[1]), None, lambda: match_rows(g, x, at)


@put_rows.defvjp
def _put_rows_vjp(u: Any, y: Any, g: Any, at: Any, w: Any, *, size: DimLike) -> Entries:
    return lambda: mix_rows(u, at, w), None, lambda: match_rows(g, u, at)


@match_rows.defvjp
def _match_rows_vjp(v: Any, y: Any, g: Any, x: Any, at: Any) -> Entries:
    return lambda: mix_rows(x, at, v), lambda: put_rows(g, at, v, size=x.shape[1]), None


@op()
def taps_at(
    positions: TensorType, *, size: DimLike, taps: int, padding: str, align_corners: bool = False
) -> tuple[TensorType, TensorType]:
    """Return the places along an axis that are read at positions between them, and which count (1, else 0).

    Of two taps the first is the position rounded down, of four the one before that.

    Padding: `zeros` counts nothing outside, `border` reads the outermost place, `reflection` mirrors at it (with
    `align_corners`) or at its edge.

    Shapes: (*A) -> (*A, taps) twice.
    """
    if padding not in PADDINGS:
        raise OpError(f"taps_at: padding {padding!r}, wanted one of {PADDINGS}")
    shape = (*positions.shape, taps)
    return TensorType(INT64, shape), TensorType(positions.dtype, shape)


def wide(x: Any) -> Any:
    """Return float16 and bfloat16 as float32, for positions and sums that their own precision would spoil."""
    return pw.cast(x, dtype="float32") if x.dtype in HALF else x


def count_up(like: Any, count: DimLike) -> Any:
    """Return 0, 1, ... up to before `count`, of the element type and on the device of `like`."""
    return cumsum(full_like(like, shape=(count,), value=1), axis=0, exclusive=True)


def along(x: Any, axis: int, rank: int) -> Any:
    """Lay a vector along one axis of so many."""
    return layout.reshape(x, shape=tuple(-1 if i == axis else 1 for i in range(rank)))


def tap_weights(positions: Any, mode: str) -> Any:
    """Return what each tap of a position weighs, along a new last axis."""
    axis = positions.ndim
    t = layout.unsqueeze(pw.sub(positions, pw.floor(positions)), axes=(axis,))
    match mode:
        case "nearest":
            return full_like(t, shape=tuple(t.shape), value=1.0)
        case "linear":
            return layout.concat(pw.sub(1.0, t), t, axis=axis)
        case "cubic":
            back = pw.sub(1.0, t)
            return layout.concat(_far(pw.add(t, 1.0)), _near(t), _near(back), _far(pw.add(back, 1.0)), axis=axis)
    raise OpError(f"sampling mode {mode!r}, wanted one of {sorted(TAPS)}")


def _polynomial(t: Any, *coefficients: float) -> Any:
    y: Any = coefficients[0]
    for c in coefficients[1:]:
        y = pw.add(pw.mul(y, t) if hasattr(y, "shape") else pw.mul(t, y), c)
    return y


def _near(t: Any) -> Any:
    """Keys's kernel with a = -3/4, at a distance up to 1."""
    return _polynomial(t, 1.25, -2.25, 0.0, 1.0)


def _far(t: Any) -> Any:
    """Keys's kernel with a = -3/4, at a distance from 1 to 2."""
    return _polynomial(t, -0.75, 3.75, -6.0, 3.0)


def outer(parts: Sequence[tuple[Any, Any]], sizes: Sequence[int]) -> tuple[Any, Any]:
    """Return the flat places and the weights of all pairs of taps of several axes.

    Args:
        parts: for each axis the places and weights, (B, P, its taps).
        sizes: of the image.
    """
    at, w = parts[0]
    for (more, weights), size in zip(parts[1:], sizes[1:], strict=True):
        at = _pairs(pw.add, pw.mul(at, size), more)
        w = _pairs(pw.mul, w, weights)
    return at, w


def _pairs(f: Any, a: Any, b: Any) -> Any:
    y = f(layout.unsqueeze(a, axes=(3,)), layout.unsqueeze(b, axes=(2,)))
    return layout.reshape(y, shape=(*a.shape[:2], a.shape[2] * b.shape[2]))


def as_rows(x: Any, split: int = 1) -> Any:
    """Return (N, C, *S) as (N * split, product(S), C / split)."""
    n, c = x.shape[:2]
    flat = layout.reshape(x, shape=(n * split, c // split, product(x.shape[2:])))
    return layout.transpose(flat, perm=(0, 2, 1))


def _reflected(p: Any, low: float, high: float) -> Any:
    """Return positions mirrored at both bounds until they are inside."""
    if high <= low:
        return pw.mul(p, 0.0)
    period = 2 * (high - low)
    t = pw.sub(p, low)
    t = pw.sub(t, pw.mul(pw.floor(pw.div(t, period)), period))
    return pw.add(pw.sub(high - low, pw.abs_(pw.sub(t, high - low))), low)


def _placed(g: Any, size: int, mode: str, padding: str, align_corners: bool) -> Any:
    """Return positions in elements for coordinates from -1 to 1."""
    if align_corners:
        p = pw.mul(pw.add(g, 1.0), (size - 1) / 2)
        low, high = 0.0, size - 1.0
    else:
        p = pw.sub(pw.mul(pw.add(g, 1.0), size / 2), 0.5)
        low, high = -0.5, size - 0.5
    if mode == "nearest":
        p = pw.round_(p)
    if padding == "zeros" or (padding == "border" and mode == "cubic"):
        # Beyond these bounds no tap is inside; infinite positions must not reach the weights.
        return pw.clip(p, -4.0, size + 4.0)
    outside = pw.logical_or(pw.less(p, low), pw.less(high, p))
    if padding == "border":
        return pw.where(outside, pw.clip(p, 0.0, size - 1.0), p)
    return pw.where(outside, _reflected(p, low, high), p)


@op()
def grid_sample(
    x: TensorType, grid: TensorType, *, mode: str = "linear", padding: str = "zeros", align_corners: bool = False
) -> TensorType:
    """Read x at the positions of a grid, which names the last axis of x first and goes from -1 to 1.

    Args:
        x: the images.
        grid: the positions.
        mode: nearest, linear or cubic.
        padding: what is read outside; see `taps_at`.
        align_corners: -1 and 1 are the centres of the outermost elements, else their edges.

    Shapes: (N, C, *S), (N, *O, D) -> (N, C, *O).

    Raises:
        ShapeError: if the grid's last axis is not the number of spatial axes.
    """
    if isinstance(grid.shape[-1], int) and grid.shape[-1] != x.ndim - 2:
        raise ShapeError(f"grid_sample: x is {show(x.shape)}, the grid {show(grid.shape)}")
    return TensorType(x.dtype, (*x.shape[:2], *grid.shape[1:-1]))


@grid_sample.compose
def _grid_sample(
    x: Any, grid: Any, *, mode: str = "linear", padding: str = "zeros", align_corners: bool = False
) -> Any:
    dtype = str(x.dtype)
    x = wide(x) if is_float(x.dtype) else pw.cast(x, dtype="float64")
    n, c = x.shape[:2]
    sizes = [int(s) for s in x.shape[2:]]
    d, out = len(sizes), tuple(grid.shape[1:-1])
    coordinates = layout.split(layout.reshape(wide(grid), shape=(n, product(out), d)), axis=2, sizes=(1,) * d)
    parts = []
    for size, g in zip(sizes, reversed(coordinates), strict=True):
        p = _placed(layout.squeeze(g, axes=(2,)), size, mode, padding, align_corners)
        at, inside = taps_at(p, size=size, taps=TAPS[mode], padding=padding, align_corners=align_corners)
        parts.append((at, pw.mul(tap_weights(p, mode), inside)))
    at, w = outer(parts, sizes)
    y = mix_rows(as_rows(x), at, pw.cast(w, dtype=str(x.dtype)))
    y = layout.reshape(layout.transpose(y, perm=(0, 2, 1)), shape=(n, c, *out))
    return pw.cast(y, dtype=dtype)


@op()
def deform_conv(
    x: TensorType, w: TensorType, offset: TensorType, mask: TensorType | None = None, *, win: Window, offset_group: int
) -> TensorType:
    """Correlate x with w, each tap of a window moved by its own offset and scaled by its own mask.

    Offsets name the spatial axes in order; x is 0 outside. `offset_group` groups of channels have offsets of their own.

    Shapes: (N, C, *S), (F, C / group, *K), (N, offset_group * product(K) * D, *O), (N, offset_group * product(K), *O)
    -> (N, F, *O).

    Raises:
        ShapeError: if channels or offsets do not fit.
    """
    taps = product(w.shape[2:])
    if x.ndim != w.ndim or x.ndim != offset.ndim:
        raise ShapeError(f"deform_conv: x {show(x.shape)}, w {show(w.shape)}, offset {show(offset.shape)}")
    for name, found, wanted in (
        ("channels of x", x.shape[1], w.shape[1] * win.group),
        ("offsets", offset.shape[1], taps * offset_group * (x.ndim - 2)),
        ("masks", None if mask is None else mask.shape[1], taps * offset_group),
    ):
        if isinstance(found, int) and isinstance(wanted, int) and found != wanted:
            raise ShapeError(f"deform_conv: {found} {name}, wanted {wanted}")
    out = win.out(x.shape[2:], w.shape[2:])
    if any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(out, offset.shape[2:], strict=True)):
        raise ShapeError(f"deform_conv: the window gives {show(out)}, the offsets are for {show(offset.shape[2:])}")
    return TensorType(x.dtype, (x.shape[0], w.shape[0], *out))


@deform_conv.compose
def _deform_conv(x: Any, w: Any, offset: Any, mask: Any = None, *, win: Window, offset_group: int) -> Any:
    dtype = str(x.dtype)
    x, w, offset = wide(x), wide(w), wide(offset)
    n, c = x.shape[:2]
    kernel, out, sizes = tuple(w.shape[2:]), tuple(offset.shape[2:]), [int(s) for s in x.shape[2:]]
    d, taps, points = len(sizes), product(kernel), product(out)
    moved = layout.reshape(offset, shape=(n, offset_group, *kernel, d, *out))
    parts = []
    for i, part in enumerate(layout.split(moved, axis=2 + d, sizes=(1,) * d)):
        step = pw.mul(count_up(part, kernel[i]), win.dilations[i])
        start = pw.sub(pw.mul(count_up(part, out[i]), win.strides[i]), int(win.pads[i][0]))
        p = pw.add(pw.add(part, along(step, 2 + i, part.ndim)), along(start, 3 + d + i, part.ndim))
        p = pw.clip(layout.reshape(p, shape=(n * offset_group, taps * points)), -4.0, sizes[i] + 4.0)
        at, inside = taps_at(p, size=sizes[i], taps=2, padding="zeros")
        parts.append((at, pw.mul(tap_weights(p, "linear"), inside)))
    at, weights = outer(parts, sizes)
    if mask is not None:
        weights = pw.mul(weights, layout.reshape(wide(mask), shape=(n * offset_group, taps * points, 1)))
    columns = mix_rows(as_rows(x, offset_group), at, weights)
    columns = layout.reshape(columns, shape=(n, offset_group, taps, points, c // offset_group))
    columns = layout.transpose(columns, perm=(0, 1, 4, 2, 3))
    each = c // win.group * taps
    columns = layout.reshape(columns, shape=(n, win.group, each, points))
    y = matmul(layout.reshape(w, shape=(1, win.group, w.shape[0] // win.group, each)), columns)
    return pw.cast(layout.reshape(y, shape=_shape(n, w.shape[0], out)), dtype=dtype)


def _shape(n: DimLike, f: DimLike, out: Shape) -> Shape:
    return n, f, *out
