"""Convolution by patches and matrix products.

Axes: N batch, C in, F out, G group, K kernel, O output.
"""

from __future__ import annotations

import math

from ...conv import conv, conv_input_grad, conv_weight_grad
from ...dims import Shape
from ...op import namespace
from ...types import Array
from ...window import Window
from .window import blocks, pieces, taps

ALL = (slice(None), slice(None))


def _columns(x: Array, kernel: Shape, win: Window, out: Shape, first_row: int, *, batch_last: bool = False) -> Array:
    """Return the patches as (N, C, *K, *O), or in memory as (C, *K, N, *O), seen as the former."""
    xp = namespace(x)
    n, c = x.shape[:2]
    rank = len(kernel)
    # Elements that a window sees outside the input stay 0; without pads there are none.
    make = xp.zeros if any(lo > 0 or hi > 0 for lo, hi in win.pads) else xp.empty
    if batch_last:
        cols = make((c, *kernel, n, *out), x.dtype)
        cols = cols.transpose(1 + rank, *range(1 + rank), *range(2 + rank, 2 + 2 * rank))
    else:
        cols = make((n, c, *kernel, *out), x.dtype)
    for index, to, at in taps(kernel, win, x.shape[2:], out, first_row):
        cols[(*ALL, *index, *to)] = x[(*ALL, *at)]
    return cols


def _single(kernel: Shape, win: Window) -> bool:
    """Whether the kernel is 1x1 without pads: its patches are elements."""
    return all(k == 1 for k in kernel) and not any(lo or hi for lo, hi in win.pads)


def _sampled(x: Array, win: Window) -> Array:
    """Return the elements that a 1x1 kernel meets."""
    return x if all(s == 1 for s in win.strides) else x[(*ALL, *(slice(None, None, s) for s in win.strides))]


def _depthwise(w: Array, win: Window, channels: int) -> bool:
    return win.group > 1 and win.group == channels and w.shape[1] == 1


@conv.kernel("array")
def _conv(x: Array, w: Array, *, win: Window) -> Array:
    xp = namespace(x)
    kernel, g = w.shape[2:], win.group
    n, c, f = x.shape[0], x.shape[1], w.shape[0]
    out = win.out(x.shape[2:], kernel)
    if _depthwise(w, win, c):
        return _depthwise_conv(x, w, win, out)
    rows = w.reshape(1, g, f // g, math.prod(w.shape[1:]))
    if _single(kernel, win):
        points = _sampled(x, win)
        return xp.matmul(rows, points.reshape(n, g, c // g, math.prod(out))).reshape(n, f, *out)
    inner = math.prod(out[1:])
    parts = list(pieces(n, out, c * math.prod(kernel) * x.dtype.itemsize))
    y: Array = None
    for images, a, b in parts:
        cols = _columns(x[images], kernel, win, (b - a, *out[1:]), a)
        part = xp.matmul(rows, cols.reshape(len(cols), g, rows.shape[3], (b - a) * inner))
        if len(parts) == 1:
            return part.reshape(n, f, *out)
        if y is None:
            y = xp.empty((n, g, f // g, out[0] * inner), part.dtype)
        y[images, :, :, a * inner : b * inner] = part
    return xp.zeros((n, f, *out), x.dtype) if y is None else y.reshape(n, f, *out)


def _depthwise_conv(x: Array, w: Array, win: Window, out: Shape) -> Array:
    """Sum shifted, scaled copies: with one channel a group there is no matrix product to make."""
    xp = namespace(x)
    n, c = x.shape[:2]
    each = w.shape[0] // c
    weights = w.reshape(c, each, *w.shape[2:], *(1,) * len(out))
    y = xp.zeros((n, c, each, *out), xp.result_type(x, w))
    walk = list(taps(w.shape[2:], win, x.shape[2:], out))
    for images, channels in blocks(n, c, each * math.prod(out) * y.dtype.itemsize):
        source, target, scale = x[images, channels, None], y[images, channels], weights[channels]
        for index, to, at in walk:
            target[(..., *to)] += source[(..., *at)] * scale[(slice(None), slice(None), *index)]
    return y.reshape(n, c * each, *out)


@conv_weight_grad.kernel("array")
def _conv_weight_grad(g: Array, x: Array, *, win: Window, kernel: Shape) -> Array:
    xp = namespace(g)
    n, f = g.shape[:2]
    groups, c, out = win.group, x.shape[1], g.shape[2:]
    depth = c // groups * math.prod(kernel)
    if groups > 1 and groups == c:
        return _depthwise_weight_grad(g, x, win, kernel)
    points = _sampled(x, win) if _single(kernel, win) else None
    w = xp.zeros((groups, f // groups, depth), xp.result_type(g, x))
    for images, a, b in pieces(n, out, c * math.prod(kernel) * x.dtype.itemsize):
        if points is not None:
            cols = points[(images, slice(None), slice(a, b), *(slice(o) for o in out[1:]))].swapaxes(0, 1)
        else:
            cols = _columns(x[images], kernel, win, (b - a, *out[1:]), a, batch_last=True)
            cols = cols.transpose(*range(1, 2 + len(kernel)), 0, *range(2 + len(kernel), cols.ndim))
        rows = g[images, :, a:b].swapaxes(0, 1).reshape(groups, f // groups, -1)
        w += xp.matmul(rows, cols.reshape(groups, depth, rows.shape[2]).swapaxes(1, 2))
    return w.reshape(f, c // groups, *kernel)


def _depthwise_weight_grad(g: Array, x: Array, win: Window, kernel: Shape) -> Array:
    xp = namespace(g)
    n, c, out = x.shape[0], x.shape[1], g.shape[2:]
    each = g.shape[1] // c
    g = g.reshape(n, c, each, *out)
    axes = "xyzuvw"[: len(out)]
    w = xp.zeros((c, each, *kernel), xp.result_type(g, x))
    for index, to, at in taps(kernel, win, x.shape[2:], out):
        w[(*ALL, *index)] = xp.einsum(f"nce{axes},nc{axes}->ce", g[(*ALL, slice(None), *to)], x[(*ALL, *at)])
    return w.reshape(c * each, 1, *kernel)


@conv_input_grad.kernel("array")
def _conv_input_grad(g: Array, w: Array, *, win: Window, size: Shape) -> Array:
    xp = namespace(g)
    n, f = g.shape[:2]
    groups, kernel, out = win.group, w.shape[2:], g.shape[2:]
    c = w.shape[1] * groups
    if _depthwise(w, win, c):
        return _depthwise_input_grad(g, w, win, size)
    columns = w.reshape(groups, f // groups, math.prod(w.shape[1:])).swapaxes(1, 2)
    if _single(kernel, win) and tuple(size) == out:
        return xp.matmul(columns, g.reshape(n, groups, f // groups, math.prod(out))).reshape(n, c, *size)
    x = xp.zeros((n, c, *size), xp.result_type(g, w))
    for images, a, b in pieces(n, out, c * math.prod(kernel) * g.dtype.itemsize):
        rows = g[images, :, a:b].reshape(-1, groups, f // groups, (b - a) * math.prod(out[1:]))
        cols = xp.matmul(columns, rows).reshape(-1, c, *kernel, b - a, *out[1:])
        target = x[images]
        for index, to, at in taps(kernel, win, size, (b - a, *out[1:]), a):
            target[(*ALL, *at)] += cols[(*ALL, *index, *to)]
    return x


def _depthwise_input_grad(g: Array, w: Array, win: Window, size: Shape) -> Array:
    xp = namespace(g)
    c, out = w.shape[0] // (each := w.shape[0] // win.group), g.shape[2:]
    n = g.shape[0]
    weights = w.reshape(c, each, *w.shape[2:], *(1,) * len(out))
    g = g.reshape(n, c, each, *out)
    x = xp.zeros((n, c, *size), xp.result_type(g, w))
    walk = list(taps(w.shape[2:], win, size, out))
    for images, channels in blocks(n, c, math.prod(size) * x.dtype.itemsize):
        for e in range(each):
            source, target, scale = g[images, channels, e], x[images, channels], weights[channels, e]
            for index, to, at in walk:
                target[(*ALL, *at)] += source[(*ALL, *to)] * scale[(slice(None), *index)]
    return x
