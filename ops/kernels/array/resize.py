"""Resizing: along each axis a few weighted reads, or one matrix product where they are many.

Coordinates are computed in float32 by default, as onnxruntime does: which element is nearest can hang on the last bit.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ...budget import check_size
from ...dims import Shape
from ...op import namespace
from ...resize import Factors, Interpolation, fitted, resize, resize_grad
from ...types import Array

f32 = np.float32


def _coordinates(how: Interpolation, n: int, out: int, scale: Any, step: Any, crop: tuple[float, float]) -> Array:
    """Return the position in the input that each output element reads at."""
    number = np.dtype(how.precision).type
    i = np.arange(out, dtype=number)
    half = number(0.5)
    if scale == 1 and n == out and how.coordinates != "tf_crop_and_resize":
        return i
    match how.coordinates:
        case "half_pixel":
            return (i + half) / scale - half
        case "pytorch_half_pixel":
            return (i + half) / scale - half if out > 1 else np.zeros(out, number)
        case "half_pixel_symmetric":
            adjusted = number(out) / (scale * number(n))
            return number(n) / number(2) * (number(1) - adjusted) + (i + half) / scale - half
        case "align_corners":
            return i * number(n - 1) / number(out - 1) if out > 1 else np.zeros(out, number)
        case "align_scaled_corners":
            return i * number(n - 1) / (scale * number(n) - number(1)) if out > 1 else np.zeros(out, number)
        case "asymmetric":
            return i / scale
        case "torch_half_pixel":
            return (i + half) * step - half
        case "torch_asymmetric":
            return i * step
        case "torch_half_pixel_for_nn":
            return (i + half) * step
        case "tf_half_pixel_for_nn":
            return (i + half) / scale
        case "tf_crop_and_resize":
            start, end = number(crop[0]), number(crop[1])
            if out > 1:
                return start * number(n - 1) + i * (end - start) * number(n - 1) / number(out - 1)
            return np.full(out, half * (start + end) * number(n - 1), number)
    raise ValueError(f"coordinates {how.coordinates!r}")


def _nearest(how: Interpolation, x: Array, scale: Any) -> Array:
    """Return the whole positions that stand for these."""
    match how.nearest:
        case "floor":
            return np.floor(x)
        case "ceil":
            return np.ceil(x)
        case "round_prefer_floor":
            return np.ceil(x - f32(0.5))
        case "round_prefer_ceil":
            return np.floor(x + f32(0.5))
        case "simple":
            return np.ceil(x) if scale < 1 else np.trunc(x)
    raise ValueError(f"nearest {how.nearest!r}")


def _filter(how: Interpolation, t: Array) -> Array:
    """Return the weight of an element at distance t."""
    t = np.abs(t)
    if how.mode == "linear":
        return np.maximum(0, 1 - t)
    a = how.cubic_a
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


@functools.lru_cache(maxsize=128)
def reads(
    how: Interpolation, n: int, out: int, factor: float | None, crop: tuple[float, float], drop: bool
) -> tuple[Array, Array, Array]:
    """Return (T, out) indices and weights, and which outputs read inside the input.

    With `drop` the weights of outputs that read outside are 0.
    """
    number = np.dtype(how.precision).type
    scale = number(out) / number(n) if factor is None else number(factor)
    step = number(n) / number(out) if factor is None else number(1 / factor)
    x = _coordinates(how, n, out, scale, step, crop)
    inside = (x >= 0) & (x <= n - 1)
    if how.mode == "nearest":
        indices = np.clip(_nearest(how, x, scale).astype(np.int64), 0, n - 1)[None]
        weights = np.ones((1, out))
    else:
        stretch = max(1.0, 1 / float(scale)) if how.antialias else 1.0
        reach = (1 if how.mode == "linear" else 2) * stretch
        if how.antialias:
            first = np.floor(x - reach + 1).astype(np.int64)
            count = int((np.floor(x + reach + 1) - first).max(initial=1))
        else:
            first, count = np.floor(x).astype(np.int64) - (int(reach) - 1), 2 * int(reach)
        places = first + np.arange(count)[:, None]
        weights = _filter(how, (places - x.astype(np.float64)) / stretch)
        if how.exclude_outside:
            weights = np.where((places >= 0) & (places < n), weights, 0)
        if how.exclude_outside or how.antialias:
            weights = weights / weights.sum(axis=0)
        indices = np.clip(places, 0, n - 1)
    if drop:
        weights = weights * inside
    return indices, weights, inside


@functools.lru_cache(maxsize=128)
def turned(*key: Any) -> tuple[Array, Array]:
    """Return the reads of the transposed map."""
    indices, weights, _ = reads(*key)
    n, out = key[1], indices.shape[1]
    source = indices.reshape(-1)
    order = np.argsort(source, kind="stable")
    count = np.bincount(source, minlength=n)
    rank = np.arange(source.size) - np.repeat(np.cumsum(count) - count, count)
    back = np.zeros((int(count.max(initial=1)), n), np.int64)
    weight = np.zeros(back.shape)
    back[rank, source[order]] = np.tile(np.arange(out), len(indices))[order]
    weight[rank, source[order]] = weights.reshape(-1)[order]
    return back, weight


def _apply(x: Array, axis: int, indices: Array, weights: Array) -> Array:
    """Return the weighted reads of x along an axis."""
    xp = namespace(x)
    taps, n = len(indices), x.shape[axis]
    if (weights == 1).all() and taps == 1:
        return x.take(xp.asarray(indices[0]), axis=axis)
    dtype = x.dtype if x.dtype.kind == "f" else np.dtype(np.float32)
    if 4 * taps >= n:
        matrix = np.zeros((n, indices.shape[1]))
        np.add.at(matrix, (indices, np.arange(indices.shape[1])), weights)
        return xp.moveaxis(xp.matmul(xp.moveaxis(x, axis, -1), xp.asarray(matrix, dtype)), -1, axis)
    y: Array = None
    for index, weight in zip(indices, weights, strict=True):
        part = x.take(xp.asarray(index), axis=axis).astype(dtype, copy=False)
        part *= xp.asarray(weight, dtype).reshape(-1, *(1,) * (x.ndim - 1 - axis))
        y = part if y is None else xp.add(y, part, out=y)
    return y


def axis_keys(
    scales: Array | None, roi: Array | None, axes: tuple[int, ...], how: Interpolation, old: Shape, new: Shape,
    factors: Factors,
) -> list[tuple[int, Any]]:  # fmt: skip
    """Return each axis that changes with what `reads` takes."""
    if scales is not None:
        factors = tuple(float(v) for v in scales.reshape(-1).tolist())
        new = new or tuple(int(f32(n) * f32(f)) for n, f in zip(old, factors, strict=True))
    ends = [0.0] * len(axes) + [1.0] * len(axes) if roi is None else [float(v) for v in roi.reshape(-1).tolist()]
    crop = zip(ends[: len(axes)], ends[len(axes) :], strict=True)
    drop = how.coordinates == "tf_crop_and_resize"
    return [
        (axis, (how, int(n), int(out), f, c, drop))
        for axis, n, out, f, c in zip(axes, old, new, factors or (None,) * len(axes), crop, strict=True)
        if drop or n != out or f not in (None, 1)
    ]


@resize.kernel("array")
def _resize(
    x: Array, scales: Array | None = None, roi: Array | None = None, *, axes: tuple[int, ...], how: Interpolation,
    size: Shape = (), factors: Factors = (), fit: str = "", outside: float | None = None,
) -> Array:  # fmt: skip
    xp = namespace(x)
    old = tuple(x.shape[a] for a in axes)
    if fit:
        size, factor = fitted(fit, old, size)
        factors = (factor,) * len(axes)
    y, seen = x, xp.ones((1,) * x.ndim, bool)
    keys = axis_keys(scales, roi, axes, how, old, size, factors)
    changed = {axis: key[2] for axis, key in keys}
    check_size("resize", tuple(changed.get(a, n) for a, n in enumerate(x.shape)), x.dtype.itemsize)
    # Axes that shrink go first, then inner ones: the rest have less to do.
    for axis, key in sorted(keys, key=lambda k: (k[1][2] / max(1, k[1][1]), -k[0])):
        indices, weights, inside = reads(*key)
        y = _apply(y, axis, indices, weights)
        if outside:
            seen = seen & xp.asarray(inside).reshape(-1, *(1,) * (x.ndim - 1 - axis))
    if outside and how.coordinates == "tf_crop_and_resize":
        y = xp.where(seen, y, xp.asarray(outside, y.dtype))
    return y if y.dtype == x.dtype else y.astype(x.dtype)


@resize_grad.kernel("array")
def _resize_grad(
    g: Array, scales: Array | None = None, roi: Array | None = None, *, axes: tuple[int, ...], how: Interpolation,
    size: Shape, factors: Factors = (), fit: str = "", wanted: Shape = (),
) -> Array:  # fmt: skip
    if fit:
        factors = (fitted(fit, size, wanted)[1],) * len(axes)
    new = tuple(g.shape[a] for a in axes)
    for axis, key in axis_keys(scales, roi, axes, how, size, new, factors):
        g = _apply(g, axis, *turned(*key))
    return g
