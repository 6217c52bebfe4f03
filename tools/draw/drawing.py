"""`draw` and `make_dot`: pictures of Tensors' backward graphs, of models and of graphs."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import Any

from ...ops.errors import InputError
from ...runtime.graph.graph import Graph
from ...runtime.model.model import Model
from ...runtime.nn.module import Module
from ...runtime.tensor.tensor import Tensor
from ...runtime.tracing.compile import Compiled
from .backward import backward_picture
from .dot import dot
from .forward import forward_picture
from .layout import Layout, lay_out
from .picture import Picture
from .raster import raster
from .svg import svg

FORMATS = ("svg", "png", "pdf", "dot")
"""What a picture can be written as; `gv` is another name of `dot`."""


class Drawing:
    """A picture of a graph: shown by notebooks, written as SVG, PNG, PDF or DOT.

    Its methods are those of `graphviz.Digraph`, as torchviz returns it, but nothing has to be installed for SVG and
    DOT; PNG and PDF need matplotlib.

    Attributes:
        picture: what is drawn.
        filename: where `save` and `render` write by default.
    """

    def __init__(
        self, picture: Picture, *, columns: int | None = None, filename: str = "graph.gv", format: str = "svg"
    ) -> None:
        """Keep what is drawn; it is laid out when it is first looked at.

        Args:
            picture: without cycles.
            columns: how many columns a long picture is cut into; as many as make it a good page by default.
            filename: where `save` and `render` write by default.
            format: what `render` and `pipe` make by default: `svg`, `png`, `pdf` or `dot`.

        Raises:
            InputError: if there is no such format, or no such number of columns.
        """
        if columns is not None and columns < 1:
            raise InputError(f"columns: 1 or more, found {columns}")
        self.picture, self.filename = picture, filename
        self._columns = columns
        self.format = format

    @property
    def format(self) -> str:
        """What `render` and `pipe` make by default."""
        return self._format

    @format.setter
    def format(self, value: str) -> None:
        self._format = known_format(value)

    @property
    def source(self) -> str:
        """The DOT text."""
        return dot(self.picture)

    @cached_property
    def layout(self) -> Layout:
        """Where everything is."""
        return lay_out(self.picture, self._columns)

    def pipe(self, format: str | None = None, encoding: str | None = None) -> Any:
        """Return the picture as bytes, or as text where an encoding is given.

        Args:
            format: `svg`, `png`, `pdf` or `dot`; the drawing's own by default.
            encoding: of the text.

        Raises:
            InputError: if there is no such format.
        MissingExtraError: if it needs matplotlib and that is not installed.
        """
        kind = self.format if format is None else known_format(format)
        if kind in ("png", "pdf"):
            made = raster(self.picture, self.layout, kind)
            return made if encoding is None else made.decode(encoding)
        text = self.source if kind == "dot" else svg(self.picture, self.layout)
        return text.encode("utf-8") if encoding is None else text

    def svg(self) -> str:
        """Return the SVG text."""
        return svg(self.picture, self.layout)

    def png(self, scale: float | None = None) -> bytes:
        """Return the PNG file.

        Args:
            scale: pixels a unit of the layout, in which text is 10 high; 2 by default, less for very large pictures.

        Raises:
            MissingExtraError: if matplotlib is not installed.
        """
        return raster(self.picture, self.layout, "png", scale)

    def save(self, filename: str | os.PathLike[str] | None = None, directory: str | os.PathLike[str] = "") -> str:
        """Write a file and return its path: a picture where the name ends in `.svg`, `.png` or `.pdf`, else DOT.

        Args:
            filename: its name.
            directory: where; made if it is not there.
        """
        path = Path(directory, self.filename if filename is None else filename)
        suffix = path.suffix.lstrip(".").lower()
        return self._write(path, suffix if suffix in ("svg", "png", "pdf") else "dot")

    def render(
        self, filename: str | os.PathLike[str] | None = None, directory: str | os.PathLike[str] = "",
        view: bool = False, cleanup: bool = False, format: str | None = None,
        outfile: str | os.PathLike[str] | None = None,
    ) -> str:  # fmt: skip
        """Write the DOT text to a file and the picture beside it, and return the path of the picture.

        Args:
            filename: of the DOT text; the picture's has the format behind it, as in `graph` and `graph.svg`. A name
                that ends in a picture's format is the picture's, and no DOT text is written.
            directory: where; made if it is not there.
            view: show the picture with the system's viewer.
            cleanup: remove the DOT text again.
            format: `svg`, `png`, `pdf` or `dot`; the drawing's own by default.
            outfile: where the picture goes, its ending says the format; in place of `filename` and `format`.

        Raises:
            InputError: if there is no such format.
        MissingExtraError: if it needs matplotlib and that is not installed.
        """
        if outfile is not None:
            path = Path(directory, outfile)
            kind = known_format(path.suffix.lstrip(".") if format is None else format)
        else:
            path = Path(directory, self.filename if filename is None else filename)
            ending = path.suffix.lstrip(".").lower()
            if ending in ("svg", "png", "pdf") and format in (None, ending):
                kind = ending
            else:
                kind = self.format if format is None else known_format(format)
                if not cleanup:
                    self._write(path, "dot")
                path = path.with_name(f"{path.name}.{kind}")
        written = self._write(path, kind)
        if view:
            import webbrowser

            webbrowser.open(Path(written).resolve().as_uri())
        return written

    def view(self, filename: str | os.PathLike[str] | None = None, directory: str | os.PathLike[str] = "") -> str:
        """Write the picture, show it with the system's viewer, and return its path."""
        return self.render(filename, directory, view=True)

    def _write(self, path: Path, kind: str) -> str:
        content = self.pipe(kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return str(path)

    def _repr_svg_(self) -> str:
        return self.svg()

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None, **_: Any
    ) -> dict[str, Any]:
        wanted = {"image/svg+xml"} if include is None else set(include)
        wanted -= set(exclude or ())
        makers: dict[str, Callable[[], Any]] = {
            "image/svg+xml": self.svg,
            "image/png": self.png,
            "text/plain": lambda: repr(self),
        }
        return {kind: make() for kind, make in makers.items() if kind in wanted}

    def __str__(self) -> str:
        """Return the DOT text."""
        return self.source

    def __repr__(self) -> str:
        """Return what it is, in numbers."""
        return f"Drawing({self.picture.title!r}: {len(self.picture.boxes)} boxes, {len(self.picture.edges)} edges)"


def known_format(name: str) -> str:
    """Return a format by its name.

    Raises:
        InputError: naming those that there are.
    """
    found = {**{f: f for f in FORMATS}, "gv": "dot"}.get(str(name).lstrip(".").lower())
    if found is None:
        raise InputError(f"a picture is written as {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, not as {name!r}")
    return found


def draw(
    graph: Any, params: Any = None, *, show_saved: bool = True, show_attrs: bool = False, max_attr_chars: int = 50,
    depth: int | None = None, columns: int | None = None, title: str | None = None,
) -> Drawing:  # fmt: skip
    """Draw what backward goes through from a Tensor, or what a model or graph computes.

    Args:
        graph: a Tensor, or several in a list or tuple; or an imported model, a Graph, or a compiled function that has
            been called, whose last program is drawn.
        params: of Tensors: their names, `dict(model.named_parameters())`.
        show_saved: of Tensors: what functions saved for backward.
        show_attrs: attributes of functions and operators.
        max_attr_chars: how many characters of an attribute.
        depth: of models: draw operators with the same first parts of their names, this many, as one box.
        columns: how many columns a long picture is cut into; as many as make it a good page by default.
        title: above the picture.

    Raises:
        InputError: if it is nothing that can be drawn.
    """
    picture = _picture_of(graph, params, show_saved, show_attrs, max_attr_chars, depth)
    if title is not None:
        picture.title = title
    return Drawing(picture, columns=columns)


def make_dot(
    var: Any, params: Any = None, show_attrs: bool = False, show_saved: bool = False, max_attr_chars: int = 50
) -> Drawing:
    """Draw what backward goes through from a Tensor, by torchviz's name and arguments.

    Args:
        var: a Tensor, or several in a list or tuple.
        params: names of Tensors: `dict(model.named_parameters())`.
        show_attrs: attributes of functions.
        show_saved: what functions saved for backward.
        max_attr_chars: how many characters of an attribute.

    Raises:
        InputError: if it is no Tensor.
    """
    return Drawing(backward_picture(var, params, show_attrs, show_saved, max_attr_chars), filename="Digraph.gv")


def _picture_of(
    graph: Any, params: Any, show_saved: bool, show_attrs: bool, max_attr_chars: int, depth: int | None
) -> Picture:
    if isinstance(graph, Tensor) or (isinstance(graph, list | tuple) and graph and isinstance(graph[0], Tensor)):
        if depth is not None:
            raise InputError("depth is for models and graphs: the functions of a backward graph have no scopes")
        return backward_picture(graph, params, show_attrs, show_saved, max_attr_chars)
    if params is not None:
        raise InputError("params names the leaves of a Tensor's backward graph; a model's weights have names")
    name, shown = "", None
    if isinstance(graph, Model):
        graph, name = graph.graph, graph.name
    elif isinstance(graph, Compiled):
        if not graph.programs:
            raise InputError("a compiled function has a graph once it has been called: call it, then draw it")
        program, name = graph.programs[-1], getattr(graph.function, "__name__", type(graph.function).__name__)
        graph = program.graph
        shown = {**{u.output: f"new {_changing(u.target)}" for u in program.updates}, **dict.fromkeys(program.results)}
    if isinstance(graph, Graph):
        picture = forward_picture(graph, depth, show_attrs, max_attr_chars, shown)
        picture.title = name or picture.title
        return picture
    hint = " Call it and draw what it returns, or the compiled module." if isinstance(graph, Module) else ""
    raise InputError(
        "what can be drawn: a Tensor, an imported model, a Graph, a compiled function; found "
        f"{type(graph).__name__}.{hint}"
    )


def _changing(target: Any) -> str:
    """Return what a compiled function changes: a parameter, an argument, a piece of an optimizer's state."""
    if isinstance(target, int):
        return f"argument {target}"
    if isinstance(target, Tensor):
        return target.name or ("parameter" if target.requires_grad else "tensor")
    return str(getattr(target, "name", None) or "gradient")
