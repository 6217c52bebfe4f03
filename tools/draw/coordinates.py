"""Where in its row each point stands: edges as straight as weights ask for, boxes apart from each other.

A row is placed at the least weighted sum of distances between the ends of its steps, its order and gaps kept: an
isotonic regression, solved exactly. Rows are placed one after the other, down and up, until nothing gets better.

Source: Gansner, Koutsofios, North and Vo 1993 for what is minimised; Best and Chakravarti 1990 for the pooling.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence

from .layers import Layered

ROUNDS = 12
FREE = 1e-3
"""The weight with which a point that nothing pulls stays where it is."""

Term = tuple[float, float]


def place(
    graph: Layered, widths: Sequence[float], ports: dict[tuple[int, int], float], gap: float,
    cuts: Collection[int] = (),
) -> list[float]:  # fmt: skip
    """Return the middle of each point.

    Args:
        graph: with its rows in order.
        widths: of the points.
        ports: how far right of the middle of a step's lower point the step ends.
        gap: between boxes.
        cuts: rows that do not care where the row above them stands.
    """
    offsets = [_offsets(row, widths, graph.boxes, gap) for row in graph.rows]
    x = [0.0] * len(graph.row_of)
    for row, at in zip(graph.rows, offsets, strict=True):
        middle = at[-1] / 2 if at else 0.0
        for i, offset in zip(row, at, strict=True):
            x[i] = offset - middle
    steps = [(a, b, w) for a, b, w in graph.steps if graph.row_of[b] not in cuts]
    above: list[list[tuple[int, float, float]]] = [[] for _ in x]
    below: list[list[tuple[int, float, float]]] = [[] for _ in x]
    for a, b, w in steps:
        port = ports.get((a, b), 0.0)
        above[b].append((a, -port, w))
        below[a].append((b, port, w))
    both = [a + b for a, b in zip(above, below, strict=True)]
    best, kept = float("inf"), x
    count = len(graph.rows)
    for turn in range(ROUNDS):
        for near, order in ((above, range(1, count)), (below, range(count - 2, -1, -1))):
            for r in order:
                _place_row(graph.rows[r], offsets[r], near, x, centre=True)
        for order in (range(count), range(count - 1, -1, -1), range(count)):
            for r in order:
                _place_row(graph.rows[r], offsets[r], both, x, centre=False)
        cost = sum(w * abs(x[b] + ports.get((a, b), 0.0) - x[a]) for a, b, w in steps)
        if cost < best * (1 - 1e-4):
            best, kept = cost, list(x)
        elif turn > 2:
            break
    least = min((kept[i] - widths[i] / 2 for i in range(len(kept))), default=0.0)
    return [v - least for v in kept]


def _offsets(row: Sequence[int], widths: Sequence[float], boxes: int, gap: float) -> list[float]:
    """Return how far each point of a row is from the first at least."""
    at: list[float] = []
    for k, i in enumerate(row):
        if not k:
            at.append(0.0)
            continue
        before = row[k - 1]
        lines = (i >= boxes) + (before >= boxes)
        at.append(at[-1] + (widths[i] + widths[before]) / 2 + (gap, gap * 0.75, gap * 0.6)[lines])
    return at


def _place_row(
    row: Sequence[int], offsets: Sequence[float], near: Sequence[Sequence[tuple[int, float, float]]], x: list[float],
    *, centre: bool,
) -> None:  # fmt: skip
    """Move the points of a row to where their neighbours pull them.

    Args:
        row: the points.
        offsets: how far each is from the first at least.
        near: for each point its neighbours, how far from the neighbour it wants to be, and how much.
        x: where the points are; changed.
        centre: where several places are equally good, take the middle; else the one that is nearest to now.
    """
    blocks: list[tuple[float, list[Term], int, float]] = []  # where, terms in order, how many points, where now
    for i, offset in zip(row, offsets, strict=True):
        now, size = x[i] - offset, 1
        terms = sorted((x[j] + shift - offset, w) for j, shift, w in near[i]) or [(now, FREE)]
        at = _best(terms, None if centre else now)
        while blocks and blocks[-1][0] > at:
            _, before, many, was = blocks.pop()
            terms = list(heapq.merge(before, terms))
            now, size = (now * size + was * many) / (size + many), size + many
            at = _best(terms, None if centre else now)
        blocks.append((at, terms, size, now))
    k = 0
    for at, _, size, _ in blocks:
        for _ in range(size):
            x[row[k]] = at + offsets[k]
            k += 1


def _best(terms: Sequence[Term], now: float | None) -> float:
    """Return the weighted median; where it is an interval, its middle or the place in it that is nearest to now."""
    if len(terms) == 1:
        return terms[0][0]
    half = sum(w for _, w in terms) / 2
    passed = 0.0
    for k, (at, w) in enumerate(terms):
        passed += w
        if passed > half * (1 + 1e-9) or k + 1 == len(terms):
            return at
        if passed >= half * (1 - 1e-9):
            after = terms[k + 1][0]
            return (at + after) / 2 if now is None else min(max(now, at), after)
    return terms[-1][0]
