"""Where the largest and smallest are."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...op import namespace
from ...rank import argmax, argmin, hardmax, topk
from ...types import Array


def _first(xp: Any, function: str, x: Array, axis: int, keepdims: bool, select_last: bool) -> Array:
    at = getattr(xp, function)(xp.flip(x, axis) if select_last else x, axis=axis)
    at = xp.asarray(x.shape[axis] - 1 - at if select_last else at, np.int64)
    return xp.expand_dims(at, axis) if keepdims else at


@argmax.kernel("array")
def _argmax(x: Array, *, axis: int, keepdims: bool = False, select_last: bool = False) -> Array:
    return _first(namespace(x), "argmax", x, axis, keepdims, select_last)


@argmin.kernel("array")
def _argmin(x: Array, *, axis: int, keepdims: bool = False, select_last: bool = False) -> Array:
    return _first(namespace(x), "argmin", x, axis, keepdims, select_last)


@hardmax.kernel("array", half="native")
def _hardmax(x: Array, *, axis: int) -> Array:
    xp = namespace(x)
    at = xp.expand_dims(xp.argmax(x, axis=axis), axis)
    places = xp.arange(x.shape[axis]).reshape(-1, *(1,) * (x.ndim - 1 - axis % x.ndim))
    return (places == at).astype(x.dtype)


@topk.kernel("array")
def _topk(x: Array, *, k: int, axis: int, largest: bool = True, ordered: bool = True) -> tuple[Array, Array]:
    xp = namespace(x)
    if largest:
        # Sorting backwards keeps the first of equal elements first without negating, which some types cannot.
        order = xp.flip(x.shape[axis] - 1 - xp.argsort(xp.flip(x, axis), axis=axis, kind="stable"), axis)
    else:
        order = xp.argsort(x, axis=axis, kind="stable")
    order = order[(*(slice(None),) * (axis % x.ndim), slice(0, k))]
    return xp.take_along_axis(x, order, axis), order.astype(np.int64, copy=False)
