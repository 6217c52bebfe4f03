"""Rearrangements of vectors' lanes: transposes of square blocks, (de)interleaving, vectors cut into powers of two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llvmlite.ir as ir
import numpy as np

from .emitter import I32, Emitter, V, scalar_type

_REGISTER = 16
"""Bytes within which vectors interleave in one instruction on every target."""


def undefined(dtype: Any, lanes: int) -> V:
    """Return a vector without a value."""
    return ir.Constant(ir.VectorType(scalar_type(dtype), lanes), ir.Undefined)


def shuffle(e: Emitter, a: V, c: V | None, places: Sequence[int]) -> V:
    """Return the lanes of two vectors, numbered on, at these places."""
    mask = ir.Constant(ir.VectorType(I32, len(places)), list(places))
    return e.b.shuffle_vector(a, ir.Constant(a.type, ir.Undefined) if c is None else c, mask)


def transpose(e: Emitter, rows: Sequence[V], dtype: Any) -> list[V]:
    """Return the columns of a square block of n vectors of n lanes, n a power of two."""
    n = len(rows)
    group = min(n, _REGISTER // np.dtype(dtype).itemsize)
    rows = list(rows)
    # Within 16 bytes: interleave rows at growing distances.
    span = 1
    while span < group:
        low, high = _unpack(n, group, span)
        out: list[V] = [None] * n
        for base in range(0, n, 2 * span):
            for i in range(span):
                a, c = rows[base + i], rows[base + i + span]
                out[base + 2 * i] = shuffle(e, a, c, low)
                out[base + 2 * i + 1] = shuffle(e, a, c, high)
        rows = out
        span *= 2
    # Across: column c of the k-th group of rows lies in row k * group + c, 16 bytes of it for every group of columns.
    pieces = n // group
    if pieces == 1:
        return rows
    columns: list[V] = [None] * n
    for c in range(group):
        found = _pieces(e, [rows[k * group + c] for k in range(pieces)], group)
        for k, v in enumerate(found):
            columns[k * group + c] = v
    return columns


def _unpack(n: int, group: int, span: int) -> tuple[list[int], list[int]]:
    """Return the lanes that interleave the lower, and the upper, halves of each 16 bytes, `span` elements at a time."""
    masks = []
    for half in (0, group // 2):
        places = []
        for start in range(0, n, group):
            for i in range(0, group // 2, span):
                at = start + half + i
                places += [*range(at, at + span), *range(n + at, n + at + span)]
        masks.append(places)
    return masks[0], masks[1]


def _pieces(e: Emitter, vectors: Sequence[V], group: int) -> list[V]:
    """Return the transpose of vectors seen as rows of 16 bytes each."""
    n = len(vectors)
    if n == 1:
        return list(vectors)
    even = [e_ * group + i for e_ in range(0, 2 * n, 2) for i in range(group)]
    odd = [o * group + i for o in range(1, 2 * n, 2) for i in range(group)]
    pairs = [(vectors[i], vectors[i + 1]) for i in range(0, n, 2)]
    evens = _halves(e, [shuffle(e, a, c, even) for a, c in pairs], group, n)
    odds = _halves(e, [shuffle(e, a, c, odd) for a, c in pairs], group, n)
    return [v for pair in zip(evens, odds, strict=True) for v in pair]


def _halves(e: Emitter, vectors: Sequence[V], group: int, n: int) -> list[V]:
    """Return the columns of vectors that each hold two rows of n / 2 pieces."""
    if len(vectors) == 1:
        return list(vectors)
    even = [p * group + i for p in range(0, 2 * n, 2) for i in range(group)]
    odd = [p * group + i for p in range(1, 2 * n, 2) for i in range(group)]
    pairs = [(vectors[i], vectors[i + 1]) for i in range(0, len(vectors), 2)]
    evens = _halves(e, [shuffle(e, a, c, even) for a, c in pairs], group, n)
    odds = _halves(e, [shuffle(e, a, c, odd) for a, c in pairs], group, n)
    return [v for pair in zip(evens, odds, strict=True) for v in pair]


def collect(e: Emitter, vectors: Sequence[V], picks: Sequence[tuple[int, int]]) -> V:
    """Return the vector whose lanes are (vector, lane) of these vectors, all of which are equally long."""
    lanes = len(picks)
    wide = vectors[0].type.count
    used = sorted({v for v, _ in picks})
    first = used[0]
    second = used[1] if len(used) > 1 else None
    places = [lane if v == first else wide + lane if v == second else 0 for v, lane in picks]
    out = shuffle(e, vectors[first], None if second is None else vectors[second], places)
    for v in used[2:]:
        if lanes != wide:
            raise ValueError("more than two vectors collect into one of their own length only")
        out = shuffle(e, out, vectors[v], [wide + lane if w == v else i for i, (w, lane) in enumerate(picks)])
    return out


def interleave(e: Emitter, vectors: Sequence[V]) -> list[V]:
    """Return k vectors that hold lane 0 of each of k vectors, then lane 1 of each, and so on."""
    k, lanes = len(vectors), vectors[0].type.count
    return [collect(e, vectors, [((j * lanes + i) % k, (j * lanes + i) // k) for i in range(lanes)]) for j in range(k)]


def deinterleave(e: Emitter, vectors: Sequence[V], kept: int) -> list[V]:
    """Return the first `kept` of the k vectors that `interleave` would make these of."""
    k, lanes = len(vectors), vectors[0].type.count
    return [
        collect(e, vectors, [((i * k + j) // lanes, (i * k + j) % lanes) for i in range(lanes)]) for j in range(kept)
    ]


def powers(count: int, largest: int) -> list[tuple[int, int]]:
    """Return (start, length) of the parts, powers of two no larger than `largest`, that make up a count."""
    parts, start = [], 0
    while start < count:
        size = largest
        while size > count - start:
            size //= 2
        parts.append((start, size))
        start += size
    return parts


def load_part(e: Emitter, pointer: V, dtype: Any, count: int, lanes: int) -> V:
    """Load `count` elements into the first lanes of a vector; nothing behind them is read."""
    if count == lanes:
        return e.load(pointer, dtype, lanes)
    out = undefined(dtype, lanes)
    for start, size in powers(count, lanes):
        value = e.load(e.at(pointer, start, dtype), dtype, size)
        if size == 1:
            out = e.b.insert_element(out, value, I32(start))
            continue
        wide = shuffle(e, value, None, [*range(size), *[0] * (lanes - size)])
        places = [lanes + i - start if start <= i < start + size else i for i in range(lanes)]
        out = shuffle(e, out, wide, places)
    return out


def store_part(e: Emitter, value: V, pointer: V, dtype: Any, count: int) -> None:
    """Store the first `count` lanes of a vector; nothing behind them is written."""
    lanes = value.type.count
    if count == lanes:
        e.store(value, pointer, dtype)
        return
    for start, size in powers(count, lanes):
        if size == 1:
            part = e.b.extract_element(value, I32(start))
        else:
            part = shuffle(e, value, None, list(range(start, start + size)))
        e.store(part, e.at(pointer, start, dtype), dtype)
