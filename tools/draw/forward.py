"""A graph as a picture: inputs, a box an operator with its weights folded in, outputs."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ...ops.errors import InputError
from ...ops.op import Op
from ...ops.types import TensorType, dtype_name
from ...runtime.graph.graph import Graph, Node, Value
from .families import FAMILIES, FOLDED, GROUP, INPUT, OUTPUT, colour_of, family_of
from .picture import Box, Edge, Line, Picture, Section
from .scopes import grouped, scopes

ROWS = 5
"""How many weights a box lists."""
SMALL = 4
"""Constants of at most this many elements are shown with their values."""
TRUNK = 40.0


def forward_picture(
    graph: Graph, depth: int | None = None, show_attrs: bool = False, max_attr_chars: int = 50,
    shown: Mapping[int, str | None] | None = None,
) -> Picture:  # fmt: skip
    """Return the picture of a graph.

    Args:
        graph: what is drawn.
        depth: draw what has the same first parts of its name, this many, as one box.
        show_attrs: also list attributes.
        max_attr_chars: how many characters of an attribute.
        shown: which outputs are drawn, by their number, and names for them; all of them by default.

    Raises:
        InputError: if `depth` is less than 1.
    """
    if depth is not None and depth < 1:
        raise InputError(f"depth counts the parts of names that are kept: 1 or more, found {depth}")
    scope = {} if depth is None else scopes(graph.nodes, depth)
    groups = grouped(graph.nodes, lambda node: scope.get(id(node)) or _source(node))
    return _Drawer(graph, groups, show_attrs, max_attr_chars, scope, shown).picture


def _source(node: Node) -> int | None:
    """Return what tells the ONNX node that a node came from; None for a node that came from none."""
    return id(node.source) if hasattr(node.source, "op_type") else None


class _Drawer:
    """Makes the boxes and edges of groups of nodes."""

    def __init__(
        self, graph: Graph, groups: Sequence[Sequence[Node]], show_attrs: bool, most: int,
        scope: Mapping[int, str], shown: Mapping[int, str | None] | None,
    ) -> None:  # fmt: skip
        self.graph, self.show_attrs, self.most, self.scope = graph, show_attrs, most, scope
        self.picture, self.consumers = Picture(), graph.consumers()
        self.families: set[str] = set()
        self.key_of: dict[int, str] = {}
        self.rank: dict[str, int] = {}
        self.folded = {id(v) for v in (*graph.state.values(), *graph.keys)}
        for i, v in enumerate((*graph.inputs, *(inner for _, inner in graph.captures))):
            self._end(v, _named(v) or f"input {i}", f"input{i}", "input", INPUT)
            self.key_of[id(v)] = f"input{i}"
            self.rank[f"input{i}"] = 0
        final = {id(v) for v in (*graph.outputs, *graph.updates.values())}
        for i, group in enumerate(groups):
            inside = {id(n) for n in group}
            leaving = [
                v
                for n in group
                for v in n.outputs
                if id(v) in final or not self._users(v) or any(id(u) not in inside for u in self._users(v))
            ]
            self._group(group, f"node{i}", leaving)
        wanted = dict.fromkeys(range(len(graph.outputs))) if shown is None else shown
        outputs = [(wanted[i] or _named(v) or f"output {i}", v) for i, v in enumerate(graph.outputs) if i in wanted]
        outputs += [(f"new {name}", v) for name, v in graph.updates.items()]
        for i, (name, v) in enumerate(outputs):
            self._end(v, name, f"output{i}", "output", OUTPUT)
            self._edge(v, f"output{i}", 2.0 if self._users(v) else TRUNK)
        self._legend()

    def _users(self, v: Value) -> Sequence[Node]:
        return self.consumers.get(v, ())

    def _end(self, v: Value, name: str, key: str, kind: str, fill: str) -> None:
        lines = (Line(name, "strong"), Line(_type(v), "plain"))
        self.picture.boxes.append(Box(key, kind, (Section(fill, lines),), f"{kind} {name} {_type(v)}", round_=True))

    def _edge(self, v: Value, target: str, weight: float) -> None:
        source = self.key_of.get(id(v))
        if source is not None and source != target:
            self.picture.edges.append(Edge(source, target, weight, "solid", f"{_named(v)} {_type(v)}".strip()))

    def _group(self, group: Sequence[Node], key: str, leaving: Sequence[Value]) -> None:
        inside = {id(n) for n in group}
        rows: list[str] = []
        coming: dict[tuple[str, int], Value] = {}
        for node in group:
            for name, v in _named_inputs(node):
                if v.is_constant or id(v) in self.folded:
                    rows.append(_weight(name, v))
                elif v.node is None or id(v.node) not in inside:
                    source = self.key_of.get(id(v))
                    if source is not None:
                        coming.setdefault((source, id(v)), v)
        rows = list(dict.fromkeys(rows))
        self.rank[key] = max((self.rank[source] + 1 for source, _ in coming), default=0)
        self.picture.boxes.append(self._box(group, key, leaving, rows))
        heaviest = max(((self.rank[source], -i) for i, (source, _) in enumerate(coming)), default=(0, 0))
        for i, ((source, _), v) in enumerate(coming.items()):
            self._edge(v, key, TRUNK if (self.rank[source], -i) == heaviest else 2.0)
        for node in group:
            for v in node.outputs:
                self.key_of[id(v)] = key

    def _box(self, group: Sequence[Node], key: str, leaving: Sequence[Value], rows: Sequence[str]) -> Box:
        kinds = [_kind(n) for n in _heads(group)]
        scope = self.scope.get(id(group[0]))
        name = group[0].name
        if scope is not None and len(kinds) > 1:
            counted = [k if n == 1 else f"{k} ×{n}" for k, n in Counter(kinds).most_common(4)]
            more = len(Counter(kinds)) - len(counted)
            lines = [
                Line(scope, "strong"),
                Line(f"{len(kinds)} nodes", "plain"),
                Line(", ".join(counted) + (f", {more} more" if more > 0 else ""), "faint"),
            ]
            fill, family = GROUP, "group"
            if rows:
                lines.append(Line(f"{len(rows)} weights", "faint"))
            rows = ()
        else:
            main = _main(group, kinds[0])
            family = family_of(main.op)
            fill = colour_of(family)
            lines = [Line(kinds[0], "strong")]
            own = _own_name(name, kinds[0])
            if own:
                lines.append(Line(_short(own), "faint"))
            lines += [Line(t, "faint") for t in _bodies(main)]
        lines += [Line(_type(v), "plain") for v in leaving[:2]]
        if len(leaving) > 2:
            lines.append(Line(f"and {len(leaving) - 2} more outputs", "faint"))
        self.families.add(family)
        sections = [Section(fill, tuple(lines))]
        if self.show_attrs and family != "group":
            attrs = [f"{k}: {_cut(v, self.most)}" for k, v in _attributes(group).items()]
            if attrs:
                sections.append(Section("#ececec", tuple(Line(a, "faint") for a in attrs)))
        if rows:
            shown = list(rows) if len(rows) <= ROWS else [*rows[: ROWS - 1], f"and {len(rows) - ROWS + 1} more"]
            sections.append(Section(FOLDED, tuple(Line(r, "faint") for r in shown)))
        tip = "\n".join(
            [
                f"{', '.join(dict.fromkeys(kinds[:8]))} {name}".strip(),
                *(f"output {_named(v)} {_type(v)}".replace("  ", " ") for v in leaving[:8]),
                *(f"{k}: {_cut(v, 120)}" for k, v in (_attributes(group).items() if family != "group" else ())),
                *rows[:20],
            ]
        )
        return Box(key, "group" if family == "group" else "operator", tuple(sections), tip)

    def _legend(self) -> None:
        graph, picture = self.graph, self.picture
        chosen = [(INPUT, "input")] if any(b.kind == "input" for b in picture.boxes) else []
        chosen += [(colour, family) for family, (colour, _) in FAMILIES.items() if family in self.families]
        if "other" in self.families:
            chosen.append((colour_of("other"), "other"))
        if "group" in self.families:
            chosen.append((GROUP, "several nodes"))
        picture.legend = [*chosen, (OUTPUT, "output")]
        picture.title = graph.name
        kinds = [_kind(n) for n in _heads(graph.nodes)]
        picture.note = f"{len(kinds):,} nodes"
        if graph.state:
            picture.note += f" · {len(graph.state):,} weights with {_elements(graph):,} elements"


def _elements(graph: Graph) -> int:
    total = 0
    for v in graph.state.values():
        if isinstance(v.type, TensorType) and v.type.known_shape is not None:
            count = 1
            for d in v.type.known_shape:
                count *= d if isinstance(d, int) else 1
            total += count
    return total


def _heads(nodes: Sequence[Node]) -> list[Node]:
    """Return one node for each ONNX node, and each that came from none."""
    seen: set[int] = set()
    heads = []
    for node in nodes:
        source = _source(node)
        if source is None or source not in seen:
            heads.append(node)
        if source is not None:
            seen.add(source)
    return heads


def _kind(node: Node) -> str:
    return str(getattr(node.source, "op_type", None) or node.op.name)


def _named(v: Value) -> str:
    """Return the name of a value; "" where it is only a number that counts values."""
    return "" if v.node is not None and re.fullmatch(r"v\d+", v.name) else v.name


def _own_name(name: str, kind: str) -> str:
    """Return the name that a file gave a node; of one that it gave none, the name of what it makes."""
    inner = re.fullmatch(rf"{re.escape(kind)}\((.*)\)", name)
    name = inner[1] if inner else name
    return "" if name == kind or re.fullmatch(r"v?\d+", name) else name


def _main(group: Sequence[Node], kind: str) -> Node:
    """Return the node that an operator is about: the one of its name, else the first that is more than layout."""
    wanted = kind.lower()
    for node in group:
        if node.op.name.replace("_", "") == wanted:
            return node
    return next((n for n in group if family_of(n.op) not in ("shape, index", "other")), group[0])


def _named_inputs(node: Node) -> list[tuple[str, Value]]:
    names = _parameters(node.op)
    found = []
    for i, a in enumerate(node.args):
        name = names[i] if i < len(names) else ""
        found += [(name, v) for v in (a if isinstance(a, list) else [a]) if isinstance(v, Value)]
    return found


def _parameters(op: Op) -> list[str]:
    """Return the names of an op's arguments; "" for what is variadic."""
    given = getattr(op, "names", None)
    if given:
        return list(given)
    return [
        "" if p.kind is p.VAR_POSITIONAL else p.name
        for p in inspect.signature(op.infer).parameters.values()
        if p.kind is not p.KEYWORD_ONLY
    ]


def _weight(name: str, v: Value) -> str:
    """Return a line about a weight or constant that is folded into its reader."""
    if v.is_constant:
        array = v.array
        if getattr(array, "size", SMALL + 1) <= SMALL:
            values = array.reshape(-1).tolist()
            shown = ", ".join(f"{x:.5g}" if isinstance(x, float) else str(x) for x in values)
            return f"{name} = {shown if array.ndim == 0 else f'[{shown}]'}".removeprefix(" = ")
        return f"{name} {_type(v)}".strip()
    return f"{_short(v.name, 30)} {_shape(v)}"


def _short(name: str, most: int = 40) -> str:
    return name if len(name) <= most else f"…{name[-most + 1 :]}"


def _shape(v: Value) -> str:
    known = v.type.known_shape if isinstance(v.type, TensorType) else None
    if known is None:
        return "" if isinstance(v.type, TensorType) else str(v.type)
    return "(" + ", ".join(d if isinstance(d, str) else _size(d) for d in known) + ")"


def _size(d: Any) -> str:
    """Return a size; what no name tells is `?`, however it is computed."""
    text = str(d)
    return "?" if "?" in text else text


def _type(v: Value) -> str:
    """Return the shape, with the element type where it is not the usual one."""
    if not isinstance(v.type, TensorType):
        return str(v.type)
    kind = dtype_name(v.type.dtype)
    shape = _shape(v) or "(…)"
    return shape if kind == "float32" else f"{kind} {shape}"


def _bodies(node: Node) -> list[str]:
    """Return what is in the bodies of a node of control flow."""
    found = []
    for name, value in node.attrs.items():
        for body in value if isinstance(value, tuple) else (value,):
            graph = getattr(body, "graph", body)
            if isinstance(graph, Graph):
                found.append(f"{name}: {len(_heads(graph.nodes))} nodes")
    return found


def _attributes(group: Sequence[Node]) -> dict[str, Any]:
    main = _main(group, _kind(group[0]))
    return {k: v for k, v in sorted(main.attrs.items()) if not isinstance(getattr(v, "graph", v), Graph)}


def _cut(value: Any, most: int) -> str:
    text = str(value)
    return text if len(text) <= most else text[:most] + "..."
