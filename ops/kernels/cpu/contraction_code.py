"""The code of a contraction: loops over panels, lines and tiles around a tile that stays in registers.

The innermost loop also asks for what comes from afar: B of the next panel, A and B of the next step of the loops around
all tiles, and what a tile reads and writes in the end.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from ...dims import Dim, DimLike, Shape, product
from ...types import DType
from .ahead import ask, lines_of
from .byte_products import Products, arithmetic
from .emitter import I64, Emitter, V
from .epilogue import Tail
from .lowering import Epilogue
from .operand import Operand
from .tiling import NEAR, Chunking, Tile, guess, spare_tiles, tiles_of

_UNROLL = 48
"""About so many products of vectors are written out."""
_FAR = 2 << 20
"""So many bytes that are read and written in the end do not stay near."""
_SHALLOW = 1024
"""Where the innermost loop is longer, what a tile reads and writes in the end takes little time beside it."""
_TURN = 2
"""The innermost loop asks once in so many turns."""
_SHORT = 100
"""Where it is shorter, that is asked for while the tile before is computed."""


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
        streams: whether tiles ask for the A and B of the next step of the hoisted loops, as they come from afar.
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
    streams: bool = False


def over(a: DimLike, c: int) -> DimLike:
    return (a + (c - 1)) // c


def counts(c: Contraction, lanes: int) -> tuple[DimLike, DimLike, DimLike]:
    """Return the numbers of lines, tiles a line (at most so many) and panels."""
    last = c.grid[-1]
    before = c.grid[-2] if len(c.grid) > 1 else 1
    lines = product(c.grid[:-2]) * over(before, c.tile.rows)
    tiles: DimLike = (
        last // c.tile.columns + spare_tiles(c.tile) if isinstance(last, Dim) else sum(tiles_of(c.tile, last))
    )
    return lines, tiles, over(c.columns, c.tile.vectors * lanes)


def emit(e: Emitter, c: Contraction) -> None:
    """Write the kernel."""
    _Writer(e, c).write()


@dataclass(frozen=True)
class _Place:
    """Where a tile is: addresses of A and B, coordinates of its first row and column, and room for its sums.

    `ahead` is the part of the next panel of B that it asks for. `turns` are the numbers of the panel and the tile
    within the chunk; they say for which part it asks of what several tiles share. `tail` is where it asks for what it
    reads and writes in the end.
    """

    a: V
    b: V
    coordinates: list[V]
    first: V
    masks: list[V] | None
    columns: int
    slot: V
    ahead: V | None = None
    turns: tuple[V, V] = (None, None)
    tail: Tail | None = None


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
        self.share, self.asks = self._share(), self._asks()
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

    def _asks(self) -> bool:
        """Return whether the innermost loop asks for what a tile reads and writes in the end, as it is far away."""
        c = self.c
        tensors = 1 + (len(c.epilogue.operands) if c.epilogue else 0)
        far = guess(product((*c.grid, c.columns))) * self.itemsize * tensors > _FAR
        return far and isinstance(c.depth, int) and c.depth <= _SHALLOW and not isinstance(c.columns, Dim)

    def write(self) -> None:
        e, c = self.e, self.c
        lines, tiles, panels = self._line_count(), self._tile_counts(), e.ceil_div(c.columns, self.width)
        if isinstance(c.columns, int):
            panels = I64(-(-c.columns // self.width))
        most: Any = counts(c, self.lanes)[1]
        if isinstance(most, Dim):
            most = e.add(e.div(self.grid[-1], c.tile.columns), spare_tiles(c.tile))
        sizes = (c.chunking.panels, c.chunking.lines, c.chunking.tiles)
        groups = [self._groups(n, size) for n, size in zip((panels, lines, most), sizes, strict=True)]
        places = e.unravel(e.chunk, groups)
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
            turns = e.sub(panel, low[0]), e.add(e.mul(e.sub(line, low[1]), c.chunking.tiles), tile[0])
            body(_Place(a, b, [*outer, tile[1]], first, masks, columns, slot, ahead, turns))

        self._tiles(tiles, low[2], high[2], write)

    def _whole(self, t: _Place) -> None:
        """Write all of a tile."""
        zeros = [self.e.zero(self.c.dtype, self.lanes)] * (self.c.tile.rows * t.columns * self.c.tile.vectors)
        if self.asks:
            t = replace(t, tail=self._tail([*t.coordinates, t.first]))
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
                return self._depth(t, places, e.at(t.b, b_at, c.dtype), sums, masks, ahead)
            with e.loop(0, taps[0].count, carry=sums) as loop:
                inner_a = e.add(a, e.mul(loop.index, taps[0].a))
                inner_b = e.add(b_at, e.mul(loop.index, taps[0].b))
                loop.next(tap(taps[1:], inner_a, inner_b, loop.carried))
            return loop.results

        return tap(taps, *self.block, sums)

    def _depth(
        self, t: _Place, rows: list[tuple[V, int]], b: V, sums: list[V], masks: list[V] | None, ahead: V | None
    ) -> list[V]:  # fmt: skip
        """Write the innermost loop."""
        e, c = self.e, self.c
        depth, unroll = c.depth, 2 if 2 * len(sums) >= _UNROLL else 4

        def loop(low: Any, high: Any, step: int, sums: list[V]) -> list[V]:
            with e.loop(low, high, step, carry=sums) as k:
                with self._now(k.index, step, depth) as steps:
                    if ahead is not None:
                        at = e.at(ahead, e.b.lshr(e.mul(k.index, self.width), I64(self.share)), c.dtype)
                        line = 64 // self.itemsize
                        for i in range(max(1, steps * self.width // line >> (self.share or 0))):
                            e.prefetch(e.at(at, i * line, c.dtype), 2)
                    if c.streams:
                        self._stream(t, rows[0], b, k.index, steps)
                    if t.tail is not None:
                        self._ask(t, t.tail, rows[0], k.index, steps)
                k.next(self._steps(rows, b, k.index, step, k.carried, masks))
            return k.results

        if isinstance(depth, int):
            step = max(1, min(unroll, depth))
            whole = depth // step * step
            sums = loop(0, whole, step, sums)
            return self._steps(rows, b, I64(whole), depth - whole, sums, masks)
        most = e.mul(e.div(e.dim(depth), unroll), unroll)
        sums = loop(0, most, unroll, sums)
        with e.loop(most, depth, carry=sums) as k:
            k.next(self._steps(rows, b, k.index, 1, k.carried, masks))
        return k.results

    @contextmanager
    def _now(self, k: V, step: int, depth: DimLike) -> Iterator[int]:
        """Enter where it is time to ask, and yield for how many steps.

        The branch keeps what is asked for out of the block of the products: beside it the compiler loads more at once
        than there are registers for.
        """
        often = isinstance(depth, Dim) or depth % (_TURN * step) or step & (step - 1)
        if often:
            yield step
            return
        e = self.e
        turn = e.b.icmp_signed("==", e.b.and_(k, I64(_TURN * step - 1)), I64(0))
        with e.b.if_then(turn, likely=False):
            yield _TURN * step

    def _stream(self, t: _Place, row: tuple[V, int], b: V, k: V, steps: int) -> None:
        """Ask for what the next step of the hoisted loops reads of A and B here: each panel, each tile for a part."""
        e, c = self.e, self.c
        tap = c.taps[c.hoisted - 1]
        first_row = e.at(row[0], row[1], c.dtype)
        sides = (
            (first_row, tap.a, c.a_depth, c.tile.columns, t.turns[0], c.chunking.panels),
            (b, tap.b, c.b_depth, self.width, t.turns[1], c.chunking.lines * c.chunking.tiles),
        )
        for base, move, step, wide, turn, count in sides:
            share = count.bit_length() - 1
            lines = lines_of(wide, c.dtype)
            first = e.mul(e.b.lshr(e.add(k, e.mul(turn, c.depth)), I64(share)), lines)
            then = e.at(base, move, c.dtype)
            ask(
                e, then, c.dtype, lines, first, max(1, steps >> share) * lines,
                functools.partial(e.mul, step), locality=2,
            )  # fmt: skip

    def _ask(self, t: _Place, tail: Tail, row_of_a: tuple[V, int], k: V, steps: int) -> None:
        """Ask for a share of what a tile reads and writes in the end, and of A of the next tile."""
        e, c, columns = self.e, self.c, t.columns
        rows, depth = c.tile.rows * columns, int(c.depth)
        for o, place in ((c.output, tail.place), *zip(tail.operands, tail.places, strict=True)):
            if o.strides[-1] != 1 or o.strides[-2] == 0:
                continue
            if depth < _SHORT:
                place = e.at(place, e.mul(columns, o.strides[-2]), o.dtype)

            def row(i: V, steps: Shape = o.strides) -> V:
                if c.tile.rows == 1:
                    return e.mul(i, steps[-2])
                return e.add(e.mul(e.div(i, columns), steps[-3]), e.mul(e.mod(i, columns), steps[-2]))

            lines = lines_of(self.width, o.dtype)
            first, each = e.div(e.mul(k, rows * lines), depth), -(-rows * lines * steps // depth)
            ask(e, place, o.dtype, lines, first, each, row, write=o is c.output)
        if self._apart():
            lines, step = lines_of(depth, c.dtype), self.a_grid[-1]
            first, each = e.div(e.mul(k, rows * lines), depth), -(-rows * lines * steps // depth)
            # The first panel's tiles bring it near, for the others it is there.
            ahead = e.b.select(e.b.icmp_signed("==", t.turns[0], I64(0)), e.mul(columns, step), I64(0))
            ahead = e.at(row_of_a[0], e.add(ahead, row_of_a[1]), c.dtype)
            ask(e, ahead, c.dtype, lines, first, each, lambda i: e.mul(i, step), locality=2)

    def _apart(self) -> bool:
        """Whether the rows of A that tiles read lie behind each other, and none is read by two of a line."""
        c, step = self.c, self.a_grid[-1]
        if c.a_depth != 1 or c.tile.rows > 1 or isinstance(step, Dim):
            return False
        near = [t for t in c.taps if isinstance(t.a, int) and isinstance(t.count, int) and abs(t.a) < step]
        return int(c.depth) + sum(abs(int(t.a)) * (int(t.count) - 1) for t in near) <= step

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
