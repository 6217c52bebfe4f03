"""Walks over strided tensors: which axes are one axis, how they split into chunks, the loops over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...dims import Dim, DimLike, evaluate, symbols_in
from .emitter import Emitter, V

CHUNK_BYTES = 1 << 16
"""About as much as one chunk of a kernel that only moves data should write."""

_TYPICAL = 64
"""What a size that only run time knows is taken for, where nothing but speed depends on it."""


def bits(dtype: Any) -> np.dtype[Any]:
    """Return the unsigned integer that is as wide as an element: copies keep bits, NaN's too."""
    return np.dtype(f"uint{8 * np.dtype(dtype).itemsize}")


def lanes_of(target: Any, dtype: Any) -> int:
    """Return how many elements a vector holds, by their width in memory alone."""
    return int(target.vector_bits // (8 * np.dtype(dtype).itemsize))


def typical(d: DimLike) -> int:
    """Return a size, or what it may be where only run time knows it."""
    return evaluate(d, dict.fromkeys(symbols_in(d), _TYPICAL))


@dataclass(frozen=True)
class Axis:
    """An axis of a walk.

    Attributes:
        size: how many places it has.
        strides: of each tensor that is walked over, in elements.
        tile: how many places of it a chunk covers; 0 for all of them.
    """

    size: DimLike
    strides: tuple[DimLike, ...]
    tile: int = 0


def axes_of(shape: Sequence[DimLike], *strides: Sequence[DimLike]) -> list[Axis]:
    """Return the axes that are walked over, the last tensor's largest stride first, merged where they lie together."""
    axes = [Axis(n, tuple(s[i] for s in strides)) for i, n in enumerate(shape) if n != 1]
    axes.sort(key=lambda a: [abs(typical(s)) for s in reversed(a.strides)], reverse=True)
    merged: list[Axis] = []
    for axis in axes:
        outer = merged[-1] if merged else None
        if outer is not None and all(o == s * axis.size for o, s in zip(outer.strides, axis.strides, strict=True)):
            merged[-1] = Axis(outer.size * axis.size, axis.strides)
        else:
            merged.append(axis)
    return merged


def tiled(axes: Sequence[Axis], elements: int, steps: Sequence[int] = ()) -> tuple[Axis, ...]:
    """Return the axes with tiles, so that a chunk covers about this many places.

    Args:
        axes: outermost first.
        elements: how many places a chunk should have.
        steps: for each of the last axes, what its tile is a multiple of.
    """
    rest = max(1, elements)
    out: list[Axis] = []
    for i, axis in enumerate(reversed(axes)):
        step = steps[len(steps) - 1 - i] if i < len(steps) else 1
        if axis.tile:
            out.append(axis)
            rest = max(1, rest // axis.tile)
        elif not isinstance(axis.size, Dim) and axis.size <= rest:
            out.append(axis)
            rest //= max(1, axis.size)
        else:
            tile = max(1, rest // step) * step
            out.append(replace(axis, tile=tile))
            rest = max(1, rest // min(tile, typical(axis.size) or 1)) if isinstance(axis.size, Dim) else 1
    return tuple(reversed(out))


def chunks_of(axes: Sequence[Axis]) -> DimLike:
    """Return how many chunks the tiles make; none, where there is nothing to do."""
    total: DimLike = 1
    for axis in axes:
        if axis.tile:
            total = total * ((axis.size + (axis.tile - 1)) // axis.tile)
        elif axis.size == 0:
            return 0
    return total


Bounds = tuple[Any, Any]


def bounds_of(e: Emitter, axes: Sequence[Axis], chunk: Any = None) -> list[Bounds]:
    """Return the part of each axis, from low to before high, that a chunk covers."""
    parts = [e.ceil_div(a.size, a.tile) for a in axes if a.tile]
    places = iter(e.unravel(e.chunk if chunk is None else chunk, parts))
    out: list[Bounds] = []
    for axis in axes:
        if not axis.tile:
            out.append((0, axis.size))
            continue
        low = e.mul(next(places), axis.tile)
        high = e.add(low, axis.tile)
        if isinstance(axis.size, Dim) or axis.size % axis.tile:
            high = e.min(high, axis.size)
        out.append((low, high))
    return out


def descend(
    e: Emitter,
    axes: Sequence[Axis],
    bounds: Sequence[Bounds],
    pointers: Sequence[V],
    dtypes: Sequence[Any],
    body: Callable[[Sequence[V]], None],
) -> None:
    """Write loops over some axes and, inside, what `body` writes, given the addresses there."""
    if not axes:
        body(pointers)
        return
    axis, (low, high) = axes[0], bounds[0]

    def inside(index: Any) -> None:
        moved = [
            e.at(p, e.mul(index, s), t) if s != 0 else p for p, s, t in zip(pointers, axis.strides, dtypes, strict=True)
        ]
        descend(e, axes[1:], bounds[1:], moved, dtypes, body)

    if axis.tile == 1:
        inside(low)
        return
    with e.loop(low, high) as loop:
        inside(loop.index)
