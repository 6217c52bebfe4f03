"""Pooling one kernel position at a time; maxima and sums go axis by axis, k + k passes instead of k * k."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...dims import Shape
from ...op import namespace
from ...pool import (
    Pads,
    max_pool,
    max_pool_grad,
    max_pool_indices,
    max_unpool,
    pool_gather,
    pool_scatter,
    sum_pool,
    sum_pool_grad,
)
from ...types import Array
from ...window import Window
from .window import axis_taps, blocks, taps


def _along(x: Array, axis: int, walk: list[tuple[int, slice, slice]], out: int, start: Any, combine: Any) -> Array:
    """Combine along one axis what each of its windows meets."""
    xp = namespace(x)
    before = (slice(None),) * axis
    whole = next((t for t in walk if t[1] == slice(0, out)), None)
    if whole is None:
        y = xp.full((*x.shape[:axis], out, *x.shape[axis + 1 :]), start, x.dtype)
    else:
        y = x[(*before, whole[2])].copy()
    for tap in walk:
        if tap is not whole:
            target = y[(*before, tap[1])]
            combine(target, x[(*before, tap[2])], out=target)
    return y


def _separable(x: Array, kernel: Shape, win: Window, start: Any, combine: Any) -> Array:
    """Combine the elements under each window, axis by axis."""
    xp = namespace(x)
    out = win.out(x.shape[2:], kernel)
    y = xp.empty((*x.shape[:2], *out), x.dtype)
    walks = [
        axis_taps(int(k), n, o, s, int(low), d)
        for k, n, o, s, (low, _), d in zip(kernel, x.shape[2:], out, win.strides, win.pads, win.dilations, strict=True)
    ]
    for images, channels in blocks(x.shape[0], x.shape[1], math.prod(x.shape[2:]) * x.dtype.itemsize):
        part = x[images, channels]
        for axis, (walk, o) in enumerate(zip(walks, out, strict=True)):
            part = _along(part, axis + 2, walk, int(o), start, combine)
        y[images, channels] = part
    return y


def _lowest(dtype: Any) -> Any:
    return -math.inf if dtype.kind == "f" else np.iinfo(dtype).min


@max_pool.kernel("array")
def _max_pool(x: Array, *, kernel: Shape, win: Window) -> Array:
    return _separable(x, kernel, win, _lowest(x.dtype), namespace(x).maximum)


@max_pool_indices.kernel("array")
def _max_pool_indices(x: Array, *, kernel: Shape, win: Window, column_major: bool = False) -> Array:
    xp = namespace(x)
    n, c, *size = x.shape
    rank = len(kernel)
    largest = _max_pool(x, kernel=kernel, win=win)
    out = largest.shape[2:]
    pitch = [math.prod(size[:i]) if column_major else math.prod(size[i + 1 :]) for i in range(rank)]
    corner = xp.arange(n * c).reshape(n, c, *(1,) * rank) * math.prod(size)
    for axis, (o, s, (low, _)) in enumerate(zip(out, win.strides, win.pads, strict=True)):
        along = (xp.arange(o) * s - int(low)) * pitch[axis]
        corner = corner + along.reshape([-1 if a == axis else 1 for a in range(rank)])
    walk = list(taps(kernel, win, size, out))
    steps = [sum(i * d * p for i, d, p in zip(t, win.dilations, pitch, strict=True)) for t, _, _ in walk]
    offsets = xp.asarray([*steps, steps[-1]])
    index = xp.empty(largest.shape, np.int64)
    small = np.uint8 if len(walk) < 255 else np.uint16
    lost = x.dtype.kind == "f" and (xp is not np or bool(xp.isnan(largest).any()))
    for images, channels in blocks(n, c, math.prod(size) * x.dtype.itemsize):
        # The number of the first tap that meets the maximum, by unsigned arithmetic: masked copies are slow.
        number = xp.full(largest[images, channels].shape, len(walk), small)
        for tap, (_, to, at) in enumerate(walk):
            target = number[(..., *to)]
            met = x[(images, channels, *at)]
            differs = met != largest[(images, channels, *to)]
            if lost:
                differs &= ~xp.isnan(met)
            other = differs.astype(small)
            other *= len(walk) - tap
            other += tap
            xp.minimum(target, other, out=target)
        index[images, channels] = offsets[number] + corner[images, channels]
    return index


@pool_scatter.kernel("array")
def _pool_scatter(g: Array, indices: Array, *, size: Shape) -> Array:
    xp = namespace(g)
    shape = (*g.shape[:2], *size)
    if xp is not np:  # CuPy's bincount waits for the largest index
        sums = xp.zeros(math.prod(shape), g.dtype)
        xp.add.at(sums, indices.reshape(-1), g.reshape(-1))
        return sums.reshape(shape)
    sums = np.bincount(indices.reshape(-1), weights=g.reshape(-1), minlength=math.prod(shape))
    return sums.astype(g.dtype).reshape(shape)


@max_pool_grad.kernel("array")
def _max_pool_grad(g: Array, x: Array, *, kernel: Shape, win: Window) -> Array:
    return _pool_scatter(g, _max_pool_indices(x, kernel=kernel, win=win), size=tuple(x.shape[2:]))


@pool_gather.kernel("array", half="native")
def _pool_gather(x: Array, indices: Array) -> Array:
    return x.reshape(-1)[indices]


@max_unpool.kernel("array", half="native")
def _max_unpool(x: Array, indices: Array, *, size: Shape) -> Array:
    xp = namespace(x)
    shape = (*x.shape[:2], *size)
    y = xp.zeros(math.prod(shape), x.dtype)
    y[indices.reshape(-1)] = x.reshape(-1)
    return y.reshape(shape)


def _counts(xp: Any, size: Shape, out: Shape, kernel: Shape, win: Window, counted: Pads, dtype: Any) -> Array:
    """Return how many elements each window has, as an array that broadcasts over the output."""
    total = xp.ones((1,) * len(out), dtype)
    for axis, (n, o, k, s, (low, _), d, (before, after)) in enumerate(
        zip(size, out, kernel, win.strides, win.pads, win.dilations, counted, strict=True)
    ):
        at = np.arange(o)[:, None] * s + np.arange(int(k)) * d - int(low)
        count = ((at >= -int(before)) & (at < int(n) + int(after))).sum(axis=1)
        total = total * xp.asarray(count, dtype).reshape([-1 if a == axis else 1 for a in range(len(out))])
    return xp.maximum(total, 1)


@sum_pool.kernel("array")
def _sum_pool(x: Array, *, kernel: Shape, win: Window, counted: Pads | None = None) -> Array:
    xp = namespace(x)
    y = _separable(x, kernel, win, 0, xp.add)
    if counted is not None:
        y /= _counts(xp, x.shape[2:], y.shape[2:], kernel, win, counted, y.dtype)
    return y


@sum_pool_grad.kernel("array")
def _sum_pool_grad(g: Array, *, kernel: Shape, win: Window, size: Shape, counted: Pads | None = None) -> Array:
    xp = namespace(g)
    if counted is not None:
        g = g / _counts(xp, size, g.shape[2:], kernel, win, counted, g.dtype)
    for axis, (n, k, s, (low, _), d) in enumerate(
        zip(size, kernel, win.strides, win.pads, win.dilations, strict=True), start=2
    ):
        x = xp.zeros((*g.shape[:axis], n, *g.shape[axis + 1 :]), g.dtype)
        before = (slice(None),) * axis
        for _, to, at in axis_taps(int(k), int(n), g.shape[axis], s, int(low), d):
            x[(*before, at)] += g[(*before, to)]
        g = x
    return g
