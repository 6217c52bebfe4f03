"""Gathers and scatters: rows at computed places.

An index outside its axis sets a flag, which the run raises. It reads nothing and writes nothing: a gather gives NaN
there (0 where there is none).

Axes: x is (A, P, B), what is gathered (A, U, B); indices make a place of 0 to P for each u.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ...types import DType, is_float
from .kernel import Ref
from .lowering import Site, every, lowers
from .operand import row_major
from .prelude import C_TYPES, c_type, computed
from .segments import UINT32, Scatter, bits, scatter
from .signature import Signature, is_wide, lanes, lanes_of_rows, store

_INDICES = ("int32", "int64")
_LARGEST = 2**31 - 2**25
"""How many updates, and places, a scatter takes."""


@dataclass(frozen=True)
class Places:
    """How indices make places of x.

    Attributes:
        indices: row-major, tuples of `len(sizes)`.
        sizes: of the axes that are indexed.
        pitches: how far apart, in places, the entries of each are.
        base: the axes of u, with how much each adds to the place.
        flag: what an index outside its axis sets; None where none can be.
        negative: whether indices below 0 count from the end.
    """

    indices: Ref
    sizes: tuple[int, ...]
    pitches: tuple[int, ...]
    base: tuple[tuple[int, int], ...]
    flag: Ref | None
    negative: bool = True

    def text(self, s: Signature) -> str:
        """Declare what is needed and return text that declares `place` and `inside` of `u`, and sets the flag."""
        s.reads("indices", self.indices)
        axes = [(f"u{i}", n) for i, (n, _) in enumerate(self.base)]
        steps = [step for _, step in self.base]
        lines = [s.unravel("u", axes)] if any(steps) else []
        start = s.offset("base", list(zip([name for name, _ in axes], steps, strict=True))) if any(steps) else "0"
        lines += [f"index place = {start};", "bool inside = true;"]
        for i, (size, pitch) in enumerate(zip(self.sizes, self.pitches, strict=True)):
            s.size(f"size{i}", size)
            s.size(f"pitch{i}", pitch)
            at = f"(i64)u * {len(self.sizes)} + {i}" if len(self.sizes) > 1 else "u"
            lines.append(f"i64 at{i} = indices[{at}];")
            if self.negative:
                lines.append(f"if (at{i} < 0) at{i} += size{i};")
            lines.append(f"inside = inside && at{i} >= 0 && at{i} < size{i};")
            lines.append(f"place += (inside ? (index)at{i} : 0) * pitch{i};")
        if self.flag is not None:
            s.writes("outside", self.flag)
            lines.append("if (!inside) *outside = 1;")
        return "\n".join(line for line in lines if line)


def _indices(site: Site, i: int = 1) -> bool:
    return site.types[i].dtype.name in _INDICES


def _flag(site: Site, sizes: Sequence[int], i: int = 1, *, negative: bool = True) -> Ref | None:
    """Return what an index outside axes of these sizes sets; None where the graph says that none is."""
    known = site.known(i)
    if known is not None:
        limits = np.asarray(sizes if len(sizes) > 1 else sizes[0])
        if not ((known < (-limits if negative else 0)) | (known >= limits)).any():
            return None
    return site.flag(f"{site.op}: an index is outside its axis")


# gathers --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Gather:
    x: Ref
    ahead: int
    count: int
    row: int
    size: int
    """How many places x has."""


def _gather_rows(site: Site, name: str, g: _Gather, places: Places) -> bool:
    """Launch a gather."""
    y = site.write(order="plain")
    if y.operand.size == 0:
        return True
    x, epilogue = g.x, site.epilogue
    s = Signature(is_wide(x.operand, y.operand, places.indices.operand))
    dtype, o = x.operand.dtype, y.operand
    stored = c_type(dtype) if epilogue is not None else bits(dtype)
    s.reads("x", x, stored)
    s.writes("y", y, stored if epilogue is None else "")
    last = o.ndim - 1
    width = lanes_of_rows(g.row, x.operand, o)
    if epilogue is not None:
        width = min(width, lanes(last, o)) if o.ndim else 1
    parts = s.unravel("t", [("lead", g.ahead), ("u", g.count), ("b", g.row // width)])
    place = places.text(s)
    s.size("x_lead", g.size * g.row)
    s.size("row", g.row)
    at = f"lead * x_lead + place * row + b * {width}"
    pack = f"pack<{stored}, {width}>"
    outside = f"{pack} found;\n#pragma unroll\nfor (int lane = 0; lane < {width}; ++lane) "
    outside += _nothing(dtype, "found.at[lane]", epilogue is not None) + "\n"
    body = f"{parts}\n{place}\n{outside}if (inside) found = *(const {pack}*)(x + ({at}));\n"
    if epilogue is None:
        body += f"*({pack}*)(y + (t * {width})) = found;"
        s.launch(site, name, body, o.size // width)
        return True
    coordinates = [(f"c{i}", n // width if i == last else n) for i, n in enumerate(o.shape)]
    body += s.unravel("t", coordinates) + "\n"
    names = [f"c{i} * {width}" if i == last else f"c{i}" for i in range(o.ndim)]
    number = computed(dtype)
    body += f"{number} result[{width}];\n#pragma unroll\n"
    body += f"for (int lane = 0; lane < {width}; ++lane) result[lane] = widen(found.at[lane]);\n"
    end = store(site, s, y, number, [f"({n})" for n in names], along=last, width=width)
    s.launch(site, name, f"{body}{end.prepare}\n{end.body}", o.size // width)
    return True


def _nothing(dtype: DType, target: str, typed: bool) -> str:
    """Return a statement that sets what is read outside: NaN, or 0 where the type has none."""
    name = dtype.name
    if typed:
        if is_float(dtype):
            nan = "__longlong_as_double(0x7ff8000000000000LL)" if name == "float64" else "__uint_as_float(0x7fc00000u)"
            return f"narrow({nan}, &{target});"
        return f"narrow(({computed(dtype)})0, &{target});"
    nans = {"float16": "0x7e00", "bfloat16": "0x7fc0", "float32": "0x7fc00000u", "float64": "0x7ff8000000000000ull"}
    return f"{target} = {nans.get(name, '0')};"


def _movable(*dtypes: DType) -> bool:
    return all(d.name in C_TYPES for d in dtypes)


@lowers("gather", fuses=every)
def _gather(site: Site) -> bool:
    x = site.types[0]
    if not _movable(x.dtype) or not _indices(site):
        return False
    axis = site.attrs.get("axis", 0) % x.ndim
    source, at = site.read(0, order="plain"), site.read(1, order="plain")
    shape = source.operand.shape
    n, row = shape[axis], prod(shape[axis + 1 :])
    places = Places(at, (n,), (1,), ((at.operand.size, 0),), _flag(site, (n,)))
    return _gather_rows(site, "gather", _Gather(source, prod(shape[:axis]), at.operand.size, row, n), places)


@lowers("gather_elements", fuses=every)
def _gather_elements(site: Site) -> bool:
    x, indices = site.types
    if not _movable(x.dtype) or not _indices(site) or not _fits(x.shape, indices.shape, site.attrs.get("axis", 0)):
        return False
    source, at = site.read(0, order="plain"), site.read(1, order="plain")
    places = _elementwise(site, at, source.operand.shape, site.attrs.get("axis", 0))
    size = source.operand.size
    return _gather_rows(site, "gather_elements", _Gather(source, 1, at.operand.size, 1, size), places)


def _fits(x: Sequence[Any], indices: Sequence[Any], axis: int) -> bool:
    """Return whether indices of an elementwise gather or scatter are no larger than x beside the axis."""
    if len(x) != len(indices) or not x:
        return False
    return all(i <= n for k, (i, n) in enumerate(zip(indices, x, strict=True)) if k != axis % len(x))


def _elementwise(site: Site, indices: Ref, shape: Sequence[int], axis: int) -> Places:
    """Return the places of indices that replace the coordinate along an axis."""
    axis %= len(shape)
    pitches = row_major(shape)
    base = tuple((n, 0 if i == axis else pitches[i]) for i, n in enumerate(indices.operand.shape))
    return Places(indices, (shape[axis],), (pitches[axis],), base, _flag(site, (shape[axis],)))


@lowers("gather_nd", fuses=every)
def _gather_nd(site: Site) -> bool:
    x, indices = site.types
    batch = site.attrs.get("batch_dims", 0)
    if not _movable(x.dtype) or not _indices(site) or not _tuples(x.shape, indices.shape, batch):
        return False
    source, at = site.read(0, order="plain"), site.read(1, order="plain")
    places, row = _by_tuple(site, at, source.operand.shape, batch)
    count = prod(at.operand.shape[:-1])
    size = prod(source.operand.shape) // max(row, 1)
    return _gather_rows(site, "gather_nd", _Gather(source, 1, count, row, size), places)


def _tuples(x: Sequence[Any], indices: Sequence[Any], batch: int) -> bool:
    """Return whether index tuples are of a known length and batches fit."""
    k = indices[-1] if indices else None
    if not isinstance(k, int) or not 1 <= k <= 8 or batch + k > len(x):
        return False
    return tuple(x[:batch]) == tuple(indices[:batch])


def _by_tuple(site: Site, indices: Ref, shape: Sequence[int], batch: int) -> tuple[Places, int]:
    """Return the places of index tuples, and how many elements each has."""
    k = indices.operand.shape[-1]
    indexed, row = shape[: batch + k], prod(shape[batch + k :])
    pitches = row_major(indexed)
    lead = indices.operand.shape[:-1]
    base = tuple((n, pitches[i] if i < batch else 0) for i, n in enumerate(lead))
    sizes = tuple(shape[batch : batch + k])
    return Places(indices, sizes, pitches[batch:], base, _flag(site, sizes)), row


@lowers("pool_gather")
def _pool_gather(site: Site) -> bool:
    x = site.types[0]
    if not _movable(x.dtype) or not _indices(site):
        return False
    source, at = site.read(0, order="plain"), site.read(1, order="plain")
    size = source.operand.size
    places = Places(at, (size,), (1,), ((at.operand.size, 0),), _flag(site, (size,)))
    return _gather_rows(site, "pool_gather", _Gather(source, 1, at.operand.size, 1, size), places)


# scatters -------------------------------------------------------------------------------------------------------------


def _keys(site: Site, places: Places, count: int, bound: int) -> Ref:
    """Launch what makes the place of each update, `bound` where an index is outside."""
    keys = site.temporary(UINT32, (count,))
    s = Signature(is_wide(places.indices.operand))
    s.writes("keys", keys)
    s.integer("bound", bound)
    body = f"const index u = t;\n{places.text(s)}\nkeys[u] = inside ? (u32)place : (u32)bound;"
    s.launch(site, "scatter_places", body, count)
    return keys


def _start(site: Site, source: Ref | None, y: Ref) -> None:
    """Launch what fills the result with a tensor, or with zeros."""
    o = y.operand
    if o.size == 0:
        return
    stored = bits(o.dtype)
    width = lanes_of_rows(o.size, o) if source is None else lanes_of_rows(o.size, o, source.operand)
    s = Signature(is_wide(o))
    s.writes("y", y, stored)
    pack = f"pack<{stored}, {width}>"
    if source is None:
        body = f"{pack} zeros;\n#pragma unroll\nfor (int lane = 0; lane < {width}; ++lane) zeros.at[lane] = 0;\n"
        body += f"*({pack}*)(y + t * {width}) = zeros;"
    else:
        s.reads("x", source, stored)
        body = f"*({pack}*)(y + t * {width}) = *(const {pack}*)(x + t * {width});"
    s.launch(site, "scatter_start", body, o.size // width)


def _combines(dtype: DType, reduction: str) -> bool:
    if not _movable(dtype):
        return False
    return reduction == "none" or (dtype.kind != "b" and reduction in ("add", "mul", "max", "min"))


def _countable(count: int, places: int) -> bool:
    return count < _LARGEST and places < _LARGEST


@lowers("gather_grad")
def _gather_grad(site: Site) -> bool:
    g, indices = site.types
    y = site.results[0]
    axis = site.attrs["axis"] % (g.ndim - indices.ndim + 1)
    shape = tuple(map(int, y.shape))
    size, count = shape[axis], prod(indices.shape)
    if not _combines(g.dtype, "add") or not _indices(site) or not _countable(count, size):
        return False
    updates, at, target = site.read(0, order="plain"), site.read(1, order="plain"), site.write(order="plain")
    _start(site, None, target)
    if target.operand.size == 0 or count == 0:
        return True
    keys = _keys(site, Places(at, (size,), (1,), ((count, 0),), _flag(site, (size,))), count, size)
    ahead, row = prod(shape[:axis]), prod(shape[axis + 1 :])
    scatter(site, Scatter(updates, target, keys, ahead, 1, count, 1, size, row, "add"))
    return True


@lowers("scatter_elements")
def _scatter_elements(site: Site) -> bool:
    x, indices, updates = site.types
    axis, reduction = site.attrs.get("axis", 0), site.attrs.get("reduction", "none")
    places, count = prod(x.shape), prod(indices.shape)
    if not _combines(x.dtype, reduction) or not _indices(site) or not _fits(x.shape, indices.shape, axis):
        return False
    if updates.shape != indices.shape or not _countable(count, places):
        return False
    axis %= x.ndim
    shape = tuple(indices.shape)
    split = (prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :]))
    return _scatter_rows(site, split, 1, reduction, lambda at: _elementwise(site, at, x.shape, axis))


@lowers("scatter_nd")
def _scatter_nd(site: Site) -> bool:
    x, indices, updates = site.types
    batch, reduction = site.attrs.get("batch_dims", 0), site.attrs.get("reduction", "none")
    if not _combines(x.dtype, reduction) or not _indices(site) or not _tuples(x.shape, indices.shape, batch):
        return False
    k, lead = indices.shape[-1], tuple(indices.shape[:-1])
    row = prod(x.shape[batch + k :])
    if tuple(updates.shape) != (*lead, *x.shape[batch + k :]):
        return False
    if not _countable(prod(lead), prod(x.shape[: batch + k])):
        return False
    split = (prod(lead[:batch]), prod(lead[batch:]), 1)
    return _scatter_rows(site, split, row, reduction, lambda at: _by_tuple(site, at, x.shape, batch)[0])


def _scatter_rows(site: Site, split: tuple[int, int, int], row: int, reduction: str, places_of: Any) -> bool:
    """Launch a scatter of inputs x, indices, updates; `split` is (O, I, R)."""
    source, at, updates = (site.read(i, order="plain") for i in range(3))
    target = site.write(order="plain")
    _start(site, source, target)
    count = prod(split)
    if count * row == 0 or target.operand.size == 0:
        return True
    places = target.operand.size // row
    made: Places = places_of(at)
    keys = _keys(site, made, count, places)
    scatter(site, Scatter(updates, target, keys, 1, *split, places, row, reduction), distinct=_distinct(site, made))
    return True


def _distinct(site: Site, places: Places) -> bool:
    """Return whether constant indices name no place twice."""
    known = site.known(1)
    if known is None or known.size > 1 << 16:
        return False
    tuples = np.asarray(known).reshape(-1, len(places.sizes)).astype(np.int64)
    wrapped = np.where(tuples < 0, tuples + np.asarray(places.sizes), tuples)
    rows = (wrapped * np.asarray(places.pitches)).sum(axis=1)
    grid: Any = np.zeros((), np.int64)
    for i, (n, step) in enumerate(places.base):
        grid = grid + (np.arange(n) * step).reshape(-1, *(1,) * (len(places.base) - 1 - i))
    rows = (rows + np.broadcast_to(grid, [n for n, _ in places.base]).reshape(-1)) if places.base else rows
    return len(np.unique(rows)) == len(rows)


@lowers("pool_scatter", "max_unpool")
def _pool_scatter(site: Site) -> bool:
    g, indices = site.types
    y = site.results[0]
    reduction = "add" if site.op == "pool_scatter" else "none"
    size, count = prod(map(int, y.shape)), prod(indices.shape)
    if not _combines(g.dtype, reduction) or not _indices(site) or not _countable(count, size):
        return False
    updates, at, target = site.read(0, order="plain"), site.read(1, order="plain"), site.write(order="plain")
    _start(site, None, target)
    if size == 0 or count == 0:
        return True
    negative = reduction == "none"
    flag = _flag(site, (size,), negative=negative)
    keys = _keys(site, Places(at, (size,), (1,), ((count, 0),), flag, negative), count, size)
    scatter(site, Scatter(updates, target, keys, 1, 1, count, 1, size, 1, reduction))
    return True


@lowers("copy_slices")
def _copy_slices(site: Site) -> bool:
    x, part, positions = site.types
    size, count = prod(x.shape), prod(positions.shape)
    if not _movable(x.dtype) or part.dtype != x.dtype or part.shape != positions.shape or not _indices(site, 2):
        return False
    if not _countable(count, size):
        return False
    source, updates, at = (site.read(i, order="plain") for i in range(3))
    target = site.write(order="plain")
    _start(site, source, target)
    if size == 0 or count == 0:
        return True
    keys = _keys(site, Places(at, (size,), (1,), ((count, 0),), _flag(site, (size,), 2)), count, size)
    scatter(site, Scatter(updates, target, keys, 1, 1, count, 1, size, 1, "none"))
    return True


# one hot --------------------------------------------------------------------------------------------------------------


@lowers("one_hot")
def _one_hot(site: Site) -> bool:
    indices, y = site.types[0], site.results[0]
    if not _indices(site, 0) or not _movable(y.dtype):
        return False
    axis = site.attrs.get("axis", -1) % (indices.ndim + 1)
    at, target = site.read(0, order="plain"), site.write(order="plain")
    o = target.operand
    inner = prod(o.shape[axis + 1 :])
    s = Signature(is_wide(o))
    s.reads("indices", at)
    s.writes("y", target)
    walk = s.unravel("t", [("a", prod(o.shape[:axis])), ("d", o.shape[axis]), ("r", inner)])
    s.size("inner", inner)
    s.size("depth", o.shape[axis])
    number = computed(o.dtype)
    body = f"""
{walk}
i64 at = indices[a * inner + r];
if (at < 0) at += depth;
narrow(({number})(at == d ? 1 : 0), &y[t]);
"""
    s.launch(site, "one_hot", body, o.size)
    return True
