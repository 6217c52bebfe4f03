"""Running sums and products: one walk along the axis for each place of the others, vectors along one of those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .copy import vectorised
from .emitter import Emitter, V, scalar_type
from .kernel import kernel
from .layout import movable
from .lowering import Site, lowers
from .walk import CHUNK_BYTES, Axis, axes_of, bounds_of, chunks_of, descend, lanes_of, tiled, typical

COMPUTED = ("float32", "float64", "int32", "int64")


@dataclass(frozen=True)
class Running:
    """What the code depends on: the axes beside, the one along which vectors lie last, and the axis it runs along."""

    dtype: np.dtype[Any]
    axes: tuple[Axis, ...]
    along: Axis
    fold: str
    exclusive: bool
    reverse: bool


def beside(
    shape: Sequence[Any], x: Sequence[Any], y: Sequence[Any], elements: int, length: int
) -> tuple[tuple[Axis, ...], bool]:
    """Return the axes of a walk over tensors beside an axis of this length, and whether vectors lie along the last."""
    axes = axes_of(shape, x, y)
    last = next((a for a in axes if a.strides == (1, 1)), None)
    axes = [*(a for a in axes if a is not last), last or Axis(1, (1, 1))]
    return tiled(axes, max(1, elements // max(1, length)), (64,)), last is not None


@lowers("cumsum", "cumprod")
def _running(site: Site) -> bool:
    x = site.types[0]
    if not movable(x) or x.dtype.name not in COMPUTED:
        return False
    axis = site.attrs["axis"] % x.ndim
    source, target = site.read(0), site.write()
    s, t = source.operand, target.operand
    rest = [i for i in range(x.ndim) if i != axis]
    of, to = ([o.strides[i] for i in rest] for o in (s, t))
    n = x.shape[axis]
    axes, _ = beside([x.shape[i] for i in rest], of, to, CHUNK_BYTES // x.dtype.itemsize, typical(n))
    p = Running(
        x.dtype, axes, Axis(n, (s.strides[axis], t.strides[axis])), "add" if site.op == "cumsum" else "mul",
        bool(site.attrs.get("exclusive")), bool(site.attrs.get("reverse")),
    )  # fmt: skip
    size = x.size * x.dtype.itemsize
    call = kernel(site.op, emit_running, p, operands=2, chunks=chunks_of(axes), flops=x.size, bytes=2 * size)
    site.call(call, [source, target])
    return True


def emit_running(e: Emitter, p: Running) -> None:
    """Write the code of a running sum or product."""
    if any(a.size == 0 for a in (*p.axes, p.along)):
        return
    bounds = bounds_of(e, p.axes)
    n = p.along.size
    start: float = 1
    if p.fold == "add":  # -0 + x is x, -0 too
        start = 0.0 if p.exclusive or p.dtype.kind == "i" else -0.0

    def body(places: Sequence[V]) -> None:
        def move(index: Any, count: int) -> None:
            ends = [e.at(q, index, p.dtype) for q in places]
            kind = e.zero(p.dtype, count).type
            first = e.constant(start, kind) if p.dtype.kind == "f" else e.constant(int(start), kind)
            with e.loop(0, n, carry=[first]) as loop:
                place = e.sub(e.sub(n, 1), loop.index) if p.reverse else loop.index
                of, to = (
                    e.at(q, e.mul(place, stride), p.dtype) for q, stride in zip(ends, p.along.strides, strict=True)
                )
                before = loop.carried[0]
                after = e.combine(p.fold, before, e.load(of, p.dtype, count))
                e.store(before if p.exclusive else after, to, p.dtype)
                loop.next([after])

        vectorised(e, p.axes[-1], bounds[-1], lanes_of(e.target, p.dtype), move)

    descend(e, p.axes[:-1], bounds[:-1], [e.pointer(0), e.pointer(1)], (p.dtype, p.dtype), body)


def index_type(dtype: Any) -> Any:
    """Return the integers that are counted in beside elements of a type, so that vectors are equally long."""
    return scalar_type(np.int64 if np.dtype(dtype).itemsize == 8 else np.int32)
