"""The code of Winograd convolutions: transforms of tiles and weights, and products of small matrices between them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...dims import DimLike
from .ahead import Ahead, PixelRow, Tiles
from .emitter import I32, I64, Emitter, V
from .epilogue import Tail
from .lanes import vectors
from .lowering import Epilogue
from .operand import Operand
from .target import Target

FAR = 4 << 20
"""Bytes of weights beyond which they come from far away."""
_UNROLL = 2
PIECE = 8
"""Tiles that a chunk transforms where this is a kernel of its own."""

FILTER = {
    2: ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    4: (
        (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6), (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6), (0, 0, 1),
    ),
}  # fmt: skip
"""G, which transforms weights, by m."""


@dataclass(frozen=True)
class Blocking:
    """How the work is cut.

    Attributes:
        m: rows and columns of output a tile makes.
        tiles: of a block.
        step: tiles that the multiplication holds in registers.
        group: vectors of filters that it holds.
        groups: how many of these there are.
        share: how many of the a a products a chunk computes where the parts are kernels of their own; 0 where a chunk
            is a block from beginning to end.
    """

    m: int
    tiles: int
    step: int
    group: int
    groups: int
    share: int


@dataclass(frozen=True)
class Winograd:
    """What the code of one of the kernels depends on.

    Attributes:
        low: rows and columns of zeros before the input.
        high: and behind it.
        part: `fused`, or `input`, `products` or `output`.
    """

    x: Operand
    y: Operand
    low: tuple[int, int]
    high: tuple[int, int]
    blocking: Blocking
    part: str
    epilogue: Epilogue | None


class Sizes:
    """What follows from the parameters, in elements."""

    def __init__(self, p: Winograd, target: Target) -> None:
        self.m = p.blocking.m
        self.a = self.m + 2
        self.lanes = target.lanes(p.x.dtype)
        self.line = 64 // p.x.dtype.itemsize
        self.channels, self.filters = int(p.x.shape[1]), int(p.y.shape[1])
        self.down, self.across = (-(-int(d) // self.m) for d in p.y.shape[2:])
        self.total: DimLike = p.y.shape[0] * (self.down * self.across)
        self.panel = p.blocking.group * self.lanes
        self.v_row = odd_lines(self.channels, self.line)
        self.v_one = odd_lines(p.blocking.tiles * self.v_row, self.line)
        self.m_row = p.blocking.groups * self.panel
        self.m_one = odd_lines(p.blocking.tiles * self.m_row, self.line)
        self.u_one = odd_lines(p.blocking.groups * self.panel * self.channels, self.line)
        self.v_size, self.m_size = self.a**2 * self.v_one, self.a**2 * self.m_one
        self.middle = self.a**2 * self.lanes
        self.blocks: DimLike = -(-self.total // p.blocking.tiles)
        self.pieces = -(-p.blocking.tiles // PIECE)


def odd_lines(elements: int, line: int) -> int:
    """Round up to an odd number of cache lines, so that rows do not compete for the same sets."""
    lines = -(-elements // line)
    return (lines | 1) * line


def emit_winograd(e: Emitter, p: Winograd) -> None:
    """Write one of the kernels.

    Operands: `fused` x, y, U, those of the epilogue; `input` x, V; `products` V, M, U; `output` M, y, those of the
    epilogue.
    """
    s, cut, dtype = Sizes(p, e.target), p.blocking, p.x.dtype
    total = e.mul(p.y.shape[0], s.down * s.across)
    blocks = e.ceil_div(total, cut.tiles)
    if p.part == "fused":
        first = e.mul(e.chunk, cut.tiles)
        count = e.min(cut.tiles, e.sub(total, first))
        v, m = e.at(e.scratch, s.middle, dtype), e.at(e.scratch, s.middle + s.v_size, dtype)
        transform_input(e, p, s, v, e.scratch, first, 0, count)
        ahead = _pixels(e, p, s, first)
        with e.loop(0, s.a**2) as loop:
            _multiply(e, p, s, v, m, e.pointer(2), loop.index, count, ahead)
        transform_output(e, p, s, m, e.scratch, 3, first, 0, count)
        return
    if p.part == "products":  # products of one number follow each other: they share weights
        number, block = e.unravel(e.chunk, (s.a**2 // cut.share, blocks))
    else:
        block, number = e.unravel(e.chunk, (blocks, s.pieces))
    first = e.mul(block, cut.tiles)
    count = e.min(cut.tiles, e.sub(total, first))
    low = e.mul(number, PIECE)
    high = e.min(e.add(low, PIECE), count)
    if p.part == "input":
        v = e.at(e.pointer(1), e.mul(block, s.v_size), dtype)
        transform_input(e, p, s, v, e.scratch, first, low, high)
    elif p.part == "output":
        m = e.at(e.pointer(0), e.mul(block, s.m_size), dtype)
        transform_output(e, p, s, m, e.scratch, 2, first, low, high)
    else:
        v, m = (e.at(e.pointer(i), e.mul(block, size), dtype) for i, size in ((0, s.v_size), (1, s.m_size)))
        each = e.mul(number, cut.share)
        with e.loop(each, e.add(each, cut.share)) as loop:
            _multiply(e, p, s, v, m, e.pointer(2), loop.index, count)


def transform_input(e: Emitter, p: Winograd, s: Sizes, v: V, middle: V, first: V, low: Any, high: V) -> None:
    """Transform tiles low to high of the block that begins at tile `first`: columns into `middle`, then its rows."""
    dtype, a = p.x.dtype, s.a
    with e.loop(low, high) as loop:
        image, *place = e.unravel(e.add(first, loop.index), (p.x.shape[0], s.down, s.across))
        begins = [e.add(e.mul(t, s.m), -low) for t, low in zip(place, p.low, strict=True)]
        start = [
            e.mul(i, stride) for i, stride in zip([image, *begins], (p.x.strides[0], *p.x.strides[2:]), strict=True)
        ]
        x = e.at(e.pointer(0), e.add(*start), dtype)

        def inside(axis: int, i: Any) -> V:
            """Return element i of the tile, or the last that may be read: no output needs what is behind it."""
            tiles, end = (s.down, s.across)[axis], int(p.x.shape[2 + axis]) + p.high[axis]
            sure = end - 1 - ((tiles - 1) * s.m - p.low[axis])
            known = isinstance(i, int)
            if sure < (i if known else a - 1):
                i = e.min(i, e.sub(end - 1, begins[axis]))
            return e.mul(i, p.x.strides[2 + axis])

        rows = [inside(0, i) for i in range(a)]
        out = e.at(v, e.mul(loop.index, s.v_row), dtype)
        for c, lanes, mask in vectors(e, dtype, s.channels):
            here, there = e.at(x, c, dtype), e.at(out, c, dtype)
            with e.loop(0, a) as column:
                at = e.at(here, inside(1, column.index), dtype)
                values = [e.load(e.at(at, row, dtype), dtype, lanes, mask) for row in rows]
                to = e.at(middle, e.mul(column.index, s.lanes), dtype)
                for i, value in enumerate(input_(e, values)):
                    e.store(value, e.at(to, i * a * s.lanes, dtype), dtype)
            with e.loop(0, a) as row:
                at = e.at(middle, e.mul(row.index, a * s.lanes), dtype)
                to = e.at(there, e.mul(row.index, a * s.v_one), dtype)
                values = [e.load(e.at(at, j * s.lanes, dtype), dtype, lanes) for j in range(a)]
                for j, value in enumerate(input_(e, values)):
                    e.store(value, e.at(to, j * s.v_one, dtype), dtype)


def transform_output(
    e: Emitter, p: Winograd, s: Sizes, m: V, middle: V, operand: int, first: V, low: Any, high: V, begin: Any = 0
) -> None:  # fmt: skip
    """Transform back, columns into `middle`, then its rows, of filters from `begin` on.

    The epilogue's operands begin at number `operand`.
    """
    dtype, a = p.x.dtype, s.a
    height, width = (int(d) for d in p.y.shape[2:])
    left = width - (s.across - 1) * s.m
    with e.loop(low, high) as loop:
        image, *place = e.unravel(e.add(first, loop.index), (p.x.shape[0], s.down, s.across))
        begins = [e.mul(t, s.m) for t in place]
        source = e.at(m, e.mul(loop.index, s.m_row), dtype)
        tail = Tail(e, p.y, e.pointer(1), p.epilogue, operand, (image, 0, *begins), 1)
        rows = s.m if height % s.m == 0 else e.min(s.m, e.sub(height, begins[0]))
        for k, lanes, mask in vectors(e, dtype, s.filters):
            here, there = e.at(source, k, dtype), tail.moved(1, e.add(begin, k))
            with e.loop(0, a) as column:
                at = e.at(here, e.mul(column.index, s.m_one), dtype)
                values = [e.load(e.at(at, i * a * s.m_one, dtype), dtype, lanes) for i in range(a)]
                to = e.at(middle, e.mul(column.index, s.lanes), dtype)
                for i, value in enumerate(output_(e, values)):
                    e.store(value, e.at(to, i * a * s.lanes, dtype), dtype)
            with e.loop(0, rows) as row:
                at = e.at(middle, e.mul(row.index, a * s.lanes), dtype)
                to = there.moved(2, row.index)
                values = output_(e, [e.load(e.at(at, j * s.lanes, dtype), dtype, lanes) for j in range(a)])
                for j in range(left):
                    to.store(values[j], (0, 0, 0, j), lanes, mask)
                if left < s.m:  # what hangs over the last column is not stored
                    with e.when(e.b.icmp_signed("<", place[1], I64(s.across - 1))):
                        for j in range(left, s.m):
                            to.store(values[j], (0, 0, 0, j), lanes, mask)


def _pixels(e: Emitter, p: Winograd, s: Sizes, first: V) -> list[Ahead]:
    """Return the pixels to ask for meanwhile: what this block writes, and what the one after the next reads.

    Of two threads that take turns, the one after the next comes to the same.
    """
    cut = p.blocking
    tiles = Tiles(s.m, (p.y.shape[0], s.down, s.across), cut.tiles, s.a**2 * cut.groups * (cut.tiles // cut.step))
    found = [Ahead(e, tiles, p.x, e.pointer(0), s.channels, s.a, e.add(first, 2 * cut.tiles), p.low, s.a - s.m)]
    for i, o in ((1, p.y), *enumerate(p.epilogue.operands if p.epilogue else (), 3)):
        if o.strides[1] == 1 and 0 not in o.strides:
            found.append(Ahead(e, tiles, o, e.pointer(i), s.filters, s.m, first))
    return found


def _multiply(
    e: Emitter, p: Winograd, s: Sizes, v: V, m: V, u: V, number: V, count: V, ahead: Sequence[Ahead] = ()
) -> None:  # fmt: skip
    """Write M[i] = V[i] U[i] of number i."""
    dtype, cut = p.x.dtype, p.blocking
    panel = s.channels * s.panel
    v, m = e.at(v, e.mul(number, s.v_one), dtype), e.at(m, e.mul(number, s.m_one), dtype)
    u = e.at(u, e.mul(number, s.u_one), dtype)
    with e.loop(0, cut.groups) as group, e.loop(0, e.ceil_div(count, cut.step)) as step:
        tile = e.mul(step.index, cut.step)
        weights, rows = e.at(u, e.mul(group.index, panel), dtype), e.at(v, e.mul(tile, s.v_row), dtype)
        out = e.at(m, e.add(e.mul(tile, s.m_row), e.mul(group.index, s.panel)), dtype)
        turn = e.add(e.mul(e.add(e.mul(number, cut.groups), group.index), cut.tiles // cut.step), step.index)
        pixels = [a.row(turn) for a in ahead]
        _micro(e, p, s, rows, weights, out, e.add(panel, e.mul(step.index, _ahead(cut, s))), pixels)


def _ahead(cut: Blocking, s: Sizes) -> int:
    """Return how much of the next weights a step asks for, in elements of what it multiplies in one iteration."""
    lines = _UNROLL * s.panel // s.line
    return -(-lines // (cut.tiles // cut.step)) * s.line


def _micro(
    e: Emitter, p: Winograd, s: Sizes, rows: V, weights: V, out: V, ahead: V, pixels: Sequence[PixelRow]
) -> None:  # fmt: skip
    """Write `step` tiles by `group` vectors of one product of matrices, summed in registers.

    Meanwhile the weights of the next product come nearer, from `ahead` behind these: each step asks for a part. So do
    rows of pixels.
    """
    dtype, (count, group), lanes = p.x.dtype, (p.blocking.step, p.blocking.group), s.lanes
    unroll = _UNROLL
    coming = e.at(weights, ahead, dtype)

    def products(low: V, depth: int, sums: list[V]) -> list[V]:
        sums = list(sums)
        row, weight = e.at(rows, low, dtype), e.at(weights, e.mul(low, s.panel), dtype)
        if depth == unroll and s.a**2 * s.channels * s.filters * p.x.dtype.itemsize > FAR:
            for i in range(0, _ahead(p.blocking, s), s.line):
                e.prefetch(e.at(e.at(coming, e.mul(low, s.panel), dtype), i, dtype), 2)
        for row_ in pixels if depth == unroll else ():
            row_.ask(low, unroll, whole)
        for c in range(depth):
            ws = [e.load(e.at(weight, c * s.panel + g * lanes, dtype), dtype, lanes) for g in range(group)]
            for t in range(count):
                value = e.splat(e.load(e.at(row, t * s.v_row + c, dtype), dtype), lanes)
                for g in range(group):
                    sums[t * group + g] = e.fma(value, ws[g], sums[t * group + g])
        return sums

    whole = s.channels // unroll * unroll
    sums = [e.zero(dtype, lanes)] * (count * group)
    if whole:
        with e.loop(0, whole, unroll, carry=sums) as loop:
            loop.next(products(loop.index, unroll, loop.carried))
        sums = loop.results
    if s.channels > whole:
        sums = products(I64(whole), s.channels - whole, sums)
    for t in range(count):
        for g in range(group):
            e.store(sums[t * group + g], e.at(out, t * s.m_row + g * lanes, dtype), dtype)


def _constant(e: Emitter, kind: Any, number: float) -> V:
    return e.constant(number, kind)


def input_(e: Emitter, d: list[V]) -> list[V]:
    """Return B' d."""
    b, k = e.b, functools.partial(_constant, e, d[0].type)
    if len(d) == 4:
        return [b.fsub(d[0], d[2]), b.fadd(d[1], d[2]), b.fsub(d[2], d[1]), b.fsub(d[1], d[3])]
    even, odd = e.fma(d[2], k(-4), d[4]), e.fma(d[1], k(-4), d[3])
    even_, odd_ = b.fsub(d[4], d[2]), b.fsub(d[3], d[1])
    return [
        e.fma(d[0], k(4), e.fma(d[2], k(-5), d[4])), b.fadd(even, odd), b.fsub(even, odd), e.fma(odd_, k(2), even_),
        e.fma(odd_, k(-2), even_), e.fma(d[1], k(4), e.fma(d[3], k(-5), d[5])),
    ]  # fmt: skip


def output_(e: Emitter, m: list[V]) -> list[V]:
    """Return A' m."""
    b, k = e.b, functools.partial(_constant, e, m[0].type)
    if len(m) == 4:
        return [b.fadd(b.fadd(m[0], m[1]), m[2]), b.fsub(b.fsub(m[1], m[2]), m[3])]
    s1, d1, s2, d2 = b.fadd(m[1], m[2]), b.fsub(m[1], m[2]), b.fadd(m[3], m[4]), b.fsub(m[3], m[4])
    return [
        b.fadd(b.fadd(m[0], s1), s2), e.fma(d2, k(2), d1), e.fma(s2, k(4), s1), b.fadd(e.fma(d2, k(8), d1), m[5])
    ]  # fmt: skip


@dataclass(frozen=True)
class WeightsCode:
    """What the code that transforms weights depends on.

    Attributes:
        stride: how far apart its numbers lie.
        gradient: whether weights are turned by 180 degrees, C and F swapped.
    """

    dtype: Any
    blocking: Blocking
    channels: int
    filters: int
    stride: int
    gradient: bool


def weight_parts(p: WeightsCode) -> int:
    """Return how many chunks transform the weights of a panel of filters."""
    return -(-p.channels // 64)


def emit_weights(e: Emitter, p: WeightsCode) -> None:
    """Write the transformation of weights (F, C, 3, 3), of a gradient (C, F, 3, 3), into U."""
    cut, dtype, lanes = p.blocking, p.dtype, e.target.lanes(p.dtype)
    along, across = (9, p.filters * 9) if p.gradient else (p.channels * 9, 9)
    number, part = e.unravel(e.chunk, (cut.groups, weight_parts(p)))
    panel = cut.group * lanes
    first = e.mul(number, panel)
    out = e.at(e.pointer(1), e.mul(first, p.channels), dtype)
    low = e.mul(part, 64)
    with e.loop(low, e.min(e.add(low, 64), p.channels)) as channel, e.loop(0, cut.group) as group:
        begin = e.add(first, e.mul(group.index, lanes))
        source = e.at(e.pointer(0), e.mul(channel.index, across), dtype)
        places = []
        for lane in range(lanes):
            k = e.add(begin, lane)
            if p.filters % panel:
                k = e.min(k, p.filters - 1)  # what is behind the last filter is never stored
            places.append(e.mul(k, along))
        there = e.at(out, e.add(e.mul(channel.index, panel), e.mul(group.index, lanes)), dtype)
        transform_weights(e, dtype, cut.m, source, places, there, p.stride, turned=p.gradient)


def transform_weights(
    e: Emitter, dtype: Any, m: int, source: V, places: Sequence[Any], out: V, stride: int, *, turned: bool
) -> None:
    """Write G g G' of a vector of filters.

    Args:
        e: the emitter.
        dtype: of the elements.
        m: rows of outputs of a tile.
        source: what filters are counted from.
        places: where each filter's nine weights of a channel lie.
        out: where the first of the numbers goes.
        stride: how far apart numbers lie.
        turned: whether filters are turned by 180 degrees.
    """
    taps: list[V] = [e.zero(dtype, len(places))] * 9
    for lane, place in enumerate(places):
        at = e.at(source, place, dtype)
        for t in range(9):
            value = e.load(e.at(at, 8 - t if turned else t, dtype), dtype)
            taps[t] = e.b.insert_element(taps[t], value, I32(lane))
    columns = [times(e, FILTER[m], taps[j::3]) for j in range(3)]
    for i in range(m + 2):
        for j, value in enumerate(times(e, FILTER[m], [column[i] for column in columns])):
            e.store(value, e.at(out, (i * (m + 2) + j) * stride, dtype), dtype)


def times(e: Emitter, matrix: Sequence[Sequence[float]], vector: list[V]) -> list[V]:
    """Return a constant matrix times a vector of vectors."""
    out = []
    for row in matrix:
        total = None
        for number, value in zip(row, vector, strict=True):
            if number == 1 and total is None:
                total = value
            elif number:
                factor = e.constant(number, value.type)
                total = e.b.fmul(value, factor) if total is None else e.fma(value, factor, total)
        out.append(total)
    return out
