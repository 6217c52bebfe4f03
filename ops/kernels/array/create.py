"""Tensors made of shapes, numbers and ranges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...budget import check_size
from ...create import dtype_named, eye_like, fill, full_like, range_, shape_of, size_of
from ...dims import Shape
from ...errors import ShapeError
from ...op import namespace
from ...types import Array


@shape_of.kernel("array", half="native")
def _shape_of(x: Array, *, start: int = 0, end: int | None = None) -> Array:
    return np.asarray(x.shape[start:end], np.int64)


@size_of.kernel("array", half="native")
def _size_of(x: Array) -> Array:
    return np.asarray(math.prod(x.shape), np.int64)


@fill.kernel("array", half="native")
def _fill(shape: Array, *, value: Any, dtype: str) -> Array:
    sizes = tuple(int(n) for n in shape.tolist())
    check_size("fill", sizes, dtype_named(dtype).itemsize)
    return namespace(shape).full(sizes, value, dtype_named(dtype))


@full_like.kernel("array", half="native")
def _full_like(x: Array, *, shape: Shape, value: float) -> Array:
    return namespace(x).full(shape, value, x.dtype)


@range_.kernel("array")
def _range(start: Array, stop: Array, step: Array) -> Array:
    xp = namespace(start)
    a, b, by = (v.reshape(-1)[0] for v in (start, stop, step))
    if by == 0 or not all(map(math.isfinite, (a, b, by))):
        raise ShapeError(f"range: from {a} to {b} in steps of {by} has no end")
    if start.dtype.kind == "f":
        with np.errstate(over="ignore"):
            count = (b - a) / by
        n = math.ceil(min(count, 2.0**63))
    else:
        n = -((int(a) - int(b)) // int(by))
    n = max(0, n)
    check_size("range", (n,), start.dtype.itemsize)
    return (a + xp.arange(n, dtype=start.dtype) * by).astype(start.dtype)


@eye_like.kernel("array", half="native")
def _eye_like(x: Array, *, k: int = 0, dtype: str) -> Array:
    return namespace(x).eye(*x.shape, k=k, dtype=np.dtype(dtype))
