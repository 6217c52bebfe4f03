"""What attention and its gradient share: a block of queries of one head, with vectors along the queries.

Rows of queries are transposed into scratch memory, so that scores (keys x queries) come from broadcast elements of the
keys as they lie in memory, the softmax needs no sums across lanes, and its weights are broadcast in turn.

Axes: B batch, H heads, L queries, S keys, E, V sizes of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ir
import numpy as np

from ...dims import DimLike
from ...expr import Expr, Var, exp, tanh
from ...types import DType, TensorType
from .emitter import I32, Emitter, V, scalar_type
from .expression import evaluate
from .lowering import Ref, Site
from .operand import Operand
from .shuffle import transpose
from .target import Target

_EXP = exp(Var("x"))


@dataclass(frozen=True)
class Tiles:
    """How many registers the products take.

    Attributes:
        vectors: of queries, in a block.
        keys: rows of scores that are computed at once.
        rows: rows of the result that are computed at once.
    """

    vectors: int
    keys: int
    rows: int


def tiles(target: Target) -> Tiles:
    """Return the tiles for a target."""
    return Tiles(2, 14, 8) if target.registers >= 32 else Tiles(2, 6, 4)


@dataclass(frozen=True)
class Scores:
    """What is made of the products of queries and keys.

    Attributes:
        mask: broadcast to (B, H, L, S), or None.
        offset: where the first query stands.
    """

    mask: Operand | None
    scale: float
    softcap: float
    left: int
    right: int
    offset: DimLike

    @property
    def windowed(self) -> bool:
        """Whether a query sees only keys near it."""
        return self.left >= 0 or self.right >= 0


def scores_of(attrs: dict[str, Any], mask: Operand | None) -> Scores:
    """Return what attributes of `attention` say of the scores."""
    return Scores(
        mask, float(attrs["scale"]), float(attrs.get("softcap", 0.0)), int(attrs.get("left", -1)),
        int(attrs.get("right", -1)), attrs.get("offset", 0),
    )  # fmt: skip


def innermost(site: Site, i: int) -> Ref:
    """Return an input whose last axis has stride 1."""
    ref = site.read(i)
    o = ref.operand
    return ref if o.strides[-1] == 1 or o.shape[-1] == 1 else site.read(i, order="plain")


def spread(site: Site, i: int, shape: tuple[DimLike, ...]) -> tuple[Ref, Operand] | None:
    """Return a mask broadcast to the scores, with stride 1 or 0 along the keys; None where it is not clear how."""
    t = site.types[i]
    if t.ndim > 4 or any(d != 1 and d != n for d, n in zip(t.shape, shape[4 - t.ndim :], strict=True)):
        return None
    ref = site.read(i)
    o = ref.operand.broadcast_to(shape)
    if o.strides[3] not in (0, 1):
        ref = site.read(i, order="plain")
        o = ref.operand.broadcast_to(shape)
    return ref, o


def served(types: Sequence[Any]) -> bool:
    """Whether queries, keys, values, mask, lengths, starts and sink are of types and sizes that there is code for."""
    q, k, v, mask, lengths, starts, sink = (*types, *(None,) * 4)[:7]
    if any(t is not None and t.dtype not in (np.int32, np.int64) for t in (lengths, starts)):
        return False
    if sink is not None and sink.dtype != q.dtype:
        return False
    if not all(isinstance(t, TensorType) and t.ndim == 4 for t in (q, k, v)):
        return False
    if q.dtype not in (np.float32, np.float64) or k.dtype != q.dtype or v.dtype != q.dtype:
        return False
    if mask is not None and mask.dtype not in (bool, q.dtype):
        return False
    static = (q.shape[1], k.shape[1], q.shape[3], k.shape[3], v.shape[1], v.shape[3])
    if not all(isinstance(d, int) and d > 0 for d in static) or q.shape[1] % k.shape[1] or k.shape[1] != v.shape[1]:
        return False
    return bool(q.shape[0] == k.shape[0] == v.shape[0] and k.shape[2] == v.shape[2] and q.shape[3] == k.shape[3])


def larger(e: Emitter, a: V, c: V) -> V:
    """Return the larger; what is no number may be lost, as the sum that follows does not lose it."""
    return e.b.select(e.b.fcmp_ordered(">", a, c), a, c)


def place(e: Emitter, operand: Operand, pointer: V, *coordinates: Any) -> V:
    """Return the address of an element, given the leading coordinates."""
    terms = [e.mul(c, s) for c, s in zip(coordinates, operand.strides, strict=False) if s != 0]
    return e.at(pointer, e.add(*terms), operand.dtype)


class Block:
    """A block of queries of one head: what is written for its scores."""

    def __init__(
        self, e: Emitter, scores: Scores, dtype: DType, vectors: int, keys: DimLike, mask: V, start: V, rows: V,
        base: int, offset: Any = None, limit: Any = None,
    ) -> None:  # fmt: skip
        """Prepare.

        Args:
            e: the emitter.
            scores: what becomes of them.
            dtype: element type.
            vectors: of queries.
            keys: how many.
            mask: the address of the mask of this head.
            start: the first query.
            rows: how many queries, at most `vectors` full ones.
            base: where the scores lie in scratch memory, (keys, width).
            offset: where the first of all queries stands, if the entries of a batch differ in that.
            limit: how many keys count, likewise.
        """
        self.e, self.scores, self.dtype, self.vectors, self.keys = e, scores, dtype, vectors, keys
        self.mask, self.start, self.rows, self.base = mask, start, rows, base
        self.offset = scores.offset if offset is None else offset
        self.limit = keys if limit is None else limit
        self.lanes = e.target.lanes(dtype)
        self.width = vectors * self.lanes
        self.tiles = tiles(e.target)
        self.kind = ir.VectorType(scalar_type(dtype), self.lanes)
        self.low = e.constant(float("-inf"), self.kind)
        self.zero = e.constant(0, self.kind)
        self.inner = self._window() if scores.windowed else []

    def scratch(self, base: Any, offset: Any = 0) -> V:
        """Return an address in scratch memory."""
        return self.e.at(self.e.scratch, self.e.add(base, offset), self.dtype)

    def vector(self, base: Any, offset: Any = 0) -> V:
        """Load a vector from scratch memory."""
        return self.e.load(self.scratch(base, offset), self.dtype, self.lanes)

    def put(self, value: V, base: Any, offset: Any = 0) -> None:
        """Store a vector to scratch memory."""
        self.e.store(value, self.scratch(base, offset), self.dtype)

    def splat(self, base: Any, offset: Any) -> V:
        """Load an element from scratch memory into every lane."""
        return self.e.splat(self.e.load(self.scratch(base, offset), self.dtype), self.lanes)

    def seen(self) -> tuple[Any, Any]:
        """Return the keys that some of the queries see: from the first to behind the last."""
        e, p = self.e, self.scores
        low: Any = 0
        high: Any = self.limit
        first = e.add(self.start, self.offset)
        if p.left >= 0:
            low = e.max(0, e.add(first, -p.left))
        if p.right >= 0:
            high = e.min(high, e.add(first, self.rows, p.right))
        return low, high

    def exp(self, x: V) -> V:
        """Return e to the x."""
        return evaluate(self.e, _EXP, {"x": x}, self.lanes, self.dtype)

    def safe(self, most: Sequence[V]) -> list[V]:
        """Return maxima to subtract: 0 where a query sees no key."""
        b = self.e.b
        return [b.select(b.fcmp_ordered("==", m, self.low), self.zero, m) for m in most]

    def inverse(self, total: V) -> V:
        """Return 1 / sum; 1 where a query sees no key."""
        b, one = self.e.b, self.e.constant(1, self.kind)
        return b.fdiv(one, b.select(b.fcmp_ordered("==", total, self.zero), one, total))

    def turn(self, o: Operand, pointer: V, keep: Callable[[Any, V], None]) -> None:
        """Transpose the block's rows of a tensor: `keep(offset in (size, width), vector)` is given each vector."""
        e = self.e
        size = int(o.shape[3])
        for g in range(self.vectors):
            rows = [self.row(o, pointer, g * self.lanes + i) for i in range(self.lanes)]

            def square(column: Any, count: int, rows: list[V] = rows, g: int = g) -> None:
                mask = e.tail_mask(count, self.lanes) if count < self.lanes else None
                found = [e.load(e.at(r, column, self.dtype), self.dtype, self.lanes, mask=mask) for r in rows]
                base = e.mul(column, self.width)
                for i, x in enumerate(transpose(e, found, self.dtype)[:count]):
                    keep(e.add(base, i * self.width + g * self.lanes), x)

            whole = size // self.lanes * self.lanes
            if whole:
                with e.loop(0, whole, self.lanes) as column:
                    square(column.index, self.lanes)
            if size > whole:
                square(whole, size - whole)

    def turn_queries(self, o: Operand, pointer: V, base: int) -> None:
        """Write the scaled queries to scratch memory, (E, width)."""
        scale = self.e.constant(self.scores.scale, self.kind)
        self.turn(o, pointer, lambda offset, x: self.put(self.e.b.fmul(x, scale), base, offset))

    def row(self, o: Operand, pointer: V, i: int) -> V:
        """Return the address of row i of the block; behind the last one, that of the last."""
        e = self.e
        row = e.min(e.add(self.start, i), e.add(self.start, self.rows, -1))
        return e.at(pointer, e.mul(row, o.strides[2]), o.dtype)

    def _window(self) -> list[tuple[V, V]]:
        """Return the first and the last key that each query sees."""
        e, p = self.e, self.scores
        one = e.splat(e.b.trunc(e.add(self.start, self.offset), I32), self.lanes)
        out = []
        for g in range(self.vectors):
            v = e.b.add(one, _numbers(range(g * self.lanes, (g + 1) * self.lanes)))
            low = e.b.sub(v, e.splat(I32(max(p.left, 0)), self.lanes))
            out.append((low, e.b.add(v, e.splat(I32(max(p.right, 0)), self.lanes))))
        return out

    def products(self, o: Operand, pointer: V, row: Any, height: int, base: int) -> list[V]:
        """Return the products of some rows of a tensor with the block's rows, transposed at `base` of scratch memory.

        Row i has the vectors from i * self.vectors on.
        """
        e, stride = self.e, o.strides[2]
        first = e.at(pointer, e.mul(row, stride), self.dtype)
        rows = [e.at(first, e.mul(i, stride), self.dtype) for i in range(height)]
        with e.loop(0, int(o.shape[3]), carry=[self.zero] * (height * self.vectors)) as inner:
            place = e.mul(inner.index, self.width)
            columns = [self.vector(base, e.add(place, g * self.lanes)) for g in range(self.vectors)]
            sums = list(inner.carried)
            for i, r in enumerate(rows):
                element = e.splat(e.load(e.at(r, inner.index, self.dtype), self.dtype), self.lanes)
                for g, column in enumerate(columns):
                    sums[i * self.vectors + g] = e.fma(element, column, sums[i * self.vectors + g])
            inner.next(sums)
        return inner.results

    def write_scores(
        self, o: Operand, pointer: V, base: int, start: Any, count: Any, most: Sequence[V]
    ) -> Sequence[V]:  # fmt: skip
        """Write the scores of some keys, from `start` on; return the maxima with them.

        Args:
            o: how the keys lie.
            pointer: the first of them.
            base: where the transposed queries lie.
            start: the first key.
            count: how many.
            most: the maxima before.
        """
        e = self.e
        if self.scores.mask is not None and self.scores.mask.strides[2] != 0:
            self._turn_mask(start, count)
        for height, first, stop in heights(e, count, (self.tiles.keys, 4, 1)):
            with e.loop(first, stop, height, carry=most) as tile:
                key = e.add(start, tile.index)
                found = self.products(o, pointer, key, height, base)
                place, after = e.mul(tile.index, self.width), list(tile.carried)
                for i in range(height):
                    for g in range(self.vectors):
                        offset = e.add(place, i * self.width + g * self.lanes)
                        s = self._masked(found[i * self.vectors + g], key, i, g, offset)
                        self.put(s, self.base, offset)
                        after[g] = larger(e, s, after[g])
                tile.next(after)
            most = tile.results
        return most

    def _masked(self, s: V, key: V, i: int, g: int, offset: V) -> V:
        """Return the score of key `key + i` with the cap, the mask and the window."""
        e, p = self.e, self.scores
        if p.softcap:
            s = evaluate(e, capped(p.softcap), {"x": s}, self.lanes, self.dtype)
        if p.mask is not None:
            hides = np.dtype(p.mask.dtype).kind == "b"
            if p.mask.strides[2] != 0:
                found = self.vector(self.base, offset)
                s = e.b.select(e.b.fcmp_ordered("==", found, self.low), self.low, s) if hides else e.b.fadd(s, found)
            else:
                number = e.load(e.at(self.mask, e.mul(e.add(key, i), p.mask.strides[3]), p.mask.dtype), p.mask.dtype)
                if hides:
                    s = e.b.select(e.splat(e.b.icmp_unsigned("!=", number, number.type(0)), self.lanes), s, self.low)
                else:
                    s = e.b.fadd(s, e.splat(number, self.lanes))
        if self.inner:
            there = e.splat(e.b.trunc(e.add(key, i), I32), self.lanes)
            low, high = self.inner[g]
            for side, sign, wanted in ((p.left, ">=", low), (p.right, "<=", high)):
                if side >= 0:
                    s = e.b.select(e.b.icmp_signed(sign, there, wanted), s, self.low)
        return s

    def _turn_mask(self, start: Any, count: Any) -> None:
        """Write the mask of some keys where their scores will be; truth values as 0 and -inf."""
        e, o = self.e, self.scores.mask
        assert o is not None
        for g in range(self.vectors):
            rows = [self.row(o, self.mask, g * self.lanes + i) for i in range(self.lanes)]
            with e.loop(0, count, self.lanes) as key:
                mask = e.tail_mask(e.sub(count, key.index), self.lanes)
                found = []
                for r in rows:
                    if o.strides[3] == 0:
                        x = e.splat(e.load(r, o.dtype), self.lanes)
                    else:
                        x = e.load(e.at(r, e.add(start, key.index), o.dtype), o.dtype, self.lanes, mask=mask)
                    if np.dtype(o.dtype).kind == "b":
                        x = e.b.icmp_unsigned("!=", x, e.constant(0, x.type))
                        x = e.b.select(x, self.zero, self.low)
                    found.append(x)
                base = e.mul(key.index, self.width)
                for i, x in enumerate(transpose(e, found, self.dtype)):
                    self.put(x, self.base, e.add(base, i * self.width + g * self.lanes))


def store_row(e: Emitter, o: Operand, row: V, column: Any, x: V, count: int) -> None:
    """Store the first lanes of a vector along the last axis, which may have any stride."""
    lanes = x.type.count
    if o.strides[-1] == 1:
        mask = e.tail_mask(count, lanes) if count < lanes else None
        e.store(x, e.at(row, column, o.dtype), o.dtype, mask=mask)
        return
    for i in range(count):
        e.store(e.b.extract_element(x, I32(i)), e.at(row, e.mul(e.add(column, i), o.strides[-1]), o.dtype), o.dtype)


def _numbers(values: Sequence[int]) -> V:
    return ir.Constant(ir.VectorType(I32, len(values)), list(values))


def heights(e: Emitter, count: Any, sizes: Sequence[int]) -> list[tuple[int, Any, Any]]:
    """Return how rows are cut into tiles: (height, first, stop).

    Args:
        e: the emitter.
        count: of rows; where it is known, the first height is one that fits it well.
        sizes: heights, falling to 1.
    """
    out: list[tuple[int, Any, Any]] = []
    first: Any = 0
    if isinstance(count, int):
        most = min(range(max(1, sizes[0] // 2), sizes[0] + 1), key=lambda h: _cost(count, h))
        while first < count:
            height = min(most, count - first)
            stop = first + (count - first) // height * height
            out.append((height, first, stop))
            first = stop
        return out
    for height in sizes:
        whole = e.mul(e.div(e.sub(count, first), height), height)
        stop = e.add(first, whole)
        out.append((height, first, stop))
        first = stop
    return out


def _cost(count: int, height: int) -> float:
    whole, rest = divmod(count, height)
    return whole * (height + 0.3) + (max(rest, 4) + 0.3 if rest else 0)


def panels(e: Emitter, size: int, lanes: int, vectors: int) -> Iterator[tuple[Any, int, int]]:
    """Yield, inside loops where it takes them, (the first column, vectors, lanes of the last vector) of columns."""
    width = lanes * vectors
    whole = size // width * width
    if whole:
        with e.loop(0, whole, width) as column:
            yield column.index, vectors, lanes
    if size > whole:
        rest = -(-(size - whole) // lanes)
        yield whole, rest, size - whole - (rest - 1) * lanes


def capped(cap: float) -> Expr:
    """Return the soft cap of a score x."""
    return tanh(Var("x") * (1 / cap)) * cap
