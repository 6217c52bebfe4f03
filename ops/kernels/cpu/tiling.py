"""How a contraction is cut: the tile that stays in registers, and the pieces that threads share.

Both are chosen by estimates of cycles and of bytes that come from afar, from sizes alone.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from ...dims import Dim, DimLike, Shape
from ...types import DType
from .target import Target

_L1 = 32 << 10
NEAR = 640 << 10
"""What stays close to a core while it works."""
_SHORT = 60e3
"""Cycles below which handing out a chunk starts to matter."""
_SUMS = 192 << 10
"""How much room the sums of a chunk may take."""
_LONG = 28
"""From which size on an axis has tiles of its own."""
_TALL = 1.05
"""How much longer it takes where a tile is of several rows that could be of one."""
_ALIAS = 4096
"""Rows of A this many bytes apart compete for one set of a first-level cache."""
_WAYS = 10
"""How many of them get on."""
_MOST = 1 << 20


@dataclass(frozen=True)
class Tile:
    """What stays in registers: `rows` x `columns` places of the last two grid axes, times vectors of columns.

    Attributes:
        rest: if not 0, what is left behind the last whole tile of the last axis is done in tiles of so many columns
            where fewer than half of a tile are left. At most `columns`: where a whole tile fits, a small one does.
    """

    rows: int
    columns: int
    vectors: int
    rest: int = 0


@dataclass(frozen=True)
class Chunking:
    """How much of the work a chunk does: lines (rows of tiles), tiles of a line, panels of columns."""

    lines: int
    tiles: int
    panels: int


def guess(d: DimLike) -> int:
    """Return a size, with 1 for what only run time knows."""
    return d.evaluate(dict.fromkeys(d.symbols(), 1)) if isinstance(d, Dim) else int(d)


def tiles_of(tile: Tile, last: int) -> tuple[int, int]:
    """Return how many whole tiles and how many small ones cover an axis."""
    left = last % tile.columns
    if tile.rest and left and left <= tile.columns // 2:
        return last // tile.columns, -(-left // tile.rest)
    return -(-last // tile.columns), 0


def most_rows(target: Target, vectors: int) -> int:
    """Return how many rows a tile of this many vectors may have so that all fits into the registers."""
    spare = vectors + (0 if vectors == 1 and target.masks else 1) + (0 if target.fma else 1)
    return max(1, min(28, (target.registers - spare) // vectors))


def _cycles(rows: int, vectors: int, deep: int, lanes: int, fma: bool, most: int = _MOST) -> float:
    """Return the time of one tile, in cycles of a core that multiplies, and loads, two vectors in each."""
    arithmetic = rows * vectors / 2 * (1 if fma else 2)
    loads = 1.05 * (rows + vectors) / 2
    if rows > most:
        arithmetic *= 1.08
    far = 2 * vectors if deep * vectors * lanes * 4 > _L1 else 0
    return deep * max(arithmetic + far / 10, loads, far, 4) + 2 * rows * vectors + 60


def spare_tiles(tile: Tile) -> int:
    """Return how many small tiles, or single columns, there may be on an axis whose size only run time knows."""
    return max(-(-(tile.columns - 1) // tile.rest), tile.rest - 1)


def merged(grid: Shape, *strides: Shape) -> tuple[Shape, list[Shape]]:
    """Return a grid with its sizes of 1 left out and its axes merged where they lie behind each other for everyone.

    Args:
        grid: sizes.
        strides: for each tensor, one an axis.
    """
    axes: list[tuple[DimLike, tuple[DimLike, ...]]] = []  # innermost first
    for i in reversed(range(len(grid))):
        size, steps = grid[i], tuple(s[i] for s in strides)
        if size == 1:
            continue
        inner, inner_steps = axes[-1] if axes else (1, ())
        # A long axis of known size has better tiles alone than as a part of one that only run time knows.
        apart = isinstance(size, Dim) and not isinstance(inner, Dim) and inner >= _LONG
        if axes and not apart and all(o == s * inner for o, s in zip(steps, inner_steps, strict=True)):
            axes[-1] = size * inner, inner_steps
        else:
            axes.append((size, steps))
    axes = axes[::-1] or [(1, (0,) * len(strides))]
    return tuple(a[0] for a in axes), [tuple(a[1][i] for a in axes) for i in range(len(strides))]


def pick_tile(
    target: Target, lanes: int, grid: Shape, columns: DimLike, deep: DimLike, vectors: int = 0, *, ways: int = _MOST
) -> Tile:
    """Return the tile of least estimated time for this many rows and columns; see `best_tile`."""
    return best_tile(target, lanes, grid, columns, deep, vectors, ways=ways)[1]


@functools.lru_cache(4096)
def best_tile(
    target: Target, lanes: int, grid: Shape, columns: DimLike, deep: DimLike, vectors: int = 0, *, ways: int = _MOST
) -> tuple[float, Tile]:
    """Return the least estimated time for this many rows and columns, in cycles, and its tile.

    Args:
        target: what CPU it is for.
        lanes: of a vector.
        grid: sizes of the axes of rows.
        columns: how many.
        deep: how many products an element sums.
        vectors: of a tile; 0 for any.
        ways: how many rows get on in the cache.
    """
    depth, wide = max(1, guess(deep)), columns if isinstance(columns, int) else 1 << 20
    last, before = (grid[-1], grid[-2] if len(grid) > 1 else 1) if 0 not in grid else (1, 1)
    best: tuple[float, Tile] | None = None
    for v in (vectors,) if vectors else (1, 2, 3, 4):
        most = most_rows(target, v)
        panels = -(-wide // (v * lanes))

        def offer(cycles: float, tile: Tile, panels: int = panels) -> None:
            nonlocal best
            total = cycles * panels
            if best is None or total < best[0]:
                best = total, tile

        if isinstance(last, Dim):
            # 197 rows stand for any number: overlap costs half a tile in the mean.
            offer((1 + 197 / most) * _cycles(most, v, depth, lanes, target.fma, ways), Tile(1, most, v, min(4, most)))
            continue
        for c in reversed(range(1, min(most, last) + 1)):
            tall = 1 if isinstance(before, Dim) else min(most // c, before)
            for r in range(1, tall + 1):
                times = -(-last // c) * (1 if isinstance(before, Dim) else -(-before // r))
                apart = _TALL if r > 1 and last >= _LONG else 1  # what lies in a row comes from afar together
                offer(apart * times * _cycles(r * c, v, depth, lanes, target.fma, ways), Tile(r, c, v))
            left = last % c
            if c > 8 and 0 < left <= c // 2:
                cost = last // c * _cycles(c, v, depth, lanes, target.fma, ways)
                cost += -(-left // 4) * _cycles(4, v, depth, lanes, target.fma, ways)
                offer(1.02 * cost * (1 if isinstance(before, Dim) else before), Tile(1, c, v, 4))
    assert best is not None
    return best


def panel_vectors(
    target: Target, dtype: DType, grid: Shape, columns: DimLike, deep: DimLike, a_grid: Shape | None = None
) -> int:
    """Return how many vectors wide the panels of B should be.

    Args:
        target: what CPU it is for.
        dtype: of the elements.
        grid: sizes of the axes of rows.
        columns: how many.
        deep: how many products an element sums.
        a_grid: how far A moves along the axes of rows, if that is known.
    """
    ways = _MOST
    if a_grid is not None:
        grid, (a_grid,) = merged(grid, a_grid)
        ways = room(dtype, a_grid[-1])
    return pick_tile(target, target.lanes(dtype), grid, columns, deep, ways=ways).vectors


def room(dtype: DType, a_step: DimLike) -> int:
    """Return how many rows of A, this many elements apart, get on in a first-level cache."""
    if isinstance(a_step, Dim) or a_step == 0:
        return _MOST
    return _WAYS * (_ALIAS // math.gcd(a_step * np.dtype(dtype).itemsize, _ALIAS))


def pick_chunking(
    tile: Tile, lanes: int, itemsize: int, *, lines: int, tiles: int, panels: int, deep: int, block: int, seen: int,
    batched: bool, hoisted: bool, open_ended: bool,
) -> Chunking:  # fmt: skip
    """Return how the work splits: into pieces that are long enough to be worth handing out and reread little.

    Args:
        tile: what stays in registers.
        lanes: of a vector.
        itemsize: bytes of an element.
        lines: rows of tiles.
        tiles: of a line.
        panels: of columns.
        deep: how many products an element sums.
        block: how many of them between two visits of a tile.
        seen: how many tiles see an element of A, as neighbouring windows overlap.
        batched: whether lines have B of their own.
        hoisted: whether sums are kept in scratch.
        open_ended: whether only run time knows how long a line is.
    """
    rows = tile.rows * tile.columns
    cycles = _cycles(rows, tile.vectors, deep, lanes, True)
    slot = rows * tile.vectors * lanes * itemsize
    panel_bytes, tile_bytes = deep * tile.vectors * lanes * itemsize, rows * deep * itemsize // seen
    places = {(1, n) for n in _shares(tiles)}
    if not open_ended:
        places |= {(n, tiles) for n in _shares(lines)}
    best: tuple[float, Chunking] | None = None
    for line_share, tile_share in places:
        for share in _shares(panels):
            mine = line_share * tile_share
            if hoisted and mine * share * slot > _SUMS and mine * share > 1:
                continue
            chunks = -(-lines // line_share) * -(-tiles // tile_share) * -(-panels // share)
            # What a chunk reads comes from afar once, or once a panel (once a tile) where it does not stay near.
            a_bytes = mine * tile_bytes
            near = (a_bytes + panel_bytes) * block / deep <= NEAR
            moved = a_bytes * (1 if near else share)
            moved += panel_bytes * share * (line_share if batched else 1 if near or panel_bytes <= NEAR else mine)
            alone = mine * share * cycles
            # Hanging over at the end costs a part of a chunk; handing out a chunk costs a little.
            cost = chunks * (alone + 0.05 * moved + 2000) * (1 + 2 / max(chunks, 2))
            if alone < _SHORT:
                cost *= 1 + (_SHORT - alone) / (10 * _SHORT)
            if best is None or (cost, line_share, tile_share) < (best[0], best[1].lines, best[1].tiles):
                best = cost, Chunking(line_share, tile_share, share)
    assert best is not None
    return best[1]


def _shares(n: int) -> list[int]:
    """Return the sizes of a share where n things split as evenly as they can."""
    return sorted({-(-n // k) for k in range(1, n + 1)})
