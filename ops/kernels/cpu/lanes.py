"""Vectors along an axis of static size: whole ones in a loop, then what is left."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import llvmlite.ir as ir

from .emitter import I1, I64, Emitter, V
from .operand import Operand

Piece = tuple[V, int, V]
"""Where a vector begins, how many lanes it has, and which of them exist (None for all)."""


def vectors(e: Emitter, dtype: Any, count: int, lanes: int = 0) -> Iterator[Piece]:
    """Yield the vectors that cover `count` elements; what the caller writes for the first is the body of a loop.

    The rest is one masked vector where masks are free, else vectors of half the lanes, a quarter, ... one.
    """
    lanes = lanes or e.target.lanes(dtype)
    full = count // lanes * lanes
    if full:
        with e.loop(0, full, lanes) as loop:
            yield loop.index, lanes, None
    yield from rest(e, full, count, lanes)


def blocks(e: Emitter, dtype: Any, count: int, size: int) -> Iterator[tuple[V, Callable[[], Iterator[Piece]]]]:
    """Yield (begin, its vectors) for blocks of `size` whole vectors, then for what is left behind the last one.

    Loops over other axes go between the two, so that what they meet of one block stays in the first cache.
    """
    lanes = e.target.lanes(dtype)
    full = count // lanes * lanes

    def inside(low: V) -> Iterator[Piece]:
        with e.loop(low, e.min(e.add(low, size * lanes), full), lanes) as loop:
            yield loop.index, lanes, None

    if full > size * lanes:
        with e.loop(0, full, size * lanes) as loop:
            yield loop.index, functools.partial(inside, loop.index)
        if full < count:
            yield I64(full), lambda: rest(e, full, count, lanes)
    else:
        yield I64(0), lambda: vectors(e, dtype, count)


def rest(e: Emitter, low: int, high: int, lanes: int) -> Iterator[Piece]:
    """Yield what covers fewer elements than a vector has lanes."""
    if high > low and e.target.masks:
        mask = [i < high - low for i in range(lanes)]
        yield I64(low), lanes, ir.Constant(ir.VectorType(I1, lanes), [int(m) for m in mask])
        return
    while low < high:
        lanes //= 2
        if low + lanes <= high:
            yield I64(low), lanes, None
            low += lanes


def planar(operand: Operand) -> Operand:
    """Return an operand of one spatial axis as one of two, of which the second has size 1."""
    if operand.ndim != 3:
        return operand
    halo = (*operand.halo, (0, 0)) if operand.halo else ()
    return Operand(operand.dtype, (*operand.shape, 1), (*operand.strides, 0), halo, operand.slack)
