"""The adjoints of pooling over channels last.

The gradient of a sum or mean gathers: each input element sums over the windows that see it. That of a maximum seeks
it again: a chunk is rows of one image of the result, and meets each window that reaches into them. With indices it
scatters: a chunk adds up some channels of one image, whose indices point into their own planes. Indices that point
elsewhere, which `max_pool_indices` never makes, are noted and added by a last kernel alone.

Axes: N batch, C channel, S input sizes, O output sizes.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...dims import DimLike, product
from ...pool import Pads
from .emitter import I1, I32, I64, Emitter, V, scalar_type
from .epilogue import Tail
from .kernel import kernel
from .lanes import planar, vectors
from .lowering import Demand, Epilogue, Site, lowers
from .operand import Operand
from .pool import window_taps

_CHUNK_BYTES = 500_000
_CHANNELS = 16
"""Channels of a chunk that scatters."""
_UNROLLED = 16
"""Windows of at most so many taps are written out."""


def _both(types: Sequence[Any], attrs: dict[str, Any]) -> dict[int, Demand]:
    return {0: Demand("channels_last"), 1: Demand("channels_last")}


@dataclass(frozen=True)
class _Gather:
    g: Operand
    y: Operand
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    low: tuple[DimLike, ...]
    counted: Pads | None
    rows: int
    epilogue: Epilogue | None


def _first(types: Sequence[Any], attrs: dict[str, Any]) -> dict[int, Demand]:
    return {0: Demand("channels_last")}


@lowers("sum_pool_grad", demand=_first, fuses=True)
def lower_sum_pool_grad(site: Site) -> bool:
    """Lower `sum_pool_grad`."""
    g, win, kernel_ = site.types[0], site.attrs["win"], site.attrs["kernel"]
    fixed = all(isinstance(d, int) for d in (g.shape[1], *kernel_))
    if (
        g.dtype not in (np.float32, np.float64)
        or not fixed
        or not 3 <= g.ndim <= 6
        or any(d != 1 for d in win.dilations)
    ):
        return False
    source, out = site.read(0, order="channels_last"), site.write(order="channels_last")
    x, y = planar(source.operand), planar(out.operand)
    ones = (1,) * (x.ndim - g.ndim)
    counted, epilogue = site.attrs.get("counted"), site.epilogue
    if counted is not None:
        counted = (*counted, *((0, 0) for _ in ones))
    if epilogue is not None:
        epilogue = Epilogue(epilogue.expression, tuple(planar(o) for o in epilogue.operands), epilogue.dtype)
    width = y.shape[-1] if isinstance(y.shape[-1], int) else 32
    rows = max(1, _CHUNK_BYTES // max(1, int(y.shape[1]) * y.dtype.itemsize * width))
    p = _Gather(
        x, y, (*(int(k) for k in kernel_), *ones), (*win.strides, *ones),
        (*(lo for lo, _ in win.pads), *(0 for _ in ones)), counted, rows, epilogue,
    )  # fmt: skip
    refs = [source, out, *site.epilogue_refs]
    total = product((y.shape[0], *y.shape[2:-1]))
    moved = y.dtype.itemsize * (product(x.shape) + product(y.shape))
    site.call(
        kernel(
            "sum_pool_grad", emit_gather, p, operands=len(refs), chunks=-(-total // rows), flops=product(x.shape),
            bytes=moved,
        ),
        refs,
    )  # fmt: skip
    return True


def emit_gather(e: Emitter, p: _Gather) -> None:
    """Write the kernel; operands g, y, those of the epilogue. A chunk is rows of the result, images one by one."""
    dtype, axes = p.g.dtype, len(p.kernel)
    outer = [e.index(d) for d in (p.y.shape[0], *p.y.shape[2:-1])]
    first = e.mul(e.chunk, p.rows)
    with e.loop(first, e.min(e.add(first, p.rows), functools.reduce(e.mul, outer))) as loop:
        image, *rows = e.unravel(loop.index, outer)
        g = e.at(e.pointer(0), e.mul(image, p.g.strides[0]), dtype)
        with e.loop(0, p.y.shape[-1]) as column:
            place = [*rows, column.index]
            ranges = [_windows(e, p, axis, i) for axis, i in enumerate(place)]
            tail = Tail(e, p.y, e.pointer(1), p.epilogue, 2, (image, 0, *place), 1)
            for c, lanes, mask in vectors(e, dtype, int(p.y.shape[1])):

                def nest(axis: int, at: V, count: V, total: V, lanes: int, mask: V) -> V:
                    if axis == axes:
                        value = e.load(at, dtype, lanes, mask)
                        if p.counted is not None:
                            number = e.b.sitofp(e.max(count, 1), scalar_type(dtype))
                            value = e.b.fdiv(value, e.splat(number, lanes))
                        return e.b.fadd(total, value)
                    with e.loop(*ranges[axis], carry=[total]) as window:
                        there = e.at(at, e.mul(window.index, p.g.strides[2 + axis]), dtype)
                        inner = e.mul(count, _counted(e, p, axis, window.index)) if p.counted is not None else count
                        window.next([nest(axis + 1, there, inner, window.carried[0], lanes, mask)])
                    return window.results[0]

                total = nest(0, e.at(g, c, dtype), I64(1), e.zero(dtype, lanes), lanes, mask)
                tail.moved(1, c).store(total, (0,) * (2 + axes), lanes, mask)


def _windows(e: Emitter, p: _Gather, axis: int, i: V) -> tuple[V, V]:
    """Return which windows see input i along an axis: the first, and behind the last."""
    stride, reach = p.strides[axis], e.add(i, p.low[axis])
    low = e.div(e.max(e.add(reach, stride - p.kernel[axis]), 0), stride)
    high = e.min(e.div(e.max(e.add(reach, stride), 0), stride), p.g.shape[2 + axis])
    return low, e.max(low, high)


def _counted(e: Emitter, p: _Gather, axis: int, window: V) -> V:
    assert p.counted is not None
    begin = e.sub(e.mul(window, p.strides[axis]), p.low[axis])
    low, high = window_taps(e, begin, p.y.shape[2 + axis], p.kernel[axis], 1, *p.counted[axis])
    return e.sub(high, low)


# the maximum, sought again ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Seek:
    g: Operand
    x: Operand
    y: Operand
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    low: tuple[DimLike, ...]
    dilations: tuple[int, ...]
    rows: int
    epilogue: Epilogue | None


@lowers("max_pool_grad", demand=_both, fuses=True)
def lower_max_pool_grad(site: Site) -> bool:
    """Lower `max_pool_grad`."""
    g_type, x_type = site.types
    win, taps = site.attrs["win"], site.attrs["kernel"]
    if g_type.dtype != x_type.dtype or x_type.dtype not in (np.float32, np.float64) or not 3 <= x_type.ndim <= 6:
        return False
    if not all(isinstance(d, int) for d in (x_type.shape[1], *taps)):
        return False
    epilogue = site.epilogue
    if epilogue is not None and epilogue.dtype != x_type.dtype:
        return False
    g, x = site.read(0, order="channels_last"), site.read(1, order="channels_last")
    out = site.write(order="channels_last")
    ones = (1,) * (x_type.ndim == 3)
    if epilogue is not None:
        epilogue = Epilogue(epilogue.expression, tuple(planar(o) for o in epilogue.operands), epilogue.dtype)
    y = planar(out.operand)
    row = y.dtype.itemsize * int(y.shape[1]) * math.prod(d if isinstance(d, int) else 32 for d in y.shape[3:])
    rows = max(1, _CHUNK_BYTES // row)
    if isinstance(y.shape[2], int):
        rows = -(-y.shape[2] // -(-y.shape[2] // rows))
    p = _Seek(
        planar(g.operand), planar(x.operand), y, (*(int(k) for k in taps), *ones), (*win.strides, *ones),
        (*(lo for lo, _ in win.pads), *(0 for _ in ones)), (*win.dilations, *ones), rows, epilogue,
    )  # fmt: skip
    refs = [g, x, out, *site.epilogue_refs]
    moved = y.dtype.itemsize * (product(p.g.shape) + 2 * product(y.shape))
    chunks = y.shape[0] * ((y.shape[2] + (rows - 1)) // rows)
    flops = 2 * math.prod(p.kernel) * product(p.g.shape)
    site.call(kernel("max_pool_grad", emit_seek, p, operands=len(refs), chunks=chunks, flops=flops, bytes=moved), refs)
    return True


def emit_seek(e: Emitter, p: _Seek) -> None:
    """Write the kernel; operands g, x, y, those of the epilogue."""
    _Seeking(e, p).write()


class _Seeking:
    """A chunk: rows low to high of the first spatial axis of one image."""

    def __init__(self, e: Emitter, p: _Seek) -> None:
        self.e, self.p, self.dtype, self.axes = e, p, p.y.dtype, len(p.kernel)
        self.image, block = e.unravel(e.chunk, (p.y.shape[0], (p.y.shape[2] + (p.rows - 1)) // p.rows))
        self.low = e.mul(block, p.rows)
        self.high = e.min(e.add(self.low, p.rows), p.y.shape[2])
        self.g, self.x, self.y = (
            e.at(e.pointer(i), e.mul(self.image, o.strides[0]), self.dtype) for i, o in enumerate((p.g, p.x, p.y))
        )

    def write(self) -> None:
        """Write zeros, what the windows add, and the epilogue."""
        e, p = self.e, self.p

        def clear(at: V, place: list[V]) -> None:
            for c, lanes, mask in vectors(e, self.dtype, int(p.y.shape[1])):
                e.store(e.zero(self.dtype, lanes), e.at(at, c, self.dtype), self.dtype, mask)

        self.places(clear)
        self.windows([])
        if p.epilogue is None:
            return

        def finish(at: V, place: list[V]) -> None:
            tail = Tail(e, p.y, e.pointer(2), p.epilogue, 3, (self.image, 0, *place), 1)
            for c, lanes, mask in vectors(e, self.dtype, int(p.y.shape[1])):
                value = e.load(e.at(at, c, self.dtype), self.dtype, lanes, mask)
                tail.moved(1, c).store(value, (0,) * (2 + self.axes), lanes, mask)

        self.places(finish)

    def places(self, body: Callable[[V, list[V]], None]) -> None:
        """Write loops over the places of the rows, around `body(address, place)`."""
        e, p = self.e, self.p

        def nest(at: V, place: list[V]) -> None:
            axis = len(place)
            if axis == self.axes:
                body(at, place)
                return
            bounds = (self.low, self.high) if axis == 0 else (0, p.y.shape[2 + axis])
            with e.loop(*bounds) as loop:
                nest(e.at(at, e.mul(loop.index, p.y.strides[2 + axis]), self.dtype), [*place, loop.index])

        nest(self.y, [])

    def windows(self, place: list[V]) -> None:
        """Write loops over the windows."""
        e, p, axis = self.e, self.p, len(place)
        if axis == self.axes:
            self.window(place)
            return
        first: Any = 0
        last: Any = p.g.shape[2 + axis]
        if axis == 0:
            stride, reach = p.strides[0], (p.kernel[0] - 1) * p.dilations[0]
            first = e.div(e.max(e.add(self.low, p.low[0], stride - 1 - reach), 0), stride)
            last = e.min(e.div(e.max(e.add(self.high, p.low[0], stride - 1), 0), stride), last)
        with e.loop(first, last) as loop:
            self.windows([*place, loop.index])

    def window(self, place: list[V]) -> None:
        """Write one window: all of it inside of the rows, or tap by tap."""
        e, p = self.e, self.p
        begins = [e.sub(e.mul(i, s), lo) for i, s, lo in zip(place, p.strides, p.low, strict=True)]
        g = e.at(self.g, e.add(*(e.mul(i, s) for i, s in zip(place, p.g.strides[2:], strict=True))), self.dtype)
        x, y = (
            e.at(at, e.add(*(e.mul(i, s) for i, s in zip(begins, o.strides[2:], strict=True))), self.dtype)
            for at, o in ((self.x, p.x), (self.y, p.y))
        )
        if math.prod(p.kernel) > _UNROLLED:
            self.clipped(begins, g, x, y)
            return
        whole: V = I1(1)
        for axis, begin in enumerate(begins):
            low, high = (self.low, self.high) if axis == 0 else (I64(0), e.index(p.y.shape[2 + axis]))
            end = e.add(begin, (p.kernel[axis] - 1) * p.dilations[axis])
            inside = e.b.and_(e.b.icmp_signed(">=", begin, low), e.b.icmp_signed("<", end, high))
            whole = e.b.and_(whole, inside)
        with e.b.if_else(whole) as (then, otherwise):
            with then:
                self.inside(g, x, y)
            with otherwise:
                self.clipped(begins, g, x, y)

    def inside(self, g: V, x: V, y: V) -> None:
        """Write a window whose taps are all in the rows."""
        e, p, dtype = self.e, self.p, self.dtype
        taps = list(itertools.product(*(range(k) for k in p.kernel)))

        def offset(tap: Sequence[int], o: Operand) -> V:
            return e.add(*(e.mul(t * d, s) for t, d, s in zip(tap, p.dilations, o.strides[2:], strict=True)))

        for c, lanes, mask in vectors(e, dtype, int(p.y.shape[1])):
            top = e.load(e.at(x, c, dtype), dtype, lanes, mask)
            where = e.splat(I32(0), lanes)
            for i, tap in enumerate(taps[1:], 1):
                v = e.load(e.at(x, e.add(c, offset(tap, p.x)), dtype), dtype, lanes, mask)
                top, where = self.larger(v, top, e.splat(I32(i), lanes), where)
            where = e.b.select(e.b.fcmp_unordered("uno", top, top), e.splat(I32(0), lanes), where)
            value = e.load(e.at(g, c, dtype), dtype, lanes, mask)
            for i, tap in enumerate(taps):
                self.add(e.at(y, e.add(c, offset(tap, p.y)), dtype), value, where, e.splat(I32(i), lanes), lanes, mask)

    def larger(self, v: V, top: V, number: V, where: V) -> tuple[V, V]:
        """Return the larger of two and where it is: a NaN stays."""
        e = self.e
        more = e.b.fcmp_ordered(">", v, top)
        kept = e.b.or_(more, e.b.fcmp_unordered("uno", v, v))
        return e.b.select(kept, v, top), e.b.select(more, number, where)

    def add(self, at: V, value: V, where: V, number: V, lanes: int, mask: V) -> None:
        """Add what of a vector belongs to one tap; where windows do not overlap, nothing was there."""
        e, p = self.e, self.p
        part = e.b.select(e.b.icmp_signed("==", where, number), value, e.zero(self.dtype, lanes))
        if any(s <= (k - 1) * d for s, k, d in zip(p.strides, p.kernel, p.dilations, strict=True)):
            part = e.b.fadd(e.load(at, self.dtype, lanes, mask), part)
        e.store(part, at, self.dtype, mask)

    def clipped(self, begins: list[V], g: V, x: V, y: V) -> None:
        """Write a window of which some taps may be outside."""
        e, p, dtype = self.e, self.p, self.dtype
        sizes = zip(begins, p.y.shape[2:], p.kernel, p.dilations, strict=True)
        ranges = [window_taps(e, begin, n, k, d) for begin, n, k, d in sizes]
        pitch = [math.prod(p.kernel[i + 1 :]) for i in range(self.axes)]
        start = e.add(*(e.mul(low, q) for (low, _), q in zip(ranges, pitch, strict=True)))
        # Of the first axis only the taps in the rows are added to.
        d = p.dilations[0]
        after = e.div(e.max(e.add(e.sub(self.low, begins[0]), d - 1), 0), d)
        until = e.div(e.max(e.add(e.sub(self.high, begins[0]), d - 1), 0), d)
        own = [(e.max(ranges[0][0], after), e.min(ranges[0][1], until)), *ranges[1:]]

        def nest(
            o: Operand, bounds: Sequence[tuple[V, V]], at: V, number: V, carry: list[V],
            body: Callable[[V, V, list[V]], list[V]], axis: int = 0,
        ) -> list[V]:  # fmt: skip
            if axis == self.axes:
                return body(at, number, carry)
            with e.loop(*bounds[axis], carry=carry) as loop:
                there = e.at(at, e.mul(loop.index, e.mul(p.dilations[axis], o.strides[2 + axis])), dtype)
                tap = e.add(number, e.mul(loop.index, pitch[axis]))
                loop.next(nest(o, bounds, there, tap, loop.carried, body, axis + 1))
            return loop.results

        for c, lanes, mask in vectors(e, dtype, int(p.y.shape[1])):

            def splat(number: V, lanes: int = lanes) -> V:
                return e.splat(e.b.trunc(number, I32), lanes)

            def seek(at: V, number: V, carry: list[V], lanes: int = lanes, mask: V = mask) -> list[V]:
                return [*self.larger(e.load(at, dtype, lanes, mask), carry[0], splat(number, lanes), carry[1])]

            none = e.constant(-math.inf, e.zero(dtype, lanes).type)
            top, where = nest(p.x, ranges, e.at(x, c, dtype), I64(0), [none, splat(start)], seek)
            where = e.b.select(e.b.fcmp_unordered("uno", top, top), splat(start), where)
            value = e.load(e.at(g, c, dtype), dtype, lanes, mask)

            def give(at: V, number: V, carry: list[V], value: V = value, where: V = where, lanes: int = lanes,
                     mask: V = mask) -> list[V]:  # fmt: skip
                self.add(at, value, where, splat(number, lanes), lanes, mask)
                return []

            nest(p.y, own, e.at(y, c, dtype), I64(0), [], give)


# scattering by index -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scatter:
    g: Operand
    indices: Operand
    y: Operand


@lowers("pool_scatter", demand=_both)
def lower_pool_scatter(site: Site) -> bool:
    """Lower `pool_scatter`."""
    g, indices = site.types
    if g.dtype not in (np.float32, np.float64) or indices.dtype != np.int64 or not isinstance(g.shape[1], int):
        return False
    if not 3 <= g.ndim <= 6:
        return False
    source, places = site.read(0, order="channels_last"), site.read(1, order="channels_last")
    out = site.write(order="channels_last")
    p = _Scatter(source.operand, places.operand, out.operand)
    chunks = g.shape[0] * -(-g.shape[1] // _CHANNELS)
    strays = site.temporary(np.dtype(np.int64), (chunks,))
    moved = product(g.shape) * (8 + g.dtype.itemsize) + 2 * product(out.operand.shape) * g.dtype.itemsize
    refs = [source, places, out, strays]
    site.call(kernel("pool_scatter", emit_scatter, p, operands=4, chunks=chunks, bytes=moved), refs)
    flag = site.flag("pool_scatter: an index lies outside the result")
    site.call(kernel("pool_scatter strays", emit_strays, p, operands=5), [*refs, flag])
    return True


def emit_scatter(e: Emitter, p: _Scatter) -> None:
    """Write the kernel; operands g, indices, y, strays: how many indices of a chunk point outside their planes."""
    dtype, channels = p.y.dtype, int(p.y.shape[1])
    image, block = e.unravel(e.chunk, (p.y.shape[0], -(-channels // _CHANNELS)))
    low = e.mul(block, _CHANNELS)
    high = e.min(e.add(low, _CHANNELS), channels)
    plane = functools.reduce(e.mul, p.y.shape[2:], I64(1))
    y = e.at(e.pointer(2), e.mul(image, p.y.strides[0]), dtype)
    with e.loop(0, plane) as loop:
        at = e.at(y, _offset(e, p.y, e.unravel(loop.index, p.y.shape[2:])), dtype)
        with e.loop(low, high) as c:
            e.store(e.zero(dtype), e.at(at, c.index, dtype), dtype)
    base = e.mul(image, e.mul(channels, plane))
    outputs = functools.reduce(e.mul, p.g.shape[2:], I64(1))
    with e.loop(0, outputs, carry=[I64(0)]) as loop:
        g, indices = _sources(e, p, image, loop.index)
        with e.loop(low, high, carry=loop.carried) as c:
            index = e.load(e.at(indices, c.index, np.int64), np.int64)
            inside = e.b.sub(index, e.add(base, e.mul(c.index, plane)))
            own = e.b.icmp_unsigned("<", inside, plane)
            with e.when(own):
                there = e.at(y, e.add(c.index, _offset(e, p.y, e.unravel(inside, p.y.shape[2:]))), dtype)
                _add(e, there, e.at(g, c.index, dtype), dtype)
            c.next([e.add(c.carried[0], e.b.zext(e.b.not_(own), I64))])
        loop.next(c.results)
    e.store(loop.results[0], e.at(e.pointer(3), e.chunk, np.int64), np.int64)


def emit_strays(e: Emitter, p: _Scatter) -> None:
    """Write the kernel that adds what `emit_scatter` left; operands as there, and the flag of what fits nowhere."""
    dtype, channels = p.y.dtype, int(p.y.shape[1])
    blocks = -(-channels // _CHANNELS)
    plane = functools.reduce(e.mul, p.y.shape[2:], I64(1))
    outputs = functools.reduce(e.mul, p.g.shape[2:], I64(1))
    everything = e.mul(e.mul(p.y.shape[0], channels), plane)
    with e.loop(0, e.mul(p.y.shape[0], blocks)) as chunk:
        strays = e.load(e.at(e.pointer(3), chunk.index, np.int64), np.int64)
        with e.when(e.b.icmp_signed("!=", strays, I64(0))):
            image, block = e.unravel(chunk.index, (p.y.shape[0], blocks))
            low = e.mul(block, _CHANNELS)
            with e.loop(0, outputs) as loop, e.loop(low, e.min(e.add(low, _CHANNELS), channels)) as c:
                g, indices = _sources(e, p, image, loop.index)
                index = e.load(e.at(indices, c.index, np.int64), np.int64)
                own = e.mul(e.add(e.mul(image, channels), c.index), plane)
                stray = e.b.icmp_unsigned(">=", e.b.sub(index, own), plane)
                fits = e.b.icmp_unsigned("<", index, everything)
                with e.when(e.b.and_(stray, e.b.not_(fits))):
                    e.store(I64(1), e.pointer(4), np.int64)
                with e.when(e.b.and_(stray, fits)):
                    n, channel, *place = e.unravel(index, (p.y.shape[0], channels, *p.y.shape[2:]))
                    offset = e.add(e.mul(n, p.y.strides[0]), channel, _offset(e, p.y, place))
                    _add(e, e.at(e.pointer(2), offset, dtype), e.at(g, c.index, dtype), dtype)


def _sources(e: Emitter, p: _Scatter, image: V, output: V) -> tuple[V, V]:
    """Return the addresses of an output pixel's first channel in g and among the indices."""
    place = e.unravel(output, p.g.shape[2:])
    found = []
    for i, operand in enumerate((p.g, p.indices)):
        offset = e.add(e.mul(image, operand.strides[0]), _offset(e, operand, place))
        found.append(e.at(e.pointer(i), offset, operand.dtype))
    return found[0], found[1]


def _offset(e: Emitter, operand: Operand, place: Sequence[V]) -> V:
    return e.add(*(e.mul(i, s) for i, s in zip(place, operand.strides[2:], strict=True)))


def _add(e: Emitter, to: V, source: V, dtype: Any) -> None:
    e.store(e.b.fadd(e.load(to, dtype), e.load(source, dtype)), to, dtype)
