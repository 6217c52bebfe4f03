"""The order of the points within each row, with few crossings: median sweeps, then exchanges of neighbours.

Source: Gansner, Koutsofios, North and Vo 1993; counting: Barth, Mutzel and Juenger 2004.
"""

from __future__ import annotations

from .layers import Layered

SWEEPS = 16
LARGE = 30_000
"""With more steps than this, neighbours are not exchanged."""


def untangle(graph: Layered) -> None:
    """Reorder the rows of a graph in place."""
    _first_order(graph)
    place = [0] * len(graph.row_of)
    _number(graph, place)
    best, kept = _crossings(graph, place), [list(r) for r in graph.rows]
    stale = 0
    for sweep in range(SWEEPS):
        if not best or stale > 4:
            break
        _sweep(graph, place, down=sweep % 2 == 0)
        if len(graph.steps) <= LARGE:
            _exchange(graph, place)
        found = _crossings(graph, place)
        stale += 1
        if found < best:
            best, kept, stale = found, [list(r) for r in graph.rows], 0
    graph.rows[:] = kept


def _first_order(graph: Layered) -> None:
    """Put points in the order in which a walk from the lowest row up meets them, so that what is near stays near."""
    seen = [False] * len(graph.row_of)
    met: list[list[int]] = [[] for _ in graph.rows]
    ends = [i for row in reversed(graph.rows) for i in row if not graph.below[i]]
    for end in ends:
        stack = [end]
        while stack:
            i = stack.pop()
            if seen[i]:
                continue
            seen[i] = True
            met[graph.row_of[i]].append(i)
            stack += [a for a, _ in reversed(graph.above[i]) if not seen[a]]
    graph.rows[:] = met


def _number(graph: Layered, place: list[int]) -> None:
    for row in graph.rows:
        for k, i in enumerate(row):
            place[i] = k


def _sweep(graph: Layered, place: list[int], down: bool) -> None:
    rows = graph.rows[1:] if down else graph.rows[-2::-1]
    near = graph.above if down else graph.below
    for row in rows:
        wanted: dict[int, float] = {}
        for i in row:
            at = sorted(place[j] for j, _ in near[i])
            if at:
                wanted[i] = _median(at)
        # those without neighbours keep their places, the others are sorted into the rest
        movable = sorted((i for i in row if i in wanted), key=lambda i: (wanted[i], place[i]))
        ordered = iter(movable)
        row[:] = [next(ordered) if i in wanted else i for i in row]
        for k, i in enumerate(row):
            place[i] = k


def _median(at: list[int]) -> float:
    n, m = len(at), len(at) // 2
    if n % 2:
        return at[m]
    if n == 2:
        return (at[0] + at[1]) / 2
    left, right = at[m - 1] - at[0], at[-1] - at[m]
    return (at[m - 1] * right + at[m] * left) / (left + right) if left + right else (at[m - 1] + at[m]) / 2


def _exchange(graph: Layered, place: list[int]) -> None:
    """Exchange neighbours while that saves crossings."""
    for _ in range(4):
        better = False
        for row in graph.rows:
            for k in range(len(row) - 1):
                a, b = row[k], row[k + 1]
                change = 0
                for near in (graph.above, graph.below):
                    if near[a] and near[b]:
                        pa, pb = [place[j] for j, _ in near[a]], [place[j] for j, _ in near[b]]
                        change += sum((x < y) - (x > y) for x in pa for y in pb)
                if change < 0:
                    row[k], row[k + 1] = b, a
                    place[a], place[b] = k + 1, k
                    better = True
        if not better:
            return


def _crossings(graph: Layered, place: list[int]) -> int:
    total = 0
    for upper, lower in zip(graph.rows, graph.rows[1:], strict=False):
        ends = [p for i in upper for p in sorted(place[j] for j, _ in graph.below[i])]
        total += _inversions(ends, len(lower))
    return total


def _inversions(ends: list[int], width: int) -> int:
    size = 1
    while size < max(width, 1):
        size *= 2
    tree = [0] * (2 * size)
    found = 0
    for p in ends:
        at = p + size
        while at:
            if at % 2 == 0:
                found += tree[at + 1] if at + 1 < 2 * size else 0
            tree[at] += 1
            at //= 2
    return found
