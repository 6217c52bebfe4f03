"""Attention without the matrix of scores.

A unit of work is a block of queries of one head. Its queries are transposed into scratch memory, so that vectors lie
along queries: scores (keys x queries) come from broadcast elements of the keys as they lie in memory, the softmax needs
no sums across lanes, and its weights are broadcast in turn against vectors of the values. Keys and values are therefore
never packed. Blocks of keys follow each other with a running maximum and sum (Milakov & Gimelshein 2018; Dao et al.
2022). A few queries alone (decoding) have vectors along the keys instead.

Axes: B batch, H heads, L queries, S keys, E, V sizes of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ir
import numpy as np

from ...dims import Dim, DimLike
from ...expr import Var, exp
from ...types import TensorType
from .attention_block import (
    Block,
    Scores,
    capped,
    heights,
    innermost,
    larger,
    panels,
    place,
    scores_of,
    served,
    spread,
    store_row,
    tiles,
)
from .emitter import I32, I64, Emitter, V, scalar_type
from .expression import evaluate
from .kernel import kernel
from .lowering import Site, lowers
from .operand import Operand
from .target import Target

KEYS = 256
"""Keys a block; the scores of a block of queries with them stay in the first-level cache."""

FEW = 4
"""Up to this many queries have vectors along the keys."""

UNIT_FLOPS = 2_000_000
"""About how much work a chunk should have."""

_EXP = exp(Var("x"))


@dataclass(frozen=True)
class Attention:
    """What the code of attention depends on.

    Attributes:
        more: names of the operands behind q, k, v and y: mask, lengths, starts, sink.
        wide: of lengths and starts, which have elements of 64 bits.
        group: query heads that share a head of keys.
        units: (B, H, blocks of queries).
        each: units a chunk.
    """

    q: Operand
    k: Operand
    v: Operand
    y: Operand
    scores: Scores
    more: tuple[str, ...]
    wide: tuple[str, ...]
    group: int
    units: tuple[DimLike, ...]
    each: int


def blocks(target: Target, q: TensorType, k: TensorType, width: int) -> tuple[tuple[DimLike, ...], int]:
    """Return the units of work (B, H, blocks of queries) and how many of them a chunk takes."""
    size = tiles(target).vectors * target.lanes(q.dtype)
    queries, keys = q.shape[2], k.shape[2]
    units = (q.shape[0], q.shape[1], (queries + size - 1) // size)
    if isinstance(queries, Dim) or isinstance(keys, Dim):
        return units, 1
    work = 2 * min(size, queries) * keys * (int(q.shape[3]) + width)
    return units, max(1, min(64, UNIT_FLOPS // max(work, 1)))


@lowers("attention")
def _attention(site: Site) -> bool:
    if not served(site.types):
        return False
    q, k, v = site.types[:3]
    shape = (*q.shape[:3], k.shape[2])
    spread_mask = None
    if len(site.types) > 3 and site.types[3] is not None:
        spread_mask = spread(site, 3, shape)
        if spread_mask is None:
            return False
    refs = [innermost(site, i) for i in range(3)]
    units, each = blocks(site.target, q, k, int(v.shape[3]))
    refs.append(site.write(0))
    more = {"mask": spread_mask[0]} if spread_mask else {}
    for i, name in enumerate(("lengths", "starts", "sink"), start=4):
        if i < len(site.types) and site.types[i] is not None:
            more[name] = site.read(i, order="plain")
    q_, k_, v_, y = (r.operand for r in refs)
    params = Attention(
        q_, k_, v_, y, scores_of(site.attrs, spread_mask[1] if spread_mask else None), tuple(more),
        tuple(n for n, r in more.items() if np.dtype(r.operand.dtype) == np.int64), q.shape[1] // k.shape[1], units,
        each,
    )  # fmt: skip
    total = units[0] * units[1] * units[2]
    scores = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
    size = np.dtype(q.dtype).itemsize
    made = kernel(
        "attention", emit, params, operands=4 + len(more), chunks=-(-total // each),
        scratch=_Scratch.of(site.target, params).bytes, flops=scores * 2 * (q.shape[3] + v.shape[3]),
        bytes=size * (q.size + k.size + v.size + site.result.size),
    )  # fmt: skip
    site.call(made, [*refs, *more.values()])
    return True


@dataclass(frozen=True)
class _Scratch:
    """Where things lie in scratch memory, in elements."""

    queries: int
    scores: int
    result: int
    most: int
    total: int
    factor: int
    bytes: int
    columns: int

    @staticmethod
    def of(target: Target, p: Attention) -> _Scratch:
        lanes = target.lanes(p.q.dtype)
        width = tiles(target).vectors * lanes
        columns = -(-int(p.v.shape[3]) // lanes) * lanes
        places, at = [], 0
        for n in (-(-int(p.q.shape[3]) // lanes) * lanes * width, KEYS * width, width * columns, width, width, width):
            places.append(at)
            at += n
        queries, scores, result, most, total, factor = places
        return _Scratch(queries, scores, result, most, total, factor, at * np.dtype(p.q.dtype).itemsize, columns)


def emit(e: Emitter, p: Attention) -> None:
    """Write attention for the units of a chunk."""
    total = e.mul(e.mul(p.units[0], p.units[1]), p.units[2])
    first = e.mul(e.chunk, p.each)
    with e.loop(first, e.min(e.add(first, p.each), total) if p.each > 1 else e.add(first, 1)) as unit:
        _unit(e, p, unit.index)


def _unit(e: Emitter, p: Attention, unit: V) -> None:
    b, h, block = e.unravel(unit, p.units)
    queries = p.q.shape[2]
    most, lanes = tiles(e.target).vectors, e.target.lanes(p.q.dtype)
    width = most * lanes
    start = e.mul(block, width)
    rows = e.min(width, e.sub(queries, start))
    one = e.b.icmp_signed("<=", rows, I64(lanes))
    if isinstance(queries, int):
        rest = queries % width
        sizes = ({most} if queries >= width else set()) | ({1 if rest <= lanes else most} if rest else set())
        if queries <= FEW:
            _few(e, p, b, h)
        elif len(sizes) == 1:
            Forward(e, p, sizes.pop(), b, h, start, rows).write()
        else:
            _either(e, one, p, b, h, start, rows)
        return
    with e.b.if_else(e.b.icmp_signed("<=", e.dim(queries), I64(FEW))) as (few, many):
        with few:
            _few(e, p, b, h)
        with many:
            _either(e, one, p, b, h, start, rows)


def _either(e: Emitter, one: V, p: Attention, b: V, h: V, start: V, rows: V) -> None:
    with e.b.if_else(one) as (narrow, wide):
        with narrow:
            Forward(e, p, 1, b, h, start, rows).write()
        with wide:
            Forward(e, p, tiles(e.target).vectors, b, h, start, rows).write()


class _Head:
    """What one head of one batch entry reads: addresses, and what run time says of them."""

    def __init__(self, e: Emitter, p: Attention, b: V, h: V) -> None:
        self.e, self.p = e, p
        shared = e.div(h, p.group)
        self.q = place(e, p.q, e.pointer(0), b, h)
        self.k = place(e, p.k, e.pointer(1), b, shared)
        self.v = place(e, p.v, e.pointer(2), b, shared)
        self.y = place(e, p.y, e.pointer(3), b, h)
        mask = p.scores.mask
        self.mask = place(e, mask, self._pointer("mask"), b, h) if mask else None
        self.sink = e.load(e.at(self._pointer("sink"), h, p.q.dtype), p.q.dtype) if "sink" in p.more else None
        self.offset: Any = self._number("starts", b) if "starts" in p.more else p.scores.offset
        self.limit: Any = p.k.shape[2]
        if "lengths" in p.more:
            self.limit = e.max(0, e.min(self.limit, self._number("lengths", b)))

    def _pointer(self, name: str) -> V:
        return self.e.pointer(4 + self.p.more.index(name))

    def _number(self, name: str, b: V) -> V:
        dtype = np.int64 if name in self.p.wide else np.int32
        x = self.e.load(self.e.at(self._pointer(name), b, dtype), dtype)
        return x if dtype == np.int64 else self.e.b.sext(x, I64)

    def first(self) -> tuple[V, V]:
        """Return the maximum and the sum before any key: those of the sink."""
        e = self.e
        kind = scalar_type(self.p.q.dtype)
        low, zero, one = ir.Constant(kind, float("-inf")), ir.Constant(kind, 0.0), ir.Constant(kind, 1.0)
        if self.sink is None:
            return low, zero
        return self.sink, e.b.select(e.b.fcmp_ordered("==", self.sink, low), zero, one)


class Forward(Block):
    """Writes one block of queries of one head."""

    def __init__(self, e: Emitter, p: Attention, vectors: int, b: V, h: V, start: V, rows: V) -> None:
        """Prepare; see `Block`."""
        at, head = _Scratch.of(e.target, p), _Head(e, p, b, h)
        keys = p.k.shape[2]
        super().__init__(
            e, p.scores, p.q.dtype, vectors, keys, head.mask, start, rows, at.scores, head.offset, head.limit
        )  # fmt: skip
        self.p, self.at, self.head = p, at, head
        self.q, self.k, self.v = head.q, head.k, head.v
        self.y = e.at(head.y, e.mul(start, p.y.strides[2]), p.q.dtype)
        fixed = "lengths" not in p.more and "sink" not in p.more and not p.scores.windowed
        self.single = isinstance(keys, int) and keys <= KEYS and fixed

    def write(self) -> None:
        """Write the block."""
        e, p, at = self.e, self.p, self.at
        self.turn_queries(p.q, self.q, at.queries)
        most, total = (e.splat(x, self.lanes) for x in self.head.first())
        for g in range(self.vectors):
            self.put(most, at.most, g * self.lanes)
            self.put(total, at.total, g * self.lanes)
        if self.single:
            self._keys(0, self.keys)
        else:
            with e.loop(0, at.columns * self.width, self.lanes) as i:
                self.put(self.zero, at.result, i.index)
            low, high = self.seen()
            with e.loop(low, high, KEYS) as block:
                self._keys(block.index, e.min(KEYS, e.sub(high, block.index)))
        self._finish()

    # one block of keys --------------------------------------------------------------------------------------------

    def _keys(self, start: Any, count: Any) -> None:
        e, p, at = self.e, self.p, self.at
        most = self.write_scores(p.k, self.k, at.queries, start, count, [self.low] * self.vectors)
        lanes = [g * self.lanes for g in range(self.vectors)]
        before = [self.vector(at.most, g) for g in lanes]
        most = [larger(e, b, m) for b, m in zip(before, most, strict=True)]
        safe = self.safe(most)
        sums = [self.zero] * self.vectors
        with e.loop(0, count, carry=sums) as key:
            base = e.mul(key.index, self.width)
            after = []
            for g, total in zip(range(self.vectors), key.carried, strict=True):
                weight = self.exp(e.b.fsub(self.vector(at.scores, e.add(base, g * self.lanes)), safe[g]))
                self.put(weight, at.scores, e.add(base, g * self.lanes))
                after.append(e.b.fadd(total, weight))
            key.next(after)
        for g, total in zip(range(self.vectors), key.results, strict=True):
            if not self.single:
                factor = self.exp(e.b.fsub(before[g], safe[g]))
                total = e.fma(self.vector(at.total, lanes[g]), factor, total)
                self.put(factor, at.factor, lanes[g])
                self.put(most[g], at.most, lanes[g])
            self.put(total, at.total, lanes[g])
        self._product(start, count)

    def _product(self, start: Any, count: Any) -> None:
        """Add the weighted values of some keys to the result."""
        e, p, at = self.e, self.p, self.at
        height = self.tiles.rows
        first = e.at(self.v, e.mul(start, p.v.strides[2]), self.dtype)
        with e.loop(0, self.rows, height) as row:
            for c, vectors, last in panels(e, int(p.v.shape[3]), self.lanes, self.tiles.vectors):
                place = e.add(e.mul(row.index, at.columns), c)
                values = e.at(first, c, self.dtype)
                masks = [None] * vectors
                if last < self.lanes:
                    masks[-1] = e.tail_mask(last, self.lanes)
                sums = []
                for i in range(height):
                    factor = None
                    if not self.single:
                        factor = self.splat(at.factor, e.add(row.index, i))
                    for g in range(vectors):
                        if factor is None:
                            sums.append(self.zero)
                        else:
                            old = self.vector(at.result, e.add(place, i * at.columns + g * self.lanes))
                            sums.append(e.b.fmul(old, factor))
                with e.loop(0, count, carry=sums) as key:
                    at_key = e.at(values, e.mul(key.index, p.v.strides[2]), self.dtype)
                    columns = [
                        e.load(e.at(at_key, g * self.lanes, self.dtype), self.dtype, self.lanes, mask=m)
                        for g, m in enumerate(masks)
                    ]
                    weights = e.add(e.mul(key.index, self.width), row.index)
                    after = list(key.carried)
                    for i in range(height):
                        weight = self.splat(at.scores, e.add(weights, i))
                        for g, x in enumerate(columns):
                            after[i * vectors + g] = e.fma(weight, x, after[i * vectors + g])
                    key.next(after)
                for i in range(height):
                    for g in range(vectors):
                        self.put(key.results[i * vectors + g], at.result, e.add(place, i * at.columns + g * self.lanes))

    def _finish(self) -> None:
        e, p, at = self.e, self.p, self.at
        for g in range(self.vectors):
            self.put(self.inverse(self.vector(at.total, g * self.lanes)), at.factor, g * self.lanes)
        with e.loop(0, self.rows) as row:
            factor = self.splat(at.factor, row.index)
            source = e.mul(row.index, at.columns)
            out = e.at(self.y, e.mul(row.index, p.y.strides[2]), self.dtype)
            for c, _, last in panels(e, int(p.v.shape[3]), self.lanes, 1):
                store_row(e, p.y, out, c, e.b.fmul(self.vector(at.result, e.add(source, c)), factor), last)


def _few(e: Emitter, p: Attention, b: V, h: V) -> None:
    """Write all queries of a head, which are few: vectors along the keys, one query after the other."""
    with e.loop(0, p.q.shape[2]) as query:
        _Single(e, p, b, h, query.index).write()


class _Single:
    """Writes one query of one head: vectors along the keys."""

    def __init__(self, e: Emitter, p: Attention, b: V, h: V, query: V) -> None:
        self.e, self.p, self.query = e, p, query
        self.dtype, self.lanes = p.q.dtype, e.target.lanes(p.q.dtype)
        self.kind = ir.VectorType(scalar_type(self.dtype), self.lanes)
        self.low = e.constant(float("-inf"), self.kind)
        self.at = _Scratch.of(e.target, p)
        head = _Head(e, p, b, h)
        self.head, self.k, self.v = head, head.k, head.v
        self.q = e.at(head.q, e.mul(query, p.q.strides[2]), self.dtype)
        self.y = e.at(head.y, e.mul(query, p.y.strides[2]), self.dtype)
        mask = p.scores.mask
        self.mask = e.at(head.mask, e.mul(query, mask.strides[2]), mask.dtype) if mask else None

    def write(self) -> None:
        """Write the query."""
        e, p, at = self.e, self.p, self.at
        size, scale = int(p.q.shape[3]), e.constant(p.scores.scale, self.kind)
        for column in range(0, size, self.lanes):
            x = e.load(e.at(self.q, column, self.dtype), self.dtype, self.lanes, mask=self._tail(size - column))
            self._put(e.b.fmul(x, scale), at.queries, column)
        with e.loop(0, at.columns, self.lanes) as i:
            self._put(e.constant(0, self.kind), at.result, i.index)
        scores = p.scores
        where = e.add(self.query, self.head.offset)
        first = e.max(0, e.add(where, -scores.left)) if scores.left >= 0 else I64(0)
        stop = e.index(self.head.limit)
        if scores.right >= 0:
            stop = e.min(stop, e.add(where, scores.right + 1))
        with e.loop(first, stop, KEYS, carry=self.head.first()) as block:
            block.next(self._keys(block.index, e.min(KEYS, e.sub(stop, block.index)), *block.carried))
        total = block.results[1]
        empty = e.b.fcmp_ordered("==", total, e.zero(self.dtype))
        total = e.b.select(empty, e.constant(1, total.type), total)
        factor = e.splat(e.b.fdiv(e.constant(1, total.type), total), self.lanes)
        for c, _, last in panels(e, int(p.v.shape[3]), self.lanes, 1):
            store_row(e, p.y, self.y, c, e.b.fmul(self._vector(at.result, c), factor), last)

    def _tail(self, count: int) -> V:
        return self.e.tail_mask(count, self.lanes) if count < self.lanes else None

    def _vector(self, base: int, offset: Any) -> V:
        e = self.e
        return e.load(e.at(e.scratch, e.add(base, offset), self.dtype), self.dtype, self.lanes)

    def _put(self, value: V, base: int, offset: Any) -> None:
        e = self.e
        e.store(value, e.at(e.scratch, e.add(base, offset), self.dtype), self.dtype)

    def _keys(self, start: V, count: V, before: V, total: V) -> list[V]:
        """Write one block of keys; return the maximum and the sum with them."""
        e, at = self.e, self.at
        for height, first, stop in heights(e, count, (4, 1)):
            with e.loop(first, stop, height) as key:
                self._scores(e.add(start, key.index), key.index, height)
        with e.loop(0, count, self.lanes, carry=[self.low]) as key:
            s = self._masked(self._vector(at.scores, key.index), e.add(start, key.index), e.sub(count, key.index))
            self._put(s, at.scores, key.index)
            key.next([larger(e, s, key.carried[0])])
        most = _folded(e, key.results[0])
        most = larger(e, before, most)
        none = e.b.fcmp_ordered("==", most, ir.Constant(most.type, float("-inf")))
        safe = e.b.select(none, e.constant(0, most.type), most)
        wide = e.splat(safe, self.lanes)
        with e.loop(0, count, self.lanes, carry=[e.constant(0, self.kind)]) as key:
            weight = e.b.fsub(self._vector(at.scores, key.index), wide)
            weight = evaluate(e, _EXP, {"x": weight}, self.lanes, self.dtype)
            self._put(weight, at.scores, key.index)
            key.next([e.b.fadd(key.carried[0], weight)])
        factor = evaluate(e, _EXP, {"x": e.splat(e.b.fsub(before, safe), self.lanes)}, self.lanes, self.dtype)
        self._product(start, count, factor)
        one = e.b.extract_element(factor, I32(0))
        return [most, e.fma(total, one, e.reduce("add", key.results[0]))]

    def _scores(self, place: V, key: V, height: int) -> None:
        e, p = self.e, self.p
        size = int(p.k.shape[3])
        stride = p.k.strides[2]
        row = e.at(self.k, e.mul(place, stride), self.dtype)
        sums = [e.constant(0, self.kind)] * height
        for column in range(0, size, self.lanes):
            q, mask = self._vector(self.at.queries, column), self._tail(size - column)
            for i in range(height):
                x = e.at(row, e.add(e.mul(i, stride), column), self.dtype)
                sums[i] = e.fma(q, e.load(x, self.dtype, self.lanes, mask=mask), sums[i])
        for i, s in enumerate(sums):
            e.store(e.reduce("add", s), e.at(e.scratch, e.add(self.at.scores, key, i), self.dtype), self.dtype)

    def _masked(self, s: V, key: V, left: V) -> V:
        """Return the scores from key `key` on, of which `left` exist."""
        e, p = self.e, self.p.scores
        exists = e.tail_mask(left, self.lanes)
        if p.softcap:
            s = evaluate(e, capped(p.softcap), {"x": s}, self.lanes, self.dtype)
        if p.mask is not None:
            if p.mask.strides[3] == 0:
                x = e.splat(e.load(self.mask, p.mask.dtype), self.lanes)
            else:
                x = e.load(e.at(self.mask, key, p.mask.dtype), p.mask.dtype, self.lanes, mask=exists)
            if np.dtype(p.mask.dtype).kind == "b":
                s = e.b.select(e.b.icmp_unsigned("!=", x, e.constant(0, x.type)), s, self.low)
            else:
                s = e.b.fadd(s, x)
        return e.b.select(exists, s, self.low)

    def _product(self, start: V, count: V, factor: V) -> None:
        e, p, at = self.e, self.p, self.at
        for c, vectors, last in panels(e, int(p.v.shape[3]), self.lanes, 4):
            values = e.at(self.v, e.add(e.mul(start, p.v.strides[2]), c), self.dtype)
            masks = [None] * (vectors - 1) + [self._tail(last)]
            sums = [e.b.fmul(self._vector(at.result, e.add(c, g * self.lanes)), factor) for g in range(vectors)]
            with e.loop(0, count, carry=sums) as key:
                row = e.at(values, e.mul(key.index, p.v.strides[2]), self.dtype)
                weight = e.load(e.at(e.scratch, e.add(at.scores, key.index), self.dtype), self.dtype)
                weight = e.splat(weight, self.lanes)
                after = []
                for g, (mask, total) in enumerate(zip(masks, key.carried, strict=True)):
                    x = e.load(e.at(row, g * self.lanes, self.dtype), self.dtype, self.lanes, mask=mask)
                    after.append(e.fma(weight, x, total))
                key.next(after)
            for g, total in enumerate(key.results):
                self._put(total, at.result, e.add(c, g * self.lanes))


def _folded(e: Emitter, v: V) -> V:
    """Return the largest lane."""
    most = e.b.extract_element(v, I32(0))
    for i in range(1, v.type.count):
        most = larger(e, e.b.extract_element(v, I32(i)), most)
    return most
