"""What SVG, PNG and PDF have in common: the sheet with its title and legend, colours, outlines, arrow heads."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .layout import Curve, Layout, Placed, Point
from .picture import ADVANCE, FONT_SIZE, LINE, PAD_Y, Line, Picture, columns, elided

FONT = "DejaVu Sans Mono, Menlo, Consolas, Liberation Mono, monospace"
PAPER = "#ffffff"
STROKE = "#5f6b76"
INK = {"strong": "#15202b", "plain": "#1f2d3a", "faint": "#52606d"}
EDGE: dict[str, tuple[str, float, tuple[float, ...]]] = {
    "solid": ("#5f6b76", 1.2, ()),
    "dotted": ("#8a949e", 1.1, (1.5, 3.0)),
    "dashed": ("#b26a00", 1.1, (4.0, 3.0)),
}
MARGIN = 24.0
RADIUS = 4.0
HEAD_LONG, HEAD_WIDE = 7.0, 6.0
TITLE, NOTE = 15.0, 10.0
CHIP = 10.0
LEGEND_WIDTH = 420.0
"""A legend is wrapped to the width of the picture, but to no less."""
USUAL = 1600.0
"""Above pictures that are larger than this square, title and legend are larger too."""

Path = list[str | float]


@dataclass
class Page:
    """The sheet: its size, the texts and colour chips above the graph, and where the graph begins.

    Attributes:
        texts: (x, y, size, colour, bold, text).
        chips: (x, y, size, colour).
    """

    width: float = 0.0
    height: float = 0.0
    left: float = MARGIN
    top: float = MARGIN
    texts: list[tuple[float, float, float, str, bool, str]] = field(default_factory=list)
    chips: list[tuple[float, float, float, str]] = field(default_factory=list)


def page_of(picture: Picture, layout: Layout) -> Page:
    """Return the sheet for a layout; the legend is wrapped to the width."""
    page = Page()
    k = min(max(math.sqrt(layout.width * layout.height) / USUAL, 1.0), 4.0)
    y, widest = MARGIN, layout.width
    for text, size, most in ((picture.title, TITLE * k, 72), (picture.note, NOTE * k, 120)):
        if text:
            y += size
            shown = elided(text, most)
            page.texts.append((MARGIN, y, size, INK["strong" if most == 72 else "faint"], most == 72, shown))
            widest = max(widest, columns(shown) * ADVANCE * size)
            y += 6.0 * k
    if picture.legend:
        y += 4.0 * k
        x, room, chip = MARGIN, max(widest, LEGEND_WIDTH), CHIP * k
        for fill, text in picture.legend:
            wide = chip + 5.0 * k + columns(text) * ADVANCE * NOTE * k
            if x > MARGIN and x + wide > MARGIN + room:
                x, y = MARGIN, y + 16.0 * k
            page.chips.append((x, y, chip, fill))
            page.texts.append((x + chip + 5.0 * k, y + chip - 1.2 * k, NOTE * k, INK["faint"], False, text))
            widest = max(widest, x + wide - MARGIN)
            x += wide + 16.0 * k
        y += chip
    page.top = y + (18.0 * k if y > MARGIN else 0.0)
    page.left = MARGIN + (widest - layout.width) / 2
    page.width, page.height = widest + 2 * MARGIN, page.top + layout.height + MARGIN
    return page


def text_lines(placed: Placed) -> list[tuple[float, float, Line]]:
    """Return the lines of a box with the middle of each and its base line."""
    found = []
    middle, y = placed.x + placed.box.width / 2, placed.y
    for section in placed.box.sections:
        y += PAD_Y / 2
        for line in section.lines:
            y += LINE[line.tone]
            found.append((middle, y - (LINE[line.tone] - FONT_SIZE[line.tone] * 0.73) / 2, line))
        y += PAD_Y / 2
    return found


def frame(placed: Placed, whole: bool = False) -> list[tuple[str, Path]]:
    """Return (colour, outline) of each section of a box, or of the whole box; outlines as SVG path commands."""
    box = placed.box
    heights = [box.height] if whole else [s.height for s in box.sections]
    fills = [box.sections[0].fill] if whole else [s.fill for s in box.sections]
    radius = min(box.height / 2, 11.0) if box.round_ else RADIUS
    found = []
    y = placed.y
    for k, (height, fill) in enumerate(zip(heights, fills, strict=True)):
        upper = radius if not k else 0.0
        lower = radius if k == len(heights) - 1 else 0.0
        found.append((fill, _rounded(placed.x, y, box.width, height, upper, lower)))
        y += height
    return found


def _rounded(x: float, y: float, width: float, height: float, upper: float, lower: float) -> Path:
    right, bottom, k = x + width, y + height, 0.4477
    path: Path = ["M", x + upper, y, "L", right - upper, y]
    if upper:
        path += ["C", right - upper * k, y, right, y + upper * k, right, y + upper]
    path += ["L", right, bottom - lower]
    if lower:
        path += ["C", right, bottom - lower * k, right - lower * k, bottom, right - lower, bottom]
    path += ["L", x + lower, bottom]
    if lower:
        path += ["C", x + lower * k, bottom, x, bottom - lower * k, x, bottom - lower]
    path += ["L", x, y + upper]
    if upper:
        path += ["C", x, y + upper * k, x + upper * k, y, x + upper, y]
    return [*path, "Z"]


def arrow(curve: Curve) -> tuple[Curve, list[Point]]:
    """Return an edge that ends where its arrow head begins, and the head's corners."""
    *before, (a, b, end) = curve.pieces
    start = before[-1][2] if before else curve.start
    from_ = next((p for p in (b, a, start) if math.hypot(end[0] - p[0], end[1] - p[1]) > 0.5), start)
    length = math.hypot(end[0] - from_[0], end[1] - from_[1]) or 1.0
    ux, uy = (end[0] - from_[0]) / length, (end[1] - from_[1]) / length
    back = (end[0] - ux * HEAD_LONG, end[1] - uy * HEAD_LONG)
    half = HEAD_WIDE / 2
    head = [end, (back[0] - uy * half, back[1] + ux * half), (back[0] + uy * half, back[1] - ux * half)]
    stop = (end[0] - ux * HEAD_LONG * 0.8, end[1] - uy * HEAD_LONG * 0.8)
    moved = (b[0] - ux * HEAD_LONG * 0.8, b[1] - uy * HEAD_LONG * 0.8)
    return Curve(curve.edge, curve.start, (*before, (a, moved, stop))), head
