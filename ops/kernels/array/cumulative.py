"""Running sums, products and recurrences along one axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...cumulative import cumprod, cumsum, linear_scan, logcumsumexp, shift
from ...op import namespace
from ...types import Array


def _at(x: Array, axis: int, part: slice | int) -> tuple[Any, ...]:
    return (*(slice(None),) * (axis % x.ndim), part)


def _running(xp: Any, function: str, start: int, x: Array, axis: int, exclusive: bool, reverse: bool) -> Array:
    if reverse:
        x = xp.flip(x, axis)
    if exclusive and x.shape[axis]:
        first = xp.full_like(x[_at(x, axis, slice(0, 1))], start)
        x = xp.concatenate([first, x[_at(x, axis, slice(None, -1))]], axis)
    with np.errstate(all="ignore"):
        y = getattr(xp, function)(x, axis=axis, dtype=x.dtype)
    return xp.flip(y, axis) if reverse else y


@cumsum.kernel("array")
def _cumsum(x: Array, *, axis: int, exclusive: bool = False, reverse: bool = False) -> Array:
    return _running(namespace(x), "cumsum", 0, x, axis, exclusive, reverse)


@cumprod.kernel("array")
def _cumprod(x: Array, *, axis: int, exclusive: bool = False, reverse: bool = False) -> Array:
    return _running(namespace(x), "cumprod", 1, x, axis, exclusive, reverse)


@shift.kernel("array", half="native")
def _shift(x: Array, *, axis: int, by: int) -> Array:
    if by == 0:
        return x
    y = namespace(x).zeros_like(x)
    to, of = (slice(by, None), slice(None, -by)) if by > 0 else (slice(None, by), slice(-by, None))
    if abs(by) < x.shape[axis]:
        y[_at(x, axis, to)] = x[_at(x, axis, of)]
    return y


@linear_scan.kernel("array")
def _linear_scan(a: Array, b: Array, *, axis: int, reverse: bool = False) -> Array:
    y = namespace(a, b).array(b)
    order = range(b.shape[axis])
    before = None
    for t in reversed(order) if reverse else order:
        here = _at(b, axis, t)
        if before is not None:
            y[here] += a[here] * y[before]
        before = here
    return y


@logcumsumexp.kernel("array")
def _logcumsumexp(x: Array, *, axis: int) -> Array:
    xp = namespace(x)
    y = xp.array(x)
    for t in range(1, x.shape[axis]):
        here = _at(x, axis, t)
        y[here] = xp.logaddexp(y[here], y[_at(x, axis, t - 1)])
    return y
