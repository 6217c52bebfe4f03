"""Ops that move nothing: reshapes, permutations, slices and splits as other strides over the same memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...ops import layout
from ...ops.dims import Dim, DimLike, Shape
from ...ops.kernels.cpu.operand import Operand, row_major
from ...ops.op import Op
from ...ops.types import TensorType

RESHAPES: tuple[Op, ...] = (layout.reshape, layout.squeeze, layout.unsqueeze, layout.flatten, layout.identity)
VIEWS: tuple[Op, ...] = (*RESHAPES, layout.transpose, layout.slice_, layout.split)


def view(
    op: Op, operand: Operand, attrs: dict[str, Any], results: tuple[TensorType, ...]
) -> list[tuple[Operand, DimLike]] | None:
    """Return each output as a view of the input, with the distance in elements of its first; None where it is none."""
    if op is layout.identity:
        return [(operand, 0)]
    if op in RESHAPES:
        seen = reshaped(operand, results[0].shape)
        return None if seen is None else [(seen, 0)]
    if op is layout.transpose:
        perm = attrs.get("perm") or tuple(reversed(range(operand.ndim)))
        return [(operand.transposed(perm), 0)]
    if op is layout.split:
        axis, found, start = attrs["axis"], [], 0
        for t in results:
            found.append((_cut(operand, t.shape), start * operand.strides[axis]))
            start = start + t.shape[axis]
        return found
    if op is layout.slice_:
        return _sliced(operand, attrs, results[0].shape)
    return None


def _cut(operand: Operand, shape: Shape) -> Operand:
    """Return the operand with smaller sizes; what is beyond is no longer zeros that may be read."""
    return replace(operand, shape=shape, halo=(), slack=0)


def _sliced(operand: Operand, attrs: dict[str, Any], shape: Shape) -> list[tuple[Operand, DimLike]] | None:
    start: DimLike = 0
    strides = list(operand.strides)
    for axis, first, step in zip(attrs["axes"], attrs["starts"], attrs["steps"], strict=True):
        size = operand.shape[axis]
        if isinstance(first, Dim) or not isinstance(step, int) or step < 1 or (first < 0 and isinstance(size, Dim)):
            return None
        begin = max(first + int(size), 0) if first < 0 else first
        if isinstance(size, int):
            begin = min(begin, size)
        start = start + begin * operand.strides[axis]
        strides[axis] = strides[axis] * step
    return [(replace(operand, shape=shape, strides=tuple(strides), halo=(), slack=0), start)]


def reshaped(operand: Operand, shape: Shape) -> Operand | None:
    """Return another shape of the same elements, row-major over the logical axes, where strides can say it."""
    if operand.contiguous:
        return operand.reshaped(shape, row_major(shape))
    old = [(d, s) for d, s in zip(operand.shape, operand.strides, strict=True) if d != 1]
    strides: list[DimLike] = []
    i = 0
    new = list(shape)
    j = 0
    while j < len(new):
        if new[j] == 1:
            strides.append(0)
            j += 1
            continue
        if i >= len(old):
            return None
        # gather old axes and new axes until their products agree
        left, right, first, last = old[i][0], new[j], i, j
        while left != right:
            if isinstance(left, Dim) or isinstance(right, Dim):
                if last + 1 < len(new) and (isinstance(left, Dim) and not isinstance(right, Dim)):
                    last += 1
                    right = right * new[last]
                elif i + 1 < len(old):
                    i += 1
                    left = left * old[i][0]
                elif last + 1 < len(new):
                    last += 1
                    right = right * new[last]
                else:
                    return None
            elif left < right:
                i += 1
                if i >= len(old):
                    return None
                left = left * old[i][0]
            else:
                last += 1
                if last >= len(new):
                    return None
                right = right * new[last]
        if any(old[k][1] != old[k + 1][1] * old[k + 1][0] for k in range(first, i)):
            return None
        step = old[i][1]
        inner: list[DimLike] = []
        for k in range(last, j - 1, -1):
            inner.append(step)
            step = step * new[k]
        strides.extend(reversed(inner))
        i, j = i + 1, last + 1
    return operand.reshaped(shape, tuple(strides)) if i == len(old) else None
