"""3x3 convolution of stride 1 by Winograd's minimal filtering, over channels last.

F(m x m, 3 x 3) makes m x m outputs from a tile of a x a inputs, a = m + 2, with a a products a channel, not 9 m m:

    Y = A' [ (G g G') * (B' d B) ] A

Summed over channels, the products are a a multiplications of matrices: tiles x channels by channels x filters. A block
of tiles is transformed into V (a a, tiles, channels), multiplied with the transformed weights U into M (a a, tiles,
filters), and M is transformed into the output. Where there are many tiles, a chunk of work is a block from beginning to
end, so small that V and M stay in the second cache; where there are few, the three parts are kernels of their own, and
chunks share out the tiles, the a a products, the tiles.

In float32 the largest error on random data, relative to the largest result, is 4e-6 to 3e-5 for m = 4, more with more
channels, and about 1e-6 for m = 2; `BOUND` is what tests allow. NaN and infinities spread over a tile.

Axes: N batch, C channel, F filter, H and W rows and columns.
Source: Lavin & Gray 2016 (arXiv:1509.09308).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...dims import DimLike, product
from ...window import Window
from .depthwise import window_halo
from .emitter import I32, I64, Emitter, V
from .epilogue import Tail
from .kernel import kernel
from .lanes import vectors
from .lowering import Epilogue, Ref, Site
from .operand import Operand
from .target import Target

BOUND = 5e-5
_FAR = 4 << 20
"""Bytes of weights beyond which they come from far away."""
_UNROLL = 2
_TRAINED = 8
"""Images that are expected where their number is symbolic and the weights change."""

_G = {
    2: ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    4: (
        (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6), (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6), (0, 0, 1),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class _Blocking:
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
class _Winograd:
    x: Operand
    y: Operand
    low: tuple[int, int]
    high: tuple[int, int]
    blocking: _Blocking
    part: str
    epilogue: Epilogue | None


class _Sizes:
    """What follows from the parameters, in elements."""

    def __init__(self, p: _Winograd, target: Target) -> None:
        self.m = p.blocking.m
        self.a = self.m + 2
        self.lanes = target.lanes(p.x.dtype)
        self.line = 64 // p.x.dtype.itemsize
        self.channels, self.filters = int(p.x.shape[1]), int(p.y.shape[1])
        self.down, self.across = (-(-int(d) // self.m) for d in p.y.shape[2:])
        self.total: DimLike = p.y.shape[0] * (self.down * self.across)
        self.panel = p.blocking.group * self.lanes
        self.v_row = _odd_lines(self.channels, self.line)
        self.v_one = _odd_lines(p.blocking.tiles * self.v_row, self.line)
        self.m_row = p.blocking.groups * self.panel
        self.m_one = _odd_lines(p.blocking.tiles * self.m_row, self.line)
        self.u_one = _odd_lines(p.blocking.groups * self.panel * self.channels, self.line)
        self.v_size, self.m_size = self.a**2 * self.v_one, self.a**2 * self.m_one
        self.middle = self.a**2 * self.lanes
        self.blocks: DimLike = -(-self.total // p.blocking.tiles)
        self.pieces = -(-p.blocking.tiles // _PIECE)


def _odd_lines(elements: int, line: int) -> int:
    """Round up to an odd number of cache lines, so that rows do not compete for the same sets."""
    lines = -(-elements // line)
    return (lines | 1) * line


def suits(x: Any, w: Any, win: Window, size: Sequence[DimLike]) -> bool:
    """Whether a convolution x * w with outputs of this spatial size can be done so at all."""
    fixed = (*x.shape[1:], *w.shape, *size, *(p for pads in win.pads for p in pads))
    return (
        x.dtype == w.dtype
        and x.dtype in (np.float32, np.float64)
        and x.ndim == 4
        and x.shape[0] != 0
        and all(isinstance(d, int) for d in fixed)
        and tuple(w.shape[2:]) == (3, 3)
        and win.group == 1
        and tuple(win.strides) == tuple(win.dilations) == (1, 1)
        and all(0 <= p <= 2 for pads in win.pads for p in pads)
    )


def lower_winograd(site: Site) -> bool:
    """Lower `conv`; whether it pays is for the caller to ask (`winograd_wins`)."""
    x, w, win = site.types[0], site.types[1], site.attrs["win"]
    if site.exact or not suits(x, w, win, site.result.shape[2:]):
        return False
    _lower(site, win, int(x.shape[1]), int(w.shape[0]), gradient=False)
    return True


def lower_winograd_input_grad(site: Site) -> bool:
    """Lower `conv_input_grad`: the convolution of g with the weights turned by 180 degrees, C and F swapped."""
    g, w, win = site.types[0], site.types[1], site.attrs["win"]
    if site.exact or not suits(g, w, win, site.result.shape[2:]):
        return False
    turned = Window((1, 1), tuple((2 - lo, 2 - hi) for lo, hi in win.pads), (1, 1))
    if turned.out(g.shape[2:], (3, 3)) != tuple(site.result.shape[2:]):
        return False
    _lower(site, turned, int(w.shape[0]), int(w.shape[1]), gradient=True)
    return True


def _lower(site: Site, win: Window, channels: int, filters: int, *, gradient: bool) -> None:
    halo = window_halo(site.types[0].shape[2:], (3, 3), win)
    x, out = site.read(0, order="channels_last", halo=halo), site.write(order="channels_last")
    n, _, height, width = out.operand.shape
    dtype, size = x.operand.dtype, x.operand.dtype.itemsize
    images = n if isinstance(n, int) else 1 if site.hoistable(1) else _TRAINED
    cut = choose_blocking(site.target, size, channels, filters, int(height), int(width), images)
    low, high = ((int(p[0]), int(p[1])) for p in zip(*win.pads, strict=True))
    p = _Winograd(x.operand, out.operand, low, high, cut, "", None)
    s = _Sizes(p, site.target)
    u = _weights(site, p, s, gradient)

    def call(part: str, refs: list[Ref], chunks: DimLike, flops: DimLike, elements: DimLike, scratch: int) -> None:
        last = part in ("fused", "output")
        code = replace(p, part=part, epilogue=site.epilogue if last else None)
        refs = [*refs, *site.epilogue_refs] if last else refs
        site.call(
            kernel(
                f"winograd {part}", emit_winograd, code, operands=len(refs), chunks=chunks, scratch=scratch * size,
                flops=flops, bytes=elements * size,
            ),
            refs,
        )  # fmt: skip

    flops = 2 * s.a**2 * s.total * channels * filters
    source, result, weights = product(x.operand.shape), product(out.operand.shape), product(u.operand.shape)
    if not cut.share:
        moved = source + result + weights
        call("fused", [x, out, u], s.blocks, flops, moved, s.middle + s.v_size + s.m_size)
        return
    v, m = site.temporary(dtype, (s.blocks, s.v_size)), site.temporary(dtype, (s.blocks, s.m_size))
    v_all, m_all = product(v.operand.shape), product(m.operand.shape)
    call("input", [x, v], s.blocks * s.pieces, 0, source + v_all, s.middle)
    call("products", [v, m, u], s.blocks * (s.a**2 // cut.share), flops, v_all + m_all + weights, 0)
    call("output", [m, out], s.blocks * s.pieces, 0, m_all + result, s.middle)


# how to cut the work -------------------------------------------------------------------------------------------------

# (tiles, vectors of filters) whose sums, weights and one more fit in that many registers.
_REGISTER_TILES = {
    32: ((6, 4), (5, 4), (4, 4), (9, 3), (8, 3), (10, 2), (8, 2), (14, 2), (14, 1)),
    16: ((4, 3), (6, 2), (5, 2), (4, 2)),
}  # fmt: skip
_TRANSFORMS = {2: (100, 80), 4: (360, 270)}
"""What transforming one vector of a tile costs, in and out, in products of vectors."""
_STREAM = 14
"""Products of vectors that take as long as 64 bytes from the far caches."""
_CHUNKS = 7
"""From how many blocks on a block is a chunk."""
_SHARE = 2_000_000
_PIECE = 8
"""Tiles that a chunk transforms where this is a kernel of its own."""


def winograd_wins(
    target: Target, dtype: Any, channels: int, filters: int, height: DimLike, width: DimLike, batch: DimLike = 1,
    gain: float = 1,
) -> bool:  # fmt: skip
    """Return whether a 3x3 convolution with outputs of this size is faster so than directly.

    `gain` is how much faster than one of float32 the direct convolution is. Costs are in products of vectors, of which
    a direct kernel makes nearly as many as the core can.
    """
    if not (isinstance(height, int) and isinstance(width, int)) or min(channels, filters) < 8:
        return False
    size = np.dtype(dtype).itemsize
    vectors_ = -(-filters // (target.vector_bits // (8 * size)))
    images = batch if isinstance(batch, int) else 1
    direct: int = 9 * channels * vectors_ * height * width * images
    costs = [_cost(target, size, m, channels, filters, height, width, images) for m in (2, 4)]
    return min(costs) < direct / (1.1 * gain)


def _cost(
    target: Target, size: int, m: int, channels: int, filters: int, height: int, width: int, images: int
) -> float:
    cut = _blocking(target, size, m, channels, filters, height, width, images)
    lanes = target.vector_bits // (8 * size)
    tiles = -(-height // m) * -(-width // m) * images
    each = min(cut.tiles, tiles)
    padded = cut.groups * cut.group
    u = (m + 2) ** 2 * channels * padded
    stream = _STREAM * lanes * size / 64 if u * lanes * size > _FAR else 0
    products = tiles / each * u * max(1.08 * -(-each // cut.step) * cut.step, stream)
    into, out = _TRANSFORMS[m]
    return products + tiles * (into * -(-channels // lanes) + out * -(-filters // lanes))


def choose_blocking(
    target: Target, size: int, channels: int, filters: int, height: int, width: int, images: int
) -> _Blocking:  # fmt: skip
    """Return how to cut the work on outputs of this size; `size` is of an element, in bytes."""
    sizes = (channels, filters, height, width, images)
    m = min((4, 2), key=lambda m: _cost(target, size, m, *sizes))
    return _blocking(target, size, m, *sizes)


def _blocking(
    target: Target, size: int, m: int, channels: int, filters: int, height: int, width: int, images: int
) -> _Blocking:  # fmt: skip
    lanes = target.vector_bits // (8 * size)
    vectors_ = -(-filters // lanes)
    tiles = max(1, -(-height // m) * -(-width // m) * images)
    u = (m + 2) ** 2 * channels * vectors_ * lanes * size
    most = 18 if u <= 600_000 else 32 if u <= 2_400_000 else 56
    if tiles >= 24 * _CHUNKS:
        most = min(most, -(-tiles // _CHUNKS))
    blocks = -(-tiles // most)
    each = -(-tiles // blocks)

    def cost(tile: tuple[int, int]) -> float:
        step, group = tile
        loads = (step + group) / 2
        busy = max(step * group / 2, loads, 4) + loads / 4
        if channels * group * lanes * size > 1 << 15:  # the weights of one product leave the first cache
            busy += 0.3 * group
        return -(-each // step) * -(-vectors_ // group) * busy * (1.06 if step * group > 24 else 1)

    step, group = min(_REGISTER_TILES[32 if target.registers >= 32 else 16], key=cost)
    groups = -(-vectors_ // group)
    share = 0
    if blocks < _CHUNKS:
        one = max(1, 2 * channels * vectors_ * lanes * each)
        shares = (1, 2, 3, 4, 6, 9, 12, 18) if m == 4 else (1, 2, 4, 8)
        share = next((d for d in shares if d * one > _SHARE), 0)
    return _Blocking(m, -(-each // step) * step, step, group, groups, share)


# code ----------------------------------------------------------------------------------------------------------------


def emit_winograd(e: Emitter, p: _Winograd) -> None:
    """Write one of the kernels.

    Operands: `fused` x, y, U, those of the epilogue; `input` x, V; `products` V, M, U; `output` M, y, those of the
    epilogue.
    """
    s, cut, dtype = _Sizes(p, e.target), p.blocking, p.x.dtype
    total = e.mul(p.y.shape[0], s.down * s.across)
    blocks = e.ceil_div(total, cut.tiles)
    if p.part == "fused":
        first = e.mul(e.chunk, cut.tiles)
        count = e.min(cut.tiles, e.sub(total, first))
        v, m = e.at(e.scratch, s.middle, dtype), e.at(e.scratch, s.middle + s.v_size, dtype)
        _transform_input(e, p, s, v, e.scratch, first, 0, count)
        with e.loop(0, s.a**2) as loop:
            _multiply(e, p, s, v, m, e.pointer(2), loop.index, count)
        _transform_output(e, p, s, m, e.scratch, 3, first, 0, count)
        return
    if p.part == "products":  # products of one number follow each other: they share weights
        number, block = e.unravel(e.chunk, (s.a**2 // cut.share, blocks))
    else:
        block, number = e.unravel(e.chunk, (blocks, s.pieces))
    first = e.mul(block, cut.tiles)
    count = e.min(cut.tiles, e.sub(total, first))
    low = e.mul(number, _PIECE)
    high = e.min(e.add(low, _PIECE), count)
    if p.part == "input":
        v = e.at(e.pointer(1), e.mul(block, s.v_size), dtype)
        _transform_input(e, p, s, v, e.scratch, first, low, high)
    elif p.part == "output":
        m = e.at(e.pointer(0), e.mul(block, s.m_size), dtype)
        _transform_output(e, p, s, m, e.scratch, 2, first, low, high)
    else:
        v, m = (e.at(e.pointer(i), e.mul(block, size), dtype) for i, size in ((0, s.v_size), (1, s.m_size)))
        each = e.mul(number, cut.share)
        with e.loop(each, e.add(each, cut.share)) as loop:
            _multiply(e, p, s, v, m, e.pointer(2), loop.index, count)


def _transform_input(e: Emitter, p: _Winograd, s: _Sizes, v: V, middle: V, first: V, low: Any, high: V) -> None:
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
                for i, value in enumerate(_input(e, values)):
                    e.store(value, e.at(to, i * a * s.lanes, dtype), dtype)
            with e.loop(0, a) as row:
                at = e.at(middle, e.mul(row.index, a * s.lanes), dtype)
                to = e.at(there, e.mul(row.index, a * s.v_one), dtype)
                values = [e.load(e.at(at, j * s.lanes, dtype), dtype, lanes) for j in range(a)]
                for j, value in enumerate(_input(e, values)):
                    e.store(value, e.at(to, j * s.v_one, dtype), dtype)


def _transform_output(
    e: Emitter, p: _Winograd, s: _Sizes, m: V, middle: V, operand: int, first: V, low: Any, high: V
) -> None:  # fmt: skip
    """Transform back, columns into `middle`, then its rows; the epilogue's operands begin at number `operand`."""
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
            here, there = e.at(source, k, dtype), tail.moved(1, k)
            with e.loop(0, a) as column:
                at = e.at(here, e.mul(column.index, s.m_one), dtype)
                values = [e.load(e.at(at, i * a * s.m_one, dtype), dtype, lanes) for i in range(a)]
                to = e.at(middle, e.mul(column.index, s.lanes), dtype)
                for i, value in enumerate(_output(e, values)):
                    e.store(value, e.at(to, i * a * s.lanes, dtype), dtype)
            with e.loop(0, rows) as row:
                at = e.at(middle, e.mul(row.index, a * s.lanes), dtype)
                to = there.moved(2, row.index)
                values = _output(e, [e.load(e.at(at, j * s.lanes, dtype), dtype, lanes) for j in range(a)])
                for j in range(left):
                    to.store(values[j], (0, 0, 0, j), lanes, mask)
                if left < s.m:  # what hangs over the last column is not stored
                    with e.when(e.b.icmp_signed("<", place[1], I64(s.across - 1))):
                        for j in range(left, s.m):
                            to.store(values[j], (0, 0, 0, j), lanes, mask)


def _multiply(e: Emitter, p: _Winograd, s: _Sizes, v: V, m: V, u: V, number: V, count: V) -> None:
    """Write M[i] = V[i] U[i] of number i."""
    dtype, cut = p.x.dtype, p.blocking
    panel = s.channels * s.panel
    v, m = e.at(v, e.mul(number, s.v_one), dtype), e.at(m, e.mul(number, s.m_one), dtype)
    u = e.at(u, e.mul(number, s.u_one), dtype)
    with e.loop(0, cut.groups) as group, e.loop(0, e.ceil_div(count, cut.step)) as step:
        tile = e.mul(step.index, cut.step)
        weights, rows = e.at(u, e.mul(group.index, panel), dtype), e.at(v, e.mul(tile, s.v_row), dtype)
        out = e.at(m, e.add(e.mul(tile, s.m_row), e.mul(group.index, s.panel)), dtype)
        _micro(e, p, s, rows, weights, out, e.add(panel, e.mul(step.index, _ahead(cut, s))))


def _ahead(cut: _Blocking, s: _Sizes) -> int:
    """Return how much of the next weights a step asks for, in elements of what it multiplies in one iteration."""
    lines = _UNROLL * s.panel // s.line
    return -(-lines // (cut.tiles // cut.step)) * s.line


def _micro(e: Emitter, p: _Winograd, s: _Sizes, rows: V, weights: V, out: V, ahead: V) -> None:
    """Write `step` tiles by `group` vectors of one product of matrices, summed in registers.

    Meanwhile the weights of the next product come nearer, from `ahead` behind these: each step asks for a part.
    """
    dtype, (count, group), lanes = p.x.dtype, (p.blocking.step, p.blocking.group), s.lanes
    unroll = _UNROLL
    coming = e.at(weights, ahead, dtype)

    def products(low: V, depth: int, sums: list[V]) -> list[V]:
        sums = list(sums)
        row, weight = e.at(rows, low, dtype), e.at(weights, e.mul(low, s.panel), dtype)
        if depth == unroll and s.a**2 * s.channels * s.filters * p.x.dtype.itemsize > _FAR:
            for i in range(0, _ahead(p.blocking, s), s.line):
                e.prefetch(e.at(e.at(coming, e.mul(low, s.panel), dtype), i, dtype), 2)
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


def _input(e: Emitter, d: list[V]) -> list[V]:
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


def _output(e: Emitter, m: list[V]) -> list[V]:
    """Return A' m."""
    b, k = e.b, functools.partial(_constant, e, m[0].type)
    if len(m) == 4:
        return [b.fadd(b.fadd(m[0], m[1]), m[2]), b.fsub(b.fsub(m[1], m[2]), m[3])]
    s1, d1, s2, d2 = b.fadd(m[1], m[2]), b.fsub(m[1], m[2]), b.fadd(m[3], m[4]), b.fsub(m[3], m[4])
    return [
        b.fadd(b.fadd(m[0], s1), s2), e.fma(d2, k(2), d1), e.fma(s2, k(4), s1), b.fadd(e.fma(d2, k(8), d1), m[5])
    ]  # fmt: skip


# weights -------------------------------------------------------------------------------------------------------------


def _weights(site: Site, p: _Winograd, s: _Sizes, gradient: bool) -> Ref:
    """Return U as (a a, groups, C, vectors of filters)."""
    code = _WeightsCode(p.x.dtype, p.blocking, s.channels, s.filters, s.u_one, gradient)
    made = kernel("winograd weights", emit_weights, code, operands=2, chunks=p.blocking.groups * _parts(code))
    shape = (s.a**2, s.u_one)
    if site.hoistable(1):
        return site.prepared(site.origin(1, plain=True), [made], p.x.dtype, shape)
    source, out = site.read(1, order="plain"), site.temporary(p.x.dtype, shape)
    site.call(made, [source, out])
    return out


@dataclass(frozen=True)
class _WeightsCode:
    dtype: Any
    blocking: _Blocking
    channels: int
    filters: int
    stride: int
    gradient: bool


def _parts(p: _WeightsCode) -> int:
    return -(-p.channels // 64)


def emit_weights(e: Emitter, p: _WeightsCode) -> None:
    """Write the transformation of weights (F, C, 3, 3), of a gradient (C, F, 3, 3), into U."""
    cut, dtype, lanes, a = p.blocking, p.dtype, e.target.lanes(p.dtype), p.blocking.m + 2
    along, across = (9, p.filters * 9) if p.gradient else (p.channels * 9, 9)
    number, part = e.unravel(e.chunk, (cut.groups, _parts(p)))
    panel = cut.group * lanes
    first = e.mul(number, panel)
    out = e.at(e.pointer(1), e.mul(first, p.channels), dtype)
    low = e.mul(part, 64)
    with e.loop(low, e.min(e.add(low, 64), p.channels)) as channel, e.loop(0, cut.group) as group:
        begin = e.add(first, e.mul(group.index, lanes))
        source = e.at(e.pointer(0), e.mul(channel.index, across), dtype)
        taps: list[V] = [e.zero(dtype, lanes)] * 9
        for lane in range(lanes):
            k = e.add(begin, lane)
            if p.filters % panel:
                k = e.min(k, p.filters - 1)  # what is behind the last filter is never stored
            at = e.at(source, e.mul(k, along), dtype)
            for t in range(9):
                value = e.load(e.at(at, 8 - t if p.gradient else t, dtype), dtype)
                taps[t] = e.b.insert_element(taps[t], value, I32(lane))
        columns = [_times(e, _G[cut.m], taps[j::3]) for j in range(3)]
        there = e.at(out, e.add(e.mul(channel.index, panel), e.mul(group.index, lanes)), dtype)
        for i in range(a):
            for j, value in enumerate(_times(e, _G[cut.m], [column[i] for column in columns])):
                e.store(value, e.at(there, (i * a + j) * p.stride, dtype), dtype)


def _times(e: Emitter, matrix: Sequence[Sequence[float]], vector: list[V]) -> list[V]:
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
