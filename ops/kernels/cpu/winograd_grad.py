"""The gradient of the weights of a 3x3 convolution of stride 1 by Winograd's minimal filtering, over channels last.

The adjoint of F(4x4, 3x3) in its weights: of a tile d of 6x6 inputs and the tile y of the 4x4 gradients of its outputs

    dg = G' [ (A y A') * (B' d B) ] G

Before G, sums over tiles are 36 products of matrices: filters x tiles by tiles x channels. A chunk of work has some
filters and some channels, and a share of the tiles. Blocks of tiles are transformed into D (36, tiles, filters) and V
(36, tiles, channels), which are multiplied at once and added to the sums, so that all stays in the second cache.

Where the image ends within a tile, y is 0. Errors are as large as those of `winograd`, NaN and infinities spread.

Axes: N batch, C channel, F filter, H and W rows and columns.
Source: Lavin & Gray 2016 (arXiv:1509.09308).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ...dims import DimLike, product
from ...types import TensorType
from ...window import Window
from .ahead import Ahead, PixelRow, Tiles
from .copy import copy_kernel
from .depthwise import window_halo
from .emitter import I64, Emitter, V
from .kernel import kernel
from .lanes import vectors
from .lowering import Site
from .operand import Operand
from .sum_parts import sum_parts
from .target import Target
from .winograd import TRAINED, suits
from .winograd_code import FILTER, input_, odd_lines, times

TILE, SIDE = 4, 6
"""Rows of outputs and of inputs of a tile."""
_NUMBERS = SIDE**2
_REGISTER_TILES = {
    32: ((14, 2), (13, 2), (12, 2), (11, 2), (10, 2), (9, 3), (8, 3), (7, 3), (6, 4), (5, 4), (22, 1), (16, 1), (8, 1)),
    16: ((6, 2), (5, 2), (4, 3), (4, 2), (8, 1), (6, 1)),
}  # fmt: skip
"""(filters, vectors of channels) whose sums, and what is multiplied, fit in that many registers."""
_WIDE = 256
"""Bytes of channels, and of filters, that a chunk has at most."""
_TILES = 16
"""Of a block."""
_CHUNKS = 16
"""How many are wanted."""
_INTO, _OUT = 230, 130
"""What transforming one vector of a tile of inputs, of gradients, costs in products of vectors."""
_SUMS = 1.15
"""What products cost, loading and storing sums included."""

Map: TypeAlias = Callable[[Emitter, list[V]], list[V]]
Column: TypeAlias = Callable[[V], list[V]]


@dataclass(frozen=True)
class Gradient:
    """What the code depends on.

    Attributes:
        g: the gradient of the output, (N, F, H, W).
        x: the input.
        low: rows and columns of zeros before the input.
        high: and behind it.
        filters: of a chunk.
        channels: of a chunk.
        rows: filters of a tile of sums that stays in registers.
        group: vectors of channels of that tile.
        parts: into how many shares tiles fall.
        tiles: of a block.
    """

    g: Operand
    x: Operand
    low: tuple[int, int]
    high: tuple[int, int]
    filters: int
    channels: int
    rows: int
    group: int
    parts: int
    tiles: int


class _Sizes:
    """What follows from the parameters, in elements."""

    def __init__(self, p: Gradient, target: Target) -> None:
        dtype = p.x.dtype
        self.lanes, self.line = target.lanes(dtype), 64 // dtype.itemsize
        self.all_filters, self.all_channels = int(p.g.shape[1]), int(p.x.shape[1])
        self.down, self.across = (-(-int(d) // TILE) for d in p.g.shape[2:])
        self.total: DimLike = p.g.shape[0] * (self.down * self.across)
        self.blocks = -(-self.all_filters // p.filters), -(-self.all_channels // p.channels)
        self.steps, self.groups = -(-p.filters // p.rows), -(-p.channels // (p.group * self.lanes))
        self.panel = p.group * self.lanes
        self.v_row = self.groups * self.panel
        self.d_row = -(-self.steps * p.rows // self.line) * self.line
        self.v_one, self.d_one = (odd_lines(p.tiles * row, self.line) for row in (self.v_row, self.d_row))
        self.sums = p.rows * self.panel
        self.u_one = odd_lines(self.steps * self.groups * self.sums, self.line)
        places = [_NUMBERS * one for one in (self.v_one, self.d_one, self.u_one)]
        self.places = [sum(places[:i]) for i in range(3)]
        self.nothing = sum(places)
        self.middle = self.nothing + self.d_row + self.line
        self.scratch = self.middle + _NUMBERS * self.lanes


def lower_winograd_weight_grad(site: Site) -> bool:
    """Lower `conv_weight_grad`; whether it pays is for the caller to ask (`grad_wins`)."""
    g_type, x_type = site.types
    win: Window = site.attrs["win"]
    shape = (g_type.shape[1], x_type.shape[1], *site.attrs["kernel"])
    if site.exact or not suits(x_type, TensorType(x_type.dtype, shape), win, g_type.shape[2:]):
        return False
    g = site.read(0, order="channels_last")
    x = site.read(1, order="channels_last", halo=window_halo(x_type.shape[2:], (3, 3), win))
    y = site.write(0, order="plain")
    dtype, (filters, channels) = x_type.dtype, (int(d) for d in shape[:2])
    images = x_type.shape[0] if isinstance(x_type.shape[0], int) else TRAINED
    tiles = -(-int(g_type.shape[2]) // TILE) * -(-int(g_type.shape[3]) // TILE) * images
    cut = _blocking(site.target, dtype.itemsize, filters, channels, tiles)
    low, high = ((int(a), int(b)) for a, b in zip(*win.pads, strict=True))
    p = Gradient(g.operand, x.operand, low, high, *cut)
    s = _Sizes(p, site.target)
    size = 9 * filters * channels
    made = kernel(
        "winograd weight gradient", emit_weight_grad, p, operands=3, chunks=p.parts * s.blocks[0] * s.blocks[1],
        scratch=s.scratch * dtype.itemsize, flops=2 * _NUMBERS * s.total * filters * channels,
        bytes=dtype.itemsize * (product(g_type.shape) + product(x_type.shape) + p.parts * size),
    )  # fmt: skip
    target = site.temporary(dtype, (filters, 3, 3, channels))
    sums = target if p.parts == 1 else site.temporary(dtype, (p.parts, filters, 3, 3, channels))
    site.call(made, [g, x, sums])
    if p.parts > 1:
        site.call(sum_parts(dtype, p.parts, size), [sums, target])
    source = Operand(dtype, (filters, channels, 3, 3), (9 * channels, 1, 3 * channels, channels))
    site.call(copy_kernel(source, y.operand, name="unpack filters"), [target, y])
    return True


def grad_wins(
    target: Target, dtype: Any, filters: int, channels: int, height: DimLike, width: DimLike, images: DimLike
) -> bool:
    """Return whether the gradient of the weights of a 3x3 convolution with this output is faster so than directly."""
    if not (isinstance(height, int) and isinstance(width, int)) or min(filters, channels) < 8:
        return False
    size = np.dtype(dtype).itemsize
    lanes = target.vector_bits // (8 * size)
    tiles = -(-height // TILE) * -(-width // TILE) * (images if isinstance(images, int) else 1)
    cost = _blocked(target, size, filters, channels)[0]
    # A direct kernel makes nearly as many products as the core can.
    direct: float = 9 * filters * -(-channels // lanes) * height * width * (images if isinstance(images, int) else 1)
    return cost * tiles + filters * channels < direct / 1.1


@functools.lru_cache(1024)
def _blocked(target: Target, size: int, filters: int, channels: int) -> tuple[float, tuple[int, int, int, int]]:
    """Return what a tile costs, and how many filters and channels a chunk and a tile of registers have."""
    lanes = target.vector_bits // (8 * size)
    most = max(lanes, _WIDE // size)
    f_blocks, c_blocks = -(-filters // most), -(-channels // most)
    mine = -(-filters // f_blocks)
    wide = min(channels, -(-channels // (c_blocks * lanes)) * lanes)
    vectors_ = -(-wide // lanes)

    def cost(tile: tuple[int, int]) -> float:
        rows, group = tile
        loads = (rows + group) / 2
        return -(-mine // rows) * -(-vectors_ // group) * max(rows * group / 2, loads, 4) * 2

    rows, group = min(_REGISTER_TILES[32 if target.registers >= 32 else 16], key=cost)
    each = _SUMS * _NUMBERS * cost((rows, group)) + _INTO * vectors_ + _OUT * -(-mine // lanes)
    return f_blocks * c_blocks * each, (mine, wide, rows, group)


def _blocking(
    target: Target, size: int, filters: int, channels: int, tiles: int
) -> tuple[int, int, int, int, int, int]:
    cut = _blocked(target, size, filters, channels)[1]
    blocks = -(-filters // cut[0]) * -(-channels // cut[1])
    parts = max(1, min(-(-_CHUNKS // blocks), tiles // (2 * _TILES)))
    share = -(-tiles // parts)
    return *cut, parts, share if _TILES < share <= 2 * _TILES else _TILES


# code ----------------------------------------------------------------------------------------------------------------


def emit_weight_grad(e: Emitter, p: Gradient) -> None:
    """Write the kernel."""
    s, dtype = _Sizes(p, e.target), p.x.dtype
    part, f_block, c_block = e.unravel(e.chunk, (p.parts, *s.blocks))
    f = _first(e, f_block, p.filters, s.all_filters)
    c = _first(e, c_block, p.channels, s.all_channels)
    share = e.ceil_div(s.total, p.parts)
    low = e.mul(part, share)
    high = e.min(e.add(low, share), s.total)
    v, d, u = (e.at(e.scratch, place, dtype) for place in s.places)
    nothing = e.at(e.scratch, s.nothing, dtype)
    with e.loop(0, s.d_row, s.lanes) as i:
        e.store(e.zero(dtype, s.lanes), e.at(nothing, i.index, dtype), dtype)
    with e.loop(low, e.max(high, e.add(low, 1)), p.tiles) as block:
        count = e.max(e.min(p.tiles, e.sub(high, block.index)), 0)
        with e.loop(0, count) as tile:
            image, *place = e.unravel(e.add(block.index, tile.index), (p.g.shape[0], s.down, s.across))
            begins = [e.mul(t, TILE) for t in place]
            _transform_input(e, p, s, e.at(v, e.mul(tile.index, s.v_row), dtype), image, begins, c)
            _transform_gradient(e, p, s, e.at(d, e.mul(tile.index, s.d_row), dtype), image, begins, f)
        later = e.min(e.sub(block.index, low), 1)
        ahead = _pixels(e, p, s, e.add(block.index, p.tiles), f, c)
        with e.loop(0, _NUMBERS) as number:
            one_v, one_d, one_u = (
                e.at(x, e.mul(number.index, one), dtype) for x, one in ((v, s.v_one), (d, s.d_one), (u, s.u_one))
            )
            with e.loop(0, s.groups) as group, e.loop(0, s.steps) as step:
                sums = e.at(one_u, e.mul(e.add(e.mul(group.index, s.steps), step.index), s.sums), dtype)
                rows = e.at(one_d, e.mul(step.index, p.rows), dtype)
                turn = e.add(e.mul(e.add(e.mul(number.index, s.groups), group.index), s.steps), step.index)
                panel = e.at(one_v, e.mul(group.index, s.panel), dtype)
                _multiply(e, p, s, rows, panel, sums, count, later, [a.row(turn) for a in ahead])
    _finish(e, p, s, u, part, f, c)


def _first(e: Emitter, block: V, size: int, total: int) -> V:
    """Return the first of a block's filters or channels; the last block is shifted back and overlaps its neighbour."""
    first = e.mul(block, size)
    return e.min(first, total - size) if total % size else first


def _transform_input(e: Emitter, p: Gradient, s: _Sizes, v: V, image: V, begins: list[V], c: V) -> None:
    """Write B' d B of a tile."""
    dtype, (row_step, column_step) = p.x.dtype, p.x.strides[2:]
    base = e.at(e.pointer(1), e.add(e.mul(image, p.x.strides[0]), c), dtype)

    def inside(axis: int, i: Any) -> V:
        """Return the place of element i of the tile; instead of what no output needs, the last there is."""
        tiles, end = (s.down, s.across)[axis], int(p.x.shape[2 + axis]) + p.high[axis]
        place = e.add(begins[axis], i, -p.low[axis])
        most = i if isinstance(i, int) else SIDE - 1
        return place if most < end - ((tiles - 1) * TILE - p.low[axis]) else e.min(place, end - 1)

    rows = [e.mul(inside(0, i), row_step) for i in range(SIDE)]

    def column(j: V, k: V, lanes: int, mask: V) -> list[V]:
        at = e.at(base, e.add(e.mul(inside(1, j), column_step), k), dtype)
        return [e.load(e.at(at, row, dtype), dtype, lanes, mask) for row in rows]

    for k, lanes, mask in vectors(e, dtype, p.channels):
        one = functools.partial(column, k=k, lanes=lanes, mask=mask)
        _transform(e, p, s, input_, SIDE, lanes, one, e.at(v, k, dtype), s.v_one)


def _transform_gradient(e: Emitter, p: Gradient, s: _Sizes, d: V, image: V, begins: list[V], f: V) -> None:
    """Write A y A' of a tile."""
    dtype, (row_step, column_step) = p.g.dtype, p.g.strides[2:]
    base = e.at(e.pointer(0), e.add(e.mul(image, p.g.strides[0]), f), dtype)
    nothing = e.at(e.scratch, s.nothing, dtype)

    def exists(axis: int, i: Any) -> V:
        size = int(p.g.shape[2 + axis])
        most = i if isinstance(i, int) else TILE - 1
        return e.b.icmp_signed("<", e.add(begins[axis], i), I64(size)) if most >= (size - 1) % TILE + 1 else None

    rows = [(e.mul(e.add(begins[0], i), row_step), exists(0, i)) for i in range(TILE)]

    def column(j: V, k: V, lanes: int, mask: V) -> list[V]:
        at, there = e.at(base, e.mul(e.add(begins[1], j), column_step), dtype), exists(1, j)
        values = []
        for row, is_row in rows:
            both = e.b.and_(there, is_row) if there is not None and is_row is not None else there or is_row
            place = e.at(at, row, dtype)
            place = place if both is None else e.b.select(both, place, nothing)
            values.append(e.load(e.at(place, k, dtype), dtype, lanes, mask))
        return values

    for k, lanes, mask in vectors(e, dtype, p.filters):
        one = functools.partial(column, k=k, lanes=lanes, mask=mask)
        _transform(e, p, s, gradient, TILE, lanes, one, e.at(d, k, dtype), s.d_one)


def _transform(
    e: Emitter, p: Gradient, s: _Sizes, one: Map, width: int, lanes: int, column: Column, out: V, apart: int
) -> None:  # fmt: skip
    """Transform the columns of a square of vectors, of which there are `width`, then its rows, into 36 numbers."""
    dtype, middle = p.x.dtype, e.at(e.scratch, s.middle, p.x.dtype)
    with e.loop(0, width) as j:
        to = e.at(middle, e.mul(j.index, s.lanes), dtype)
        for i, value in enumerate(one(e, column(j.index))):
            e.store(value, e.at(to, i * SIDE * s.lanes, dtype), dtype)
    with e.loop(0, SIDE) as row:
        at, to = e.at(middle, e.mul(row.index, SIDE * s.lanes), dtype), e.at(out, e.mul(row.index, SIDE * apart), dtype)
        for i, value in enumerate(one(e, [e.load(e.at(at, k * s.lanes, dtype), dtype, lanes) for k in range(width)])):
            e.store(value, e.at(to, i * apart, dtype), dtype)


def _pixels(e: Emitter, p: Gradient, s: _Sizes, first: V, f: V, c: V) -> list[Ahead]:
    """Return the pixels to ask for meanwhile, of the block that begins with this tile."""
    tiles = Tiles(TILE, (p.g.shape[0], s.down, s.across), p.tiles, _NUMBERS * s.groups * s.steps)
    g, x = e.at(e.pointer(0), f, p.g.dtype), e.at(e.pointer(1), c, p.x.dtype)
    return [
        Ahead(e, tiles, p.x, x, p.channels, SIDE, first, p.low, SIDE - TILE),
        Ahead(e, tiles, p.g, g, p.filters, TILE, first),
    ]


def _multiply(
    e: Emitter, p: Gradient, s: _Sizes, d: V, v: V, sums: V, count: V, later: V, pixels: list[PixelRow]
) -> None:  # fmt: skip
    """Add the products of a block's tiles to a tile of sums, which begin with 0 unless `later`.

    Meanwhile rows of pixels come nearer.
    """
    dtype, lanes = p.x.dtype, s.lanes
    kept = [e.at(sums, i * lanes, dtype) for i in range(p.rows * p.group)]
    with e.loop(0, later, carry=[e.zero(dtype, lanes)] * len(kept)) as start:
        start.next([e.load(k, dtype, lanes) for k in kept])

    def products(t: V, steps: int, totals: list[V]) -> list[V]:
        totals = list(totals)
        row, vector = e.at(d, e.mul(t, s.d_row), dtype), e.at(v, e.mul(t, s.v_row), dtype)
        for i in range(steps):
            right = [e.load(e.at(vector, i * s.v_row + g * lanes, dtype), dtype, lanes) for g in range(p.group)]
            for r in range(p.rows):
                left = e.splat(e.load(e.at(row, i * s.d_row + r, dtype), dtype), lanes)
                for g in range(p.group):
                    totals[r * p.group + g] = e.fma(left, right[g], totals[r * p.group + g])
        return totals

    whole = e.mul(e.div(count, 2), 2)
    with e.loop(0, whole, 2, carry=start.results) as loop:
        for row in pixels:
            row.ask(loop.index, 2, p.tiles)
        loop.next(products(loop.index, 2, loop.carried))
    with e.loop(whole, count, carry=loop.results) as rest:
        rest.next(products(rest.index, 1, rest.carried))
    for k, total in zip(kept, rest.results, strict=True):
        e.store(total, k, dtype)


def _finish(e: Emitter, p: Gradient, s: _Sizes, u: V, part: V, f: V, c: V) -> None:
    """Write G' U G."""
    dtype, turned = p.x.dtype, tuple(zip(*FILTER[TILE], strict=True))
    size = 9 * s.all_channels
    out = e.at(e.pointer(2), e.add(e.mul(part, s.all_filters * size), e.mul(f, size), c), dtype)
    with e.loop(0, p.filters) as filter_:
        step, row = e.div(filter_.index, p.rows), e.mod(filter_.index, p.rows)
        begin = e.at(u, e.add(e.mul(step, s.sums), e.mul(row, s.panel)), dtype)
        line = e.at(out, e.mul(filter_.index, size), dtype)
        for k, lanes, mask in vectors(e, dtype, p.channels):
            place = e.add(e.mul(e.div(k, s.panel), s.steps * s.sums), e.mod(k, s.panel))
            at = e.at(begin, place, dtype)
            columns = []
            for j in range(SIDE):
                values = [e.load(e.at(at, (i * SIDE + j) * s.u_one, dtype), dtype, lanes) for i in range(SIDE)]
                columns.append(times(e, turned, values))
            for i in range(3):
                for j, value in enumerate(times(e, turned, [column[i] for column in columns])):
                    e.store(value, e.at(line, e.add((3 * i + j) * s.all_channels, k), dtype), dtype, mask)


def gradient(e: Emitter, y: list[V]) -> list[V]:
    """Return A y."""
    b, k = e.b, functools.partial(e.constant, kind=y[0].type)
    even, odd = b.fadd(y[0], y[2]), b.fadd(y[1], y[3])
    even_, odd_ = e.fma(y[2], k(4), y[0]), e.fma(y[3], k(4), y[1])
    return [y[0], b.fadd(even, odd), b.fsub(even, odd), e.fma(odd_, k(2), even_), e.fma(odd_, k(-2), even_), y[3]]
