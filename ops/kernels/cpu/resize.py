"""Resizing: each output element is a few weighted reads along every resized axis, from tables made with the plan.

Channels last, vectors lie along the channels. Repeating every element a whole number of times is a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...dims import Dim, DimLike, Shape
from ...resize import Factors, Interpolation, fitted
from ...types import Array, TensorType
from ..array.resize import axis_keys, reads, turned
from .copy import copies, copy_kernel, vectorised, write_row
from .emitter import Emitter, V
from .kernel import kernel
from .lowering import Demand, Order, Ref, Site, lowers
from .operand import Operand
from .walk import CHUNK_BYTES, Axis, Bounds, axes_of, bits, bounds_of, chunks_of, descend, lanes_of, tiled

_FUSED = 16
"""Up to this many reads an element all axes are resized at once."""

_WIDE = 8
"""From this many channels on, vectors lie along them."""

_PLAIN = ("half_pixel", "pytorch_half_pixel", "asymmetric", "torch_half_pixel", "torch_asymmetric")
"""Coordinates that depend on the factor alone."""


@dataclass(frozen=True)
class Resampled:
    """A resized axis: its new size in a walk over x and y, and how many reads each element has."""

    axis: Axis
    taps: int


@dataclass(frozen=True)
class Resize:
    """What the code of a resize depends on.

    Attributes:
        dtype: of the elements, integers of their width where they are only moved.
        outer: axes that are not resized, but the row.
        resampled: those that are.
        row: the axis along which vectors lie.
        weighted: whether reads have weights.
    """

    dtype: np.dtype[Any]
    outer: tuple[Axis, ...]
    resampled: tuple[Resampled, ...]
    row: Axis
    weighted: bool


@dataclass(frozen=True)
class _Map:
    """The linear map along one axis: (taps, out) indices and weights."""

    axis: int
    size: int
    out: int
    indices: Array
    weights: Array

    @property
    def taps(self) -> int:
        return len(self.indices)

    @property
    def repeats(self) -> int:
        """How often each element is repeated if the map only does that, else 0."""
        times = self.out // self.size
        if times * self.size != self.out or not self.moves:
            return 0
        return times if np.array_equal(self.indices[0], np.arange(self.out) // max(times, 1)) else 0

    @property
    def moves(self) -> bool:
        """Whether each element is one of the input."""
        return self.taps == 1 and bool((self.weights == 1).all())


def _wide(x: Any, attrs: dict[str, Any]) -> bool:
    """Whether vectors should lie along the channels."""
    if not isinstance(x, TensorType) or x.known_shape is None or x.ndim < 3 or 1 in attrs["axes"]:
        return False
    return isinstance(x.shape[1], int) and x.shape[1] >= _WIDE


def _demand(types: Sequence[Any], attrs: dict[str, Any]) -> dict[int, Demand]:
    return {0: Demand("channels_last" if _wide(types[0], attrs) else "plain")}


@lowers("resize", "resize_grad", demand=_demand)
def _resize(site: Site) -> bool:
    x = site.types[0]
    if not isinstance(x, TensorType) or x.known_shape is None or not copies(x.dtype):
        return False
    if any(t is not None for t in site.types[1:]) or site.attrs["how"].coordinates == "tf_crop_and_resize":
        return False
    repeated = _repeats(site, x)
    maps = [] if repeated else _maps(site, x)
    if maps is None or (any(not m.moves for m in maps) and x.dtype not in (np.float32, np.float64)):
        return False
    order: Order = "channels_last" if _wide(x, site.attrs) else "plain"
    source, target = site.read(0, order=order), site.write(order=order)
    if not repeated and all(m.repeats for m in maps):
        repeated = {m.axis: m.repeats for m in maps}
    if repeated or not maps:
        _repeat(site, source, target, repeated)
        return True
    total = int(np.prod([m.taps for m in maps]))
    passes = [maps] if total <= _FUSED else [[m] for m in maps]
    for i, part in enumerate(passes):
        made = target if i == len(passes) - 1 else _temporary(site, source, part, order)
        _pass(site, source, made, part)
        source = made
    return True


def _sizes(site: Site, x: TensorType) -> tuple[Shape, Shape, Factors]:
    """Return the sizes of the resized axes, before and after as `resize` sees them, and the factors."""
    a, y = site.attrs, site.result
    factors: Factors = a.get("factors", ())
    forward = site.op == "resize"
    old, new = (tuple(t.shape[k] for k in a["axes"]) for t in ((x, y) if forward else (y, x)))
    if a.get("fit"):
        wanted = a["size"] if forward else a["wanted"]
        factors = (fitted(a["fit"], old, wanted)[1],) * len(a["axes"])
    return old, new, factors


def _repeats(site: Site, x: TensorType) -> dict[int, int]:
    """Return how often each axis repeats its elements, where a factor alone tells; else nothing."""
    how: Interpolation = site.attrs["how"]
    old, new, factors = _sizes(site, x)
    if site.op != "resize" or how.mode != "nearest" or how.coordinates not in _PLAIN or not factors:
        return {}
    found = {}
    for axis, n, out, factor in zip(site.attrs["axes"], old, new, factors, strict=True):
        if factor not in (1, 2, 4, 8) or out != n * int(factor):
            return {}
        times = int(factor)
        if times > 1 and _table(how, times, factor).repeats != times:
            return {}
        found[axis] = times
    return found


def _table(how: Interpolation, times: int, factor: float) -> _Map:
    """Return the map of an axis of some size, which is like that of any other."""
    return _Map(0, 64, 64 * times, *reads(how, 64, 64 * times, factor, (0.0, 1.0), False)[:2])


def _maps(site: Site, x: TensorType) -> list[_Map] | None:
    """Return the map along each axis that changes, in the order of application; None where run time decides sizes."""
    a = site.attrs
    old, new, factors = _sizes(site, x)
    if any(isinstance(n, Dim) or n == 0 for n in (*old, *new)):
        return None
    found = []
    for axis, key in axis_keys(None, None, a["axes"], a["how"], old, new, factors):
        indices, weights = reads(*key)[:2] if site.op == "resize" else turned(*key)
        found.append(_Map(axis, int(x.shape[axis]), indices.shape[1], indices, weights))
    shape = x.shape
    return sorted(found, key=lambda m: (m.out / max(1, int(shape[m.axis])), -m.axis))


def _repeat(site: Site, source: Ref, target: Ref, times: dict[int, int]) -> None:
    """Copy with every element repeated."""
    shape: list[DimLike] = []
    of: list[DimLike] = []
    to: list[DimLike] = []
    s, t = source.operand, target.operand
    for axis, n in enumerate(s.shape):
        k = times.get(axis, 1)
        shape += [n, k]
        of += [s.strides[axis], 0]
        to += [t.strides[axis] * k, t.strides[axis]]
    view = s.reshaped(tuple(shape), tuple(of))
    site.call(copy_kernel(view, t.reshaped(tuple(shape), tuple(to)), name=site.op), [source, target])


def _temporary(site: Site, source: Ref, maps: Sequence[_Map], order: str) -> Ref:
    """Return memory for the input with some axes resized, lying in the order of the input."""
    shape = list(source.operand.shape)
    for m in maps:
        shape[m.axis] = m.out
    if order == "plain":
        return site.temporary(source.operand.dtype, shape)
    ref = site.temporary(source.operand.dtype, [shape[0], *shape[2:], shape[1]])
    rank = len(shape)
    return _Viewed(ref, ref.operand.transposed((0, rank - 1, *range(1, rank - 1))))


class _Viewed:
    """A temporary seen with its axes in another order."""

    def __init__(self, ref: Ref, operand: Operand) -> None:
        self.ref, self.operand = ref, operand


def _pass(site: Site, source: Ref, target: Ref, maps: Sequence[_Map]) -> None:
    """Resize some axes with one kernel."""
    s, t = source.operand, target.operand
    changed = {m.axis for m in maps}
    kept = [i for i in range(s.ndim) if i not in changed]
    rest = axes_of([t.shape[i] for i in kept], [s.strides[i] for i in kept], [t.strides[i] for i in kept])
    row = next((a for a in rest if a.strides == (1, 1)), Axis(1, (1, 1)))
    outer = [a for a in rest if a is not row]
    maps = sorted(maps, key=lambda m: [m.axis == i for i in range(s.ndim)], reverse=True)
    along = [Axis(m.out, (s.strides[m.axis], t.strides[m.axis])) for m in maps]
    weighted = not all(m.moves for m in maps)
    dtype = s.dtype if weighted else bits(s.dtype)
    taps = int(np.prod([m.taps for m in maps]))
    elements = max(1, CHUNK_BYTES // (dtype.itemsize * min(taps, 4)))
    axes = tiled([*outer, *along, row], elements, (64,))
    first = len(outer)
    resampled = tuple(Resampled(a, m.taps) for a, m in zip(axes[first:-1], maps, strict=True))
    p = Resize(dtype, axes[:first], resampled, axes[-1], weighted)
    tables = []
    for m in maps:
        tables.append(site.constant(np.ascontiguousarray(m.indices.T, np.int64)))
        if weighted:
            tables.append(site.constant(np.ascontiguousarray(m.weights.T, dtype)))
    refs = [source, target, *tables]
    emit = emit_resize if taps <= _FUSED else emit_pass
    size = target.operand.size
    call = kernel(
        site.op, emit, p, operands=len(refs), chunks=chunks_of(axes), flops=2 * taps * size,
        bytes=2 * size * dtype.itemsize,
    )  # fmt: skip
    site.call(call, [r.ref if isinstance(r, _Viewed) else r for r in refs])


def emit_resize(e: Emitter, p: Resize) -> None:
    """Write the code of a resize of a few reads an element; operands: x, y, indices and weights of each axis."""
    axes = (*p.outer, *(r.axis for r in p.resampled), p.row)
    if any(a.size == 0 for a in axes):
        return
    bounds = bounds_of(e, axes)
    first = len(p.outer)

    def body(places: Sequence[V]) -> None:
        source, target = places
        _resample(e, p, bounds[first:], 0, [(source, None)], target)

    descend(e, p.outer, bounds[:first], [e.pointer(0), e.pointer(1)], (p.dtype, p.dtype), body)


def _resample(
    e: Emitter, p: Resize, bounds: Sequence[Bounds], level: int, reads_: Sequence[tuple[V, V]], target: V
) -> None:
    """Write the loops over the resized axes from a level on; `reads_` are addresses with their weights so far."""
    if level == len(p.resampled):
        _row(e, p, bounds[-1], reads_, target)
        return
    found = p.resampled[level]
    step_in, step_out = found.axis.strides
    tables = 2 + level * (2 if p.weighted else 1)

    def inside(index: Any) -> None:
        entry = e.mul(index, found.taps)
        wider: list[tuple[V, V]] = []
        indices = e.at(e.pointer(tables), entry, np.int64)
        weights = e.at(e.pointer(tables + 1), entry, p.dtype) if p.weighted else None
        for k in range(found.taps):
            offset = e.mul(e.load(e.at(indices, k, np.int64), np.int64), step_in)
            weight = e.load(e.at(weights, k, p.dtype), p.dtype) if p.weighted else None
            for place, before in reads_:
                product = weight if before is None or weight is None else e.b.fmul(before, weight)
                wider.append((e.at(place, offset, p.dtype), product))
        _resample(e, p, bounds, level + 1, wider, e.at(target, e.mul(index, step_out), p.dtype))

    if found.axis.tile == 1:
        inside(bounds[level][0])
        return
    with e.loop(*bounds[level]) as loop:
        inside(loop.index)


def _row(e: Emitter, p: Resize, bounds: Bounds, reads_: Sequence[tuple[V, V]], target: V) -> None:
    """Write one row: the weighted sum of rows of the input."""
    if not p.weighted:
        write_row(e, p.dtype, p.row, bounds, reads_[0][0], target)
        return
    lanes = lanes_of(e.target, p.dtype)
    splats: dict[int, list[V]] = {n: [e.splat(w, n) for _, w in reads_] for n in _lengths(p.row, lanes)}

    def move(index: Any, count: int) -> None:
        total: V = None
        weights = splats.get(count) or [e.splat(w, count) for _, w in reads_]
        for (place, _), weight in zip(reads_, weights, strict=True):
            value = e.load(e.at(place, index, p.dtype), p.dtype, count)
            total = e.b.fmul(value, weight) if total is None else e.fma(value, weight, total)
        e.store(total, e.at(target, index, p.dtype), p.dtype)

    vectorised(e, p.row, bounds, lanes, move)


def _lengths(row: Axis, lanes: int) -> tuple[int, ...]:
    """Return the vector lengths that surely occur in a row."""
    return (lanes,) if not isinstance(row.size, Dim) and row.size >= lanes else ()


def emit_pass(e: Emitter, p: Resize) -> None:
    """Write the code of a resize of one axis with many reads an element, in a loop."""
    (found,) = p.resampled
    axes = (*p.outer, found.axis, p.row)
    if any(a.size == 0 for a in axes):
        return
    bounds = bounds_of(e, axes)
    lanes = lanes_of(e.target, p.dtype)
    step_in, step_out = found.axis.strides
    flat = replace(found.axis, strides=(0, step_out, found.taps, found.taps))
    outer = [replace(a, strides=(*a.strides, 0, 0)) for a in p.outer]

    def body(places: Sequence[V]) -> None:
        source, target, indices, weights = places

        def move(index: Any, count: int) -> None:
            with e.loop(0, found.taps, carry=[e.zero(p.dtype, count)]) as loop:
                at = e.load(e.at(indices, loop.index, np.int64), np.int64)
                weight = e.splat(e.load(e.at(weights, loop.index, p.dtype), p.dtype), count)
                place = e.at(source, e.add(e.mul(at, step_in), index), p.dtype)
                loop.next([e.fma(e.load(place, p.dtype, count), weight, loop.carried[0])])
            e.store(loop.results[0], e.at(target, index, p.dtype), p.dtype)

        vectorised(e, p.row, bounds[-1], lanes, move)

    pointers = [e.pointer(i) for i in range(4)]
    descend(e, [*outer, flat], bounds[:-1], pointers, (p.dtype, p.dtype, np.int64, p.dtype), body)
