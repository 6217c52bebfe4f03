"""The plan: a graph made ready to run. Immutable steps with chosen kernels, and when each value is let go.

All cleverness is here; the executor is a loop. Array kernels return arrays, so reuse of memory means release: a slot is
freed after its last reader, and NumPy's allocator or CuPy's pool hands it out again. `str(plan)` reads as text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...ops import dims
from ...ops.dims import Dim
from ...ops.op import Op
from ...ops.types import TensorType, nbytes
from .graph import Graph, Node, Value


@dataclass(frozen=True)
class Slot:
    """An argument that is read from slot `index` at run time."""

    index: int


@dataclass(frozen=True)
class Bind:
    """A symbol that a value binds: to a size of its shape, or to one of its elements."""

    symbol: str
    axis: int
    contents: bool = False


@dataclass(frozen=True)
class Step:
    """One kernel call.

    Attributes:
        args: `Slot`s, constant arrays, Python scalars, None, or lists of them.
        symbolic: the attributes that mention symbols, evaluated at each call.
        free: slots to let go afterwards.
        binds: for each output, the symbols that it binds.
        doubtful: an attribute hangs on the elements of a tensor, so that its fitness shows at run time.
    """

    op: Op
    kernel: Callable[..., Any]
    args: tuple[Any, ...]
    attrs: dict[str, Any]
    symbolic: tuple[str, ...]
    outs: tuple[int, ...]
    several: bool
    free: tuple[int, ...]
    binds: tuple[tuple[Bind, ...], ...]
    node: Node
    doubtful: bool = False


@dataclass(frozen=True)
class Plan:
    """Steps over numbered slots; the first slots are the entries of the graph."""

    graph: Graph
    steps: tuple[Step, ...]
    slots: int
    entries: tuple[Value, ...]
    entry_binds: tuple[tuple[Bind, ...], ...]
    entry_free: tuple[int, ...]
    results: tuple[Any, ...]
    updates: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        """Return the plan as readable text: each step, what it makes, its size, and what is let go."""
        lines = [f"plan {self.graph.name}: {len(self.steps)} steps, {self.slots} slots"]
        for i, v in enumerate(self.entries):
            lines.append(f"       %{i:<4} = {v.name}: {v.type}")
        for k, s in enumerate(self.steps):
            outs = ", ".join(f"%{o}" for o in s.outs)
            made = ", ".join(_sized(v) for v in s.node.outputs)
            args = ", ".join(map(_show, s.args))
            attrs = "".join(f", {a}={v}" for a, v in s.attrs.items())
            free = f"  free {', '.join(f'%{f}' for f in s.free)}" if s.free else ""
            where = f"  # {s.node.name}" if s.node.name else ""
            lines.append(f"{k:5}  {outs} = {s.op.name}({args}{attrs}) -> {made}{free}{where}")
        lines.append(f"       return {', '.join(map(_show, self.results))}")
        return "\n".join(lines)


def _sized(v: Value) -> str:
    size = nbytes(v.type) if isinstance(v.type, TensorType) else None
    return str(v.type) + (f" {size / 1e3:.1f} kB" if size is not None and size >= 1000 else "")


def _show(a: Any) -> str:
    if isinstance(a, Slot):
        return f"%{a.index}"
    if isinstance(a, list):
        return f"[{', '.join(map(_show, a))}]"
    if hasattr(a, "shape") and hasattr(a, "dtype"):
        return str(a.tolist()) if a.size <= 4 else f"const {a.dtype}{dims.show(a.shape)}"
    return repr(a)


def make_plan(graph: Graph, *, backends: Sequence[str] = ("array",)) -> Plan:
    """Choose a kernel for every node that matters, number the slots, and find each one's last reader."""
    nodes = live_nodes(graph)
    needed = {s for node in nodes for a in node.attrs.values() for s in dims.symbols_in(a)}
    values = (*graph.entries, *(v for node in nodes for v in node.outputs))
    told = {b.symbol for v in values for b in _bare(v) if b.contents}
    bound: set[str] = set()
    entries = graph.entries
    slot: dict[int, int] = {id(v): i for i, v in enumerate(entries)}
    entry_binds = tuple(tuple(_binds(v, needed, bound)) for v in entries)
    for node in nodes:
        for v in node.outputs:
            slot[id(v)] = len(slot)

    def place(a: Any) -> Any:
        if isinstance(a, Value):
            return a.array if a.is_constant else Slot(slot[id(a)])
        return [place(v) for v in a] if isinstance(a, list) else a

    kept = {slot[id(v)] for v in (*graph.outputs, *graph.updates.values()) if not v.is_constant}
    last: dict[int, int] = {}
    for k, node in enumerate(nodes):
        for v in node.inputs():
            if not v.is_constant:
                last[slot[id(v)]] = k
        for v in node.outputs:
            last.setdefault(slot[id(v)], k)
    free: dict[int, list[int]] = {}
    for index, k in last.items():
        if index not in kept:
            free.setdefault(k, []).append(index)
    steps = tuple(_step(node, k, slot, place, free, needed, bound, told, backends) for k, node in enumerate(nodes))
    unused = tuple(i for i in range(len(entries)) if i not in last and i not in kept)
    return Plan(
        graph, steps, len(slot), entries, entry_binds, unused, tuple(place(v) for v in graph.outputs),
        tuple((n, place(v)) for n, v in graph.updates.items()),
    )  # fmt: skip


def _step(
    node: Node, k: int, slot: dict[int, int], place: Callable[[Any], Any], free: dict[int, list[int]],
    needed: set[str], bound: set[str], told: set[str], backends: Sequence[str],
) -> Step:  # fmt: skip
    types = [a.type if isinstance(a, Value) else a for a in node.args]
    return Step(
        op=node.op,
        kernel=node.op.select(types, node.attrs, backends),
        args=tuple(place(a) for a in node.args),
        attrs=node.attrs,
        symbolic=tuple(
            n for n, a in node.attrs.items() if hasattr(a, "free_symbols") or any(True for _ in dims.symbols_in(a))
        ),
        outs=tuple(slot[id(v)] for v in node.outputs),
        several=node.several,
        free=tuple(sorted(free.get(k, ()))),
        binds=tuple(tuple(_binds(v, needed, bound)) for v in node.outputs),
        node=node,
        doubtful=any(
            s in told for a in node.attrs.values() if not hasattr(a, "free_symbols") for s in dims.symbols_in(a)
        ),
    )


def live_nodes(graph: Graph) -> list[Node]:
    """Return the nodes that an output or an update depends on, and those that alone bind a symbol of an attribute."""
    binders: set[int] = set()
    kept = _live(graph, binders)
    while unbound := _unbound(graph, kept):
        more = _first_binders(graph, unbound) - binders
        if not more:
            break
        binders |= more
        kept = _live(graph, binders)
    return kept


def _live(graph: Graph, binders: set[int]) -> list[Node]:
    live = {id(v) for v in (*graph.outputs, *graph.updates.values())}
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if id(node) in binders or any(id(v) in live for v in node.outputs):
            kept.append(node)
            live.update(id(v) for v in node.inputs())
    kept.reverse()
    return kept


def _unbound(graph: Graph, nodes: Sequence[Node]) -> set[str]:
    """Return the symbols that attributes of these nodes mention before one of their values, or an entry, binds them."""
    bound = {b.symbol for v in graph.entries for b in _bare(v)}
    found: set[str] = set()
    if not any(s not in bound for node in nodes for a in node.attrs.values() for s in dims.symbols_in(a)):
        return found
    for node in nodes:
        for a in node.attrs.values():
            found.update(s for s in dims.symbols_in(a) if s not in bound)
        bound.update(b.symbol for v in node.outputs for b in _bare(v))
    return found


def _first_binders(graph: Graph, symbols: set[str]) -> set[int]:
    missing, found = set(symbols), set()
    for node in graph.nodes:
        for b in (b for v in node.outputs for b in _bare(v) if b.symbol in missing):
            missing.discard(b.symbol)
            found.add(id(node))
    return found


def _bare(v: Value) -> Iterator[Bind]:
    if not isinstance(v.type, TensorType):
        return
    for axis, d in enumerate(v.type.known_shape or ()):
        if isinstance(d, Dim) and d.name is not None:
            yield Bind(d.name, axis)
    for axis, d in enumerate(v.type.contents or ()):
        if isinstance(d, Dim) and d.name is not None:
            yield Bind(d.name, axis, contents=True)


def _binds(v: Value, needed: set[str], bound: set[str]) -> Iterator[Bind]:
    for b in _bare(v):
        if b.symbol in needed and b.symbol not in bound:
            bound.add(b.symbol)
            yield b
