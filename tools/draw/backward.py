"""The backward graph of Tensors as a picture: leaves, what functions saved, functions, outputs."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...ops.errors import AutogradError, InputError
from ...runtime.tensor.tensor import Tensor
from .picture import PAD_X, Box, Edge, Line, Picture, Section, shape_text

LEAF, OUTPUT, BASE, SAVED, FUNCTION = "#add8e6", "#caff70", "#a2cd5a", "#ffa500", "#d3d3d3"
"""torchviz's colours: lightblue, darkolivegreen1, darkolivegreen3, orange, lightgrey."""
PALE = "#ffe0a8"
"""Orange, light enough for lines of text."""
ATTRIBUTES = "#ececec"
ABOVE = Line("AccumulateGrad", "strong").width + 2 * PAD_X
"""Leaves are at least as wide as what stands below them, so that they stand straight above it."""


def backward_picture(
    outputs: Any, params: Any = None, show_attrs: bool = False, show_saved: bool = False, max_attr_chars: int = 50
) -> Picture:
    """Return the picture of what backward goes through from some Tensors.

    Args:
        outputs: a Tensor, or several in a list or tuple.
        params: names of Tensors: a dictionary, or (name, Tensor) pairs.
        show_attrs: also list the attributes of functions.
        show_saved: also list what functions saved.
        max_attr_chars: how many characters of an attribute.

    Raises:
        InputError: if an output is no Tensor, or none was computed from what requires a gradient.
    """
    roots = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    for t in roots:
        if not isinstance(t, Tensor):
            raise InputError(f"a backward graph is drawn from Tensors, found {type(t).__name__}")
    walk = _Walk(_names(params), show_attrs, show_saved, max_attr_chars)
    for t in roots:
        walk.output(t)
    picture = walk.picture
    picture.note = walk.note()
    kinds = {b.kind for b in picture.boxes}
    legend = [("leaf", LEAF, "leaf"), ("function", FUNCTION, "function"), ("output", OUTPUT, "output")]
    picture.legend = [(colour, text) for kind, colour, text in legend if kind in kinds]
    if walk.saved:
        picture.legend.insert(-1, (PALE, "saved for backward"))
    return picture


def _names(params: Any) -> dict[int, str]:
    """Return names by the identity of Tensors."""
    if params is None:
        return {}
    pairs: Iterable[Any] = params.items() if isinstance(params, Mapping) else params
    found: dict[int, str] = {}
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], Tensor)):
            raise InputError("params are names of Tensors: dict(model.named_parameters()), or (name, Tensor) pairs")
        found[id(pair[1])] = str(pair[0])
    return found


class _Walk:
    """Visits the functions from the outputs up."""

    def __init__(self, names: Mapping[int, str], show_attrs: bool, show_saved: bool, most: int) -> None:
        self.names, self.show_attrs, self.show_saved, self.most = names, show_attrs, show_saved, most
        self.picture = Picture()
        self.keys: dict[int, str] = {}
        self.alive: list[Any] = []  # an identity is a node's as long as it lives
        self.saved: dict[int, int] = {}
        self.freed = False
        self.leaves = self.elements = self.functions = 0

    def key(self, thing: Any, kind: str) -> str:
        self.alive.append(thing)
        made = self.keys[id(thing)] = f"{kind}{sum(k.startswith(kind) for k in self.keys.values())}"
        return made

    def output(self, t: Tensor) -> None:
        """Draw an output, what it was computed by, and the Tensor that it is a view of."""
        if id(t) in self.keys:
            return
        key = self.key(t, "output")
        lines = self._lines(self.names.get(id(t)) or t.name, t.shape)
        self.picture.boxes.append(Box(key, "output", (Section(OUTPUT, lines),), _tip(t)))
        if t.grad_fn is not None:
            self._visit(t.grad_fn)
            self.picture.edges.append(Edge(self.keys[id(t.grad_fn)], key, 40.0))
        elif t.requires_grad:
            self._visit(t._grad_edge()[0])
            self.picture.edges.append(Edge(self.keys[id(t._grad_edge()[0])], key, 40.0))

    def _visit(self, root: Any) -> None:
        """Draw functions and leaves from one up; without recursion, for graphs are deep."""
        if id(root) in self.keys:
            return
        self.key(root, "function")
        stack = [root]
        while stack:
            node = stack.pop()
            key = self.keys[id(node)]
            self.functions += 1
            variable = getattr(node, "variable", None)
            if variable is not None:
                self._leaf(variable, key)
            self.picture.boxes.append(self._function(node, key))
            heaviest = True
            for edge in node.inputs:
                if edge is None:
                    continue
                before, index = edge
                if id(before) not in self.keys:
                    self.key(before, "function")
                    stack.append(before)
                inner = getattr(before, "variable", None) is None
                weight = 40.0 if inner and heaviest else 3.0 if inner else 1.0
                heaviest = heaviest and not inner
                tip = shape_text(before.shapes[index][0] if inner else before.variable.shape)
                self.picture.edges.append(Edge(self.keys[id(before)], key, weight, "solid", tip))

    def _leaf(self, t: Tensor, end: str) -> None:
        key = self.key(t, "leaf")
        name = self.names.get(id(t)) or t.name
        box = Box(key, "leaf", (Section(LEAF, self._lines(name, t.shape)),), _tip(t, name), least=ABOVE)
        self.picture.boxes.append(box)
        self.picture.edges.append(Edge(key, end, 3.0))
        self.leaves += 1
        self.elements += t.numel()

    def _lines(self, name: str | None, shape: Sequence[int]) -> tuple[Line, ...]:
        text = Line(shape_text(shape), "plain")
        return (Line(name, "strong"), text) if name else (text,)

    def _function(self, node: Any, key: str) -> Box:
        accumulates = getattr(node, "variable", None) is not None
        sections = [Section(FUNCTION, (Line(node.name(), "strong"),))]
        attrs = getattr(node, "attrs", None) or {}
        if self.show_attrs and attrs:
            lines = tuple(Line(f"{k}: {_cut(v, self.most)}", "faint") for k, v in sorted(attrs.items()))
            sections.append(Section(ATTRIBUTES, lines))
        if self.show_saved:
            rows = self._saved(node)
            if rows:
                sections.append(Section(PALE, tuple(Line(r, "faint") for r in rows)))
        tip = node.name()
        if not accumulates:
            tip += "\noutput " + ", ".join(f"{dtype} {shape_text(shape)}" for shape, dtype in node.shapes)
        tip += "".join(f"\n{k}: {_cut(v, 200)}" for k, v in sorted(attrs.items()))
        return Box(key, "function", tuple(sections), tip, round_=accumulates)

    def _saved(self, node: Any) -> list[str]:
        """Return a line for each array that a function keeps."""
        self.freed = self.freed or bool(getattr(node, "freed", False))
        op = getattr(node, "op", None)
        rows: list[str] = []
        parameters = list(inspect.signature(op.infer).parameters.values()) if op is not None else []
        names = [p.name for p in parameters]
        given = getattr(op, "names", None)
        names = list(given) if given else names
        variadic = bool(parameters) and parameters[-1].kind is parameters[-1].VAR_POSITIONAL and not given
        args = getattr(node, "args", ())
        for i, a in enumerate(args):
            inside = i < len(names) - variadic
            name = names[i] if inside else f"{names[-1]}{i - len(names) + 1}" if variadic else f"x{i}"
            rows += self._kept(name, a)
        outputs = getattr(node, "outputs", ())
        for i, o in enumerate(outputs):
            rows += self._kept("y" if len(outputs) == 1 else f"y{i}", o)
        if hasattr(node, "saved_tensors") and not node.freed:
            rows += self._kept_by_function(node)
        return rows

    def _kept_by_function(self, node: Any) -> list[str]:
        """Return a line for each Tensor that a function of the user's own keeps."""
        try:
            kept = node.saved_tensors()
        except AutogradError:  # backward would say the same
            return ["saved, and changed in place since"]
        rows: list[str] = []
        for i, t in enumerate(kept):
            if t is not None:
                self.saved[id(t._array)] = t.nbytes
                name = self.names.get(id(t))
                rows.append(f"saved {i} {shape_text(t.shape)}" if name is None else f"saved {i} = {name}")
        return rows

    def _kept(self, name: str, entry: Any) -> list[str]:
        tensor = getattr(entry, "tensor", None)
        array = tensor._array if isinstance(tensor, Tensor) else getattr(entry, "array", None)
        if array is None and hasattr(entry, "unpack"):
            self.saved.setdefault(id(entry), 0)
            return [f"{name} (packed)"]
        if array is None or not hasattr(array, "nbytes"):
            return []
        self.saved[id(array)] = array.nbytes
        known = self.names.get(id(tensor)) if tensor is not None else None
        return [f"{name} {shape_text(array.shape)}" if known is None else f"{name} = {known}"]

    def note(self) -> str:
        """Return what there is, in numbers."""
        leaves, functions = "leaf" if self.leaves == 1 else "leaves", "function" if self.functions == 1 else "functions"
        found = [f"{self.leaves:,} {leaves} with {self.elements:,} elements", f"{self.functions:,} {functions}"]
        if self.show_saved:
            total = sum(self.saved.values())
            found.append("what was saved is freed" if self.freed and not self.saved else f"{_bytes(total)} saved")
        return " · ".join(found)


def _cut(value: Any, most: int) -> str:
    text = str(value)
    return text if len(text) <= most else text[:most] + "..."


def _tip(t: Tensor, name: str | None = None) -> str:
    return f"{name + chr(10) if name else ''}{t.dtype} {shape_text(t.shape)}"


def _bytes(count: int) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024  # type: ignore[assignment]
    return f"{count:,.1f} GiB"
