"""Attention by tiles: the scores of a few heads or queries at a time, which stay in the cache.

Axes: B batch, K key heads, G query heads that share one, L queries, S keys, E, V sizes of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...attention import attention, attention_grad, attention_weights, hidden_keys, rotary_embedding
from ...op import namespace
from ...types import Array

TILE_BYTES = 1 << 22
"""The most bytes of scores that are made at once."""


def _tiles(b: int, heads: int, queries: int, row: int) -> Iterator[tuple[slice, slice, int, int]]:
    """Yield blocks of batch entries, key heads and queries; a query's scores take `row` bytes."""
    entries = max(1, TILE_BYTES // max(1, heads * queries * row))
    some = min(heads, max(1, TILE_BYTES // max(1, queries * row))) or 1
    rows = queries if queries * row <= TILE_BYTES else max(16, TILE_BYTES // row)
    rows = max(1, rows)
    if some < heads:
        entries = 1
    for n in range(0, b, entries):
        for h in range(0, heads, some):
            for i in range(0, queries, rows):
                yield slice(n, n + entries), slice(h, h + some), i, min(i + rows, queries)


def _five(mask: Array, heads: int) -> Array:
    """Return a mask over (B, H, L, S) as one over (B, K, G, L, S), sizes of 1 broadcasting."""
    mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
    if mask.shape[1] == 1:
        return mask[:, :, None]
    return mask.reshape(mask.shape[0], heads, mask.shape[1] // heads, *mask.shape[2:])


def _cut(x: Array, *parts: slice) -> Array:
    """Return a part of x, all of an axis of size 1."""
    return x[tuple(p if n != 1 else slice(None) for p, n in zip(parts, x.shape, strict=True))]


def _hidden(
    xp: Any, lengths: Array | None, starts: Array | None, rows: tuple[int, int], keys: tuple[int, int],
    left: int, right: int, offset: int,
) -> Array | None:  # fmt: skip
    """Return where a query sees a key not, broadcasting to (B, L, S), or None where all are seen."""
    j = xp.arange(*keys)
    found = None if lengths is None else j >= lengths.astype(np.int64).reshape(-1, 1, 1)
    if left < 0 and right < 0:
        return found
    p = xp.arange(*rows)[:, None] + (offset if starts is None else starts.astype(np.int64).reshape(-1, 1, 1))
    for outside in (j < p - left if left >= 0 else None, j > p + right if right >= 0 else None):
        if outside is not None and (xp is not np or outside.any()):
            found = outside if found is None else found | outside
    return found


def _seen(rows: tuple[int, int], keys: int, starts: Any, left: int, right: int, offset: int) -> tuple[int, int]:
    """Return the keys that some of the rows can see."""
    if starts is not None:
        return 0, keys
    low = max(0, rows[0] + offset - left) if left >= 0 else 0
    high = min(keys, rows[1] - 1 + offset + right + 1) if right >= 0 else keys
    return low, max(low, high)


def _weighed(
    q: Array, k: Array, mask: Array | None, lengths: Array | None, starts: Array | None, sink: Array | None,
    scale: float, softcap: float, left: int, right: int, offset: int, slopes: bool = False,
) -> Iterator[tuple[Any, ...]]:  # fmt: skip
    """Yield for each tile its place, e^score, its sum over the keys, and the cap's derivative.

    The place is that of its entries, key heads, group, queries and keys; the derivative is None unless it is asked for.
    """
    xp = namespace(q)
    b, h, n, e = q.shape
    shared, keys = k.shape[1:3]
    group = h // shared
    queries = q.reshape(b, shared, group, n, e)
    mask = None if mask is None else _five(mask, shared)
    for entries, heads, first, stop in _tiles(b, shared, n, max(1, group * keys) * q.dtype.itemsize):
        low, high = _seen((first, stop), keys, starts, left, right, offset)
        place = entries, heads, slice(None), slice(first, stop)
        rows = queries[place] * q.dtype.type(scale)
        size = rows.shape
        s = xp.matmul(rows.reshape(*size[:2], -1, e), k[entries, heads, low:high].swapaxes(2, 3))
        s = s.reshape(*size[:4], high - low)
        slope = None
        if softcap:
            s /= softcap
            xp.tanh(s, out=s)
            slope = 1 - s * s if slopes else None
            s *= softcap
        if mask is not None:
            part = _cut(mask, *place, slice(low, high))
            if mask.dtype == bool:
                xp.copyto(s, -np.inf, where=~part)
            else:
                s += part
        ends, begins = (None if x is None else x[entries] for x in (lengths, starts))
        hidden = _hidden(xp, ends, begins, (first, stop), (low, high), left, right, offset)
        if hidden is not None:
            xp.copyto(s, -np.inf, where=hidden if hidden.ndim == 2 else hidden[:, None, None])
        most = s.max(axis=-1, keepdims=True) if high > low else xp.full((*s.shape[:-1], 1), -np.inf, s.dtype)
        if sink is not None:
            extra = sink.reshape(shared, group, 1, 1)[heads].astype(s.dtype)
            most = xp.maximum(most, extra)
        # A query that sees no key weighs nothing.
        most = xp.where(most == -np.inf, most.dtype.type(0), most)
        s -= most
        xp.exp(s, out=s)
        total = s.sum(axis=-1, keepdims=True)
        if sink is not None:
            total = total + xp.exp(extra - most)
        total = xp.where(total == 0, total.dtype.type(1), total)
        yield (*place, slice(low, high)), s, total, slope


@attention.kernel("array")
def _attention(
    q: Array, k: Array, v: Array, mask: Array | None = None, lengths: Array | None = None,
    starts: Array | None = None, sink: Array | None = None, *, scale: float, softcap: float = 0.0,
    left: int = -1, right: int = -1, offset: int = 0,
) -> Array:  # fmt: skip
    xp = namespace(q)
    b, h, n, _ = q.shape
    shared, width = v.shape[1], v.shape[3]
    y = xp.empty((b, shared, h // shared, n, width), q.dtype)
    with np.errstate(all="ignore"):
        for place, s, total, _ in _weighed(q, k, mask, lengths, starts, sink, scale, softcap, left, right, offset):
            entries, heads, _, _, keys = place
            part = xp.matmul(s.reshape(*s.shape[:2], s.shape[2] * s.shape[3], s.shape[4]), v[entries, heads, keys])
            part = part.reshape(*s.shape[:4], width)
            part /= total
            y[place[:4]] = part
    return y.reshape(b, h, n, width)


@attention_grad.kernel("array")
def _attention_grad(
    g: Array, y: Array, q: Array, k: Array, v: Array, mask: Array | None = None, lengths: Array | None = None,
    starts: Array | None = None, sink: Array | None = None, *, scale: float, softcap: float = 0.0,
    left: int = -1, right: int = -1, offset: int = 0,
) -> tuple[Array, ...]:  # fmt: skip
    xp = namespace(q)
    b, h, n, e = q.shape
    shared, width = v.shape[1], v.shape[3]
    five = (b, shared, h // shared, n)
    queries, above, made = q.reshape(*five, e), g.reshape(*five, width), y.reshape(*five, width)
    dq, dk, dv = xp.zeros((*five, e), q.dtype), xp.zeros(k.shape, k.dtype), xp.zeros(v.shape, v.dtype)
    added = mask is not None and mask.dtype != bool
    dm = xp.zeros(_five(mask, shared).shape, q.dtype) if added else None
    sunk = None if sink is None else xp.zeros(five[1:3], q.dtype)
    with np.errstate(all="ignore"):
        for place, p, sums, slope in _weighed(
            q, k, mask, lengths, starts, sink, scale, softcap, left, right, offset, slopes=True
        ):
            entries, heads, _, _, keys = place
            p /= sums
            size = p.shape
            flat = (*size[:2], size[2] * size[3])
            part = above[place[:4]]
            total = (part * made[place[:4]]).sum(axis=-1, keepdims=True)
            part = part.reshape(*flat, width)
            dv[entries, heads, keys] += xp.matmul(p.reshape(*flat, size[4]).swapaxes(2, 3), part)
            ds = xp.matmul(part, v[entries, heads, keys].swapaxes(2, 3)).reshape(size)
            ds -= total
            ds *= p
            if sunk is not None:
                sunk[heads] -= ((1 - p.sum(axis=-1, keepdims=True)) * total).sum(axis=(0, 3, 4))
            if dm is not None:
                target = _cut(dm, *place)
                target += ds.sum(axis=tuple(i for i, m in enumerate(dm.shape) if m == 1), keepdims=True)
            if slope is not None:
                ds *= slope
            ds *= scale
            flatter = ds.reshape(*flat, size[4])
            dq[place[:4]] = xp.matmul(flatter, k[entries, heads, keys]).reshape(*size[:4], e)
            rows = queries[place[:4]].reshape(*flat, e)
            dk[entries, heads, keys] += xp.matmul(flatter.swapaxes(2, 3), rows)
    more = () if dm is None or mask is None else (dm.reshape(mask.shape).astype(mask.dtype),)
    last = () if sunk is None or sink is None else (sunk.reshape(h).astype(sink.dtype),)
    return dq.reshape(q.shape), dk, dv, *more, *last


@attention_weights.kernel("array")
def _attention_weights(
    q: Array, k: Array, mask: Array | None = None, lengths: Array | None = None, starts: Array | None = None,
    sink: Array | None = None, *, scale: float, softcap: float = 0.0, left: int = -1, right: int = -1,
    offset: int = 0,
) -> Array:  # fmt: skip
    xp = namespace(q)
    b, h, n, _ = q.shape
    shared, keys = k.shape[1:3]
    p = xp.zeros((b, shared, h // shared, n, keys), q.dtype)
    with np.errstate(all="ignore"):
        for place, s, total, _ in _weighed(q, k, mask, lengths, starts, sink, scale, softcap, left, right, offset):
            xp.divide(s, total, out=p[place])
    return p.reshape(b, h, n, keys)


@hidden_keys.kernel("array", half="native")
def _hidden_keys(
    q: Array, lengths: Array | None = None, starts: Array | None = None, *, keys: int, left: int = -1,
    right: int = -1, offset: int = 0,
) -> Array:  # fmt: skip
    xp = namespace(q)
    y = xp.zeros((q.shape[0], 1, q.shape[2], keys), bool)
    hidden = _hidden(xp, lengths, starts, (0, q.shape[2]), (0, keys), left, right, offset)
    if hidden is not None:
        y[...] = hidden if hidden.ndim == 2 else hidden[:, None]
    return y


@rotary_embedding.kernel("array")
def _rotary_embedding(x: Array, cos: Array, sin: Array, *, interleaved: bool = False) -> Array:
    xp = namespace(x)
    r = cos.shape[-1]
    if interleaved:
        one, other = slice(0, 2 * r, 2), slice(1, 2 * r, 2)
    else:
        one, other = slice(0, r), slice(r, 2 * r)
    y = xp.empty(x.shape, x.dtype)
    a, b = x[..., one], x[..., other]
    y[..., one] = a * cos - b * sin
    y[..., other] = a * sin + b * cos
    y[..., 2 * r :] = x[..., 2 * r :]
    return y
