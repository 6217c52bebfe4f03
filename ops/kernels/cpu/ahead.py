"""Asking for memory before its turn comes, a piece at a time, while a core is busy with products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...dims import DimLike
from .emitter import Emitter, V
from .operand import Operand

_LINE = 64


def lines_of(elements: int, dtype: Any) -> int:
    """Return over how many cache lines so many elements reach that begin with one."""
    return int(-(-elements * np.dtype(dtype).itemsize // _LINE))


def ask(
    e: Emitter, base: V, dtype: Any, lines: int, first: V, count: int, place: Callable[[V], V], *, locality: int = 3,
    write: bool = False,
) -> None:  # fmt: skip
    """Ask for some of the cache lines of rows.

    Args:
        e: the emitter.
        base: where rows are counted from.
        dtype: of the elements.
        lines: of a row.
        first: the first of the lines that are asked for, of those of all rows.
        count: how many.
        place: how many elements behind `base` a row lies.
        locality: 3 for the first cache, 2 for the second.
        write: whether they are to be written.
    """
    for i in range(count):
        line = e.add(first, i)
        inside = e.mul(e.mod(line, lines), _LINE // np.dtype(dtype).itemsize)
        e.prefetch(e.at(base, e.add(place(e.div(line, lines)), inside), dtype), locality, write=write)


@dataclass(frozen=True)
class Tiles:
    """Square tiles of images, in a row: by image, down, across.

    Attributes:
        size: how far apart they begin.
        grid: images, tiles down and across.
        count: how many of them are asked for while a block of products is computed.
        turns: in so many turns.
    """

    size: int
    grid: tuple[DimLike, int, int]
    count: int
    turns: int


@dataclass(frozen=True)
class Ahead:
    """A channels-last tensor whose tiles are asked for.

    Attributes:
        pointer: its first element's address, at the first of the channels.
        channels: how many of them.
        rows: of a tile.
        low: rows and columns of zeros before the image.
        seen: how many pixels of a row belong to the tile before, too.
        first: the tile with which a block begins.
    """

    e: Emitter
    tiles: Tiles
    operand: Operand
    pointer: V
    channels: int
    rows: int
    first: V
    low: Sequence[int] = (0, 0)
    seen: int = 0

    def row(self, turn: V) -> PixelRow:
        """Return the row of pixels whose turn it is."""
        e, o, tiles = self.e, self.operand, self.tiles
        row = e.div(e.mul(turn, tiles.count * self.rows), tiles.turns)
        images, down, across = tiles.grid
        tile = e.min(e.add(self.first, e.div(row, self.rows)), e.sub(e.mul(images, down * across), 1))
        image, *place = e.unravel(tile, tiles.grid)
        y = e.add(e.mul(place[0], tiles.size), e.mod(row, self.rows), -self.low[0])
        x = e.add(e.mul(place[1], tiles.size), self.seen - self.low[1])
        steps = zip((image, y, x), (o.strides[0], *o.strides[2:]), strict=True)
        begin = e.at(self.pointer, e.add(*(e.mul(i, step) for i, step in steps)), o.dtype)
        return PixelRow(e, o, begin, lines_of(self.channels, o.dtype), tiles.size)


@dataclass(frozen=True)
class PixelRow:
    """So many pixels from an address on, of so many cache lines each."""

    e: Emitter
    operand: Operand
    begin: V
    lines: int
    pixels: int

    def ask(self, i: V, step: int, count: Any) -> None:
        """Ask for the share of steps i to i + step of `count`."""
        e, o, lines = self.e, self.operand, self.lines * self.pixels
        first = e.div(e.mul(i, lines), count)
        ask(
            e, self.begin, o.dtype, self.lines, first, -(-lines * step // count),
            lambda pixel: e.mul(pixel, o.strides[3]), locality=2,
        )  # fmt: skip
