"""Reductions and scans."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...op import namespace
from ...reduce import Axes, divided, l2_norm, logsumexp, max_, mean, min_, prod, sum_
from ...types import Array


@divided.kernel("array")
def _divided(x: Array, *, count: int) -> Array:
    with np.errstate(all="ignore"):
        return x / x.dtype.type(count)


@sum_.kernel("array")
def _sum(x: Array, *, axes: Axes = None, keepdims: bool = False) -> Array:
    return namespace(x).asarray(x.sum(axis=axes, keepdims=keepdims, dtype=x.dtype), x.dtype)


@prod.kernel("array")
def _prod(x: Array, *, axes: Axes = None, keepdims: bool = False) -> Array:
    with np.errstate(all="ignore"):
        return namespace(x).asarray(x.prod(axis=axes, keepdims=keepdims, dtype=x.dtype), x.dtype)


@mean.kernel("array")
def _mean(x: Array, *, axes: Axes = None, keepdims: bool = False) -> Array:
    xp = namespace(x)
    count = _count(x, axes)
    if x.dtype.kind in "iu":
        total = x.sum(axis=axes, keepdims=keepdims, dtype=np.int64 if x.dtype.kind == "i" else np.uint64)
        return xp.asarray(xp.sign(total) * (abs(total) // count), x.dtype)
    with np.errstate(all="ignore"):
        return xp.asarray(x.sum(axis=axes, keepdims=keepdims) / x.dtype.type(count), x.dtype)


def _count(x: Array, axes: Axes) -> int:
    count = 1
    for a in range(x.ndim) if axes is None else axes:
        count *= x.shape[a]
    return count


def _least(dtype: Any, sign: int) -> Any:
    """Return the element that any other is above (sign 1) or below (sign -1)."""
    if dtype.kind == "b":
        return sign < 0
    if dtype.kind in "iu":
        return np.iinfo(dtype).min if sign > 0 else np.iinfo(dtype).max
    return -sign * np.inf


def _reduced(x: Array, axes: Axes, keepdims: bool) -> tuple[int, ...]:
    """Return the shape of a reduction."""
    gone = {a % x.ndim for a in (range(x.ndim) if axes is None else axes)}
    return tuple(1 if i in gone else n for i, n in enumerate(x.shape) if keepdims or i not in gone)


@max_.kernel("array")
def _max(x: Array, *, axes: Axes = None, keepdims: bool = False) -> Array:
    xp = namespace(x)
    if x.size:
        return xp.asarray(x.max(axis=axes, keepdims=keepdims), x.dtype)
    return xp.full(_reduced(x, axes, keepdims), _least(x.dtype, 1), x.dtype)


@min_.kernel("array")
def _min(x: Array, *, axes: Axes = None, keepdims: bool = False) -> Array:
    xp = namespace(x)
    if x.size:
        return xp.asarray(x.min(axis=axes, keepdims=keepdims), x.dtype)
    return xp.full(_reduced(x, axes, keepdims), _least(x.dtype, -1), x.dtype)


@logsumexp.kernel("array")
def _logsumexp(x: Array, *, axes: Axes = None, keepdims: bool = False) -> Array:
    xp = namespace(x)
    top = _max(x, axes=axes, keepdims=True)
    top = xp.where(xp.isfinite(top), top, x.dtype.type(0))
    with np.errstate(all="ignore"):
        y = xp.log(xp.exp(x - top).sum(axis=axes, keepdims=True)) + top
    if keepdims:
        return y
    return y.squeeze(tuple(range(x.ndim)) if axes is None else axes)


@l2_norm.kernel("array")
def _l2_norm(x: Array, *, axes: Axes = None, keepdims: bool = False) -> Array:
    xp = namespace(x)
    return xp.asarray(xp.sqrt(xp.square(x).sum(axis=axes, keepdims=keepdims)), x.dtype)
