"""Rows of strided tensors: how reductions, softmax, normalisation and losses walk over what lies in any way.

A walk has *kept* axes, whose places are independent of each other and split into chunks, and *inner* axes, which a row
walks over as often as it has passes. Where the axis of stride 1 is an inner one, a row has vectors along it, and what
it folds is a scalar at the end. Where it is kept, a row is a few vectors of neighbouring places, which fold without
meeting. `row.py` writes the loops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...dims import Dim, DimLike, Shape, product
from .lowering import Epilogue
from .operand import Operand
from .target import Target
from .walk import typical

CHUNK = 1 << 15
"""About how many elements a chunk reads."""

FEW = 16
"""Fewer rows than this leave threads without work."""


@dataclass(frozen=True)
class Rows:
    """How to walk.

    Attributes:
        shape: of the walk, axes merged where all operands allow it, the outermost in memory first.
        inner: which axes are walked over inside of a row.
        operands: inputs and outputs over the shape; stride 0 where they do not depend on an axis.
        epilogue: of the output that is stored with it, over the shape.
        vector: the axis along which vectors lie.
        lanes: how many elements a vector has; 1 where the operands do not lie side by side along any axis.
        width: how many vectors of kept places a row has.
        group: how many rows a chunk has.
        count: how many elements a row walks over.
        piece: (kept axis, inner axis, size), where an axis was cut and the last piece may be shorter.
        scratch: how the values that a fold keeps lie.
        own: operands of which each chunk has its own, one behind the other; they do not move along kept axes.
    """

    shape: Shape
    inner: tuple[bool, ...]
    operands: tuple[Operand, ...]
    epilogue: Epilogue | None
    vector: int
    lanes: int
    width: int
    group: int
    count: DimLike
    piece: tuple[int, int, DimLike] | None = None
    scratch: Operand | None = None
    own: tuple[int, ...] = ()

    @property
    def columns(self) -> bool:
        """Whether vectors lie along a kept axis."""
        return not self.inner[self.vector]

    @property
    def kept(self) -> list[int]:
        """The kept axes along which no vectors lie."""
        return [a for a in range(len(self.shape)) if not self.inner[a] and a != self.vector]

    @property
    def rows(self) -> DimLike:
        """How many rows there are."""
        total = product(self.shape[a] for a in self.kept)
        return total * _ceil(self.shape[self.vector], self.lanes * self.width) if self.columns else total

    @property
    def chunks(self) -> DimLike:
        """How many chunks there are."""
        return _ceil(self.rows, self.group)

    @property
    def elements(self) -> DimLike:
        """How many places are walked over."""
        return product(self.shape)

    @property
    def scratch_bytes(self) -> DimLike:
        """What a row keeps."""
        if self.scratch is None:
            return 0
        return product(n for n, i in zip(self.shape, self.inner, strict=True) if i) * (
            (self.lanes * self.width if self.columns else 1) * np.dtype(self.scratch.dtype).itemsize
        )


def _ceil(a: DimLike, c: int) -> DimLike:
    return (a + (c - 1)) // c


def spread(operand: Operand, axes: Sequence[int], ndim: int) -> Operand:
    """Return an operand over a walk's axes: its axis i is the walk's axis axes[i], along others it does not move."""
    strides: list[DimLike] = [0] * ndim
    for mine, axis in zip(range(operand.ndim), axes, strict=True):
        if operand.shape[mine] != 1:
            strides[axis] = operand.strides[mine]
    return operand.reshaped((1,) * ndim, tuple(strides))


def spread_epilogue(epilogue: Epilogue | None, axes: Sequence[int], ndim: int) -> Epilogue | None:
    """Return an epilogue over a walk's axes, of an output with these axes."""
    if epilogue is None:
        return None
    return replace(epilogue, operands=tuple(spread(o, axes, ndim) for o in epilogue.operands))


def arrange(
    target: Target,
    dtype: Any,
    shape: Shape,
    inner: Sequence[bool],
    operands: Sequence[Operand],
    epilogue: Epilogue | None = None,
    *,
    weight: int = 1,
    width: int = 0,
    keeps: bool = False,
) -> Rows:
    """Return how to walk over a shape.

    Args:
        target: the CPU.
        dtype: of what is computed.
        shape: of the walk.
        inner: which of its axes a row walks over.
        operands: over the shape (`spread`), the largest first.
        epilogue: over the shape.
        weight: how much an element costs, in loads and stores.
        width: at most this many vectors of places side by side; 0 for what the registers allow.
        keeps: whether a fold keeps values.
    """
    moving = [*operands, *(epilogue.operands if epilogue else ())]
    axes = [a for a in range(len(shape)) if shape[a] != 1]
    axes.sort(key=lambda a: [-abs(typical(o.strides[a])) for o in moving])
    groups: list[list[int]] = []
    for a in axes:
        last = groups[-1][-1] if groups else None
        if (
            last is not None
            and inner[last] == inner[a]
            and all(o.strides[last] == o.strides[a] * shape[a] for o in moving)
        ):
            groups[-1].append(a)
        else:
            groups.append([a])
    merged = tuple(product(shape[a] for a in g) for g in groups) or (1,)

    def over(o: Operand) -> Operand:
        return Operand(o.dtype, merged, tuple(o.strides[g[-1]] for g in groups) or (0,))

    flags = tuple(bool(inner[g[-1]]) for g in groups) or (False,)
    tail = replace(epilogue, operands=tuple(map(over, epilogue.operands))) if epilogue else None
    made = tuple(map(over, operands))
    vector, lanes = _vector_axis(target, dtype, merged, flags, [*made, *(tail.operands if tail else ())])
    side = 1
    if not flags[vector]:
        side = _width(merged[vector], lanes, width or target.registers // 4)
    count = product(n for n, i in zip(merged, flags, strict=True) if i)
    rows = Rows(merged, flags, made, tail, vector, lanes, side, 1, count)
    return _grouped(rows, dtype, weight, keeps)


def arrange_map(
    target: Target,
    dtype: Any,
    shape: Shape,
    operands: Sequence[Operand],
    epilogue: Epilogue | None = None,
    *,
    hoist: Sequence[int] = (),
    weight: int = 1,
    width: int = 0,
) -> Rows:
    """Return how to walk over a shape whose places are independent of each other, in pieces of rows.

    Args:
        target: the CPU.
        dtype: of what is computed.
        shape: of the walk.
        operands: over the shape, the largest first.
        epilogue: over the shape.
        hoist: operands that a row should not move, so that it loads them once.
        weight: how much an element costs.
        width: at most this many vectors of places side by side; 0 for what the registers allow.
    """
    plain = arrange(target, dtype, shape, [True] * len(shape), operands, epilogue, weight=weight)
    still = [all(plain.operands[k].strides[a] == 0 for k in hoist) for a in range(len(plain.shape))]
    if not hoist:
        return cut(plain, dtype, CHUNK // weight, weight=weight)[0]
    rows = replace(plain, inner=tuple(still))
    side = 1
    if rows.columns:
        side = _width(rows.shape[rows.vector], rows.lanes, width or target.registers // 4)
    count = product(n for n, i in zip(rows.shape, still, strict=True) if i)
    rows = replace(rows, width=side, count=count)
    if not any(still):
        return _grouped(rows, dtype, weight, False)
    return cut(rows, dtype, max(1, CHUNK // weight // (rows.lanes * side if rows.columns else 1)), weight=weight)[0]


def _grouped(rows: Rows, dtype: Any, weight: int, keeps: bool) -> Rows:
    """Return rows with as many of them a chunk as makes a chunk worth while, and with room for what they keep."""
    each = typical(rows.count) * (rows.lanes * rows.width if rows.columns else 1) * weight
    group = max(1, CHUNK // max(1, each))
    if not isinstance(rows.rows, Dim):
        group = max(1, min(group, rows.rows))
    if keeps:
        step: DimLike = rows.lanes * rows.width if rows.columns else 1
        strides: list[DimLike] = [0] * len(rows.shape)
        for a in reversed(range(len(rows.shape))):
            if rows.inner[a]:
                strides[a] = step
                step = step * rows.shape[a]
        if rows.columns:
            strides[rows.vector] = 1
        rows = replace(rows, scratch=Operand(np.dtype(dtype), rows.shape, tuple(strides)))
    return replace(rows, group=group)


def _vector_axis(
    target: Target, dtype: Any, shape: Shape, inner: Sequence[bool], operands: Sequence[Operand]
) -> tuple[int, int]:
    fits = [
        a
        for a in range(len(shape))
        if any(o.strides[a] == 1 for o in operands) and all(o.strides[a] in (0, 1) for o in operands)
    ]
    if fits:
        return max(fits, key=lambda a: typical(shape[a])), target.lanes(dtype)
    candidates = [a for a in range(len(shape)) if inner[a]] or list(range(len(shape)))
    return candidates[-1], 1


def _width(size: DimLike, lanes: int, most: int) -> int:
    if isinstance(size, Dim):
        return min(4, most)
    vectors = -(-size // lanes)
    if vectors <= most:
        return max(1, vectors)
    for width in range(most, 2, -1):
        if size % (lanes * width) == 0:
            return width
    return min(4, most)


def cut(rows: Rows, dtype: Any, elements: int, *, weight: int = 1, keeps: bool = False) -> tuple[Rows, list[int]]:
    """Cut the inner axes into pieces, each a row of its own.

    Args:
        rows: what to cut.
        dtype: of what is computed.
        elements: about how many places a piece walks over.
        weight: how much an element costs.
        keeps: whether a fold keeps values.

    Returns:
        The walk over pieces, and its kept axes that count them.
    """
    axes = [a for a in range(len(rows.shape)) if rows.inner[a]]
    rest, at = max(1, elements), 0
    for at in reversed(axes):
        if isinstance(rows.shape[at], Dim) or rows.shape[at] > rest:
            break
        rest //= int(rows.shape[at])
    n = rows.shape[at]
    size = max(1, rest)
    if rows.inner[rows.vector] and at == rows.vector:
        size = max(1, size // rows.lanes) * rows.lanes
    if not isinstance(n, Dim):
        pieces = -(-n // size)
        size = -(-n // pieces)
        if at == rows.vector:
            size = min(n, -(-size // rows.lanes) * rows.lanes)
    outer = [a for a in axes if a < at]
    if n == size:
        inner = tuple(i and a not in outer for a, i in enumerate(rows.inner))
        walk = replace(rows, inner=inner)
        blocks = list(outer)
    else:
        shape = (*rows.shape[:at], _ceil(n, size), size, *rows.shape[at + 1 :])
        inner = tuple(
            i and a not in outer for a, i in enumerate((*rows.inner[:at], False, True, *rows.inner[at + 1 :]))
        )

        def over(o: Operand) -> Operand:
            s = o.strides
            return Operand(o.dtype, shape, (*s[:at], s[at] * size, s[at], *s[at + 1 :]))

        epilogue = rows.epilogue
        if epilogue is not None:
            epilogue = replace(epilogue, operands=tuple(map(over, epilogue.operands)))
        ragged = isinstance(n, Dim) or n % size != 0
        walk = replace(
            rows, shape=shape, inner=inner, operands=tuple(map(over, rows.operands)), epilogue=epilogue,
            vector=rows.vector + (rows.vector >= at), piece=(at, at + 1, n) if ragged else None, scratch=None,
        )  # fmt: skip
        blocks = [*outer, at]
    count = product(m for m, i in zip(walk.shape, walk.inner, strict=True) if i)
    return _grouped(replace(walk, count=count), dtype, weight, keeps), blocks


def strided(rows: Rows, dtype: Any, axes: Sequence[int]) -> tuple[Operand, Shape]:
    """Return a row-major operand over some axes of a walk, and its own shape."""
    strides: list[DimLike] = [0] * len(rows.shape)
    step: DimLike = 1
    for a in reversed(axes):
        strides[a] = step
        step = step * rows.shape[a]
    return Operand(np.dtype(dtype), rows.shape, tuple(strides)), tuple(rows.shape[a] for a in axes)


def piecewise(rows: Rows, operand: int, blocks: Sequence[int], size: DimLike) -> tuple[Operand, DimLike]:
    """Return an output of pieces with a leading axis for the piece, and how many pieces there are.

    Args:
        rows: pieces.
        operand: which, not moving along inner axes.
        blocks: the axes that count the pieces.
        size: how many elements of it a piece gives.
    """
    o = rows.operands[operand]
    strides, step = list(o.strides), size
    for a in reversed(blocks):
        strides[a] = step
        step = step * rows.shape[a]
    return Operand(o.dtype, o.shape, tuple(strides)), product(rows.shape[a] for a in blocks)


def restricted(operand: Operand, axes: Sequence[int]) -> Operand:
    """Return an operand over some axes of a walk."""
    return Operand(operand.dtype, tuple(operand.shape[a] for a in axes), tuple(operand.strides[a] for a in axes))


def few_and_long(rows: Rows, elements: int) -> bool:
    """Whether there are so few rows of at least this many elements that they are better cut."""
    each = typical(rows.count) * (rows.lanes * rows.width if rows.columns else 1)
    return typical(rows.rows) < FEW and each >= elements
