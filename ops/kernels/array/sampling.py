"""Weighted sums of rows, a block of points at a time, so that what is gathered stays in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...errors import OpError
from ...op import namespace
from ...sampling import match_rows, mix_rows, put_rows, taps_at
from ...types import Array

BLOCK_BYTES = 1 << 19
"""The most bytes of rows that are gathered at once."""


def _flat(at: Array, size: int) -> Array:
    """Return places in all rows of a batch, (B * P, T), for places within each entry, (B, P, T).

    Raises:
        OpError: on the CPU, if one is outside an entry's rows: NumPy would count negative ones from the end.
    """
    xp = namespace(at)
    if xp is np and at.size and (at.min() < 0 or at.max() >= size):
        raise OpError(f"mix_rows: place {at.min() if at.min() < 0 else at.max()} is outside {size} rows")
    if at.shape[0] > 1:
        at = at + xp.arange(at.shape[0], dtype=at.dtype).reshape(-1, 1, 1) * size
    return at.reshape(at.shape[0] * at.shape[1], at.shape[2])


def _blocks(points: int, row: int) -> Iterator[slice]:
    step = max(64, BLOCK_BYTES // max(1, row))
    for i in range(0, points, step):
        yield slice(i, i + step)


@mix_rows.kernel("array")
def _mix_rows(x: Array, at: Array, w: Array) -> Array:
    xp = namespace(x)
    b, s, c = x.shape
    rows, places = x.reshape(b * s, c), _flat(at, s)
    weights = w.reshape(places.shape)
    y = xp.zeros((len(places), c), xp.result_type(x, w))
    if s:
        for block in _blocks(len(places), c * x.dtype.itemsize):
            target, here, scale = y[block], places[block], weights[block]
            for t in range(places.shape[1]):
                part = rows.take(here[:, t], axis=0)
                part *= scale[:, t, None]
                target += part
    return y.reshape(*at.shape[:2], c)


@match_rows.kernel("array")
def _match_rows(g: Array, x: Array, at: Array) -> Array:
    xp = namespace(x)
    b, s, c = x.shape
    rows, places = x.reshape(b * s, c), _flat(at, s)
    flat = g.reshape(len(places), c)
    w = xp.zeros(places.shape, xp.result_type(g, x))
    if s:
        for block in _blocks(len(places), c * x.dtype.itemsize):
            here = places[block]
            for t in range(places.shape[1]):
                w[block, t] = xp.einsum("pc,pc->p", flat[block], rows.take(here[:, t], axis=0))
    return w.reshape(at.shape)


@put_rows.kernel("array")
def _put_rows(g: Array, at: Array, w: Array, *, size: int) -> Array:
    xp = namespace(g)
    b, _, c = g.shape
    places, weights = _flat(at, size).reshape(-1), w.reshape(-1)
    flat, taps = g.reshape(g.shape[0] * g.shape[1], c), at.shape[2]
    x = xp.zeros((b * size, c), xp.result_type(g, w))
    if xp is not np:
        xp.add.at(x, places, xp.repeat(flat, taps, axis=0) * weights[:, None])
        return x.reshape(b, size, c)
    # In order of the places each block adds to a place once.
    order = np.flatnonzero(weights)
    order = order[np.argsort(places[order], kind="stable")]
    for block in _blocks(len(order), c * x.dtype.itemsize):
        some = order[block]
        part = flat.take(some // taps, axis=0)
        part *= weights[some, None]
        here = places[some]
        first = np.flatnonzero(np.diff(here, prepend=-1))
        x[here[first]] += np.add.reduceat(part, first, axis=0)
    return x.reshape(b, size, c)


@taps_at.kernel("array")
def _taps_at(
    positions: Array, *, size: int, taps: int, padding: str, align_corners: bool = False
) -> tuple[Array, Array]:
    xp = namespace(positions)
    low = xp.floor(xp.nan_to_num(positions, nan=-4.0, posinf=size + 4.0, neginf=-4.0)).astype(np.int64)
    at = low[..., None] + xp.arange(taps) - (taps - 1) // 2
    inside = (at >= 0) & (at < size) if padding == "zeros" else xp.ones(at.shape, bool)
    if padding == "reflection":
        period: Any = max(1, 2 * (size - 1)) if align_corners else 2 * size
        at = at % period
        at = xp.minimum(at, period - at if align_corners else period - 1 - at)
    return xp.clip(at, 0, max(0, size - 1)), inside.astype(positions.dtype)
