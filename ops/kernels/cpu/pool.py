"""Pooling over channels last: maxima, sums and means under a window, and where the maxima are.

Windows are clipped to the input: the taps along every axis but the last are a loop with bounds, and along the last one
too at the borders; between them a tile of pixels shares what it loads.

Axes: N batch, C channel, S input sizes, O output sizes, K kernel.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ir
import numpy as np

from ...dims import DimLike, product
from ...pool import Pads
from .emitter import I32, I64, Emitter, V, scalar_type
from .epilogue import Tail
from .kernel import kernel
from .lanes import planar, vectors
from .lowering import Demand, Epilogue, Ref, Site, lowers
from .operand import Operand

_CHUNK_BYTES = 500_000


@dataclass(frozen=True)
class _Pool:
    fold: str
    x: Operand
    y: Operand
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    low: tuple[DimLike, ...]
    dilations: tuple[int, ...]
    rows: int
    epilogue: Epilogue | None = None
    counted: Pads | None = None
    pitch: tuple[DimLike, ...] = ()


def _last(types: Sequence[Any], attrs: dict[str, Any]) -> dict[int, Demand]:
    return {0: Demand("channels_last")}


def _supported(site: Site) -> bool:
    x = site.types[0]
    fixed = (x.shape[1], *site.attrs["kernel"])
    real = x.dtype in (np.float32, np.float64)
    return real and all(isinstance(d, int) for d in fixed) and 3 <= x.ndim <= 6


def _parameters(site: Site, fold: str, x: Operand, y: Operand, **more: Any) -> _Pool:
    """Return the parameters; one spatial axis becomes two, of which the second has size 1."""
    win = site.attrs["win"]
    x, y = planar(x), planar(y)
    ones = (1,) * (x.ndim - 2 - len(win.strides))
    row = int(x.shape[1]) * x.dtype.itemsize * (x.shape[-1] if isinstance(x.shape[-1], int) else 32) * win.strides[0]
    rows = max(1, _CHUNK_BYTES // max(1, row))
    return _Pool(
        fold, x, y, (*(int(k) for k in site.attrs["kernel"]), *ones), (*win.strides, *ones),
        (*(lo for lo, _ in win.pads), *(0 for _ in ones)), (*win.dilations, *ones), rows, **more,
    )  # fmt: skip


def _call(site: Site, name: str, p: _Pool, refs: list[Ref]) -> None:
    size = p.x.dtype.itemsize
    total = product((p.y.shape[0], *p.y.shape[2:-1]))
    refs = [*refs, *site.epilogue_refs]
    moved = size * (product(p.x.shape) + product(p.y.shape))
    call = kernel(
        name, emit_pool, p, operands=len(refs), chunks=-(-total // p.rows),
        flops=product(p.kernel) * product(p.y.shape), bytes=moved,
    )  # fmt: skip
    site.call(call, refs)


def _epilogue(site: Site) -> Epilogue | None:
    found = site.epilogue
    if found is None:
        return None
    return Epilogue(found.expression, tuple(planar(o) for o in found.operands), found.dtype)


@lowers("max_pool", demand=_last, fuses=True)
def lower_max_pool(site: Site) -> bool:
    """Lower `max_pool`."""
    if not _supported(site):
        return False
    x, y = site.read(0, order="channels_last"), site.write(order="channels_last")
    p = _parameters(site, "max", x.operand, y.operand, epilogue=_epilogue(site))
    _call(site, "max_pool", p, [x, y])
    return True


@lowers("sum_pool", demand=_last, fuses=True)
def lower_sum_pool(site: Site) -> bool:
    """Lower `sum_pool`."""
    if not _supported(site):
        return False
    x, y = site.read(0, order="channels_last"), site.write(order="channels_last")
    counted = site.attrs.get("counted")
    if counted is not None and x.operand.ndim == 3:
        counted = (*counted, (0, 0))
    p = _parameters(site, "add", x.operand, y.operand, epilogue=_epilogue(site), counted=counted)
    _call(site, "sum_pool", p, [x, y])
    return True


@lowers("max_pool_indices", demand=_last)
def lower_max_pool_indices(site: Site) -> bool:
    """Lower `max_pool_indices`."""
    if not _supported(site):
        return False
    size = site.types[0].shape[2:]
    if isinstance(product(size), int) and product(size) >= 1 << 31:
        return False
    x, y = site.read(0, order="channels_last"), site.write(order="channels_last")
    rank = len(size)
    forward = site.attrs.get("column_major", False)
    pitch: list[DimLike] = [product(size[:i]) if forward else product(size[i + 1 :]) for i in range(rank)]
    p = _parameters(site, "where", x.operand, y.operand, pitch=(*pitch, *((0,) if rank == 1 else ())))
    _call(site, "max_pool_indices", p, [x, y])
    return True


# code ----------------------------------------------------------------------------------------------------------------


def emit_pool(e: Emitter, p: _Pool) -> None:
    """Write the kernel; operands x, y, those of the epilogue. A chunk is rows of the output, images one by one."""
    outer = [e.index(d) for d in (p.y.shape[0], *p.y.shape[2:-1])]
    total = functools.reduce(e.mul, outer)
    first = e.mul(e.chunk, p.rows)
    with e.loop(first, e.min(e.add(first, p.rows), total)) as loop:
        image, *rows = e.unravel(loop.index, outer)
        _Row(e, p, image, rows).write()


@dataclass(frozen=True)
class _Tile:
    """Output pixels of one row by one vector of channels.

    Attributes:
        at: the address of the first tap of the first pixel.
        begin: its column.
        count: how many pixels; None for one whose window may reach over the border.
        ranges: which taps, for the axes where the code loops over them.
        channel: the first.
        divisor: what a mean is divided by, or None.
    """

    at: V
    begin: V
    count: int | None
    ranges: list[tuple[V, V]]
    channel: V
    lanes: int
    mask: V
    divisor: V
    tail: Tail


class _Row:
    """One row of output pixels."""

    def __init__(self, e: Emitter, p: _Pool, image: V, rows: list[V]) -> None:
        self.e, self.p, self.image, self.rows = e, p, image, rows
        self.dtype, self.axes = p.x.dtype, len(rows)
        self.begins = [e.sub(e.mul(r, s), lo) for r, s, lo in zip(rows, p.strides, p.low, strict=False)]
        self.ranges = [self.taps(axis, begin) for axis, begin in enumerate(self.begins)]
        start = [e.mul(image, p.x.strides[0])]
        start += [e.mul(begin, p.x.strides[2 + axis]) for axis, begin in enumerate(self.begins)]
        self.x = e.at(e.pointer(0), e.add(*start), self.dtype)
        self.count = None
        if p.counted is not None:
            self.count = I64(1)
            for axis, begin in enumerate(self.begins):
                self.count = e.mul(self.count, self.counted(axis, begin))

    def taps(self, axis: int, begin: V, before: DimLike = 0, after: DimLike = 0) -> tuple[V, V]:
        """Return which taps of a window that begins here meet the input (and what is counted around it)."""
        p = self.p
        return window_taps(self.e, begin, p.x.shape[2 + axis], p.kernel[axis], p.dilations[axis], before, after)

    def counted(self, axis: int, begin: V) -> V:
        """Return how many taps count along an axis."""
        assert self.p.counted is not None
        low, high = self.taps(axis, begin, *self.p.counted[axis])
        return self.e.sub(high, low)

    def write(self) -> None:
        """Write the row: the border pixels one by one, those between in tiles."""
        e, p = self.e, self.p
        size, out = p.x.shape[-1], p.y.shape[-1]
        stride, low, dilation, taps = p.strides[-1], p.low[-1], p.dilations[-1], p.kernel[-1]
        reach = (taps - 1) * dilation + 1
        inside = 64
        if isinstance(size, int) and isinstance(out, int) and isinstance(low, int):
            first = I64(min(-(-max(low, 0) // stride), out))
            last = I64(max(int(first.constant), min((size + low - reach) // stride + 1, out)))
            inside = int(last.constant) - int(first.constant)
        else:
            first = e.min(e.ceil_div(e.max(low, 0), stride), out)
            room = e.add(size, low, stride - reach)
            last = e.max(first, e.min(e.div(e.max(room, 0), stride), out))
        most = 8 if e.target.registers >= 32 else 4
        most = most // 4 if p.fold == "where" else most
        tile = -(-inside // -(-inside // most)) if inside else 1
        if isinstance(last, ir.Constant):
            whole = I64(int(first.constant) + inside // tile * tile)
        else:
            whole = e.add(first, e.mul(e.div(e.sub(last, first), tile), tile))
        self.columns(0, first, None)
        self.columns(first, whole, tile)
        self.columns(whole, last, 1)
        self.columns(last, out, None)

    def columns(self, low: Any, high: Any, tile: int | None) -> None:
        """Write tiles of inner pixels, or with None border pixels."""
        e, p = self.e, self.p
        low, high = e.index(low), e.index(high)
        if isinstance(low, ir.Constant) and isinstance(high, ir.Constant) and low.constant >= high.constant:
            return
        with e.loop(low, high, tile or 1) as loop:
            begin = e.sub(e.mul(loop.index, p.strides[-1]), p.low[-1])
            at = e.at(self.x, e.mul(begin, p.x.strides[-1]), self.dtype)
            ranges = list(self.ranges)
            if tile is None:
                ranges.append(self.taps(self.axes, begin))
            divisor = None
            if self.count is not None:
                across = self.counted(self.axes, begin) if tile is None else I64(p.kernel[-1])
                number = e.max(e.mul(self.count, across), 1)
                divisor = e.b.sitofp(number, scalar_type(self.dtype))
            tail = Tail(e, p.y, e.pointer(1), p.epilogue, 2, (self.image, 0, *self.rows, loop.index), 1)
            fold = self.where if p.fold == "where" else self.fold
            for c, lanes, mask in vectors(e, self.dtype, int(p.x.shape[1])):
                fold(_Tile(e.at(at, c, self.dtype), begin, tile, ranges, c, lanes, mask, divisor, tail.moved(1, c)))

    def window(
        self, at: V, ranges: list[tuple[V, V]], carry: list[V], body: Callable[[V, list[V], list[V]], list[V]]
    ) -> list[V]:  # fmt: skip
        """Write loops over the taps of these axes around `body(address, taps, values) -> values`."""
        e, p = self.e, self.p

        def nest(axis: int, at: V, taps: list[V], values: list[V]) -> list[V]:
            if axis == len(ranges):
                return body(at, taps, values)
            with e.loop(*ranges[axis], carry=values) as loop:
                step = e.mul(p.dilations[axis], p.x.strides[2 + axis])
                there = e.at(at, e.mul(loop.index, step), self.dtype)
                loop.next(nest(axis + 1, there, [*taps, loop.index], loop.carried))
            return loop.results

        return nest(0, at, [], carry)

    def inner(self, tile: int | None) -> list[tuple[int, list[tuple[int, int]]]]:
        """Return (column, its uses as (pixel, tap)) along the last axis; a border pixel's loop has done it already."""
        p = self.p
        if tile is None:
            return [(0, [(0, 0)])]
        d, s, k = p.dilations[-1], p.strides[-1], p.kernel[-1]
        columns: dict[int, list[tuple[int, int]]] = {}
        for t in range(k):
            for pixel in range(tile):
                columns.setdefault(pixel * s + t * d, []).append((pixel, t))
        return sorted(columns.items())

    def fold(self, tile: _Tile) -> None:
        """Write the maxima or sums of a tile."""
        e, p, lanes, mask = self.e, self.p, tile.lanes, tile.mask
        start = -np.inf if p.fold == "max" else 0.0
        combine: Callable[[Emitter, V, V], V] = larger if p.fold == "max" else _add

        def body(row: V, taps: list[V], sums: list[V]) -> list[V]:
            sums = list(sums)
            for column, uses in self.inner(tile.count):
                v = e.load(e.at(row, e.mul(column, p.x.strides[-1]), self.dtype), self.dtype, lanes, mask)
                for pixel, _ in uses:
                    sums[pixel] = combine(e, sums[pixel], v)
            return sums

        none = e.constant(start, e.zero(self.dtype, lanes).type)
        sums = self.window(tile.at, tile.ranges, [none] * (tile.count or 1), body)
        if tile.divisor is not None:
            divisor = e.splat(tile.divisor, lanes)
            sums = [e.b.fdiv(s, divisor) for s in sums]
        self.store(tile, sums)

    def where(self, tile: _Tile) -> None:
        """Write the flat indices of a tile's maxima: the first of equals, the first NaN where there is one."""
        e, p, lanes = self.e, self.p, tile.lanes
        count = tile.count or 1
        steps = [e.mul(d, q) for d, q in zip(p.dilations, p.pitch, strict=True)]
        corner = [e.add(*(e.mul(b, q) for b, q in zip([*self.begins, tile.begin], p.pitch, strict=True)))]
        corner += [e.add(corner[0], e.mul(i * p.strides[-1], p.pitch[-1])) for i in range(1, count)]
        met = e.add(*(e.mul(low, step) for (low, _), step in zip(tile.ranges, steps, strict=False)))

        def splat(place: V) -> V:
            return e.splat(e.b.trunc(place, I32), lanes)

        def body(row: V, taps: list[V], carried: list[V]) -> list[V]:
            values, places = list(carried[:count]), list(carried[count:])
            ahead = e.add(*(e.mul(t, step) for t, step in zip(taps, steps, strict=False)))
            for column, uses in self.inner(tile.count):
                v = e.load(e.at(row, e.mul(column, p.x.strides[-1]), self.dtype), self.dtype, lanes, tile.mask)
                for pixel, t in uses:
                    best = values[pixel]
                    lost = e.b.and_(e.b.fcmp_unordered("uno", v, v), e.b.fcmp_ordered("ord", best, best))
                    more = e.b.or_(e.b.fcmp_ordered(">", v, best), lost)
                    place = splat(e.add(corner[pixel], ahead, e.mul(t, steps[-1])))
                    places[pixel] = e.b.select(more, place, places[pixel])
                    values[pixel] = e.b.select(more, v, best)
            return [*values, *places]

        none = e.constant(-np.inf, e.zero(self.dtype, lanes).type)
        first = [splat(e.add(c, met)) for c in corner]
        found = self.window(tile.at, tile.ranges, [none] * count + first, body)
        plane = functools.reduce(e.mul, p.x.shape[2:], I64(1))
        planes = e.splat(e.mul(e.add(e.mul(self.image, p.x.shape[1]), tile.channel), plane), lanes)
        if lanes > 1:
            planes = e.b.add(planes, e.b.mul(e.iota(lanes), e.splat(plane, lanes)))
        zero = e.zero(np.int64, lanes)
        indices = []
        for place in found[count:]:
            index = e.b.add(e.b.sext(place, planes.type), planes)
            indices.append(e.b.select(e.b.icmp_signed("<", index, zero), zero, index))
        self.store(tile, indices)

    def store(self, tile: _Tile, values: list[V]) -> None:
        """Store a tile."""
        for pixel, value in enumerate(values):
            tile.tail.store(value, (*(0 for _ in range(2 + self.axes)), pixel), tile.lanes, tile.mask)


def window_taps(
    e: Emitter, begin: V, size: DimLike, taps: int, dilation: int, before: DimLike = 0, after: DimLike = 0
) -> tuple[V, V]:  # fmt: skip
    """Return which taps of a window that begins here are inside an axis, and what is counted before and behind it."""
    low = e.div(e.max(e.sub(e.sub(dilation - 1, before), begin), 0), dilation)
    room = e.sub(e.add(size, after, dilation - 1), begin)
    return low, e.max(low, e.min(e.div(e.max(room, 0), dilation), taps))


def larger(e: Emitter, a: V, c: V) -> V:
    """Return the larger, NaN where either is NaN, in three instructions."""
    chosen = e.b.select(e.b.fcmp_ordered(">", a, c), a, c)  # c where either is NaN
    return e.b.select(e.b.fcmp_unordered("uno", a, a), a, chosen)


def _add(e: Emitter, a: V, c: V) -> V:
    return e.b.fadd(a, c)
