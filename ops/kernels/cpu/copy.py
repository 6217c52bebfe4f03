"""Copies between any two layouts of a tensor, and fills: what reorders, halos and the layout ops are made of.

Elements move as unsigned integers of their width, so that every bit arrives. Where both sides lie along one axis, rows
are copied; where the source lies along one axis and the target along another, square blocks are transposed in
registers; a few channels interleave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ...dims import Dim, DimLike
from ...errors import KernelError
from .emitter import Emitter, V
from .kernel import Kernel, kernel
from .operand import Operand
from .shuffle import collect, deinterleave, interleave, load_part, shuffle, store_part, transpose
from .walk import CHUNK_BYTES, Axis, Bounds, axes_of, bits, bounds_of, chunks_of, descend, lanes_of, tiled

_FEW = 4
"""Up to this many channels interleave."""

_LONG = 16
"""Up to this many vectors of a row are written out."""

_WIDTHS = (1, 2, 4, 8)

_CONFLICT = 1024
"""Rows that lie a multiple of so many bytes apart share few sets of the cache: a transpose then writes along rows."""


@dataclass(frozen=True)
class Copy:
    """What the code of a copy depends on.

    Attributes:
        dtype: unsigned integers as wide as the elements.
        axes: with strides of the source and the target, outermost first. A transpose ends with the source's axis of
            stride 1 and then the target's, anything else with the axis along which vectors lie.
        starts: the first element of the source and the target, counted from their addresses.
        how: `rows` or `blocks`.
        pixel: how many elements of the source and of the target lie between two pixels of few channels, 0 where blocks
            are transposed.
    """

    dtype: np.dtype[Any]
    axes: tuple[Axis, ...]
    starts: tuple[DimLike, DimLike]
    how: Literal["rows", "blocks"]
    pixel: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Fill:
    """What the code of a fill depends on: parts of a tensor, each with its first element, and the bits to write."""

    dtype: np.dtype[Any]
    parts: tuple[tuple[DimLike, tuple[Axis, ...]], ...]
    chunks: tuple[DimLike, ...]
    value: int


def copy_kernel(
    source: Operand, target: Operand, source_start: DimLike = 0, target_start: DimLike = 0, name: str = "copy"
) -> Kernel:
    """Return the kernel that copies a tensor to memory that lies in another way.

    Its operands are the source and the target.

    Args:
        source: how it lies; strides may be 0 or negative.
        target: how the copy lies.
        source_start: the source's first element, counted from the address that the kernel is given.
        target_start: the target's.
        name: of the kernel.

    Raises:
        KernelError: if shapes or element types differ.
    """
    if source.shape != target.shape or source.dtype != target.dtype:
        raise KernelError(
            f"{name}: {source.dtype} {source.shape} is no copy of {target.dtype} {target.shape}; give both one shape"
        )
    if not copies(source.dtype):
        raise KernelError(f"{name}: elements of type {source.dtype} are not copied; they have to be 1, 2, 4 or 8 bytes")
    dtype = bits(source.dtype)
    axes = axes_of(source.shape, source.strides, target.strides)
    p = _plan(dtype, axes, (source_start, target_start), source.slack, target.slack)
    moved = 2 * source.size * dtype.itemsize
    return kernel(name, emit_copy, p, operands=2, chunks=chunks_of(p.axes), bytes=moved)


def copies(dtype: Any) -> bool:
    """Whether elements of this type can be copied."""
    return np.dtype(dtype).kind in "biufV" and np.dtype(dtype).itemsize in _WIDTHS


def _plan(
    dtype: np.dtype[Any], axes: list[Axis], starts: tuple[DimLike, DimLike], source_slack: int, target_slack: int
) -> Copy:
    """Choose how to copy along which axes."""
    if not axes:
        axes = [Axis(1, (1, 1))]
    elements = CHUNK_BYTES // dtype.itemsize
    b = next((i for i, a in enumerate(axes) if a.strides[0] == 1), None)
    a = next((i for i, x in enumerate(axes) if x.strides[1] == 1), None)
    if a is None or b is None or a == b or (_short(axes[a].size) and _short(axes[b].size)):
        last = b if b is not None and a == b else a if a is not None else len(axes) - 1
        rows = [*axes[:last], *axes[last + 1 :], axes[last]]
        return Copy(dtype, tiled(rows, elements, (64,)), starts, "rows")
    along, across = axes[b], axes[a]
    rest = [x for i, x in enumerate(axes) if i not in (a, b)]
    pixel = (0, 0)
    apart, together = along.strides[1], across.strides[0]
    if _few(across.size) and _few(apart) and apart - across.size <= target_slack:
        pixel = (0, int(apart))
    elif _few(along.size) and _few(together) and together - along.size <= source_slack:
        pixel = (int(together), 0)
    limit = max(64, elements // (4 if any(pixel) else 64))
    if isinstance(across.size, Dim) or across.size > limit:
        across = Axis(across.size, across.strides, limit)
    return Copy(dtype, tiled([*rest, along, across], elements, (64, 64)), starts, "blocks", pixel)


def _few(n: DimLike) -> bool:
    """Whether this is a size that is interleaved."""
    return not isinstance(n, Dim) and 2 <= n <= _FEW


def _short(n: DimLike) -> bool:
    """Whether an axis fills no vector of any target."""
    return not isinstance(n, Dim) and n < 4


def emit_copy(e: Emitter, p: Copy) -> None:
    """Write the code of a copy."""
    if any(a.size == 0 for a in p.axes):
        return
    pointers = [e.at(e.pointer(i), start, p.dtype) for i, start in enumerate(p.starts)]
    bounds = bounds_of(e, p.axes)
    inner = 1 if p.how == "rows" else 2

    def body(places: Sequence[V]) -> None:
        if p.how == "rows":
            write_row(e, p.dtype, p.axes[-1], bounds[-1], places[0], places[1])
        elif any(p.pixel):
            _pixels(e, p, bounds[-2:], places[0], places[1])
        else:
            _blocks(e, p.dtype, p.axes[-2:], bounds[-2:], places[0], places[1])

    descend(e, p.axes[:-inner], bounds[:-inner], pointers, (p.dtype, p.dtype), body)


# rows -----------------------------------------------------------------------------------------------------------------


def write_row(e: Emitter, dtype: Any, axis: Axis, bounds: Sequence[Any], source: V, target: V) -> None:
    """Write the code that copies the places [low, high) of one axis; the addresses are those of place 0."""
    lanes = lanes_of(e.target, dtype)
    step_in, step_out = axis.strides
    spread = isinstance(step_in, int) and 2 <= step_in <= _FEW
    if step_out != 1 or not (spread or step_in in (0, 1, -1)):
        _strided(e, dtype, axis, bounds, source, target)
        return
    one = e.load(source, dtype) if step_in == 0 else None

    def move(index: Any, count: int) -> None:
        if one is not None:
            value = e.splat(one, count)
        elif step_in == 1:
            value = e.load(e.at(source, index, dtype), dtype, count)
        elif spread:
            value = _every(e, dtype, e.at(source, e.mul(index, step_in), dtype), int(step_in), count)
        else:
            value = e.load(e.at(source, e.sub(1 - count, index), dtype), dtype, count)
            value = shuffle(e, value, None, list(reversed(range(count)))) if count > 1 else value
        e.store(value, e.at(target, index, dtype), dtype)

    vectorised(e, axis, bounds, lanes, move)


def _every(e: Emitter, dtype: Any, source: V, step: int, count: int) -> V:
    """Load every step-th element; the last of them is the last that is read."""
    if count == 1:
        return e.load(source, dtype)
    last = (count - 1) * step + 1 - count
    starts = [min(j * count, last) for j in range(step)]
    vectors = [e.load(e.at(source, start, dtype), dtype, count) for start in starts]
    return collect(e, vectors, [(at // count, at - starts[at // count]) for at in range(0, count * step, step)])


def vectorised(e: Emitter, axis: Axis, bounds: Sequence[Any], lanes: int, move: Any) -> None:
    """Write `move(index, count)` for vectors that cover [low, high) of an axis, some places perhaps twice."""
    low, high = bounds
    n = axis.size
    if isinstance(n, Dim):
        long = e.b.icmp_signed(">=", e.dim(n), e.index(lanes))
        with e.b.if_else(long) as (then, otherwise):
            with then:
                _vectors(e, n, low, high, lanes, move)
            with otherwise, e.loop(low, high) as loop:
                move(loop.index, 1)
        return
    if axis.tile == 0 and n <= _LONG * lanes:
        start = 0
        while start < n:
            size = lanes
            while size > n:
                size //= 2
            move(e.index(min(start, n - size)), size)
            start += size
        return
    if n < lanes:
        with e.loop(low, high) as loop:
            move(loop.index, 1)
        return
    _vectors(e, n, low, high, lanes, move)


def _vectors(e: Emitter, n: DimLike, low: Any, high: Any, lanes: int, move: Any) -> None:
    """Write loops of four vectors, then of one; the last one ends where the axis does."""
    many = 4 * lanes
    if isinstance(low, int) and isinstance(high, int):
        middle: Any = low + (high - low) // many * many
    else:
        whole = e.mul(e.div(e.sub(high, low), many), many)
        middle = e.add(low, whole)
    with e.loop(low, middle, many) as loop:
        for k in range(4):
            move(e.add(loop.index, k * lanes), lanes)
    if isinstance(middle, int) and isinstance(high, int) and middle == high:
        return
    with e.loop(middle, high, lanes) as loop:
        move(clamped(e, loop.index, n, lanes), lanes)


def clamped(e: Emitter, index: Any, n: DimLike, lanes: int) -> V:
    """Return where a vector at an index starts if it may not end behind an axis of n places."""
    if not isinstance(n, Dim) and n % lanes == 0:
        return e.index(index)
    return e.min(index, e.sub(n, lanes))


def _strided(e: Emitter, dtype: Any, axis: Axis, bounds: Sequence[Any], source: V, target: V) -> None:
    step_in, step_out = axis.strides
    with e.loop(*bounds) as loop:
        value = e.load(e.at(source, e.mul(loop.index, step_in), dtype), dtype)
        e.store(value, e.at(target, e.mul(loop.index, step_out), dtype), dtype)


# blocks ---------------------------------------------------------------------------------------------------------------


def _block(e: Emitter, dtype: Any) -> int:
    """Return how many rows and columns a block has: what the registers hold, and 128 bits of each at least."""
    return min(lanes_of(e.target, dtype), 16 if e.target.registers > 16 or dtype.itemsize == 1 else 8)


def _blocks(e: Emitter, dtype: Any, axes: Sequence[Axis], bounds: Sequence[Bounds], source: V, target: V) -> None:
    """Write the transpose of the last two axes: the source has stride 1 along the first, the target along the last."""
    along, across = axes
    side = _block(e, dtype)
    counts = [side if isinstance(a.size, Dim) else min(side, a.size) for a in axes]
    guards = [e.b.icmp_signed(">=", e.dim(a.size), e.index(side)) for a in axes if isinstance(a.size, Dim)]

    step = along.strides[1]
    apart = isinstance(step, Dim) or step * dtype.itemsize % _CONFLICT == 0
    order = (0, 1) if apart else (1, 0)

    def fast() -> None:
        (low, high), (first, last) = bounds[order[0]], bounds[order[1]]
        with e.loop(low, high, counts[order[0]]) as outer, e.loop(first, last, counts[order[1]]) as inner:
            at = dict(zip(order, (outer.index, inner.index), strict=True))
            r, q = (clamped(e, at[i], axes[i].size, counts[i]) for i in (0, 1))
            of = e.at(source, e.add(r, e.mul(q, across.strides[0])), dtype)
            to = e.at(target, e.add(e.mul(r, step), q), dtype)
            _turn(e, dtype, side, counts, of, across.strides[0], to, step)

    if not guards:
        fast()
        return
    condition = guards[0] if len(guards) == 1 else e.b.and_(*guards)
    with e.b.if_else(condition) as (then, otherwise):
        with then:
            fast()
        with otherwise, e.loop(*bounds[0]) as loop:
            at = e.at(source, loop.index, dtype)
            to = e.at(target, e.mul(loop.index, along.strides[1]), dtype)
            _strided(e, dtype, across, bounds[1], at, to)


def _turn(
    e: Emitter, dtype: Any, side: int, counts: Sequence[int], source: V, row: DimLike, target: V, column: DimLike
) -> None:
    """Write the transpose of one block of counts[1] rows of counts[0] elements."""
    rows, place = [], source
    for i in range(counts[1]):
        if i:
            place = e.at(place, row, dtype) if isinstance(row, Dim) else e.at(source, i * row, dtype)
        rows.append(load_part(e, place, dtype, counts[0], side))
    rows += [rows[0]] * (side - len(rows))
    place = target
    for j, value in enumerate(transpose(e, rows, dtype)[: counts[0]]):
        if j:
            place = e.at(place, column, dtype) if isinstance(column, Dim) else e.at(target, j * column, dtype)
        store_part(e, value, place, dtype, counts[1])


def _pixels(e: Emitter, p: Copy, bounds: Sequence[Any], source: V, target: V) -> None:
    """Write the (de)interleaving of a few channels with the pixels of a plane."""
    along, across = p.axes[-2:]
    apart = p.pixel[0] == 0
    pixels, channels = (along, across) if apart else (across, along)
    part = bounds[0] if apart else bounds[1]
    lanes = lanes_of(e.target, p.dtype)
    count, gap = int(channels.size), max(p.pixel)
    plane = channels.strides[0 if apart else 1]

    def move(index: V, size: int) -> None:
        if apart:
            at = e.at(source, index, p.dtype)
            values = [e.load(e.at(at, e.mul(c, plane), p.dtype), p.dtype, size) for c in range(count)]
            to = e.at(target, e.mul(index, gap), p.dtype)
            if size == 1:
                for c, value in enumerate(values):
                    e.store(value, e.at(to, c, p.dtype), p.dtype)
                return
            values += [e.zero(p.dtype, size)] * (gap - count)
            for j, value in enumerate(interleave(e, values)):
                e.store(value, e.at(to, j * size, p.dtype), p.dtype)
            return
        at = e.at(source, e.mul(index, gap), p.dtype)
        to = e.at(target, index, p.dtype)
        if size == 1:
            values = [e.load(e.at(at, c, p.dtype), p.dtype) for c in range(count)]
        else:
            values = deinterleave(e, [e.load(e.at(at, j * size, p.dtype), p.dtype, size) for j in range(gap)], count)
        for c, value in enumerate(values):
            e.store(value, e.at(to, e.mul(c, plane), p.dtype), p.dtype)

    pixels = Axis(pixels.size, pixels.strides, max(1, pixels.tile))
    vectorised(e, pixels, part, lanes, move)


# fills ----------------------------------------------------------------------------------------------------------------


def fill_kernel(operand: Operand, value: Any, start: DimLike = 0, name: str = "fill") -> Kernel:
    """Return the kernel that writes one value everywhere in a tensor, whose address it is given."""
    return fill_parts(operand.dtype, [(start, operand.shape, operand.strides)], value, name)


def fill_parts(
    dtype: Any, parts: Sequence[tuple[DimLike, Sequence[DimLike], Sequence[DimLike]]], value: Any, name: str
) -> Kernel:
    """Return the kernel that fills parts (start, shape, strides) of the tensor whose address it is given."""
    if not copies(dtype):
        raise KernelError(f"{name}: elements of type {dtype} are not filled; they have to be 1, 2, 4 or 8 bytes")
    kind = bits(dtype)
    number = int(np.asarray(value, dtype).reshape(1).view(kind)[0])
    elements = CHUNK_BYTES // kind.itemsize
    made: list[tuple[DimLike, tuple[Axis, ...]]] = []
    moved: DimLike = 0
    for start, shape, strides in parts:
        if any(n == 0 for n in shape):
            continue
        axes = axes_of(shape, strides) or [Axis(1, (1,))]
        made.append((start, tiled(axes, elements, (64,))))
        size: DimLike = 1
        for n in shape:
            size = size * n
        moved = moved + size * kind.itemsize
    counts = tuple(chunks_of(axes) for _, axes in made)
    return kernel(
        name, emit_fill, Fill(kind, tuple(made), counts, number), operands=1, chunks=sum(counts, start=0), bytes=moved
    )


def emit_fill(e: Emitter, p: Fill) -> None:
    """Write the code of a fill."""
    lanes = lanes_of(e.target, p.dtype)
    one = e.constant(p.value, e.zero(p.dtype).type)
    first: Any = 0
    for (start, axes), count in zip(p.parts, p.chunks, strict=True):
        end = e.add(first, e.dim(count))
        mine = e.b.and_(
            e.b.icmp_signed("<=", e.index(first), e.chunk), e.b.icmp_signed("<", e.chunk, end)
        )  # fmt: skip
        with e.when(mine):
            bounds = bounds_of(e, axes, e.sub(e.chunk, first))
            pointer = e.at(e.pointer(0), start, p.dtype)

            def body(places: Sequence[V], axes: Any = axes, bounds: Any = bounds) -> None:
                (place,) = places

                def move(index: V, size: int) -> None:
                    e.store(e.splat(one, size), e.at(place, index, p.dtype), p.dtype)

                if axes[-1].strides[0] == 1:
                    vectorised(e, axes[-1], bounds[-1], lanes, move)
                    return
                with e.loop(*bounds[-1]) as loop:
                    e.store(one, e.at(place, e.mul(loop.index, axes[-1].strides[0]), p.dtype), p.dtype)

            descend(e, axes[:-1], bounds[:-1], [pointer], [p.dtype], body)
        first = end


def zero_halo_kernel(operand: Operand, name: str = "zero_halo") -> Kernel:
    """Return the kernel that writes zeros around a channels-last tensor, as far as its halo goes.

    Raises:
        KernelError: if the halo is not around spatial axes.
    """
    if any(operand.padding(i) != (0, 0) for i in (0, 1)) or not operand.channels_last:
        raise KernelError(f"{name}: halos lie around the spatial axes of channels-last tensors, found {operand.halo}")
    return fill_parts(operand.dtype, border(operand), 0, name)


def border(operand: Operand) -> list[tuple[DimLike, tuple[DimLike, ...], tuple[DimLike, ...]]]:
    """Return the parts (start, shape, strides) that make up a tensor's halo, none of them twice."""
    strides = operand.strides
    shape = list(operand.shape)
    whole = isinstance(operand.shape[1], int) and operand.shape[1] + operand.slack == strides[-1]
    if operand.channels_last and whole:
        shape[1] = shape[1] + operand.slack  # the gap between pixels is theirs: rows of pixels are then one run
    parts = []
    axes = [i for i in range(operand.ndim) if operand.padding(i) != (0, 0)]
    for k, axis in enumerate(axes):
        inner = axes[k + 1 :]
        back: DimLike = 0
        around = list(shape)
        for j in inner:
            low, high = operand.padding(j)
            back = back - low * strides[j]
            around[j] = shape[j] + low + high
        low, high = operand.padding(axis)
        for count, at in ((low, -low), (high, shape[axis])):
            if count:
                around[axis] = count
                parts.append((back + at * strides[axis], tuple(around), strides))
    return parts
