"""Layers: which row each box of an acyclic graph stands in, and the places where long edges pass the rows between.

Rows are the longest paths from the sources; what can move down without making an edge longer does, so that a leaf
stands right above what reads it. Edges of one source share their places: they part where they have to.

Source: Sugiyama, Tagawa and Toda 1981; Gansner, Koutsofios, North and Vo 1993 ("A technique for drawing directed
graphs") for what is minimised.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...ops.errors import InvalidGraphError


@dataclass
class Layered:
    """A graph in rows, long edges cut into steps from one row to the next.

    Attributes:
        rows: the points of each row: first the boxes by their number, then the passing places, numbered on.
        row_of: the row of each point.
        steps: (upper point, lower point, weight), each once.
        paths: for each edge the points that it passes, to its target: from its source, or from the place where it
            parts with the longest edge of the same source.
        boxes: how many points are boxes.
    """

    rows: list[list[int]]
    row_of: list[int]
    steps: list[tuple[int, int, float]]
    paths: list[list[int]]
    boxes: int
    above: list[list[tuple[int, float]]] = field(default_factory=list)
    below: list[list[tuple[int, float]]] = field(default_factory=list)

    def link(self) -> None:
        """Work out the neighbours of each point."""
        self.above = [[] for _ in self.row_of]
        self.below = [[] for _ in self.row_of]
        for upper, lower, weight in self.steps:
            self.above[lower].append((upper, weight))
            self.below[upper].append((lower, weight))


def topological(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Return the numbers of boxes in an order along the edges, else in their own.

    Raises:
        InvalidGraphError: if the edges make a cycle.
    """
    import heapq

    after: list[list[int]] = [[] for _ in range(count)]
    waiting = [0] * count
    for a, b in edges:
        after[a].append(b)
        waiting[b] += 1
    ready = [i for i in range(count) if not waiting[i]]
    order = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for j in after[i]:
            waiting[j] -= 1
            if not waiting[j]:
                heapq.heappush(ready, j)
    if len(order) < count:
        raise InvalidGraphError("a picture is of a graph without cycles, and this one has some")
    return order


def rows_of(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Return the row of each box: edges lead down, and are short."""
    order = topological(count, edges)
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for a, b in edges:
        before[b].append(a)
        after[a].append(b)
    row = [0] * count
    for i in order:
        row[i] = max((row[p] + 1 for p in before[i]), default=0)
    for i in reversed(order):
        if after[i] and len(after[i]) >= len(before[i]):
            row[i] = max(row[i], min(row[s] for s in after[i]) - 1)
    lowest = min(row, default=0)
    return [r - lowest for r in row]


def layered(count: int, edges: Sequence[tuple[int, int]], weights: Sequence[float]) -> Layered:
    """Return a graph in rows.

    Args:
        count: of boxes.
        edges: pairs of their numbers.
        weights: how much each edge wants to be straight.
    """
    row = rows_of(count, edges)
    steps: dict[tuple[int, int], float] = {}
    chains: dict[int, list[int]] = {}
    longest: dict[int, int] = {}
    for i, (a, b) in enumerate(edges):
        if a not in longest or row[b] > row[edges[longest[a]][1]]:
            longest[a] = i
    paths = []
    for i, ((a, b), weight) in enumerate(zip(edges, weights, strict=True)):
        if a not in chains:
            length = row[edges[longest[a]][1]] - row[a]
            chains[a] = [a, *range(len(row), len(row) + length - 1)]
            row += range(row[a] + 1, row[a] + length)
        chain = chains[a][: row[b] - row[a]]
        path = [*(chain if longest[a] == i else chain[-1:]), b]
        paths.append(path)
        for upper, lower in itertools.pairwise(path):
            passing = (upper >= count) + (lower >= count)
            steps[upper, lower] = max(steps.get((upper, lower), 0.0), (weight, 2.0, 8.0)[passing])
    rows: list[list[int]] = [[] for _ in range(max(row, default=-1) + 1)]
    for i, r in enumerate(row):
        rows[r].append(i)
    made = Layered(rows, row, [(a, b, w) for (a, b), w in steps.items()], paths, count)
    made.link()
    return made
