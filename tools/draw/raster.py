"""A layout as PNG, or as PDF with its lines and text: by matplotlib."""

from __future__ import annotations

import io
from typing import Any

from ...ops.errors import MissingExtraError
from .layout import Curve, Layout
from .page import EDGE, INK, PAPER, STROKE, Path, arrow, frame, page_of, text_lines
from .picture import FONT_SIZE, Picture

SCALE = 2.0
"""Pixels a unit of the layout."""
MOST_PIXELS, LONGEST_SIDE = 80e6, 30_000
"""Larger PNGs get fewer pixels a unit."""


def raster(picture: Picture, layout: Layout, kind: str, scale: float | None = None) -> bytes:
    """Return the bytes of a PNG or PDF file.

    Args:
        picture: what is drawn.
        layout: where.
        kind: `png` or `pdf`.
        scale: pixels a unit of the layout; 2, or less where that gives too large a PNG, by default.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            f"{kind.upper()} pictures need matplotlib: pip install 'onnxgrad[explain]'; SVG and DOT need nothing"
        ) from error
    import matplotlib
    from matplotlib.collections import PathCollection, PolyCollection

    page = page_of(picture, layout)
    if scale is None:
        scale = min(SCALE, (MOST_PIXELS / (page.width * page.height)) ** 0.5)
        scale = min(scale, LONGEST_SIDE / max(page.width, page.height))
    figure = Figure(figsize=(page.width / 72, page.height / 72), facecolor=PAPER)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_xlim(-page.left, page.width - page.left)
    axes.set_ylim(page.height - page.top, -page.top)
    for kind_of_line, (colour, width, dash) in EDGE.items():
        drawn = [arrow(c) for c in layout.curves if c.edge.style == kind_of_line]
        if drawn:
            line = (0, dash) if dash else "solid"
            lines = PathCollection(
                [_shaft(c) for c, _ in drawn], facecolors="none", edgecolors=colour, linewidths=width, linestyles=line
            )
            axes.add_collection(lines, autolim=False)
            heads = PolyCollection([head for _, head in drawn], facecolors=colour, edgecolors="none")
            axes.add_collection(heads, autolim=False)
    sections = [part for placed in layout.boxes for part in frame(placed)]
    fills = PathCollection([_path(p) for _, p in sections], facecolors=[f for f, _ in sections], edgecolors="none")
    axes.add_collection(fills, autolim=False)
    outlines = [_path(frame(placed, whole=True)[0][1]) for placed in layout.boxes]
    axes.add_collection(PathCollection(outlines, facecolors="none", edgecolors=STROKE, linewidths=0.9), autolim=False)
    chips = [
        _path(["M", x, y, "L", x + s, y, "L", x + s, y + s, "L", x, y + s, "Z"])
        for x, y, s in ((x - page.left, y - page.top, s) for x, y, s, _ in page.chips)
    ]
    colours = [fill for *_, fill in page.chips]
    axes.add_collection(PathCollection(chips, facecolors=colours, edgecolors=STROKE, linewidths=0.8), autolim=False)
    style: dict[str, Any] = {"family": "DejaVu Sans Mono", "va": "baseline", "parse_math": False}
    for placed in layout.boxes:
        for x, y, text in text_lines(placed):
            weight = "bold" if text.tone == "strong" else "normal"
            axes.text(
                x,
                y,
                text.shown,
                ha="center",
                fontsize=FONT_SIZE[text.tone],
                color=INK[text.tone],
                weight=weight,
                **style,
            )
    for x, y, size, colour, bold, words in page.texts:
        weight = "bold" if bold else "normal"
        axes.text(x - page.left, y - page.top, words, fontsize=size, color=colour, weight=weight, **style)
    made = io.BytesIO()
    metadata: dict[str, Any] = {"Software": None} if kind == "png" else {"CreationDate": None, "Producer": None}
    with matplotlib.rc_context({"path.simplify": False, "pdf.fonttype": 42}):
        figure.savefig(made, format=kind, dpi=72 * scale, facecolor=PAPER, metadata=metadata)
    return made.getvalue()


def _shaft(curve: Curve) -> Any:
    commands: Path = ["M", *curve.start]
    for piece in curve.pieces:
        commands += ["C", *(coordinate for point in piece for coordinate in point)]
    return _path(commands)


def _path(commands: Path) -> Any:
    """Return SVG path commands as matplotlib's path."""
    from matplotlib.path import Path as Outline

    points: list[tuple[float, float]] = []
    codes: list[Any] = []
    kind = "M"
    values: list[float] = []

    def flush() -> None:
        pairs = list(zip(values[::2], values[1::2], strict=True))
        points.extend(pairs)
        code = {"M": Outline.MOVETO, "L": Outline.LINETO, "C": Outline.CURVE4}[kind]
        codes.extend([code] * len(pairs))
        values.clear()

    for v in commands:
        if isinstance(v, str):
            if values:
                flush()
            if v == "Z":
                points.append(points[0])
                codes.append(Outline.CLOSEPOLY)
            else:
                kind = v
        else:
            values.append(v)
    if values:
        flush()
    return Outline(points, codes)
