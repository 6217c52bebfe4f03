"""Gathers and scatters. Repeated places are added up by sorting, not one at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...dims import DimLike, show
from ...errors import OpError, ShapeError
from ...index import (
    copy_slices,
    gather,
    gather_elements,
    gather_grad,
    gather_nd,
    nonzero,
    one_hot,
    reverse_sequence,
    scatter_elements,
    scatter_nd,
    tensor_scatter,
    tensor_window,
    unique,
)
from ...op import namespace
from ...types import Array


def _places(x: Array, indices: Array, n: int, name: str) -> Array:
    """Return indices into x as non-negative int64; on the CPU those outside [-n, n) are an error."""
    xp = namespace(x)
    at = indices.get() if xp is np and hasattr(indices, "get") else xp.asarray(indices)
    at = at.astype(np.int64)
    if xp is np and at.size and (at.min() < -n or at.max() >= n):
        bad = int(at.min()) if at.min() < -n else int(at.max())
        raise OpError(f"{name}: index {bad} is outside an axis of size {n}")
    return xp.where(at < 0, at + n, at)


@gather.kernel("array", half="native")
def _gather(x: Array, indices: Array, *, axis: int = 0) -> Array:
    xp = namespace(x)
    at = _places(x, indices, x.shape[axis], "gather")
    if at.ndim == 0:
        return x[(slice(None),) * (axis % x.ndim) + (at if xp is not np else int(at), ...)]
    return xp.take(x, at, axis=axis)


@gather_grad.kernel("array")
def _gather_grad(g: Array, indices: Array, *, axis: int, size: int) -> Array:
    xp = namespace(g)
    axis %= g.ndim - indices.ndim + 1
    lead, rest = g.shape[:axis], g.shape[axis + indices.ndim :]
    at = _places(g, indices, size, "gather_grad").reshape(-1)
    rows = xp.moveaxis(g.reshape(*lead, at.size, *rest), axis, 0)
    return xp.moveaxis(_add_rows(xp.zeros((size, *lead, *rest), g.dtype), at, rows), 0, axis)


def _add_rows(x: Array, at: Array, rows: Array) -> Array:
    """Add rows to x in place, at places that may repeat; the order of addition is that of the rows."""
    xp = namespace(x)
    if xp is not np:
        xp.add.at(x, at, rows)
        return x
    if at.size == 0:
        return x
    if rows.ndim == 1 and x.dtype in (np.float32, np.float64):
        x += np.bincount(at, weights=rows, minlength=x.shape[0]).astype(x.dtype)
        return x
    order = np.argsort(at, kind="stable")
    places = at[order]
    first = np.flatnonzero(np.diff(places, prepend=-1))
    if first.size == at.size:
        x[at] += rows
    else:
        x[places[first]] += np.add.reduceat(rows[order], first, axis=0, dtype=x.dtype)
    return x


def _grid(shape: tuple[int, ...], xp: Any) -> list[Array]:
    """Return the coordinates of a shape's elements, each broadcast along the other axes."""
    return [xp.arange(n).reshape((1,) * i + (-1,) + (1,) * (len(shape) - i - 1)) for i, n in enumerate(shape)]


def _elements(x: Array, indices: Array, axis: int, name: str) -> tuple[Array, ...]:
    """Return the place in x of every index of an elementwise gather or scatter."""
    xp = namespace(x)
    if indices.ndim != x.ndim:
        raise ShapeError(f"{name}: x has rank {x.ndim}, indices {indices.ndim}")
    if any(i > n for k, (i, n) in enumerate(zip(indices.shape, x.shape, strict=True)) if k != axis % x.ndim):
        raise ShapeError(f"{name}: indices {show(indices.shape)} are larger than x {show(x.shape)}")
    at = _grid(indices.shape, xp)
    at[axis] = _places(x, indices, x.shape[axis], name)
    return tuple(at)


@gather_elements.kernel("array", half="native")
def _gather_elements(x: Array, indices: Array, *, axis: int = 0) -> Array:
    return x[_elements(x, indices, axis, "gather_elements")]


def _tuples(x: Array, indices: Array, batch_dims: int, name: str) -> tuple[Array, ...]:
    """Return the place in x of every index tuple."""
    xp = namespace(x)
    k = indices.shape[-1]
    if batch_dims + k > x.ndim:
        raise ShapeError(f"{name}: tuples of {k} after {batch_dims} batch axes do not index {show(x.shape)}")
    lead = _grid(indices.shape[:-1], xp)[:batch_dims]
    return (*lead, *(_places(x, indices[..., i], x.shape[batch_dims + i], name) for i in range(k)))


@gather_nd.kernel("array", half="native")
def _gather_nd(x: Array, indices: Array, *, batch_dims: int = 0) -> Array:
    at = _tuples(x, indices, batch_dims, "gather_nd")
    if not at:
        return namespace(x).broadcast_to(x, (*indices.shape[:-1], *x.shape))
    wide = np.broadcast_shapes(*(a.shape for a in at), indices.shape[:-1])
    return x[tuple(namespace(x).broadcast_to(a, wide) for a in at)]


@scatter_elements.kernel("array", half="native")
def _scatter_elements(x: Array, indices: Array, updates: Array, *, axis: int = 0, reduction: str = "none") -> Array:
    if updates.shape != indices.shape:
        raise ShapeError(f"scatter_elements: indices {show(indices.shape)}, updates {show(updates.shape)}")
    return _put(x, _elements(x, indices, axis, "scatter_elements"), updates, reduction)


@scatter_nd.kernel("array", half="native")
def _scatter_nd(x: Array, indices: Array, updates: Array, *, reduction: str = "none", batch_dims: int = 0) -> Array:
    at = _tuples(x, indices, batch_dims, "scatter_nd")
    wanted = (*indices.shape[:-1], *x.shape[batch_dims + indices.shape[-1] :])
    if updates.shape != wanted:
        raise ShapeError(f"scatter_nd: updates {show(updates.shape)}, wanted {show(wanted)}")
    return _put(x, at, updates, reduction)


_COMBINE: dict[str, Callable[[Any], Any]] = {
    "add": lambda xp: xp.add,
    "mul": lambda xp: xp.multiply,
    "max": lambda xp: xp.maximum,
    "min": lambda xp: xp.minimum,
}


def _put(x: Array, at: tuple[Array, ...], updates: Array, reduction: str) -> Array:
    """Return a copy of x with updates written to, or combined with, the places `at`."""
    xp = namespace(x)
    y = x.copy()
    if updates.size == 0:
        return y
    if reduction == "none":
        y[at if at else ...] = updates if at else updates.reshape(-1, *x.shape)[-1]
        return y
    rows = _linear(x, at, updates)
    flat = y.reshape(-1, math.prod(x.shape[len(at) :]))
    values = updates.reshape(-1, flat.shape[1])
    if reduction == "add":
        half = x.dtype.itemsize == 2 and x.dtype.kind in "fV"
        if not half and x.dtype.kind in "fiu":
            _add_rows(
                flat[:, 0] if flat.shape[1] == 1 else flat,
                rows,
                values[:, 0] if flat.shape[1] == 1 else values,
            )
            return y
        wide = _add_rows(flat.astype(np.float32), rows, values.astype(np.float32)) if half else flat
        if half:
            return wide.astype(x.dtype).reshape(x.shape)
    if reduction == "mul" and xp is not np:  # CuPy multiplies at no places
        host = flat.get()
        np.multiply.at(host, rows.get(), values.get())
        return xp.asarray(host).reshape(x.shape)
    _COMBINE[reduction](xp).at(flat, rows, values)
    return y


def _linear(x: Array, at: tuple[Array, ...], updates: Array) -> Array:
    """Return the places as row numbers of x with its indexed axes flattened."""
    xp = namespace(x)
    if not at:
        return xp.zeros(updates.size // max(x.size, 1), np.int64)
    rows: Any = 0
    for a, n in zip(at, x.shape, strict=False):
        rows = rows * n + a
    wide = updates.shape[: updates.ndim - (x.ndim - len(at))]
    return xp.broadcast_to(rows, wide).reshape(-1)


def _window(x: Array, at: Array | None, size: int, axis: int, mode: str) -> tuple[Array, tuple[int, ...]]:
    """Return the places (batch, size) along the axis, and the order of axes with batch and it in front."""
    xp = namespace(x)
    n, axis = x.shape[axis], axis % x.ndim
    start = xp.zeros(x.shape[0], np.int64) if at is None else xp.asarray(at).reshape(-1).astype(np.int64)
    places = start[:, None] + xp.arange(size)
    if mode == "circular":
        places = places % n
    elif xp is np and places.size and (places.max() >= n or places.min() < 0):
        raise OpError(f"tensor_scatter: places {int(places.min())} to {int(places.max())} are outside an axis of {n}")
    return places, (0, axis, *(i for i in range(1, x.ndim) if i != axis))


@tensor_scatter.kernel("array", half="native")
def _tensor_scatter(x: Array, updates: Array, at: Array | None = None, *, axis: int, mode: str = "linear") -> Array:
    xp = namespace(x)
    places, perm = _window(x, at, updates.shape[axis], axis, mode)
    y = x.copy()
    y.transpose(perm)[xp.arange(x.shape[0])[:, None], places] = updates.transpose(perm)
    return y


@tensor_window.kernel("array", half="native")
def _tensor_window(x: Array, at: Array | None = None, *, axis: int, size: DimLike, mode: str = "linear") -> Array:
    xp = namespace(x)
    places, perm = _window(x, at, int(size), axis, mode)
    found = x.transpose(perm)[xp.arange(x.shape[0])[:, None], places]
    return found.transpose(tuple(int(a) for a in np.argsort(perm)))


@copy_slices.kernel("array", half="native")
def _copy_slices(x: Array, part: Array, positions: Array) -> Array:
    y = x.copy(order="C")
    y.reshape(-1)[positions] = part
    return y


@nonzero.kernel("array", half="native")
def _nonzero(x: Array) -> Array:
    xp = namespace(x)
    return xp.stack(xp.nonzero(xp.atleast_1d(x))).astype(np.int64)


@one_hot.kernel("array", half="native")
def _one_hot(indices: Array, *, depth: int, axis: int = -1, dtype: str = "bool") -> Array:
    xp = namespace(indices)
    at = xp.expand_dims(indices, axis)
    places = xp.arange(depth).reshape((-1,) + (1,) * (indices.ndim - axis % (indices.ndim + 1)))
    return (xp.where(at < 0, at + depth, at) == places).astype(np.dtype(dtype))


@unique.kernel("array", half="native")
def _unique(x: Array, *, axis: int | None = None, ordered: bool = True) -> tuple[Array, ...]:
    xp = namespace(x)
    y, first, inverse, counts = xp.unique(x, return_index=True, return_inverse=True, return_counts=True, axis=axis)
    inverse = inverse.reshape(-1)
    if not ordered:
        order = xp.argsort(first)
        place = xp.empty_like(order)
        place[order] = xp.arange(order.size)
        y = xp.take(y, order, axis=0 if axis is None else axis)
        first, counts, inverse = first[order], counts[order], place[inverse]
    return y, first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64)


@reverse_sequence.kernel("array", half="native")
def _reverse_sequence(x: Array, lengths: Array, *, time_axis: int, batch_axis: int) -> Array:
    xp = namespace(x)
    t = xp.arange(x.shape[time_axis])
    n = xp.asarray(lengths).reshape(-1, 1)
    order = xp.where(t < n, n - 1 - t, t)  # (batch, time)
    rest = tuple(i for i in range(x.ndim) if i not in (batch_axis % x.ndim, time_axis % x.ndim))
    perm = (batch_axis % x.ndim, time_axis % x.ndim, *rest)
    turned = x.transpose(perm)[xp.arange(order.shape[0])[:, None], order]
    return turned.transpose(tuple(int(a) for a in np.argsort(perm)))
