"""A layout as SVG: no library, text as text, tooltips, one group a box and an edge."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from .layout import Curve, Layout, Placed
from .page import EDGE, FONT, INK, PAPER, STROKE, Page, arrow, frame, page_of, text_lines
from .picture import FONT_SIZE, Picture


def svg(picture: Picture, layout: Layout) -> str:
    """Return the text of an SVG file."""
    page = page_of(picture, layout)
    width, height = _n(page.width), _n(page.height)
    parts = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family={quoteattr(FONT)} font-size="{_n(FONT_SIZE["plain"])}">',
        f"<title>{escape(picture.title or 'graph')}</title>",
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
        *_head(page),
        f'<g transform="translate({_n(page.left)} {_n(page.top)})">',
        '<g class="edges" fill="none">',
        *map(_edge, layout.curves),
        "</g>",
        *map(_box, layout.boxes),
        "</g>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _n(v: float) -> str:
    text = f"{v:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _head(page: Page) -> list[str]:
    parts = []
    for x, y, size, colour, weight, text in page.texts:
        parts.append(
            f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" fill="{colour}"'
            f"{' font-weight=' + quoteattr('bold') if weight else ''}>{escape(text)}</text>"
        )
    for x, y, size, fill in page.chips:
        parts.append(
            f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(size)}" height="{_n(size)}" rx="2" fill="{fill}" '
            f'stroke="{STROKE}" stroke-width="0.8"/>'
        )
    return parts


def _edge(curve: Curve) -> str:
    colour, width, dash = EDGE[curve.edge.style]
    shaft, head = arrow(curve)
    path = f"M{_n(shaft.start[0])} {_n(shaft.start[1])}" + "".join(
        "C" + " ".join(f"{_n(x)} {_n(y)}" for x, y in piece) for piece in shaft.pieces
    )
    dashes = f' stroke-dasharray="{" ".join(map(_n, dash))}"' if dash else ""
    tip = f"<title>{escape(curve.edge.tip)}</title>" if curve.edge.tip else ""
    points = " ".join(f"{_n(x)},{_n(y)}" for x, y in head)
    return (
        f'<g class="edge" data-from={quoteattr(curve.edge.source)} data-to={quoteattr(curve.edge.target)}>{tip}'
        f'<path d="{path}" stroke="{colour}" stroke-width="{_n(width)}"{dashes}/>'
        f'<polygon points="{points}" fill="{colour}"/></g>'
    )


def _box(placed: Placed) -> str:
    box = placed.box
    parts = [f'<g class="node {box.kind}" id={quoteattr(box.key)}>']
    if box.tip:
        parts.append(f"<title>{escape(box.tip)}</title>")
    for fill, path in frame(placed):
        parts.append(f'<path d="{" ".join(v if isinstance(v, str) else _n(v) for v in path)}" fill="{fill}"/>')
    outline = frame(placed, whole=True)[0][1]
    parts.append(
        f'<path d="{" ".join(v if isinstance(v, str) else _n(v) for v in outline)}" fill="none" stroke="{STROKE}" '
        'stroke-width="0.9"/>'
    )
    for x, y, line in text_lines(placed):
        bold = ' font-weight="bold"' if line.tone == "strong" else ""
        parts.append(
            f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(FONT_SIZE[line.tone])}" fill="{INK[line.tone]}"{bold} '
            f'text-anchor="middle">{escape(line.shown)}</text>'
        )
    return "".join([*parts, "</g>"])
