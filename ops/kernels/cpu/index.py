"""Gathers and scatters: rows at computed places. An index outside its axis sets a flag, which the run raises.

Where places may repeat, chunks split only what does not meet, and each goes through the indices in their order: of
equal places the last write stands and sums are added in that order, whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...dims import Dim, DimLike
from ...types import TensorType
from .copy import copy_kernel, fill_kernel, write_row
from .emitter import I64, Emitter, V, scalar_type
from .kernel import kernel
from .layout import movable, region
from .lowering import Ref, Site, lowers
from .operand import Operand
from .shuffle import powers
from .walk import CHUNK_BYTES, Axis, Bounds, axes_of, bits, bounds_of, chunks_of, descend, lanes_of, tiled, typical

_COLUMNS = 64
"""The least that a chunk of a scatter takes of each row."""


@dataclass(frozen=True)
class Pick:
    """One index: of how many places, how far apart they lie, and where it lies behind the first index."""

    size: DimLike
    stride: DimLike
    offset: DimLike = 0


@dataclass(frozen=True)
class Move:
    """What the code of a gather or scatter depends on.

    Attributes:
        dtype: of the elements, integers of their width where nothing is computed.
        index: of the indices.
        outer: axes with an index (or the same one) at each place, with strides of the rows that lie in order, of the
            indices and of the rows that are picked; a scatter splits no axis along which picks may repeat.
        inner: axes of a row, with strides of the rows that lie in order and of those that are picked.
        picks: the indices of one place.
        checked: whether indices may be outside.
        reduction: how a scatter combines.
    """

    dtype: np.dtype[Any]
    index: np.dtype[Any]
    outer: tuple[Axis, ...]
    inner: tuple[Axis, ...]
    picks: tuple[Pick, ...]
    checked: bool
    reduction: str = "none"


def _accepts(site: Site, at: int = 1) -> bool:
    """Whether elements can be moved and indices are of a type that is read."""
    tensors = [t for t in site.types if t is not None]
    return movable(*tensors, site.result) and site.types[at].dtype in (np.int32, np.int64)


def _row(axes: list[Axis], picked: int) -> tuple[Axis, ...]:
    """Return the axes of a row, the one along which vectors lie last; one element has one axis of one place."""
    if not axes:
        return (Axis(1, (1, 1)),)
    last = next((i for i, a in enumerate(axes) if a.strides == (1, 1)), None)
    if last is None:
        last = next((i for i, a in enumerate(axes) if a.strides[picked] == 1), len(axes) - 1)
    return (*axes[:last], *axes[last + 1 :], axes[last])


def _axes(shape: Sequence[DimLike], *strides: Sequence[DimLike]) -> list[Axis]:
    return axes_of(tuple(shape), *(tuple(s) for s in strides))


# gathers --------------------------------------------------------------------------------------------------------------


def _gather_call(site: Site, name: str, x: Ref, indices: Ref, y: Ref, p: Move) -> None:
    """Tile and call a gather."""
    elements = CHUNK_BYTES // p.dtype.itemsize
    axes = tiled([*p.outer, *p.inner], elements, (_COLUMNS,))
    p = replace(p, outer=axes[: len(p.outer)], inner=axes[len(p.outer) :])
    refs = [x, indices, y]
    if p.checked:
        refs.append(site.flag(f"{name}: an index is outside its axis"))
    moved = 2 * site.result.size * p.dtype.itemsize
    site.call(kernel(name, emit_gather, p, operands=len(refs), chunks=chunks_of(axes), bytes=moved), refs)


def _checked(site: Site, sizes: Sequence[DimLike]) -> bool | None:
    """Return whether indices have to be checked at run time; None where constant ones are outside."""
    indices = site.known(1)
    if indices is None or any(isinstance(n, Dim) for n in sizes):
        return True
    array = np.asarray(indices)
    limits = np.asarray(sizes) if len(sizes) > 1 else np.asarray(sizes[0])
    return None if bool(((array < -limits) | (array >= limits)).any()) else False


@lowers("gather")
def _gather(site: Site) -> bool:
    if not _accepts(site):
        return False
    x, indices = site.types[0], site.types[1]
    axis = site.attrs.get("axis", 0) % x.ndim
    n = x.shape[axis]
    if n == 0:
        return False
    checked = _checked(site, (n,))
    if checked is None:
        return False
    source, at, target = site.read(0), site.read(1, order="plain"), site.write()
    s, t, rank = source.operand, target.operand, indices.ndim
    if not checked and indices.size == 1:
        place = int(np.asarray(site.known(1)).reshape(())) % int(n)
        view, start = region(s, axis, place, 1)
        view = view.reshaped(
            (*s.shape[:axis], *(1,) * rank, *s.shape[axis + 1 :]),
            (*s.strides[:axis], *(0,) * rank, *s.strides[axis + 1 :]),
        )
        site.call(copy_kernel(view, t.reshaped(view.shape, t.strides), start, 0, "gather"), [source, target])
        return True
    ahead = _axes(s.shape[:axis], t.strides[:axis], (0,) * axis, s.strides[:axis])
    middle = _axes(indices.shape, t.strides[axis : axis + rank], at.operand.strides, (0,) * rank)
    inner = _axes(s.shape[axis + 1 :], s.strides[axis + 1 :], t.strides[axis + rank :])
    p = Move(
        bits(x.dtype), np.dtype(indices.dtype), (*ahead, *middle), _row(inner, 1), (Pick(n, s.strides[axis]),), checked
    )
    _gather_call(site, "gather", source, at, target, p)
    return True


@lowers("gather_elements")
def _gather_elements(site: Site) -> bool:
    if not _accepts(site):
        return False
    x, indices = site.types
    axis = site.attrs.get("axis", 0) % x.ndim
    if not _fits(x, indices, axis) or x.shape[axis] == 0 or (checked := _checked(site, (x.shape[axis],))) is None:
        return False
    source, at, target = site.read(0), site.read(1, order="plain"), site.write()
    along = list(source.operand.strides)
    pick = Pick(x.shape[axis], along[axis])
    along[axis] = 0
    outer = _axes(indices.shape, target.operand.strides, at.operand.strides, along)
    p = Move(bits(x.dtype), np.dtype(indices.dtype), tuple(outer), _row([], 1), (pick,), checked)
    _gather_call(site, "gather_elements", source, at, target, p)
    return True


def _fits(x: TensorType, indices: TensorType, axis: int) -> bool:
    """Whether indices of an elementwise gather are surely no larger than x beside the axis."""
    if x.ndim != indices.ndim:
        return False
    pairs = [(n, i) for k, (n, i) in enumerate(zip(x.shape, indices.shape, strict=True)) if k != axis]
    return all(n == i or (not isinstance(n, Dim) and not isinstance(i, Dim) and i <= n) for n, i in pairs)


def _tuples(site: Site, x: Operand, batch: int) -> tuple[Pick, ...] | None:
    """Return the indices of a tuple; None where it has none, or of a size that only run time knows."""
    k = site.types[1].shape[-1]
    if isinstance(k, Dim) or k == 0 or any(x.shape[batch + i] == 0 for i in range(k)):
        return None
    if any(n != m for n, m in zip(x.shape[:batch], site.types[1].shape[:batch], strict=True)):
        return None
    return tuple(Pick(x.shape[batch + i], x.strides[batch + i], i) for i in range(k))


@lowers("gather_nd")
def _gather_nd(site: Site) -> bool:
    if not _accepts(site):
        return False
    batch = site.attrs.get("batch_dims", 0)
    x, indices = site.types
    if _tuples(site, Operand(x.dtype, x.shape, x.shape), batch) is None:
        return False
    source, at, target = site.read(0), site.read(1, order="plain"), site.write()
    s, t = source.operand, target.operand
    picks = _tuples(site, s, batch) or ()
    checked = _checked(site, tuple(p.size for p in picks))
    lead = indices.ndim - 1
    row = s.strides[:batch] + (0,) * (lead - batch)
    outer = _axes(indices.shape[:-1], t.strides[:lead], at.operand.strides[:-1], row)
    inner = _axes(s.shape[batch + len(picks) :], s.strides[batch + len(picks) :], t.strides[lead:])
    p = Move(bits(x.dtype), np.dtype(indices.dtype), tuple(outer), _row(inner, 1), picks, checked is not False)
    _gather_call(site, "gather_nd", source, at, target, p)
    return True


def _picked(e: Emitter, p: Move, indices: V, base: V, then: Callable[[V], None], flag: int) -> None:
    """Write `then`, given the address of the row that the indices pick; where one is outside, the flag is set."""
    inside: V = None
    place = base
    for pick in p.picks:
        n = e.index(pick.size)
        raw = e.load(e.at(indices, pick.offset, p.index), p.index)
        raw = e.b.sext(raw, I64) if p.index.itemsize < 8 else raw
        at = e.b.select(e.b.icmp_signed("<", raw, I64(0)), e.b.add(raw, n), raw)
        if p.checked:
            fits = e.b.icmp_unsigned("<", at, n)
            inside = fits if inside is None else e.b.and_(inside, fits)
        place = e.at(place, e.mul(at, pick.stride), p.dtype)
    if inside is None:
        then(place)
        return
    with e.b.if_else(inside, likely=True) as (good, bad):
        with good:
            then(place)
        with bad:
            e.store(I64(1), e.pointer(flag), np.int64)


def emit_gather(e: Emitter, p: Move) -> None:
    """Write the code of a gather; operands: x, indices, y and, where indices are checked, the flag."""
    if any(a.size == 0 for a in (*p.outer, *p.inner)):
        return
    bounds = bounds_of(e, (*p.outer, *p.inner))
    ahead, row = bounds[: len(p.outer)], bounds[len(p.outer) :]

    def body(places: Sequence[V]) -> None:
        target, indices, source = places

        def copy(place: V) -> None:
            def last(ends: Sequence[V]) -> None:
                write_row(e, p.dtype, p.inner[-1], row[-1], ends[0], ends[1])

            descend(e, p.inner[:-1], row[:-1], [place, target], (p.dtype, p.dtype), last)

        _picked(e, p, indices, source, copy, 3)

    pointers = [e.pointer(2), e.pointer(1), e.pointer(0)]
    descend(e, p.outer, ahead, pointers, (p.dtype, p.index, p.dtype), body)


# scatters -------------------------------------------------------------------------------------------------------------

_COMPUTED = ("float32", "float64", "int32", "int64")


def _scatter_call(
    site: Site, name: str, updates: Ref, indices: Ref, y: Ref, p: Move, safe: Sequence[Axis], meeting: Sequence[Axis]
) -> None:
    """Tile and call a scatter: `safe` axes split, along `meeting` ones picks may repeat."""
    work = 1
    for a in (*meeting, *p.inner):
        work *= max(1, typical(a.size))
    split = work * p.dtype.itemsize > CHUNK_BYTES
    last = p.inner[-1]
    if split and typical(last.size) > _COLUMNS:
        tile = max(_COLUMNS, -(-typical(last.size) // (16 * _COLUMNS)) * _COLUMNS)
        last = replace(last, tile=tile)
    rows = max(1, CHUNK_BYTES // (work * p.dtype.itemsize))
    outer = tiled(safe, rows)
    p = replace(p, outer=(*outer, *meeting), inner=(*p.inner[:-1], last))
    refs = [updates, indices, y, site.flag(f"{name}: an index is outside its axis")]
    chunks = chunks_of((*p.outer, *p.inner))
    moved = 3 * updates.operand.size * p.dtype.itemsize
    site.call(kernel(name, emit_scatter, p, operands=4, chunks=chunks, bytes=moved), refs)


def _combined(dtype: Any, reduction: str) -> np.dtype[Any] | None:
    """Return the type to combine in; None where there is no code for it."""
    if reduction == "none":
        return bits(dtype)
    return np.dtype(dtype) if np.dtype(dtype).name in _COMPUTED else None


@lowers("gather_grad")
def _gather_grad(site: Site) -> bool:
    if not _accepts(site):
        return False
    g, indices = site.types
    dtype = _combined(g.dtype, "add")
    if dtype is None or site.attrs["size"] == 0:
        return False
    rank = indices.ndim
    axis = site.attrs["axis"] % (g.ndim - rank + 1)
    updates, at, target = site.read(0), site.read(1, order="plain"), site.write()
    u, t = updates.operand, target.operand
    site.call(fill_kernel(t, 0), [target])
    safe = _axes(u.shape[:axis], u.strides[:axis], (0,) * axis, t.strides[:axis])
    meeting = _axes(indices.shape, u.strides[axis : axis + rank], at.operand.strides, (0,) * rank)
    inner = _axes(u.shape[axis + rank :], u.strides[axis + rank :], t.strides[axis + 1 :])
    p = Move(dtype, np.dtype(indices.dtype), (), _row(inner, 1), (Pick(t.shape[axis], t.strides[axis]),), True, "add")
    _scatter_call(site, "gather_grad", updates, at, target, p, safe, meeting)
    return True


@lowers("scatter_elements")
def _scatter_elements(site: Site) -> bool:
    if not _accepts(site):
        return False
    x, indices, updates = site.types
    axis = site.attrs.get("axis", 0) % x.ndim
    reduction = site.attrs.get("reduction", "none")
    dtype = _combined(x.dtype, reduction)
    if dtype is None or updates.shape != indices.shape or not _fits(x, indices, axis) or x.shape[axis] == 0:
        return False
    source, at, new, target = site.read(0), site.read(1, order="plain"), site.read(2), site.write()
    site.call(copy_kernel(source.operand, target.operand), [source, target])
    u, t = new.operand, target.operand
    beside = [i for i in range(x.ndim) if i != axis]
    safe = _axes(
        [indices.shape[i] for i in beside],
        *([o.strides[i] for i in beside] for o in (u, at.operand, t)),
    )
    meeting = _axes((indices.shape[axis],), (u.strides[axis],), (at.operand.strides[axis],), (0,))
    pick = (Pick(x.shape[axis], t.strides[axis]),)
    p = Move(dtype, np.dtype(indices.dtype), (), _row([], 1), pick, True, reduction)
    _scatter_call(site, "scatter_elements", new, at, target, p, safe, meeting)
    return True


@lowers("scatter_nd")
def _scatter_nd(site: Site) -> bool:
    if not _accepts(site):
        return False
    x, indices, updates = site.types
    batch, reduction = site.attrs.get("batch_dims", 0), site.attrs.get("reduction", "none")
    dtype = _combined(x.dtype, reduction)
    picks = _tuples(site, Operand(x.dtype, x.shape, x.shape), batch)
    if dtype is None or picks is None:
        return False
    if updates.shape != (*indices.shape[:-1], *x.shape[batch + len(picks) :]):
        return False
    source, at, new, target = site.read(0), site.read(1, order="plain"), site.read(2), site.write()
    site.call(copy_kernel(source.operand, target.operand), [source, target])
    u, t, a = new.operand, target.operand, at.operand
    picks, lead = _tuples(site, t, batch) or (), indices.ndim - 1
    safe = _axes(indices.shape[:batch], u.strides[:batch], a.strides[:batch], t.strides[:batch])
    meeting = _axes(indices.shape[batch:-1], u.strides[batch:lead], a.strides[batch:-1], (0,) * (lead - batch))
    inner = _axes(u.shape[lead:], u.strides[lead:], t.strides[batch + len(picks) :])
    p = Move(dtype, np.dtype(indices.dtype), (), _row(inner, 1), picks, True, reduction)
    _scatter_call(site, "scatter_nd", new, at, target, p, safe, meeting)
    return True


def emit_scatter(e: Emitter, p: Move) -> None:
    """Write the code of a scatter into what is there; operands: updates, indices, y, the flag."""
    if any(a.size == 0 for a in (*p.outer, *p.inner)):
        return
    bounds = bounds_of(e, (*p.outer, *p.inner))
    ahead, row = bounds[: len(p.outer)], bounds[len(p.outer) :]

    def body(places: Sequence[V]) -> None:
        source, indices, base = places

        def combine(place: V) -> None:
            def last(ends: Sequence[V]) -> None:
                if p.reduction == "none":
                    write_row(e, p.dtype, p.inner[-1], row[-1], ends[0], ends[1])
                else:
                    _combine_row(e, p, row[-1], ends[0], ends[1])

            descend(e, p.inner[:-1], row[:-1], [source, place], (p.dtype, p.dtype), last)

        _picked(e, p, indices, base, combine, 3)

    pointers = [e.pointer(0), e.pointer(1), e.pointer(2)]
    descend(e, p.outer, ahead, pointers, (p.dtype, p.index, p.dtype), body)


def _combine_row(e: Emitter, p: Move, bounds: Bounds, source: V, target: V) -> None:
    """Write the combination of a row with what is at the target, each place once."""
    axis = p.inner[-1]
    low, high = bounds
    lanes = lanes_of(e.target, p.dtype) if axis.strides == (1, 1) else 1

    def move(index: Any, count: int) -> None:
        of = e.at(source, e.mul(index, axis.strides[0]), p.dtype)
        to = e.at(target, e.mul(index, axis.strides[1]), p.dtype)
        e.store(e.combine(p.reduction, e.load(to, p.dtype, count), e.load(of, p.dtype, count)), to, p.dtype)

    if not isinstance(axis.size, Dim) and axis.tile == 0 and axis.size <= 16 * lanes:
        for start, size in powers(int(axis.size), lanes):
            move(I64(start), size)
        return
    middle = e.add(low, e.mul(e.div(e.sub(high, low), lanes), lanes))
    with e.loop(low, middle, lanes) as loop:
        move(loop.index, lanes)
    if lanes > 1:
        with e.loop(middle, high) as loop:
            move(loop.index, 1)


# one hot --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Mark:
    dtype: np.dtype[Any]
    index: np.dtype[Any]
    axes: tuple[Axis, ...]
    depth: DimLike
    stride: DimLike
    one: int


@lowers("one_hot")
def _one_hot(site: Site) -> bool:
    if not _accepts(site, 0):
        return False
    indices, depth = site.types[0], site.attrs["depth"]
    axis = site.attrs.get("axis", -1) % (indices.ndim + 1)
    at, target = site.read(0, order="plain"), site.write()
    t = target.operand
    site.call(fill_kernel(t, 0), [target])
    dtype = bits(t.dtype)
    one = int(np.asarray(1).astype(t.dtype).reshape(1).view(dtype)[0])
    axes = tiled(_axes(indices.shape, at.operand.strides, (*t.strides[:axis], *t.strides[axis + 1 :])), 4096)
    p = _Mark(dtype, np.dtype(indices.dtype), axes, depth, t.strides[axis], one)
    site.call(kernel("one_hot", emit_one_hot, p, operands=2, chunks=chunks_of(axes)), [at, target])
    return True


def emit_one_hot(e: Emitter, p: _Mark) -> None:
    """Write a one at each index that is inside; operands: the indices, zeros."""
    if any(a.size == 0 for a in p.axes):
        return

    def body(places: Sequence[V]) -> None:
        raw = e.load(places[0], p.index)
        raw = e.b.sext(raw, I64) if p.index.itemsize < 8 else raw
        at = e.b.select(e.b.icmp_signed("<", raw, I64(0)), e.b.add(raw, e.index(p.depth)), raw)
        with e.when(e.b.icmp_unsigned("<", at, e.index(p.depth))):
            one = e.constant(p.one, scalar_type(p.dtype))
            e.store(one, e.at(places[1], e.mul(at, p.stride), p.dtype), p.dtype)

    descend(e, p.axes, bounds_of(e, p.axes), [e.pointer(0), e.pointer(1)], (p.index, p.dtype), body)
