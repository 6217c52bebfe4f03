"""The register-tiled contraction: convolutions, products of matrices and their gradients are all this kernel.

    C[g, n] = sum over taps t and k of  A[a(g) + a(t) + k * a_depth] * B[b(g) + b(t) + panel(n) + k * b_depth + n]

where g runs over a grid of rows (images and pixels, or batches and rows of a matrix). A tile of P rows and V vectors of
columns stays in registers while k runs; each element of A is broadcast, each vector of B is used P times. The last tile
along a grid axis is shifted back and overlaps its neighbour: what is computed twice has the same bits, and so an output
must not share memory with an input, those of the epilogue included.

Source: Goto & van de Geijn 2008 (the register tile); Georganas et al. 2018 (direct convolutions as small products).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from ...dims import Dim, DimLike, Shape, product
from ...types import DType
from .byte_products import Products, arithmetic
from .emitter import I64, Emitter, V
from .epilogue import Tail
from .kernel import Kernel, kernel
from .lowering import Epilogue
from .operand import Operand
from .target import Target
from .tiling import (
    NEAR,
    Chunking,
    Tile,
    guess,
    merged,
    pick_chunking,
    pick_tile,
    room,
    spare_tiles,
    tiles_of,
)  # fmt: skip

_UNROLL = 48
"""About so many products of vectors are written out."""
_BLOCK = 1024
"""A deeper innermost loop than this is split."""


@dataclass(frozen=True)
class Tap:
    """A loop around the innermost one: how often, and how far A and B move each time."""

    count: DimLike
    a: DimLike
    b: DimLike


@dataclass(frozen=True)
class Contraction:
    """What the code of a contraction depends on.

    Attributes:
        grid: sizes of the axes of rows.
        columns: how many.
        depth: how often the innermost loop runs.
        taps: the loops around it, outermost first.
        a_start: A's first element, counted from its address.
        a_grid: how far A moves along each axis of the grid.
        a_depth: how far A moves each time.
        b_grid: how far B moves along each axis of the grid; not 0 for outer axes only.
        b_depth: how far B moves each time.
        b_panel: how far apart its panels of `vectors` vectors lie.
        b_whole: whether B may be read behind the last column, up to whole vectors.
        output: how C lies, with axes (*grid, columns).
        epilogue: its operands have these axes too.
        b_start: B's first element, counted from its address.
        starts: the first elements of C and the epilogue's operands, counted from their addresses.
        hoisted: how many of the outermost taps are loops around all tiles of a chunk; sums are kept in scratch between,
            so that what a chunk reads of A and B meanwhile stays in the cache.
        products: what is multiplied: floats, pairs of bfloat16 that are elements of float32, or groups of four bytes
            that are elements of int32.
    """

    dtype: DType
    grid: Shape
    columns: DimLike
    depth: DimLike
    taps: tuple[Tap, ...]
    a_start: DimLike
    a_grid: Shape
    a_depth: DimLike
    b_grid: Shape
    b_depth: DimLike
    b_panel: DimLike
    b_whole: bool
    output: Operand
    epilogue: Epilogue | None
    tile: Tile
    chunking: Chunking
    starts: tuple[DimLike, ...]
    b_start: DimLike = 0
    hoisted: int = 0
    products: Products = "floats"


def contraction(
    name: str, target: Target, *, dtype: DType, columns: DimLike, depth: DimLike, taps: Sequence[Tap], a_start: DimLike,
    grid: Shape, a_grid: Shape, a_depth: DimLike, b_grid: Shape, b_depth: DimLike, b_panel: DimLike, output: Operand,
    epilogue: Epilogue | None, vectors: int, b_whole: bool = True, starts: tuple[DimLike, ...] = (),
    b_start: DimLike = 0, hoisted: int | None = None, products: Products = "floats",
) -> Kernel:  # fmt: skip
    """Return the kernel; its operands are A, B, C and those of the epilogue.

    Args:
        name: of the kernel.
        target: what CPU it is for.
        dtype: of the elements.
        columns: how many.
        depth: how often the innermost loop runs.
        taps: the loops around it.
        a_start: A's first element.
        grid: sizes of the axes of rows.
        a_grid: how far A moves along them.
        a_depth: how far A moves each time.
        b_grid: how far B moves along the axes of rows.
        b_depth: how far B moves each time.
        b_panel: how far apart panels lie.
        output: how C lies, (*grid, columns).
        epilogue: its operands have these axes too.
        vectors: of a panel of B, from `tiling.panel_vectors`.
        b_whole: whether B may be read behind the last column.
        starts: first elements of C and the epilogue's operands; () for 0.
        b_start: B's first element.
        hoisted: how many taps are loops around all tiles of a chunk; None to choose.
        products: what is multiplied.
    """
    operands = [output, *(epilogue.operands if epilogue else ())]
    grid, (a_grid, b_grid, *rest) = merged(grid, a_grid, b_grid, *(o.strides[:-1] for o in operands))
    if b_grid[-1] != 0:  # rows of one tile share their B
        grid, a_grid, b_grid, rest = (*grid, 1), (*a_grid, 0), (*b_grid, 0), [(*r, 0) for r in rest]
    slack = output.slack
    shaped = [
        replace(o, shape=(*grid, columns), strides=(*s, o.strides[-1]), halo=(), slack=0)
        for o, s in zip(operands, rest, strict=True)
    ]
    output = replace(shaped[0], slack=slack)
    if epilogue:
        epilogue = replace(epilogue, operands=tuple(shaped[1:]))
    if not hoisted:
        taps = tuple(t for t in taps if t.count != 1)
    lanes = target.lanes(dtype)
    deep = product((depth, *(t.count for t in taps)))
    tall = len(grid) > 1 and b_grid[-2] == 0
    tile = pick_tile(target, lanes, grid if tall else grid[-1:], columns, deep, vectors, ways=room(dtype, a_grid[-1]))
    itemsize = np.dtype(dtype).itemsize
    block = depth_block(depth) if not taps and not any(isinstance(d, Dim) for d in (a_depth, b_depth)) else 0
    if block:
        assert isinstance(depth, int)
        taps, depth = (Tap(depth // block, block * a_depth, block * b_depth),), block
    if hoisted is None:
        hoisted = int(bool(block) or (bool(taps) and guess(deep) * vectors * lanes * itemsize > NEAR // 2))
    params = Contraction(
        np.dtype(dtype), grid, columns, depth, tuple(taps), a_start, a_grid, a_depth, b_grid, b_depth,
        b_panel, b_whole, output, epilogue, tile, Chunking(1, 1, 1),
        starts or (0,) * len(shaped), b_start, hoisted, products,
    )  # fmt: skip
    params = replace(params, chunking=_chunking(params, lanes))
    lines, tiles, panels = _counts(params, lanes)
    c = params.chunking
    chunks = _over(lines, c.lines) * _over(tiles, c.tiles) * _over(panels, c.panels)
    slots = c.lines * c.tiles * c.panels if hoisted else 1
    scratch = slots * tile.rows * tile.columns * tile.vectors * lanes * itemsize
    work = 2 * product(grid) * columns * deep * (2 if products == "bfloat16" else 1)
    moved = itemsize * (product(grid) * columns + product(grid) * depth + deep * columns)
    return kernel(
        name, emit, params, operands=3 + len(shaped) - 1, chunks=chunks, scratch=scratch, flops=work, bytes=moved
    )


def depth_block(depth: DimLike) -> int:
    """Return into pieces of which length a deep loop splits, 0 for none."""
    if isinstance(depth, Dim) or depth <= _BLOCK:
        return 0
    for pieces in range(2, 2 * -(-depth // _BLOCK)):
        if depth % pieces == 0 and depth // pieces <= _BLOCK:
            return depth // pieces
    return 0


def _over(a: DimLike, c: int) -> DimLike:
    return (a + (c - 1)) // c


def _counts(c: Contraction, lanes: int) -> tuple[DimLike, DimLike, DimLike]:
    """Return the numbers of lines, tiles a line (at most so many) and panels."""
    last = c.grid[-1]
    before = c.grid[-2] if len(c.grid) > 1 else 1
    lines = product(c.grid[:-2]) * _over(before, c.tile.rows)
    tiles: DimLike = (
        last // c.tile.columns + spare_tiles(c.tile) if isinstance(last, Dim) else sum(tiles_of(c.tile, last))
    )
    return lines, tiles, _over(c.columns, c.tile.vectors * lanes)


def _chunking(c: Contraction, lanes: int) -> Chunking:
    lines, tiles, panels = (max(1, guess(d)) for d in _counts(c, lanes))
    open_ended = isinstance(c.grid[-1], Dim)
    return pick_chunking(
        c.tile, lanes, np.dtype(c.dtype).itemsize, lines=lines, tiles=max(tiles, 8) if open_ended else tiles,
        panels=max(panels, 4) if isinstance(c.columns, Dim) else panels,
        deep=max(1, guess(product((c.depth, *(t.count for t in c.taps))))),
        block=max(1, guess(product((c.depth, *(t.count for t in c.taps[c.hoisted :]))))),
        seen=1 if c.hoisted else 2 * len(c.taps) + 1, batched=any(b != 0 for b in c.b_grid), hoisted=c.hoisted > 0,
        open_ended=open_ended,
    )  # fmt: skip


# code -----------------------------------------------------------------------------------------------------------------


def emit(e: Emitter, c: Contraction) -> None:
    """Write the kernel."""
    _Writer(e, c).write()


@dataclass(frozen=True)
class _Place:
    """Where a tile is: addresses of A and B, coordinates of its first row and column, and room for its sums.

    `ahead` is the part of the next panel of B that it asks for.
    """

    a: V
    b: V
    coordinates: list[V]
    first: V
    masks: list[V] | None
    columns: int
    slot: V
    ahead: V | None = None


TileBody: TypeAlias = Callable[[_Place], None]


class _Writer:
    """Writes one contraction: loops over panels, lines and tiles, then the tile."""

    def __init__(self, e: Emitter, c: Contraction) -> None:
        self.e, self.c = e, c
        self.arithmetic = arithmetic(e, c.products)
        self.lanes = e.target.lanes(c.dtype)
        self.itemsize = np.dtype(c.dtype).itemsize
        self.width = c.tile.vectors * self.lanes
        self.grid = (1, *c.grid) if len(c.grid) == 1 else c.grid
        extra = len(self.grid) - len(c.grid)
        self.a_grid = (*(0,) * extra, *c.a_grid)
        self.b_grid = (*(0,) * extra, *c.b_grid)
        self.extra = extra
        self.a, self.b, self.out = (e.pointer(i) for i in range(3))
        self.slot = c.tile.rows * c.tile.columns * self.width
        self.block: tuple[Any, Any] = (0, 0)
        self.share = self._share()
        # Whether whole vectors may be stored everywhere.
        columns = c.columns
        room = columns + c.output.slack if not c.epilogue or not c.epilogue.operands else columns
        self.partial = isinstance(columns, Dim) or -(-columns // self.width) * self.width > room
        self.masked = self.partial and e.target.masks

    def _share(self) -> int | None:
        """Return which part of the next panel a tile asks for, as a power of 2; None where B is near anyway."""
        c = self.c
        deep = product((c.depth, *(t.count for t in c.taps)))
        sizes = (deep, c.columns, c.b_depth, c.b_panel, *(t.b for t in c.taps))
        if any(isinstance(d, Dim) for d in sizes) or any(b != 0 for b in c.b_grid):
            return None
        if int(deep) * int(c.columns) * self.itemsize <= NEAR or int(c.columns) <= self.width:
            return None
        return (c.chunking.lines * c.chunking.tiles).bit_length() - 1

    def write(self) -> None:
        e, c = self.e, self.c
        lines, tiles, panels = self._line_count(), self._tile_counts(), e.ceil_div(c.columns, self.width)
        if isinstance(c.columns, int):
            panels = I64(-(-c.columns // self.width))
        most: Any = _counts(c, self.lanes)[1]
        if isinstance(most, Dim):
            most = e.add(e.div(self.grid[-1], c.tile.columns), spare_tiles(c.tile))
        counts, cuts = (panels, lines, most), (c.chunking.panels, c.chunking.lines, c.chunking.tiles)
        groups = [self._groups(n, size) for n, size in zip(counts, cuts, strict=True)]
        places = e.unravel(e.chunk, groups)
        sizes = (c.chunking.panels, c.chunking.lines, c.chunking.tiles)
        low = [e.mul(p, s) for p, s in zip(places, sizes, strict=True)]
        high = [e.add(at, s) for at, s in zip(low, sizes, strict=True)]
        panel_high = e.min(high[0], panels)
        line_high = e.min(high[1], lines)
        if not c.hoisted:
            self._lines(tiles, low, high, line_high, panel_high, self._whole)
            return
        slots = c.chunking.lines * c.chunking.tiles * c.chunking.panels
        with e.loop(0, slots * self.slot, self.lanes) as i:
            e.store(e.zero(c.dtype, self.lanes), e.at(e.scratch, i.index, c.dtype), c.dtype)

        def hoist(taps: Sequence[Tap], a: Any, b: Any) -> None:
            if not taps:
                self.block = a, b
                self._lines(tiles, low, high, line_high, panel_high, self._part)
                return
            with e.loop(0, taps[0].count) as t:
                hoist(taps[1:], e.add(a, e.mul(t.index, taps[0].a)), e.add(b, e.mul(t.index, taps[0].b)))

        hoist(c.taps[: c.hoisted], 0, 0)
        self._lines(tiles, low, high, line_high, panel_high, self._last)

    def _lines(
        self, tiles: list[tuple[int, V]], low: list[V], high: list[V], line_high: V, panel_high: V, body: TileBody
    ) -> None:
        e, c = self.e, self.c
        if any(b != 0 for b in c.b_grid):
            with e.loop(low[1], line_high) as line, e.loop(low[0], panel_high) as panel:
                self._line(line.index, panel.index, tiles, low, high, body)
        else:
            with e.loop(low[0], panel_high) as panel, e.loop(low[1], line_high) as line:
                self._line(line.index, panel.index, tiles, low, high, body)

    def _groups(self, count: Any, size: int) -> Any:
        if isinstance(count, int):
            return -(-count // size)
        known = getattr(count, "constant", None)
        return -(-int(known) // size) if known is not None else self.e.ceil_div(count, size)

    def _line_count(self) -> V:
        total: V = self._groups(self.e.index(self.grid[-2]), self.c.tile.rows)
        for d in self.grid[:-2]:
            total = self.e.mul(total, d)
        return self.e.index(total)

    def _tile_counts(self) -> list[tuple[int, V]]:
        """Return (columns of a tile, how many tiles) for each kind of tile that a line is made of."""
        e, tile, last = self.e, self.c.tile, self.grid[-1]
        if isinstance(last, int):
            whole, small = tiles_of(tile, last)
            return [(w, I64(n)) for w, n in ((tile.columns, whole), (tile.rest, small)) if n]
        size = e.dim(last)
        left = e.mod(size, tile.columns)
        full = e.div(size, tile.columns)
        many = e.b.icmp_signed(">", left, I64(tile.columns // 2))
        enough = e.b.icmp_signed(">=", size, I64(tile.columns))
        whole = e.b.select(e.b.and_(many, enough), e.add(full, 1), full)
        small = e.b.select(e.b.and_(many, enough), I64(0), e.ceil_div(left, tile.rest))
        tiny = e.b.icmp_signed("<", size, I64(tile.rest))
        return [
            (tile.columns, whole), (tile.rest, e.b.select(tiny, I64(0), small)), (1, e.b.select(tiny, size, I64(0))),
        ]  # fmt: skip

    def _tiles(self, kinds: list[tuple[int, V]], low: V, high: V, body: Callable[[tuple[V, V], int], None]) -> None:
        """Loop over the tiles [low, high) of a line; `body` is given (number in the chunk, first place), columns."""
        e = self.e
        before: Any = 0
        start: Any = 0
        for width, count in kinds:
            upto = e.add(before, count)
            first = low if before == 0 else e.max(low, before)
            with e.loop(first, e.min(high, upto)) as t:
                at = e.add(start, e.mul(e.sub(t.index, before) if before != 0 else t.index, width))
                at = e.min(at, e.sub(self.grid[-1], width)) if not self._exact(width) else at
                body((e.sub(t.index, low), at), width)
            start = e.add(start, e.mul(count, width))
            before = upto

    def _exact(self, width: int) -> bool:
        last = self.grid[-1]
        return width == 1 or (isinstance(last, int) and width == self.c.tile.columns and last % width == 0)

    def _coordinates(self, line: V) -> list[V]:
        """Return the coordinates of a line along all axes of the grid but the last."""
        e, tile = self.e, self.c.tile
        rows = self.grid[-2]
        count = e.ceil_div(rows, tile.rows) if isinstance(rows, Dim) else -(-rows // tile.rows)
        outer = e.unravel(line, (*self.grid[:-2], count))
        if tile.rows > 1:
            outer[-1] = e.mul(outer[-1], tile.rows)
            if rows % tile.rows:
                outer[-1] = e.min(outer[-1], rows - tile.rows)
        return outer

    def _offset(self, coordinates: Sequence[Any], strides: Sequence[Any]) -> V:
        return self.e.add(*(self.e.mul(x, s) for x, s in zip(coordinates, strides, strict=True) if s != 0))

    def _places(self, columns: int) -> list[tuple[int, int]]:
        return [(i, j) for i in range(self.c.tile.rows) for j in range(columns)]

    def _line(self, line: V, panel: V, tiles: list[tuple[int, V]], low: list[V], high: list[V], body: TileBody) -> None:
        """Write the tiles of a line, for one panel."""
        e, c = self.e, self.c
        outer = self._coordinates(line)
        b = e.at(self.b, e.add(c.b_start, self._offset(outer, self.b_grid[:-1]), e.mul(panel, c.b_panel)), c.dtype)
        first = e.mul(panel, self.width)
        masks = self._masks(first)
        a_line = e.at(self.a, e.add(c.a_start, self._offset(outer, self.a_grid[:-1])), c.dtype)
        number = e.add(e.mul(e.sub(panel, low[0]), c.chunking.lines), e.sub(line, low[1]))

        def write(tile: tuple[V, V], columns: int) -> None:
            a = e.at(a_line, e.mul(tile[1], self.a_grid[-1]), c.dtype)
            slot = e.scratch
            if c.hoisted:
                place = e.add(e.mul(number, c.chunking.tiles), tile[0])
                slot = e.at(slot, e.mul(place, self.slot), c.dtype)
            ahead = None
            if self.share is not None:
                part = e.add(e.mul(e.sub(line, low[1]), c.chunking.tiles), tile[0])
                size = c.taps[c.hoisted - 1].b if c.hoisted else c.b_panel
                ahead = e.at(b, e.add(c.b_panel, self.block[1], e.mul(part, int(size) >> self.share)), c.dtype)
            body(_Place(a, b, [*outer, tile[1]], first, masks, columns, slot, ahead))

        self._tiles(tiles, low[2], high[2], write)

    def _whole(self, t: _Place) -> None:
        """Write all of a tile."""
        zeros = [self.e.zero(self.c.dtype, self.lanes)] * (self.c.tile.rows * t.columns * self.c.tile.vectors)
        self._finish(t, self._sum(t, zeros, self.c.taps))

    def _part(self, t: _Place) -> None:
        """Write a tile's share of what is summed."""
        for k, x in zip(self._kept(t), self._sum(t, self._loaded(t), self.c.taps[self.c.hoisted :]), strict=True):
            self.e.store(x, k, self.c.dtype)

    def _last(self, t: _Place) -> None:
        """Write what becomes of a tile's sums."""
        self._finish(t, self._loaded(t))

    def _kept(self, t: _Place) -> list[V]:
        count = self.c.tile.rows * t.columns * self.c.tile.vectors
        return [self.e.at(t.slot, i * self.lanes, self.c.dtype) for i in range(count)]

    def _loaded(self, t: _Place) -> list[V]:
        return [self.e.load(k, self.c.dtype, self.lanes) for k in self._kept(t)]

    def _masks(self, first: V) -> list[V] | None:
        """Return which lanes of each vector of a panel exist, where some may not and someone wants to know."""
        e, c = self.e, self.c
        whole = isinstance(c.columns, int) and c.columns % self.width == 0
        if whole or not (self.masked or not c.b_whole):
            return None
        return [e.tail_mask(e.sub(c.columns, e.add(first, v * self.lanes)), self.lanes) for v in range(c.tile.vectors)]

    def _rows(self, base: V, places: list[tuple[int, int]]) -> list[tuple[V, int]]:
        """Return, for each row of a tile, an address and a constant distance from there."""
        e, c = self.e, self.c
        rows = []
        for i, j in places:
            at = self._offset((i, j), self.a_grid[-2:])
            constant = getattr(at, "constant", None)
            rows.append((e.at(base, at, c.dtype), 0) if constant is None else (base, int(constant)))
        return rows

    def _sum(self, t: _Place, sums: list[V], taps: Sequence[Tap]) -> list[V]:
        """Return a tile's sums, row by row, with what these taps add."""
        e, c = self.e, self.c
        rows, masks = self._rows(t.a, self._places(t.columns)), None if c.b_whole else t.masks

        begin = self.block[1]

        def tap(taps: Sequence[Tap], a: Any, b_at: Any, sums: list[V]) -> list[V]:
            if not taps:
                moved: dict[int, V] = {}
                for base, _ in rows:
                    if id(base) not in moved:
                        moved[id(base)] = e.at(base, a, c.dtype)
                ahead = t.ahead
                if ahead is not None and b_at is not begin:
                    ahead = e.at(ahead, e.b.lshr(e.sub(b_at, begin), I64(self.share)), c.dtype)
                places = [(moved[id(base)], k) for base, k in rows]
                return self._depth(places, e.at(t.b, b_at, c.dtype), sums, masks, ahead)
            with e.loop(0, taps[0].count, carry=sums) as loop:
                inner_a = e.add(a, e.mul(loop.index, taps[0].a))
                inner_b = e.add(b_at, e.mul(loop.index, taps[0].b))
                loop.next(tap(taps[1:], inner_a, inner_b, loop.carried))
            return loop.results

        return tap(taps, *self.block, sums)

    def _depth(self, rows: list[tuple[V, int]], b: V, sums: list[V], masks: list[V] | None, ahead: V | None) -> list[V]:
        """Write the innermost loop."""
        e, c = self.e, self.c
        depth, unroll = c.depth, 2 if 2 * len(sums) >= _UNROLL else 4
        if isinstance(depth, int):
            step = max(1, min(unroll, depth))
            whole: Any = depth // step * step
        else:
            step = unroll
            whole = e.mul(e.div(e.dim(depth), step), step)
        with e.loop(0, whole, step, carry=sums) as k:
            if ahead is not None:
                at = e.at(ahead, e.b.lshr(e.mul(k.index, self.width), I64(self.share)), c.dtype)
                line = 64 // self.itemsize
                for i in range(max(1, step * self.width // line >> (self.share or 0))):
                    e.prefetch(e.at(at, i * line, c.dtype), 2)
            k.next(self._steps(rows, b, k.index, step, k.carried, masks))
        sums = k.results
        if isinstance(depth, int):
            return self._steps(rows, b, I64(whole), depth - whole, sums, masks)
        with e.loop(whole, depth, carry=sums) as k:
            k.next(self._steps(rows, b, k.index, 1, k.carried, masks))
        return k.results

    def _steps(
        self, rows: list[tuple[V, int]], b: V, k: V, steps: int, sums: list[V], masks: list[V] | None
    ) -> list[V]:
        """Write some steps of the innermost loop, from k on."""
        e, c, sums = self.e, self.c, list(sums)
        if not steps:
            return sums
        a_step, b_step = (d if isinstance(d, int) else None for d in (c.a_depth, c.b_depth))
        bases: dict[tuple[int, int], V] = {}
        b_base = e.at(b, e.mul(k, c.b_depth), c.dtype)
        for u in range(steps):
            at = b_base if b_step is not None else e.at(b, e.mul(e.add(k, u), c.b_depth), c.dtype)
            moved = u * (b_step or 0)
            vectors = [self._load_b(at, moved + v * self.lanes, v, masks) for v in range(c.tile.vectors)]
            for p, (base, constant) in enumerate(rows):
                key = id(base), u if a_step is None else 0
                if key not in bases:
                    bases[key] = e.at(base, e.mul(e.add(k, key[1]), c.a_depth), c.dtype)
                distance = constant + u * (a_step or 0)
                value = self.arithmetic.left(e.splat(e.load(e.at(bases[key], distance, c.dtype), c.dtype), self.lanes))
                for v, vector in enumerate(vectors):
                    i = p * c.tile.vectors + v
                    sums[i] = self.arithmetic.add(sums[i], value, vector)
        return sums

    def _load_b(self, base: V, distance: int, v: int, masks: list[V] | None) -> V:
        e, c = self.e, self.c
        mask = masks[v] if masks is not None else None
        return self.arithmetic.right(e.load(e.at(base, distance, c.dtype), c.dtype, self.lanes, mask=mask))

    def _finish(self, t: _Place, sums: list[V]) -> None:
        """Store a tile."""
        e, c = self.e, self.c
        masks = t.masks if self.masked else None

        def store() -> None:
            tail = self._tail([*t.coordinates, t.first])
            for p, (i, j) in enumerate(self._places(t.columns)):
                for v in range(c.tile.vectors):
                    at = (*(0,) * (len(c.grid) - 2), i, j, v * self.lanes)[-len(c.grid) - 1 :]
                    tail.store(sums[p * c.tile.vectors + v], at, self.lanes, masks[v] if masks else None)

        if not self.partial or self.masked:
            store()
            return
        if isinstance(c.columns, int) and c.columns < self.width:
            self._finish_partial(t, sums)
            return
        whole = e.b.icmp_signed("<=", e.add(t.first, self.width), e.index(c.columns))
        with e.b.if_else(whole) as (then, otherwise):
            with then:
                store()
            with otherwise:
                self._finish_partial(t, sums)

    def _tail(self, coordinates: list[V]) -> Tail:
        c = self.c
        tail = Tail(self.e, c.output, self.out, c.epilogue, 3, coordinates[self.extra :], len(c.grid))
        tail.place = self.e.at(tail.place, c.starts[0], c.output.dtype)
        for i, (start, o) in enumerate(zip(c.starts[1:], tail.operands, strict=True)):
            tail.places[i] = self.e.at(tail.places[i], start, o.dtype)
        return tail

    def _finish_partial(self, t: _Place, sums: list[V]) -> None:
        """Store a tile of which some columns do not exist, through scratch, an element at a time where need be."""
        e, c = self.e, self.c
        for k, x in zip(self._kept(t), sums, strict=True):
            e.store(x, k, c.dtype)
        zeros = (0,) * (len(c.grid) + 1)
        left = e.sub(c.columns, t.first)
        with e.loop(0, c.tile.rows) as i, e.loop(0, t.columns) as j:
            row = e.add(e.mul(i.index, t.columns), j.index)
            base = e.at(t.slot, e.mul(row, self.width), c.dtype)
            place = [*t.coordinates[:-2], e.add(t.coordinates[-2], i.index), e.add(t.coordinates[-1], j.index)]
            whole = e.mul(e.div(left, self.lanes), self.lanes)
            with e.loop(0, whole, self.lanes) as n:
                tail = self._tail([*place, e.add(t.first, n.index)])
                tail.store(e.load(e.at(base, n.index, c.dtype), c.dtype, self.lanes), zeros, self.lanes)
            with e.loop(whole, left) as n:
                tail = self._tail([*place, e.add(t.first, n.index)])
                tail.store(e.load(e.at(base, n.index, c.dtype), c.dtype), zeros, 1)
