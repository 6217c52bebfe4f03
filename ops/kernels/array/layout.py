"""Layout kernels; where they can, they return views."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...dims import DimLike, Shape, show
from ...errors import ShapeError
from ...layout import (
    Pads,
    all_pads,
    concat,
    expand,
    flatten,
    flip,
    identity,
    pad,
    reshape,
    reshape_to,
    slice_,
    split,
    squeeze,
    tile,
    transpose,
    trilu,
    unpad,
    unslice,
    unsqueeze,
)
from ...op import namespace
from ...types import Array


@identity.kernel("array", half="native")
def _identity(x: Array) -> Array:
    return x


@reshape.kernel("array", half="native")
def _reshape(x: Array, *, shape: Shape) -> Array:
    try:
        return x.reshape(shape)
    except ValueError:
        raise ShapeError(f"reshape: {show(x.shape)} has {x.size} elements and does not become {show(shape)}") from None


@reshape_to.kernel("array", half="native")
def _reshape_to(x: Array, shape: Array, *, allowzero: bool = False) -> Array:
    sizes = [int(n) for n in shape.tolist()]
    if not allowzero:
        if any(n == 0 and i >= x.ndim for i, n in enumerate(sizes)):
            raise ShapeError(f"reshape: a 0 in {sizes} copies an axis that {show(x.shape)} does not have")
        sizes = [x.shape[i] if n == 0 else n for i, n in enumerate(sizes)]
    if any(n < -1 for n in sizes):
        raise ShapeError(f"reshape: {show(sizes)} has a negative size other than -1")
    return _reshape(x, shape=tuple(sizes))


@squeeze.kernel("array", half="native")
def _squeeze(x: Array, *, axes: tuple[int, ...] | None = None) -> Array:
    try:
        return x.squeeze() if axes is None else x.squeeze(axes)
    except ValueError:
        raise ShapeError(f"squeeze: axes {axes} of {show(x.shape)} are not all 1") from None


@unsqueeze.kernel("array", half="native")
def _unsqueeze(x: Array, *, axes: tuple[int, ...]) -> Array:
    return namespace(x).expand_dims(x, axes)


@flatten.kernel("array", half="native")
def _flatten(x: Array, *, axis: int = 1) -> Array:
    at = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:at]), math.prod(x.shape[at:]))


@transpose.kernel("array", half="native")
def _transpose(x: Array, *, perm: tuple[int, ...] | None = None) -> Array:
    return x.transpose() if perm is None else x.transpose(perm)


@concat.kernel("array", half="native")
def _concat(*xs: Array, axis: int) -> Array:
    try:
        return namespace(*xs).concatenate(xs, axis=axis)
    except ValueError as error:
        raise ShapeError(f"concat: {', '.join(show(x.shape) for x in xs)} on axis {axis}: {error}") from None


@split.kernel("array", half="native")
def _split(x: Array, *, axis: int, sizes: Shape) -> tuple[Array, ...]:
    if sum(sizes) != x.shape[axis]:
        raise ShapeError(f"split: sizes {sizes} do not add up to axis {axis} of {show(x.shape)}")
    lead: tuple[slice, ...] = (slice(None),) * (axis % x.ndim)
    outs, start = [], 0
    size: Any
    for size in sizes:
        outs.append(x[(*lead, slice(start, start + size))])
        start += size
    return tuple(outs)


def _places(rank: int, starts: Shape, stops: Shape, steps: Shape, axes: tuple[int, ...]) -> tuple[slice, ...]:
    at = [slice(None)] * rank
    for start, stop, step, axis in zip(starts, stops, steps, axes, strict=True):
        at[axis] = slice(start, stop, step)
    return tuple(at)


@slice_.kernel("array", half="native")
def _slice(x: Array, *, starts: Shape, stops: Shape, steps: Shape, axes: tuple[int, ...]) -> Array:
    return x[_places(x.ndim, starts, stops, steps, axes)]


@unslice.kernel("array", half="native")
def _unslice(g: Array, *, starts: Shape, stops: Shape, steps: Shape, axes: tuple[int, ...], size: Shape) -> Array:
    x = namespace(g).zeros(size, g.dtype)
    x[_places(x.ndim, starts, stops, steps, axes)] = g
    return x


@pad.kernel("array", half="native")
def _pad(
    x: Array, value: Any = None, *, pads: Pads, mode: str = "constant", axes: tuple[int, ...] | None = None
) -> Array:
    pads = all_pads(pads, axes, x.ndim)
    xp = namespace(x)
    x = x[tuple(slice(max(-lo, 0), n - max(-hi, 0)) for (lo, hi), n in zip(pads, x.shape, strict=True))]
    grow = [(max(lo, 0), max(hi, 0)) for lo, hi in pads]
    if mode != "constant":
        for axis, (lo, hi) in enumerate(grow):
            if lo or hi:
                x = xp.take(x, xp.asarray(_sources(x.shape[axis], lo, hi, mode)), axis=axis)
        return x
    size = tuple(n + lo + hi for n, (lo, hi) in zip(x.shape, grow, strict=True))
    if value is None:
        y = xp.zeros(size, x.dtype) if x.dtype.kind != "O" else xp.full(size, 0, x.dtype)
    else:
        y = xp.empty(size, x.dtype)
        y[...] = xp.asarray(value, x.dtype).reshape(())
    y[tuple(slice(lo, lo + n) for n, (lo, _) in zip(x.shape, grow, strict=True))] = x
    return y


def _sources(n: Any, lo: Any, hi: Any, mode: str) -> Any:
    """Return which element of an axis each element of its padded form copies."""
    if n == 0:
        raise ShapeError(f"pad: mode {mode} has nothing to copy on an axis of size 0")
    at = np.arange(-lo, n + hi)
    if mode == "edge":
        return at.clip(0, n - 1)
    if mode == "wrap":
        return at % n
    period = max(2 * (n - 1), 1)
    at = at % period
    return np.where(at < n, at, period - at)


@unpad.kernel("array")
def _unpad(g: Array, *, pads: Pads, mode: str, size: Shape, axes: tuple[int, ...] | None = None) -> Array:
    xp = namespace(g)
    pads = all_pads(pads, axes, g.ndim)
    for axis, ((lo, hi), n) in reversed(list(enumerate(zip(pads, size, strict=True)))):
        cut, grow = (max(-lo, 0), max(-hi, 0)), (max(lo, 0), max(hi, 0))
        kept = n - sum(cut)
        y = xp.zeros((n, *g.shape[:axis], *g.shape[axis + 1 :]), g.dtype)
        rows = xp.moveaxis(g, axis, 0)
        y[cut[0] : cut[0] + kept] = rows[grow[0] : grow[0] + kept]
        sources = _sources(kept, *grow, mode)
        for place in (*range(grow[0]), *range(grow[0] + kept, len(sources))):
            y[cut[0] + int(sources[place])] += rows[place]
        g = xp.moveaxis(y, 0, axis)
    return g


@flip.kernel("array", half="native")
def _flip(x: Array, *, axes: tuple[int, ...]) -> Array:
    return namespace(x).flip(x, axes) if axes else x


@tile.kernel("array", half="native")
def _tile(x: Array, *, repeats: Shape) -> Array:
    return namespace(x).tile(x, repeats)


@expand.kernel("array", half="native")
def _expand(x: Array, *, shape: Shape) -> Array:
    try:
        return namespace(x).broadcast_to(x, np.broadcast_shapes(x.shape, tuple(shape)))
    except ValueError:
        raise ShapeError(f"expand: {show(x.shape)} and {show(shape)} do not broadcast") from None


@trilu.kernel("array", half="native")
def _trilu(x: Array, *, upper: bool, k: DimLike = 0) -> Array:
    xp = namespace(x)
    rows, columns = xp.arange(x.shape[-2])[:, None], xp.arange(x.shape[-1])
    kept = columns - rows >= k if upper else columns - rows <= k
    return xp.where(kept, x, xp.zeros((), x.dtype))
