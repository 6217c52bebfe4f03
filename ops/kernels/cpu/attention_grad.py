"""The gradients of attention, from weights that are computed again.

A chunk is one head of keys of one batch entry, with all queries that it serves: what is added to the gradients of its
keys and values is added in one fixed order, by one thread. For each block of queries, with P the weights and D the
gradient by the scores, both (keys x queries) in scratch memory:

    P = softmax(scale k q'),  D = P (v g' - sum(g y)) scale,  dq = D' k,  dk += D q,  dv += P g

The gradient of a mask of numbers is D / scale, of which each head gives its part; a second kernel adds what heads and
entries share.

Source: Dao et al. 2022, algorithm 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...dims import DimLike
from ...types import TensorType, is_float
from .attention_block import (
    Block,
    Scores,
    heights,
    innermost,
    panels,
    place,
    scores_of,
    served,
    spread,
    store_row,
    tiles,
)
from .emitter import Emitter, V
from .kernel import kernel
from .lowering import Ref, Site, lowers
from .operand import Operand, packed
from .target import Target


@dataclass(frozen=True)
class AttentionGrad:
    """What the code depends on: the operands in their order, and `group` query heads a head of keys.

    `parts` is the gradient of the mask, that of each head for itself: (B, H, L, keys), or (B, H, 1, keys) where the
    queries share the mask.
    """

    g: Operand
    y: Operand
    q: Operand
    k: Operand
    v: Operand
    dq: Operand
    dk: Operand
    dv: Operand
    scores: Scores
    group: int
    parts: Operand | None = None


@lowers("attention_grad")
def _attention_grad(site: Site) -> bool:
    types = list(site.types)
    mask = types[5] if len(types) > 5 else None
    if any(t is not None for t in types[6:]) or site.attrs.get("softcap") or not served(types[2:]):
        return False
    q, k, v = types[2:5]
    if any(t.dtype != q.dtype for t in types[:2]):
        return False
    spread_mask = None
    if mask is not None:
        spread_mask = spread(site, 5, (*q.shape[:3], k.shape[2]))
        if spread_mask is None or (is_float(mask.dtype) and spread_mask[1].strides[3] == 0):
            return False
    refs = [innermost(site, i) for i in range(5)]
    for i in range(3):
        out = site.write(i)
        refs.append(out if i == 0 or out.operand.strides[3] == 1 else site.write(i, order="plain"))
    g_, y, q_, k_, v_, dq, dk, dv = (r.operand for r in refs)
    scored = scores_of(site.attrs, spread_mask[1] if spread_mask else None)
    parts = _parts(site, mask, q.shape, k.shape[2]) if mask is not None and is_float(mask.dtype) else None
    params = AttentionGrad(
        g_, y, q_, k_, v_, dq, dk, dv, scored, q.shape[1] // k.shape[1], parts.operand if parts else None
    )  # fmt: skip
    if spread_mask:
        refs.append(spread_mask[0])
    if parts:
        refs.append(parts)
    scores = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
    size = np.dtype(q.dtype).itemsize
    made = kernel(
        "attention_grad", emit, params, operands=len(refs), chunks=k.shape[0] * k.shape[1],
        scratch=_Scratch.of(site.target, params).size(k.shape[2]) * size,
        flops=scores * (6 * q.shape[3] + 4 * v.shape[3]),
        bytes=size * (2 * q.size + 2 * k.size + 2 * v.size + 2 * site.types[0].size),
    )  # fmt: skip
    site.call(made, refs)
    if parts and mask is not None:
        _gather(site, mask, parts)
    return True


def _four(shape: Sequence[DimLike]) -> tuple[DimLike, ...]:
    return (*(1,) * (4 - len(shape)), *shape)


def _parts(site: Site, mask: TensorType, q: Sequence[DimLike], keys: DimLike) -> Ref:
    """Return where each head writes its part of the gradient of the mask."""
    return site.temporary(mask.dtype, (q[0], q[1], _four(mask.shape)[2], keys))


@dataclass(frozen=True)
class Gather:
    """What the sum of the parts depends on; `out` is (B or 1, H or 1, L or 1, keys)."""

    parts: Operand
    out: Operand


def _gather(site: Site, mask: TensorType, parts: Ref) -> None:
    """Add the kernel that sums the parts of the gradient of a mask."""
    out = site.write(3, order="plain")
    shape = _four(mask.shape)
    params = Gather(parts.operand, packed(np.dtype(mask.dtype), shape))
    site.call(
        kernel("mask gradient", emit_gather, params, operands=2, chunks=shape[0] * shape[1] * shape[2]), [parts, out]
    )


def emit_gather(e: Emitter, p: Gather) -> None:
    """Write the sum of one row of the gradient of a mask."""
    dtype, lanes, keys = p.out.dtype, e.target.lanes(p.out.dtype), p.out.shape[3]
    row = e.unravel(e.chunk, p.out.shape[:3])
    out = place(e, p.out, e.pointer(1), *row)
    (b_low, b_high), (h_low, h_high) = (
        (0, n) if m == 1 else (r, e.add(r, 1)) for r, m, n in zip(row[:2], p.out.shape, p.parts.shape, strict=False)
    )

    def total(at: Any, count: int) -> None:
        with e.loop(b_low, b_high, carry=[e.zero(dtype, count)]) as b:
            with e.loop(h_low, h_high, carry=b.carried) as h:
                source = place(e, p.parts, e.pointer(0), b.index, h.index, row[2])
                h.next([e.b.fadd(h.carried[0], e.load(e.at(source, at, dtype), dtype, count))])
            b.next(h.results)
        e.store(b.results[0], e.at(out, at, dtype), dtype)

    whole = e.mul(e.div(keys, lanes), lanes)
    with e.loop(0, whole, lanes) as key:
        total(key.index, lanes)
    with e.loop(whole, keys) as key:
        total(key.index, 1)


@dataclass(frozen=True)
class _Scratch:
    """Where things lie in scratch memory, in elements; the scores (keys, width) and their gradient are last."""

    queries: int
    above: int
    result: int
    scores: int
    columns: int
    width: int

    @staticmethod
    def of(target: Target, p: AttentionGrad) -> _Scratch:
        lanes = target.lanes(p.q.dtype)
        width = tiles(target).vectors * lanes
        e, v = (-(-int(o.shape[3]) // lanes) * lanes for o in (p.q, p.v))
        return _Scratch(0, e * width, (e + v) * width, (e + v + max(e, v)) * width, e, width)

    def size(self, keys: DimLike) -> DimLike:
        """Return how many elements that is in all."""
        return self.scores + 2 * self.width * keys


def emit(e: Emitter, p: AttentionGrad) -> None:
    """Write the gradients for one head of keys."""
    b, shared = e.unravel(e.chunk, p.k.shape[:2])
    lanes = e.target.lanes(p.q.dtype)
    for i, o in ((6, p.dk), (7, p.dv)):
        base = place(e, o, e.pointer(i), b, shared)
        with e.loop(0, o.shape[2]) as row:
            at = e.at(base, e.mul(row.index, o.strides[2]), o.dtype)
            for c, _, last in panels(e, int(o.shape[3]), lanes, 1):
                store_row(e, o, at, c, e.zero(o.dtype, lanes), last)
    if p.parts is not None:
        _clear(e, p.parts, b, e.mul(shared, p.group), p.group)
    queries = p.q.shape[2]
    vectors = tiles(e.target).vectors
    if isinstance(queries, int) and queries <= lanes:
        vectors = 1
    width = vectors * lanes
    with e.loop(0, p.group) as member:
        head = e.add(e.mul(shared, p.group), member.index)
        with e.loop(0, queries, width) as start:
            rows = e.min(width, e.sub(queries, start.index))
            _Backward(e, p, vectors, b, head, shared, start.index, rows).write()


def _clear(e: Emitter, parts: Operand, b: V, first: V, heads: int) -> None:
    """Write zeros to the parts of some heads."""
    lanes, keys = e.target.lanes(parts.dtype), parts.shape[3]
    whole = e.mul(e.div(keys, lanes), lanes)
    with e.loop(0, heads) as head, e.loop(0, parts.shape[2]) as row:
        to = place(e, parts, e.pointer(9), b, e.add(first, head.index), row.index)
        with e.loop(0, whole, lanes) as key:
            e.store(e.zero(parts.dtype, lanes), e.at(to, key.index, parts.dtype), parts.dtype)
        with e.loop(whole, keys) as key:
            e.store(e.zero(parts.dtype), e.at(to, key.index, parts.dtype), parts.dtype)


class _Backward(Block):
    """Writes one block of queries of one head."""

    def __init__(
        self, e: Emitter, p: AttentionGrad, vectors: int, b: V, head: V, shared: V, start: V, rows: V
    ) -> None:  # fmt: skip
        at = _Scratch.of(e.target, p)
        mask = p.scores.mask
        address = place(e, mask, e.pointer(8), b, head) if mask else None
        super().__init__(e, p.scores, p.q.dtype, vectors, p.k.shape[2], address, start, rows, at.scores)
        self.p, self.at = p, at
        heads = (head, head, head, shared, shared, head, shared, shared)
        operands = (p.g, p.y, p.q, p.k, p.v, p.dq, p.dk, p.dv)
        self.g, self.y, self.q, self.k, self.v, self.dq, self.dk, self.dv = (
            place(e, o, e.pointer(i), b, h) for i, (o, h) in enumerate(zip(operands, heads, strict=True))
        )
        self.parts = place(e, p.parts, e.pointer(9), b, head) if p.parts else None
        self.slopes = e.add(at.scores, e.mul(self.keys, at.width))

    def write(self) -> None:
        """Write the block."""
        e, p, at = self.e, self.p, self.at
        self.turn_queries(p.q, self.q, at.queries)
        self.turn(p.g, self.g, lambda offset, x: self.put(x, at.above, offset))
        totals = self._totals()
        low, high = self.seen()
        count = high if isinstance(high, int) and low == 0 else e.max(0, e.sub(high, low))
        most = self.write_scores(p.k, self.k, at.queries, low, count, [self.low] * self.vectors)
        safe = self.safe(most)
        with e.loop(0, count, carry=[self.zero] * self.vectors) as key:
            base, after = e.mul(key.index, self.width), []
            for g, total in enumerate(key.carried):
                offset = e.add(base, g * self.lanes)
                weight = self.exp(e.b.fsub(self.vector(at.scores, offset), safe[g]))
                self.put(weight, at.scores, offset)
                after.append(e.b.fadd(total, weight))
            key.next(after)
        self._slopes(low, count, totals, [self.inverse(total) for total in key.results])
        self._queries(low, count)
        self._add(p.dv, self.dv, at.scores, p.g, self.g, low, count)
        self._add(p.dk, self.dk, self.slopes, p.q, self.q, low, count)

    def _totals(self) -> list[V]:
        """Return sum(g y) of each query."""
        e, at = self.e, self.at
        self.turn(self.p.y, self.y, lambda offset, x: self.put(x, at.result, offset))
        with e.loop(0, int(self.p.v.shape[3]), carry=[self.zero] * self.vectors) as column:
            base, after = e.mul(column.index, self.width), []
            for g, total in enumerate(column.carried):
                offset = e.add(base, g * self.lanes)
                after.append(e.fma(self.vector(at.above, offset), self.vector(at.result, offset), total))
            column.next(after)
        return column.results

    def _slopes(self, low: Any, count: Any, totals: list[V], factors: list[V]) -> None:
        """Divide the weights by their sums, and write the gradient by the products of queries and keys."""
        e, p, at = self.e, self.p, self.at
        scale = e.constant(p.scores.scale, self.kind)
        for height, first, stop in heights(e, count, (self.tiles.keys, 4, 1)):
            with e.loop(first, stop, height) as tile:
                found = self.products(p.v, self.v, e.add(low, tile.index), height, at.above)
                base = e.mul(tile.index, self.width)
                for i in range(height):
                    for g in range(self.vectors):
                        offset = e.add(base, i * self.width + g * self.lanes)
                        weight = e.b.fmul(self.vector(at.scores, offset), factors[g])
                        self.put(weight, at.scores, offset)
                        slope = e.b.fmul(weight, e.b.fsub(found[i * self.vectors + g], totals[g]))
                        self.put(slope if p.parts else e.b.fmul(slope, scale), self.slopes, offset)
        if p.parts is None:
            return
        self._masked_part(p.parts, low, count)
        with e.loop(0, e.mul(count, self.width), self.lanes) as each:
            self.put(e.b.fmul(self.vector(self.slopes, each.index), scale), self.slopes, each.index)

    def _masked_part(self, parts: Operand, low: Any, count: Any) -> None:
        """Add the block's gradient by the scores to the head's part of that of the mask."""
        e = self.e
        first = e.at(self.parts, low, self.dtype)
        if parts.shape[2] == 1:
            seen = [e.tail_mask(e.sub(self.rows, g * self.lanes), self.lanes) for g in range(self.vectors)]
            with e.loop(0, count) as key:
                base = e.add(self.slopes, e.mul(key.index, self.width))
                total = e.load(e.at(first, key.index, self.dtype), self.dtype)
                for g, there in enumerate(seen):
                    x = e.b.select(there, self.vector(base, g * self.lanes), self.zero)
                    total = e.b.fadd(total, e.reduce("add", x))
                e.store(total, e.at(first, key.index, self.dtype), self.dtype)
            return
        with e.loop(0, self.rows) as row, e.loop(0, count) as key:
            x = e.load(self.scratch(self.slopes, e.add(e.mul(key.index, self.width), row.index)), self.dtype)
            at = e.add(e.mul(e.add(self.start, row.index), parts.strides[2]), key.index)
            e.store(x, e.at(first, at, self.dtype), self.dtype)

    def _queries(self, low: Any, count: Any) -> None:
        """Write the gradient of the queries."""
        e, p, at = self.e, self.p, self.at
        height, size = self.tiles.rows, int(p.q.shape[3])
        first = e.at(self.k, e.mul(low, p.k.strides[2]), self.dtype)
        with e.loop(0, self.rows, height) as row:
            for c, vectors, last in panels(e, size, self.lanes, self.tiles.vectors):
                masks = self._masks(vectors, last)
                with e.loop(0, count, carry=[self.zero] * (height * vectors)) as key:
                    source = e.at(first, e.add(e.mul(key.index, p.k.strides[2]), c), self.dtype)
                    weights = e.add(self.slopes, e.mul(key.index, self.width), row.index)
                    key.next(self._rank_one(source, weights, 1, height, masks, key.carried))
                for i in range(height):
                    to = e.add(e.mul(e.add(row.index, i), at.columns), c)
                    for g in range(vectors):
                        self.put(key.results[i * vectors + g], at.result, e.add(to, g * self.lanes))
        with e.loop(0, self.rows) as row:
            to = e.at(self.dq, e.mul(e.add(self.start, row.index), p.dq.strides[2]), self.dtype)
            for c, _, last in panels(e, size, self.lanes, 1):
                x = self.vector(at.result, e.add(e.mul(row.index, at.columns), c))
                store_row(e, p.dq, to, c, x, last)

    def _add(self, o: Operand, out: V, weights: Any, source: Operand, rows: V, low: Any, count: Any) -> None:
        """Add, to the rows of each key, rows of queries with the weights that the key has in them."""
        e = self.e
        first = e.at(rows, e.mul(self.start, source.strides[2]), self.dtype)
        for height, begin, stop in heights(e, count, (self.tiles.rows, 4, 1)):
            with e.loop(begin, stop, height) as key:
                at = e.add(weights, e.mul(key.index, self.width))
                base = e.at(out, e.mul(e.add(low, key.index), o.strides[2]), self.dtype)
                for c, vectors, last in panels(e, int(o.shape[3]), self.lanes, self.tiles.vectors):
                    masks = self._masks(vectors, last)
                    places = [
                        e.at(e.at(base, e.add(e.mul(i, o.strides[2]), c), self.dtype), g * self.lanes, self.dtype)
                        for i in range(height)
                        for g in range(vectors)
                    ]
                    ends = masks * height
                    sums = [e.load(a, self.dtype, self.lanes, mask=m) for a, m in zip(places, ends, strict=True)]
                    with e.loop(0, self.rows, carry=sums) as query:
                        source_row = e.at(first, e.add(e.mul(query.index, source.strides[2]), c), self.dtype)
                        weight = e.add(at, query.index)
                        query.next(self._rank_one(source_row, weight, self.width, height, masks, query.carried))
                    for a, x, m in zip(places, query.results, ends, strict=True):
                        e.store(x, a, self.dtype, mask=m)

    def _masks(self, vectors: int, last: int) -> list[V]:
        return [None] * (vectors - 1) + [self.e.tail_mask(last, self.lanes) if last < self.lanes else None]

    def _rank_one(self, row: V, weights: Any, step: int, height: int, masks: list[V], sums: list[V]) -> list[V]:
        """Return sums (height, vectors) with the product of weights, `step` apart, and a row."""
        e, out = self.e, list(sums)
        columns = [
            e.load(e.at(row, g * self.lanes, self.dtype), self.dtype, self.lanes, mask=m) for g, m in enumerate(masks)
        ]
        for i in range(height):
            weight = self.splat(weights, i * step)
            for g, x in enumerate(columns):
                out[i * len(columns) + g] = e.fma(weight, x, out[i * len(columns) + g])
        return out
