"""What a picture of a graph shows, before anybody knows where: boxes of text, and edges between them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

FONT_SIZE = {"strong": 11.0, "plain": 10.0, "faint": 9.0}
"""The size of a line's text by its tone, in pixels."""

ADVANCE = 0.602
"""The width of a character in a monospaced font, in parts of its size: DejaVu Sans Mono, Menlo, Consolas, Courier."""

LINE = {"strong": 15.0, "plain": 13.5, "faint": 12.5}
PAD_X, PAD_Y = 9.0, 5.0
LONGEST = 44
"""Texts with more characters lose their middle; the tooltip has them whole."""


@dataclass(frozen=True)
class Line:
    """A line of text: `strong`, `plain` or `faint`."""

    text: str
    tone: str = "plain"

    @property
    def shown(self) -> str:
        """The text, without its middle where it is long."""
        return elided(self.text)

    @property
    def width(self) -> float:
        """The width of what is shown."""
        return columns(self.shown) * ADVANCE * FONT_SIZE[self.tone]


@dataclass(frozen=True)
class Section:
    """Lines on one colour."""

    fill: str
    lines: tuple[Line, ...]

    @property
    def height(self) -> float:
        """The height that the lines take."""
        return sum(LINE[line.tone] for line in self.lines) + PAD_Y


@dataclass(frozen=True)
class Box:
    """A node of a picture.

    Attributes:
        key: tells it from the others; made from the graph, so that it is the same in every drawing.
        kind: what it is: `leaf`, `function`, `output` ...
        sections: what it says, from top to bottom.
        tip: what a tooltip says beside that.
        round_: whether its corners are half circles.
        least: how wide it is at least.
    """

    key: str
    kind: str
    sections: tuple[Section, ...]
    tip: str = ""
    round_: bool = False
    least: float = 0.0

    @property
    def width(self) -> float:
        """The width that the text takes."""
        return max(max((line.width for s in self.sections for line in s.lines), default=20.0) + 2 * PAD_X, self.least)

    @property
    def height(self) -> float:
        """The height that the text takes."""
        return sum(s.height for s in self.sections)


@dataclass(frozen=True)
class Edge:
    """A line from one box to another; the heavier, the straighter."""

    source: str
    target: str
    weight: float = 1.0
    style: str = "solid"
    tip: str = ""


@dataclass
class Picture:
    """Boxes and edges, in an order that a drawing follows where nothing else decides.

    Attributes:
        title: above the picture.
        note: beneath the title.
        legend: (colour, what it means) pairs.
    """

    boxes: list[Box] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    title: str = ""
    note: str = ""
    legend: list[tuple[str, str]] = field(default_factory=list)


def columns(text: str) -> int:
    """Return how many columns of a monospaced font a text takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def elided(text: str, longest: int = LONGEST) -> str:
    """Return the text without its middle where it is long, and without what no line shows."""
    text = "".join(c if c.isprintable() else " " for c in text)
    if len(text) <= longest:
        return text
    end = longest * 3 // 5
    return f"{text[: longest - end - 1]}…{text[-end:]}"


def shape_text(shape: Sequence[object]) -> str:
    """Return sizes as PyTorch shows them: `(1, 3)`, `(3,)` as `(3)`."""
    return f"({', '.join(map(str, shape))})"
