"""The sum of parts that chunks of another kernel have left, in their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .emitter import Emitter
from .kernel import Kernel, kernel

_SUM = 4096
"""How many elements of a sum of parts are a chunk."""


@dataclass(frozen=True)
class _Sum:
    """What the code of a sum of parts depends on."""

    dtype: Any
    parts: int
    size: int


def sum_parts(dtype: Any, parts: int, size: int) -> Kernel:
    """Return the kernel that adds parts, the first first."""
    moved = (parts + 1) * size * dtype.itemsize
    p = _Sum(dtype, parts, size)
    return kernel("sum parts", _emit_sum, p, operands=2, chunks=-(-size // _SUM), bytes=moved, flops=parts * size)


def _emit_sum(e: Emitter, p: _Sum) -> None:
    lanes = e.target.lanes(p.dtype)
    low = e.mul(e.chunk, _SUM)
    high = e.min(e.add(low, _SUM), p.size)

    def add(at: Any, count: int) -> None:
        total = e.load(e.at(e.pointer(0), at, p.dtype), p.dtype, count)
        for i in range(1, p.parts):
            total = e.b.fadd(total, e.load(e.at(e.pointer(0), e.add(at, i * p.size), p.dtype), p.dtype, count))
        e.store(total, e.at(e.pointer(1), at, p.dtype), p.dtype)

    if p.size < lanes:
        with e.loop(0, p.size) as i:
            add(i.index, 1)
        return
    with e.loop(low, high, lanes) as i:
        add(e.min(i.index, p.size - lanes), lanes)
