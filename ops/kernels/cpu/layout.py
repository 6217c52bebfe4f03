"""Layout ops as copies between strided views, where they cannot be views themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...dims import Dim, DimLike, Shape
from ...extent import bound
from ...layout import all_pads
from ...types import TensorType
from .copy import copies, copy_kernel, fill_kernel, fill_parts
from .emitter import Emitter, V, scalar_type
from .kernel import kernel
from .lowering import Ref, Site, lowers
from .operand import Operand
from .walk import CHUNK_BYTES, Axis, axes_of, bits, bounds_of, chunks_of, descend, lanes_of, tiled


def movable(*types: Any) -> bool:
    """Whether these are tensors of known rank whose elements can be copied."""
    return all(isinstance(t, TensorType) and t.known_shape is not None and copies(t.dtype) for t in types)


def _copy(site: Site, source: Ref, view: Operand, start: DimLike, target: Ref, part: Operand, at: DimLike) -> None:
    """Copy a view of one tensor, at a place, to a view of another."""
    if any(n == 0 for n in view.shape):
        return
    site.call(copy_kernel(view, part, start, at, site.op), [source, target])


def region(operand: Operand, axis: int, start: DimLike, size: DimLike) -> tuple[Operand, DimLike]:
    """Return a part of a tensor along one axis and where its first element lies."""
    shape = (*operand.shape[:axis], size, *operand.shape[axis + 1 :])
    return operand.reshaped(shape, operand.strides), start * operand.strides[axis]


@lowers("identity", "transpose", "expand", "broadcast_to")
def _materialise(site: Site) -> bool:
    x = site.types[0]
    if not movable(x, site.result):
        return False
    if site.op in ("expand", "broadcast_to"):
        pairs = zip(x.shape, site.result.shape[site.result.ndim - x.ndim :], strict=True)
        asked = {s for d in site.attrs["shape"] if isinstance(d, Dim) for s in d.symbols()}
        if any(n not in (1, wide) for n, wide in pairs) or not _determined(site.result.shape, asked, x):
            return False
    source, target = site.read(0), site.write()
    view = source.operand
    if site.op == "transpose":
        perm = site.attrs.get("perm") or tuple(reversed(range(view.ndim)))
        view = view.transposed([p % view.ndim for p in perm])
    elif site.op in ("expand", "broadcast_to"):
        view = view.broadcast_to(site.result.shape)
    _copy(site, source, view, 0, target, target.operand, 0)
    return True


@lowers("concat")
def _concat(site: Site) -> bool:
    if not movable(*site.types, site.result):
        return False
    axis = site.attrs["axis"] % site.result.ndim
    for t in site.types:
        if any(n != m for i, (n, m) in enumerate(zip(t.shape, site.result.shape, strict=True)) if i != axis):
            return False  # run time decides whether they fit
    target = site.write()
    at: DimLike = 0
    for i, t in enumerate(site.types):
        source = site.read(i)
        part, start = region(target.operand, axis, at, t.shape[axis])
        _copy(site, source, source.operand, 0, target, part, start)
        at = at + t.shape[axis]
    return True


@lowers("tile")
def _tile(site: Site) -> bool:
    if not movable(site.types[0], site.result):
        return False
    source, target = site.read(0), site.write()
    shape, of, to = [], [], []
    rows = zip(site.attrs["repeats"], site.types[0].shape, source.operand.strides, target.operand.strides, strict=True)
    for times, n, s, t in rows:
        shape += [times, n]
        of += [0, s]
        to += [t * n, t]
    view = source.operand.reshaped(tuple(shape), tuple(of))
    _copy(site, source, view, 0, target, target.operand.reshaped(tuple(shape), tuple(to)), 0)
    return True


@lowers("flip")
def _flip(site: Site) -> bool:
    x = site.types[0]
    if not movable(x):
        return False
    source, target = site.read(0), site.write()
    strides = list(source.operand.strides)
    start: DimLike = 0
    for axis in {a % x.ndim for a in site.attrs["axes"]}:
        start = start + (x.shape[axis] - 1) * strides[axis]
        strides[axis] = -strides[axis]
    view = source.operand.reshaped(x.shape, tuple(strides))
    _copy(site, source, view, start, target, target.operand, 0)
    return True


def _places(x: TensorType, attrs: dict[str, Any]) -> list[tuple[int, DimLike, int]] | None:
    """Return (axis, first place, step) of each axis of a slice; None where run time decides."""
    found = []
    for start, step, axis in zip(attrs["starts"], attrs["steps"], attrs["axes"], strict=True):
        if isinstance(axis, Dim) or isinstance(step, Dim):
            return None
        n = x.shape[axis]
        if isinstance(n, int) and isinstance(start, int):
            first: DimLike | None = slice(start, None, step).indices(n)[0]
        else:
            first = bound(start, n, 0 if step > 0 else -1)
        if first is None:
            return None
        found.append((axis % x.ndim, first, int(step)))
    return found


def _determined(shape: Shape, asked: set[str], *types: TensorType) -> bool:
    """Whether no size of a shape is a symbol of its own, which only the op's array kernel would tell."""
    known = asked | {s for t in types for d in t.shape if isinstance(d, Dim) for s in d.symbols()}
    return all(s in known or not s.startswith("?") for d in shape if isinstance(d, Dim) for s in d.symbols())


@lowers("slice", "unslice")
def _slice(site: Site) -> bool:
    """Copy every step-th element out of a tensor, or into zeros."""
    out = site.op == "slice"
    whole, part = (site.types[0], site.result) if out else (site.result, site.types[0])
    if not movable(whole, part) or not _determined(site.result.shape, set(), site.types[0]):
        return False
    places = _places(whole, site.attrs)
    if places is None:
        return False
    source, target = site.read(0), site.write()
    if not out:
        site.call(fill_kernel(target.operand, 0), [target])
    large = (source if out else target).operand
    strides = list(large.strides)
    start: DimLike = 0
    for axis, first, step in places:
        start = start + first * strides[axis]
        strides[axis] = step * strides[axis]
    view = large.reshaped(part.shape, tuple(strides))
    if out:
        _copy(site, source, view, start, target, target.operand, 0)
    elif all(n != 0 for n in part.shape):
        site.call(copy_kernel(source.operand, view, 0, start, site.op), [source, target])
    return True


@lowers("shift")
def _shift(site: Site) -> bool:
    x = site.types[0]
    if not movable(x):
        return False
    axis, by = site.attrs["axis"] % x.ndim, site.attrs["by"]
    n = x.shape[axis]
    if isinstance(n, Dim) or isinstance(by, Dim):
        return False
    source, target = site.read(0), site.write()
    kept = max(0, n - abs(by))
    if kept < n:
        gap, start = region(target.operand, axis, 0 if by > 0 else kept, n - kept)
        site.call(fill_kernel(gap, 0, start), [target])
    view, of = region(source.operand, axis, max(0, -by), kept)
    part, to = region(target.operand, axis, max(0, by), kept)
    _copy(site, source, view, of, target, part, to)
    return True


@lowers("pad")
def _pad(site: Site) -> bool:
    x, mode = site.types[0], site.attrs.get("mode", "constant")
    if not movable(x, site.result) or any(isinstance(a, Dim) for a in site.attrs.get("axes") or ()):
        return False
    asked = all_pads(site.attrs["pads"], site.attrs.get("axes"), x.ndim)
    if any(isinstance(p, Dim) for pair in asked for p in pair):
        return False
    pads = [(int(lo), int(hi)) for lo, hi in asked]
    value: Any = 0
    if len(site.types) > 1 and site.types[1] is not None and mode == "constant":
        value = site.types[1] if not isinstance(site.types[1], TensorType) else site.known(1)
        if value is None:
            return False
    kept: list[DimLike] = []
    for n, (lo, hi) in zip(x.shape, pads, strict=True):
        inside = n + min(lo, 0) + min(hi, 0)
        if isinstance(inside, Dim) and (min(lo, hi) < 0 or (mode != "constant" and (lo, hi) != (0, 0))):
            return False
        if not isinstance(inside, Dim):
            reach = {"constant": 0, "edge": 1, "reflect": max(lo, hi) + 1, "wrap": max(lo, hi)}[mode]
            if inside < 0 or (max(lo, hi) > 0 and inside < reach):
                return False
        kept.append(inside)
    source, target = site.read(0), site.write()
    view, part = source.operand, target.operand
    of: DimLike = 0
    to: DimLike = 0
    for axis, ((lo, _), n) in enumerate(zip(pads, kept, strict=True)):
        view, skipped = region(view, axis, max(-lo, 0), n)
        part, moved = region(part, axis, max(lo, 0), n)
        of, to = of + skipped, to + moved
    _copy(site, source, view, of, target, part, to)
    grow = [(max(lo, 0), max(hi, 0)) for lo, hi in pads]
    if mode == "constant":
        parts = _around(target.operand, grow, kept)
        if parts:
            site.call(fill_parts(x.dtype, parts, np.asarray(value, x.dtype).reshape(-1)[0], "pad"), [target])
        return True
    for axis, (lo, hi) in enumerate(grow):
        n = int(kept[axis]) if lo or hi else 0
        stride = part.strides[axis]
        for count, put, take, step in (
            (lo, -lo, {"edge": 0, "reflect": lo, "wrap": n - lo}[mode], {"edge": 0, "reflect": -1, "wrap": 1}[mode]),
            (hi, n, {"edge": n - 1, "reflect": n - 2, "wrap": 0}[mode], {"edge": 0, "reflect": -1, "wrap": 1}[mode]),
        ):
            if count:
                copied, _ = region(part, axis, 0, count)
                strides = (*part.strides[:axis], step * stride, *part.strides[axis + 1 :])
                view = copied.reshaped(copied.shape, strides)
                _copy(site, target, view, to + take * stride, target, copied, to + put * stride)
        part, _ = region(part, axis, 0, kept[axis] + lo + hi)
        to = to - lo * stride
    return True


def _around(
    whole: Operand, grow: Sequence[tuple[int, int]], kept: Sequence[DimLike]
) -> list[tuple[DimLike, Shape, Shape]]:
    """Return the parts of a tensor around its inside, none of them twice."""
    parts: list[tuple[DimLike, Shape, Shape]] = []
    shape = list(whole.shape)
    start: DimLike = 0
    for axis, ((lo, hi), n) in enumerate(zip(grow, kept, strict=True)):
        for count, at in ((lo, 0), (hi, lo + n)):
            if count:
                around = (*shape[:axis], count, *shape[axis + 1 :])
                parts.append((start + at * whole.strides[axis], around, whole.strides))
        shape[axis] = n
        start = start + lo * whole.strides[axis]
    return parts


@lowers("full_like", "fill")
def _fill(site: Site) -> bool:
    if not movable(site.result):
        return False
    if site.op == "fill" and not (isinstance(site.types[0], TensorType) and site.types[0].contents is not None):
        return False
    target = site.write()
    value = np.asarray(site.attrs["value"]).astype(site.result.dtype).reshape(-1)[0]
    site.call(fill_kernel(target.operand, value), [target])
    return True


@dataclass(frozen=True)
class _Range:
    dtype: np.dtype[Any]
    axes: tuple[Axis, ...]
    start: DimLike
    step: DimLike


@lowers("range")
def _range(site: Site) -> bool:
    """Write a range of integers whose ends the shapes tell."""
    known = [t.contents[0] if isinstance(t, TensorType) and t.contents else None for t in site.types]
    dtype = site.result.dtype
    if None in known or dtype not in (np.int32, np.int64) or not isinstance(known[2], int):
        return False
    (n,) = site.result.shape
    told = {s for k in known if isinstance(k, Dim) for s in k.symbols()}
    if isinstance(n, Dim) and any(s not in told for s in n.symbols()):
        return False
    target = site.write()
    axes = tiled(axes_of((n,), target.operand.strides) or [Axis(1, (1,))], CHUNK_BYTES // dtype.itemsize, (64,))
    p = _Range(dtype, axes, known[0], known[2])  # type: ignore[arg-type]
    site.call(kernel("range", emit_range, p, operands=1, chunks=chunks_of(axes), bytes=n * dtype.itemsize), [target])
    return True


def emit_range(e: Emitter, p: _Range) -> None:
    """Write start + i step to place i."""
    ((low, high),) = bounds_of(e, p.axes)
    with e.loop(low, high) as loop:
        value = e.add(p.start, e.mul(loop.index, p.step))
        if p.dtype.itemsize == 4:
            value = e.b.trunc(value, scalar_type(p.dtype))
        e.store(value, e.at(e.pointer(0), e.mul(loop.index, p.axes[0].strides[0]), p.dtype), p.dtype)


@dataclass(frozen=True)
class _Trilu:
    dtype: np.dtype[Any]
    outer: tuple[Axis, ...]
    rows: Axis
    columns: Axis
    upper: bool
    k: DimLike


@lowers("trilu")
def _trilu(site: Site) -> bool:
    x = site.types[0]
    if not movable(x) or any(n == 0 for n in x.shape):
        return False
    source, target = site.read(0), site.write()
    pairs = list(zip(x.shape, zip(source.operand.strides, target.operand.strides, strict=True), strict=True))
    outer = axes_of(x.shape[:-2], source.operand.strides[:-2], target.operand.strides[:-2])
    row, column = (Axis(*pair) for pair in pairs[-2:])
    width = column.size if isinstance(column.size, int) else 64
    row = Axis(row.size, row.strides, max(1, CHUNK_BYTES // (x.dtype.itemsize * width)))
    axes = tuple(Axis(a.size, a.strides, 1) for a in outer)
    p = _Trilu(bits(x.dtype), axes, row, column, bool(site.attrs["upper"]), site.attrs.get("k", 0))
    moved = 2 * x.size * x.dtype.itemsize
    call = kernel("trilu", emit_trilu, p, operands=2, chunks=chunks_of((*axes, row)), bytes=moved)
    site.call(call, [source, target])
    return True


def emit_trilu(e: Emitter, p: _Trilu) -> None:
    """Write one side of the diagonal of each matrix and zeros on the other."""
    axes = (*p.outer, p.rows)
    bounds = bounds_of(e, axes)
    straight = p.columns.strides == (1, 1)
    lanes = lanes_of(e.target, p.dtype) if straight else 1
    part = int(p.columns.size) % lanes if isinstance(p.columns.size, int) else 0

    def body(places: Sequence[V]) -> None:
        with e.loop(*bounds[-1]) as row:
            line = [e.at(q, e.mul(row.index, s), p.dtype) for q, s in zip(places, p.rows.strides, strict=True)]
            edge = e.add(row.index, p.k)

            def move(index: V, size: int) -> None:
                of, to = (e.at(q, e.mul(index, s), p.dtype) for q, s in zip(line, p.columns.strides, strict=True))
                at = index if size == 1 else e.b.add(e.splat(index, size), e.iota(size))
                kept = e.b.icmp_signed(">=" if p.upper else "<=", at, e.splat(edge, size))
                value = e.load(of, p.dtype, size)
                e.store(e.b.select(kept, value, e.zero(p.dtype, size)), to, p.dtype)

            whole = e.mul(e.div(p.columns.size, lanes), lanes)
            with e.loop(0, whole, lanes) as loop:
                move(loop.index, lanes)
            if lanes > 1 and (part or isinstance(p.columns.size, Dim)):
                with e.loop(whole, p.columns.size) as loop:
                    move(loop.index, 1)

    pointers = [e.pointer(0), e.pointer(1)]
    descend(e, p.outer, bounds[:-1], pointers, (p.dtype, p.dtype), body)
