"""A long picture in columns beside each other, as a newspaper sets a long text.

It is cut between rows where few edges pass; these go on through lanes: below the column, up between the two, and
into the next one from above.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from .layout import Arranged, Curve, Layout, Placed, Point
from .picture import Edge, Picture

TALL = 1500.0
"""Pictures of at most this height stay in one column."""
RATIO = 1.5
"""Width to height that columns are to come near."""
MOST_COLUMNS = 40
NEAR = 24
"""So many rows are looked at for a cut."""
GUTTER = 56.0
TRACK = 9.0
"""From lane to lane."""
CORNER = 9.0


@dataclass
class Column:
    """Rows `first` to `last - 1`, moved right by `dx` and up by `dy`."""

    first: int
    last: int
    left: float
    right: float
    dx: float = 0.0
    dy: float = 0.0


def fold(picture: Picture, arranged: Arranged, cuts: Sequence[int]) -> Layout:
    """Return the places of everything, a column beginning at each of the rows `cuts`."""
    columns = _columns(arranged, cuts)
    graph, bands = arranged.graph, arranged.bands
    of_row = [k for k, c in enumerate(columns) for _ in range(c.first, c.last)]
    passing = [_passing(arranged, c.last) for c in columns[:-1]]
    head = [max((len(p) for p in passing), default=0) * TRACK + (GUTTER / 2 if passing else 0.0)] * len(columns)
    at = 0.0
    for k, c in enumerate(columns):
        if k:
            at += GUTTER + len(passing[k - 1]) * TRACK
        c.dx, c.dy = at - c.left, head[k] - bands[c.first].top
        at += c.right - c.left
    placed: list[Placed | None] = [None] * graph.boxes
    for r, row in enumerate(graph.rows):
        c = columns[of_row[r]]
        for i in row:
            if i < graph.boxes:
                box = picture.boxes[i]
                y = (bands[r].top + bands[r].bottom - box.height) / 2 + c.dy
                placed[i] = Placed(box, arranged.x[i] - box.width / 2 + c.dx, y)
    boxes = [p for p in placed if p is not None]
    tracks = [{source: k for k, source in enumerate(p)} for p in passing]
    floor = max((p.bottom for p in boxes), default=0.0)
    walker = _Walker(arranged, columns, of_row, tracks, placed, floor)
    curves = [walker.curve(edge, path) for edge, path in zip(picture.edges, graph.paths, strict=True)]
    ends = [p for c in curves for p in c.points()]
    width = max([p.right for p in boxes] + [x for x, _ in ends], default=0.0)
    height = max([floor] + [y for _, y in ends])
    top = min([p.y for p in boxes] + [y for _, y in ends], default=0.0)
    left = min([p.x for p in boxes] + [x for x, _ in ends], default=0.0)
    return _moved(Layout(boxes, curves, width - left, height - top), -left, -top)


def _moved(layout: Layout, dx: float, dy: float) -> Layout:
    layout.boxes = [Placed(p.box, p.x + dx, p.y + dy) for p in layout.boxes]

    def moved(p: Point) -> Point:
        return p[0] + dx, p[1] + dy

    layout.curves = [
        Curve(c.edge, moved(c.start), tuple((moved(a), moved(b), moved(e)) for a, b, e in c.pieces))
        for c in layout.curves
    ]
    return layout


def _passing(arranged: Arranged, row: int) -> list[int]:
    """Return the points of the row above a cut whose steps pass it, from right to left."""
    graph = arranged.graph
    return sorted((i for i in graph.rows[row - 1] if graph.below[i]), key=lambda i: -arranged.x[i])


def _extent(arranged: Arranged, first: int, last: int) -> tuple[float, float]:
    points = [i for row in arranged.graph.rows[first:last] for i in row]
    left = min(arranged.x[i] - arranged.widths[i] / 2 for i in points)
    return left, max(arranged.x[i] + arranged.widths[i] / 2 for i in points)


def _columns(arranged: Arranged, cuts: Sequence[int]) -> list[Column]:
    edges = [0, *cuts, len(arranged.bands)]
    return [Column(a, b, *_extent(arranged, a, b)) for a, b in itertools.pairwise(edges) if a < b]


def choose_cuts(arranged: Arranged, count: int | None) -> list[int]:
    """Return the rows at which columns begin, but the first: this many columns, or as many as make a good page."""
    bands = arranged.bands
    rows = len(bands)
    if not rows:
        return []
    if count is not None:
        return _cut(arranged, max(1, min(count, rows)))
    best: list[int] = []
    if bands[-1].bottom <= TALL:
        return best
    misfit = math.inf
    for n in range(1, min(MOST_COLUMNS, rows) + 1):
        cuts = _cut(arranged, n)
        columns = _columns(arranged, cuts)
        width = sum(c.right - c.left for c in columns) + GUTTER * (len(columns) - 1)
        tallest = max(bands[c.last - 1].bottom - bands[c.first].top for c in columns)
        found = abs(math.log(width / tallest / RATIO))
        if found < misfit:
            best, misfit = cuts, found
        if width > tallest * RATIO:
            break
    return best


def _cut(arranged: Arranged, count: int) -> list[int]:
    """Cut into columns of about the same height, each cut near there where the fewest edges pass."""
    bands = arranged.bands
    rows, height = len(bands), bands[-1].bottom
    cuts: list[int] = []
    for k in range(1, count):
        target, reach = height * k / count, height / count / 8
        ahead = range(cuts[-1] + 1 if cuts else 1, rows)
        if not ahead:
            break
        nearest = sorted(ahead, key=lambda r: abs(bands[r].top - target))[:NEAR]
        cuts.append(min(nearest, key=lambda r: len(_passing(arranged, r)) + abs(bands[r].top - target) / reach))
    return cuts


class _Walker:
    """Draws edges from point to point."""

    def __init__(
        self, arranged: Arranged, columns: Sequence[Column], of_row: Sequence[int],
        tracks: Sequence[dict[int, int]], placed: Sequence[Placed | None], floor: float,
    ) -> None:  # fmt: skip
        self.arranged, self.columns, self.of_row = arranged, columns, of_row
        self.tracks, self.placed, self.floor = tracks, placed, floor

    def curve(self, edge: Edge, path: Sequence[int]) -> Curve:
        """Return the curve of an edge along its path."""
        graph, bands = self.arranged.graph, self.arranged.bands
        start: Point = (0.0, 0.0)
        pieces: list[tuple[Point, Point, Point]] = []
        now: Point = start
        for k, (a, b) in enumerate(itertools.pairwise(path)):
            ra, rb = graph.row_of[a], graph.row_of[b]
            ca, cb = self.columns[self.of_row[ra]], self.columns[self.of_row[rb]]
            xa, xb = self.arranged.x[a] + ca.dx, self.arranged.x[b] + cb.dx + self.arranged.ports.get((a, b), 0.0)
            box = self.placed[a] if a < graph.boxes else None
            leave, enter = bands[ra].bottom + ca.dy, bands[rb].top + cb.dy
            if not k:
                start = now = (xa, leave if box is None else box.bottom)
            now = _straight(pieces, now, (xa, leave))
            if ca is cb:
                now = _bend(pieces, now, (xb, enter))
            else:
                now = self._through(pieces, now, (xb, enter), self.of_row[ra], a)
            target = self.placed[b] if b < graph.boxes else None
            now = _straight(pieces, now, (xb, bands[rb].bottom + cb.dy if target is None else target.y))
        return Curve(edge, start, tuple(pieces))

    def _through(
        self, pieces: list[tuple[Point, Point, Point]], now: Point, end: Point, column: int, source: int
    ) -> Point:
        """Go below a column, up beside it, and down into the next."""
        track, count = self.tracks[column][source], len(self.tracks[column])
        right = self.columns[column].right + self.columns[column].dx
        lane = right + GUTTER / 2 + track * TRACK
        low = self.floor + GUTTER / 3 + track * TRACK
        high = end[1] - GUTTER / 3 - (count - 1 - track) * TRACK
        corners = [(now[0], low), (lane, low), (lane, high), (end[0], high), end]
        for corner, after in itertools.pairwise(corners):
            now = _turn(pieces, now, corner, after)
        return _straight(pieces, now, end)


def _straight(pieces: list[tuple[Point, Point, Point]], a: Point, b: Point) -> Point:
    if abs(a[0] - b[0]) + abs(a[1] - b[1]) > 0.01:
        third = ((b[0] - a[0]) / 3, (b[1] - a[1]) / 3)
        pieces.append(((a[0] + third[0], a[1] + third[1]), (b[0] - third[0], b[1] - third[1]), b))
        return b
    return a


def _bend(pieces: list[tuple[Point, Point, Point]], a: Point, b: Point) -> Point:
    """Go from a point to one below it, leaving and arriving downwards."""
    if abs(a[0] - b[0]) < 0.5:
        return _straight(pieces, a, b)
    reach = (b[1] - a[1]) * 0.55
    pieces.append(((a[0], a[1] + reach), (b[0], b[1] - reach), b))
    return b


def _turn(pieces: list[tuple[Point, Point, Point]], now: Point, corner: Point, after: Point) -> Point:
    """Go straight to a corner and round it."""

    def towards(a: Point, b: Point, far: float) -> Point:
        length = math.hypot(b[0] - a[0], b[1] - a[1])
        share = min(far, length / 2) / length if length else 0.0
        return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share

    begin, end = towards(corner, now, CORNER), towards(corner, after, CORNER)
    now = _straight(pieces, now, begin)
    a, b = towards(corner, begin, CORNER * 0.45), towards(corner, end, CORNER * 0.45)
    if begin != end:
        pieces.append((a, b, end))
    return end
