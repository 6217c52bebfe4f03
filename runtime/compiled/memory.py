"""Where buffers lie in the arena: lifetimes in, offsets out."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT = 64


@dataclass(frozen=True)
class Lifetime:
    """A buffer's size and the stages during which it is needed, both included."""

    nbytes: int
    first: int
    last: int


def arrange(buffers: Sequence[Lifetime], *, alignment: int = ALIGNMENT) -> tuple[list[int], int]:
    """Return an offset for each buffer, and the arena's size; buffers that live at the same time never overlap.

    The larger a buffer, the earlier it is placed; each goes to the smallest gap that holds it.
    """
    offsets = [0] * len(buffers)
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first stage, last stage; sorted by offset
    total = 0
    for i in sorted(range(len(buffers)), key=lambda k: (-buffers[k].nbytes, buffers[k].first)):
        b = buffers[i]
        size = -(-b.nbytes // alignment) * alignment
        if not size:
            continue
        at, best, best_gap = 0, -1, 0
        for offset, end, first, last in placed:
            if last < b.first or first > b.last:
                continue
            gap = offset - at
            if gap >= size and (best < 0 or gap < best_gap):
                best, best_gap = at, gap
            at = max(at, end)
        offsets[i] = at if best < 0 else best
        bisect.insort(placed, (offsets[i], offsets[i] + size, b.first, b.last))
        total = max(total, offsets[i] + size)
    return offsets, total
