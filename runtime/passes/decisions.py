"""What of control flow is known before anything is computed: conditions over small integer inputs and sizes alone.

A sampling rate, or a flag that there is a cache, picks a branch (`if sr == 16000`). Whoever runs the graph can ask
such a condition first, and run a graph in which only the branch that is taken is left (`specialize`).
Refused: conditions that anything computed, drawn, of weights, or a float input enters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...ops.control import if_
from ...ops.dims import symbols_in
from ...ops.types import TensorType
from ..graph.graph import Graph, Node, Value

SMALL = 16
"""An input of more elements than this decides nothing."""

NODES = 64
"""Conditions of more nodes than this are left alone."""


@dataclass(frozen=True)
class Decisions:
    """Conditions that are known before anything is computed.

    Attributes:
        nodes: the `If`s that they are of.
        graph: computes them.
        values: which inputs of the graph (then captures) it takes the elements of.
        told: small integer tensors, which it takes next: their elements are sizes of the inputs.
    """

    nodes: tuple[Node, ...]
    graph: Graph
    values: tuple[int, ...]
    told: tuple[TensorType, ...]


def find_decisions(graph: Graph, fed: Sequence[Value]) -> Decisions | None:
    """Return the conditions of a graph's own `If`s that are known before anything is computed; None without any.

    Args:
        graph: what to look at; bodies are not entered.
        fed: what a run brings: the inputs, the key where there is one, the captures.
    """
    places = {v: i for i, v in enumerate(fed) if v is not graph.key and _is_small(v)}
    symbols = {s for v in fed if isinstance(v.type, TensorType) for s in symbols_in(v.type.known_shape)}
    found: list[tuple[Node, _Condition]] = []
    for node in graph.nodes:
        if node.op is if_ and isinstance(node.args[0], Value):
            condition = _Condition(places, symbols)
            if condition.add(node.args[0]) and condition.values:
                found.append((node, condition))
    if not found:
        return None
    values = tuple(sorted({places[v] for _, c in found for v in c.values}))
    told = list(dict.fromkeys(v for _, c in found for v in c.told))
    new = Graph(f"{graph.name}.conditions")
    made = {v: new.input(v.name, v.type) for v in (*(fed[i] for i in values), *told)}
    wanted = {n for _, c in found for n in c.nodes}

    def place(a: Any) -> Any:
        if isinstance(a, Value):
            return a if a.is_constant else made[a]
        return [place(v) for v in a] if isinstance(a, list) else a

    for node in graph.nodes:
        if node in wanted:
            results = new.add(node.op, tuple(map(place, node.args)), node.attrs)
            made.update(zip(node.outputs, results if node.several else (results,), strict=True))
    nodes = tuple(node for node, _ in found)
    new.outputs = [place(node.args[0]) for node in nodes]
    return Decisions(nodes, new, values, tuple(v.tensor_type for v in told))


class _Condition:
    """What one condition is made of."""

    def __init__(self, places: dict[Value, int], symbols: set[str]) -> None:
        self.places, self.symbols = places, symbols
        self.values: list[Value] = []
        self.told: list[Value] = []
        self.nodes: set[Node] = set()

    def add(self, v: Value) -> bool:
        """Add what a value is computed of; whether that is small inputs and sizes alone."""
        if v.is_constant:
            return True
        if v in self.places:
            self.values.append(v)
            return True
        contents = v.type.contents if isinstance(v.type, TensorType) else None
        if contents is not None and self.symbols.issuperset(symbols_in(contents)):
            self.told.append(v)
            return True
        node = v.node
        if node in self.nodes:
            return True
        if node is None or node.op.structural or len(self.nodes) >= NODES:
            return False
        if any(True for a in node.attrs.values() for _ in symbols_in(a)):
            return False
        self.nodes.add(node)
        return all(map(self.add, node.inputs()))


def _is_small(v: Value) -> bool:
    """Whether an input may be a few integers or truth values."""
    t = v.type
    if not isinstance(t, TensorType) or t.known_shape is None or t.dtype.kind not in "iub" or t.ndim > 1:
        return False
    return not isinstance(t.size, int) or t.size <= SMALL
