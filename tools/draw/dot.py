"""A picture as DOT text, for Graphviz and what reads its language."""

from __future__ import annotations

from xml.sax.saxutils import escape

from .page import STROKE
from .picture import Box, Edge, Picture


def dot(picture: Picture) -> str:
    """Return the text of a directed graph; its boxes have the texts and colours of the picture, whole."""
    lines = [
        "digraph {",
        '\tgraph [fontname="monospace" fontsize=12 nodesep=0.25 ranksep=0.3 labelloc=t'
        + (f" label={_quoted(picture.title)}]" if picture.title else "]"),
        f'\tnode [shape=box style="filled,rounded" fontname="monospace" fontsize=10 height=0.2 color="{STROKE}"]',
        f'\tedge [color="{STROKE}" arrowsize=0.7]',
        *map(_box, picture.boxes),
        *map(_edge, picture.edges),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    r"""Return a quoted string: quotes and backslashes escaped, line ends as `\n`."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _box(box: Box) -> str:
    tip = f" tooltip={_quoted(box.tip)}" if box.tip else ""
    if len(box.sections) == 1:
        (section,) = box.sections
        text = "\n".join(line.text for line in section.lines)
        return f'\t{box.key} [label={_quoted(text)} fillcolor="{section.fill}"{tip}]'
    rows = "".join(
        f'<TR><TD BGCOLOR="{s.fill}">' + "<BR/>".join(_html(line.text) for line in s.lines) + "</TD></TR>"
        for s in box.sections
    )
    table = f'<TABLE BORDER="0" CELLBORDER="1" CELLSPACING="0" COLOR="{STROKE}">{rows}</TABLE>'
    return f'\t{box.key} [label=<{table}> shape=plain style="" {tip.strip()}]'.replace(" ]", "]")


def _html(text: str) -> str:
    return escape("".join(c if c.isprintable() else " " for c in text))


def _edge(edge: Edge) -> str:
    attributes = [f"weight={max(round(edge.weight), 1)}"]
    if edge.style != "solid":
        attributes.append(f"style={edge.style}")
    if edge.tip:
        attributes.append(f"tooltip={_quoted(edge.tip)}")
    return f"\t{edge.source} -> {edge.target} [{' '.join(attributes)}]"
