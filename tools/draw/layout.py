"""From a picture to places: boxes with corners, edges as curves that touch no box but their own."""

from __future__ import annotations

from dataclasses import dataclass

from .coordinates import place
from .crossings import untangle
from .layers import Layered, layered
from .picture import Box, Edge, Picture

GAP_X = 20.0
LANE = 10.0
"""The room that an edge takes beside boxes."""
GAP_Y, GAP_Y_MOST = 26.0, 84.0
SLOPE = 0.11
"""The room between two rows, in parts of the widest way that an edge goes sideways between them."""
PORT = 13.0
"""How far apart edges end on a box."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Placed:
    """A box and its upper left corner."""

    box: Box
    x: float
    y: float

    @property
    def right(self) -> float:
        """The right side."""
        return self.x + self.box.width

    @property
    def bottom(self) -> float:
        """The lower side."""
        return self.y + self.box.height


@dataclass(frozen=True)
class Curve:
    """An edge as a start and cubic pieces (two control points and an end each).

    It starts at its source's box, or on the longest edge of the same source, where it parts with it.
    """

    edge: Edge
    start: Point
    pieces: tuple[tuple[Point, Point, Point], ...]

    @property
    def end(self) -> Point:
        """Where it ends."""
        return self.pieces[-1][2]

    def points(self) -> list[Point]:
        """Return the start, and the control points and ends of the pieces."""
        return [self.start, *(p for piece in self.pieces for p in piece)]


@dataclass
class Layout:
    """Where everything is; x goes right, y down."""

    boxes: list[Placed]
    curves: list[Curve]
    width: float
    height: float


@dataclass
class Band:
    """A row of the layout: its height, and where it begins."""

    top: float
    bottom: float


@dataclass
class Arranged:
    """Rows with their places, before they are cut into columns."""

    graph: Layered
    x: list[float]
    widths: list[float]
    bands: list[Band]
    ports: dict[tuple[int, int], float]


def lay_out(picture: Picture, columns: int | None = None) -> Layout:
    """Return where everything of a picture goes.

    Args:
        picture: without cycles.
        columns: how many columns a long picture is cut into; as many as make it a good page by default.

    Raises:
        InvalidGraphError: if its edges make a cycle.
    """
    from .pages import choose_cuts, fold

    number = {box.key: i for i, box in enumerate(picture.boxes)}
    pairs = [(number[e.source], number[e.target]) for e in picture.edges]
    graph = layered(len(picture.boxes), pairs, [e.weight for e in picture.edges])
    untangle(graph)
    boxes = picture.boxes
    widths = [boxes[i].width if i < len(boxes) else LANE for i in range(len(graph.row_of))]
    ports = _ports(graph, widths)
    cuts: list[int] = []
    while True:
        x = place(graph, widths, ports, GAP_X, cuts)
        arranged = Arranged(graph, x, widths, _bands(graph, x, boxes, cuts), ports)
        if cuts or not (cuts := choose_cuts(arranged, columns)):
            return fold(picture, arranged, cuts)


def _ports(graph: Layered, widths: list[float]) -> dict[tuple[int, int], float]:
    """Return for each step that ends on a box how far right of the box's middle: the heaviest in the middle."""
    where = {i: k for row in graph.rows for k, i in enumerate(row)}
    found: dict[tuple[int, int], float] = {}
    for i in range(graph.boxes):
        steps = sorted(graph.above[i], key=lambda s: where[s[0]])
        if len(steps) < 2:
            continue
        apart = min(PORT, (widths[i] - 20.0) / (len(steps) - 1))
        heaviest = max(w for _, w in steps)
        heavy = [k for k, (_, w) in enumerate(steps) if w == heaviest]
        middle = float(heavy[0]) if len(heavy) == 1 else (len(steps) - 1) / 2
        room = (widths[i] / 2 - 8.0) / max(middle, len(steps) - 1 - middle)
        for k, (j, _) in enumerate(steps):
            found[j, i] = (k - middle) * min(apart, room)
    return found


def _bands(graph: Layered, x: list[float], boxes: list[Box], cuts: list[int]) -> list[Band]:
    """Return the rows: as high as their highest box, further apart where edges go far sideways."""
    bands: list[Band] = []
    top = 0.0
    for r, row in enumerate(graph.rows):
        height = max((boxes[i].height for i in row if i < len(boxes)), default=0.0)
        bands.append(Band(top, top + height))
        if r + 1 < len(graph.rows):
            far = max((abs(x[j] - x[i]) for i in row for j, _ in graph.below[i]), default=0.0)
            far = 0.0 if r + 1 in cuts else far
            top += height + min(GAP_Y + SLOPE * far, GAP_Y_MOST)
    return bands
