"""Where the largest and smallest are.

NaN goes before every number; of equal elements the first counts, or the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ir
import numpy as np

from ...dims import Dim
from .copy import vectorised
from .cumulative import COMPUTED, beside, index_type
from .emitter import I32, I64, Emitter, V
from .kernel import kernel
from .layout import movable
from .lowering import Site, lowers
from .walk import CHUNK_BYTES, Axis, bounds_of, chunks_of, descend, lanes_of, typical

_LONGEST = 2**31 - 1


@dataclass(frozen=True)
class First:
    """What the code depends on.

    Attributes:
        dtype: of the elements.
        axes: beside the axis; with `across`, vectors lie along the last of them, else along the axis itself.
        along: the axis, with x's stride.
        largest: or smallest.
        last: of equal ones.
        across: where vectors lie.
    """

    dtype: np.dtype[Any]
    axes: tuple[Axis, ...]
    along: Axis
    largest: bool
    last: bool
    across: bool


@lowers("argmax", "argmin")
def _first(site: Site) -> bool:
    x = site.types[0]
    if not movable(x, site.result) or x.dtype.name not in COMPUTED:
        return False
    axis = site.attrs["axis"] % x.ndim
    n = x.shape[axis]
    if not isinstance(n, Dim) and not 0 < n <= _LONGEST:
        return False
    source, target = site.read(0), site.write()
    s, t = source.operand, target.operand
    rest = [i for i in range(x.ndim) if i != axis]
    to = list(t.strides)
    if site.attrs.get("keepdims"):
        del to[axis]
    shape = [x.shape[i] for i in rest]
    axes, across = beside(shape, [s.strides[i] for i in rest], to, CHUNK_BYTES // x.dtype.itemsize, typical(n))
    p = First(
        x.dtype, axes, Axis(n, (s.strides[axis],)), site.op == "argmax", bool(site.attrs.get("select_last")), across
    )
    refs = [source, target]
    if isinstance(n, Dim):
        refs.append(site.flag(f"{site.op}: an axis of size 0 has no {'largest' if p.largest else 'smallest'} element"))
    size = x.size * x.dtype.itemsize
    site.call(kernel(site.op, emit_first, p, operands=len(refs), chunks=chunks_of(axes), bytes=size), refs)
    return True


def emit_first(e: Emitter, p: First) -> None:
    """Write the code of an argmax or argmin; operands: x, y and, where the axis may be empty, a flag."""
    if any(a.size == 0 for a in p.axes):
        return
    if not isinstance(p.along.size, Dim):
        _search(e, p)
        return
    with e.b.if_else(e.b.icmp_signed(">", e.dim(p.along.size), I64(0))) as (some, none):
        with some:
            _search(e, p)
        with none:
            e.store(I64(1), e.pointer(2), np.int64)


def _search(e: Emitter, p: First) -> None:
    bounds = bounds_of(e, p.axes)
    lanes = lanes_of(e.target, p.dtype)
    row = p.axes[-1]

    def across(places: Sequence[V]) -> None:
        source, target = places

        def move(index: Any, count: int) -> None:
            at = e.at(source, index, p.dtype)
            _, found = _along(e, p, at, 0, count, e.load(at, p.dtype, count), None)
            e.store(_wide(e, found), e.at(target, index, np.int64), np.int64)

        vectorised(e, row, bounds[-1], lanes, move)

    def along(places: Sequence[V]) -> None:
        source, target = places
        one = e.load(source, p.dtype)
        start: Any = 0
        best = (one, None)
        if p.along.strides == (1,):
            start = e.mul(e.div(p.along.size, lanes), lanes)
            best = _folded(e, p, *_rows(e, p, source, start, lanes, e.splat(one, lanes)))
        _, found = _along(e, p, source, start, 1, *best)
        e.store(_wide(e, found), target, np.int64)

    if p.across:
        descend(e, p.axes[:-1], bounds[:-1], [e.pointer(0), e.pointer(1)], (p.dtype, np.int64), across)
    else:
        descend(e, p.axes, bounds, [e.pointer(0), e.pointer(1)], (p.dtype, np.int64), along)


def _places(p: First, lanes: int) -> ir.Type:
    one = index_type(p.dtype)
    return one if lanes == 1 else ir.VectorType(one, lanes)


def _wide(e: Emitter, found: V) -> V:
    """Return places as 64-bit integers."""
    kind = found.type
    if kind == I64 or (isinstance(kind, ir.VectorType) and kind.element == I64):
        return found
    return e.b.sext(found, ir.VectorType(I64, kind.count) if isinstance(kind, ir.VectorType) else I64)


def _narrow(e: Emitter, p: First, index: V) -> V:
    return index if index_type(p.dtype) == I64 else e.b.trunc(e.index(index), I32)


def _along(e: Emitter, p: First, at: V, start: Any, count: int, best: V, where: V | None) -> tuple[V, V]:
    """Write the search along the axis from a place on, for `count` neighbours at a time."""
    where = e.constant(0, _places(p, count)) if where is None else where
    with e.loop(start, p.along.size, carry=[best, where]) as loop:
        x = e.load(e.at(at, e.mul(loop.index, p.along.strides[0]), p.dtype), p.dtype, count)
        better = _better(e, p, x, loop.carried[0])
        here = e.splat(_narrow(e, p, loop.index), count)
        loop.next([e.b.select(better, x, loop.carried[0]), e.b.select(better, here, loop.carried[1])])
    return loop.results[0], loop.results[1]


def _rows(e: Emitter, p: First, at: V, stop: V, lanes: int, best: V) -> tuple[V, V]:
    """Write the search in which each lane looks at every so many-th element."""
    kind = _places(p, lanes)
    steps = e.iota(lanes, kind.element)
    with e.loop(0, stop, lanes, carry=[best, e.constant(0, kind)]) as loop:
        x = e.load(e.at(at, loop.index, p.dtype), p.dtype, lanes)
        better = _better(e, p, x, loop.carried[0])
        here = e.b.add(e.splat(_narrow(e, p, loop.index), lanes), steps)
        loop.next([e.b.select(better, x, loop.carried[0]), e.b.select(better, here, loop.carried[1])])
    return loop.results[0], loop.results[1]


def _folded(e: Emitter, p: First, best: V, where: V) -> tuple[V, V]:
    """Return the best of the lanes and its place; of equal lanes the one with the first place, or the last."""
    b = e.b
    value, place = b.extract_element(best, I32(0)), b.extract_element(where, I32(0))
    for lane in range(1, best.type.count):
        x, here = b.extract_element(best, I32(lane)), b.extract_element(where, I32(lane))
        strict = _strictly(e, p, x, value)
        equal = b.and_(b.not_(strict), b.not_(_strictly(e, p, value, x)))
        take = b.or_(strict, b.and_(equal, b.icmp_signed(">" if p.last else "<", here, place)))
        value, place = b.select(take, x, value), b.select(take, here, place)
    return value, place


def _better(e: Emitter, p: First, x: V, best: V) -> V:
    """Return whether an element that comes later takes the place of the best."""
    return e.b.not_(_strictly(e, p, best, x)) if p.last else _strictly(e, p, x, best)


def _strictly(e: Emitter, p: First, x: V, y: V) -> V:
    """Return whether x goes before y, NaN before every number."""
    sign = ">" if p.largest else "<"
    if p.dtype.kind == "i":
        return e.b.icmp_signed(sign, x, y)
    nan = e.b.and_(e.b.fcmp_unordered("uno", x, x), e.b.fcmp_ordered("ord", y, y))
    return e.b.or_(e.b.fcmp_ordered(sign, x, y), nan)
