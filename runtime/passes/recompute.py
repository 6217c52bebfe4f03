"""Memory for time, in a graph of forward and backward: what is cheap is computed again where backward reads it.

A value that is read early and then, much later, again is kept for all that time. Where a chain of cheap nodes computes
it of values that are there then anyhow (inputs, state, what backward keeps for other reasons), the chain is repeated
before the late readers, and the value is let go in between.

Cases: pointwise ops, views and layout, softmax and normalisations.
Refused: what draws random numbers, contractions, reductions; sizes that are not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...ops import layout, normalize, pointwise as pw, reduce
from ...ops.dims import evaluate
from ...ops.op import Op
from ...ops.types import TensorType
from ..graph.graph import Graph, Node, Value
from .rewriting import PassResult, rebuild

_CHEAP: frozenset[Op] = frozenset(
    {layout.reshape, layout.transpose, layout.identity, layout.squeeze, layout.unsqueeze, layout.flatten, layout.slice_,
     layout.concat, reduce.broadcast_to, normalize.softmax, normalize.layer_norm, normalize.standardize,
     normalize.batch_norm, normalize.batch_norm_train}
)  # fmt: skip
_CHAIN = 8
"""Nodes that are repeated for one value, at most."""


def recompute(graph: Graph, limit_bytes: int, env: Mapping[str, int]) -> PassResult:
    """Repeat cheap nodes until what is kept at the same time is at most so much, or nothing is left to repeat.

    Args:
        graph: of forward and backward.
        limit_bytes: for all values that are neither entries nor results.
        env: the sizes to reckon with.
    """
    graph, changed = rebuild(graph), 0
    while True:
        lives = _Lives(graph, env)
        peak, at = lives.peak()
        choice = lives.best(at) if peak > limit_bytes else None
        if choice is None:
            return PassResult(graph, changed)
        _repeat(graph, *choice)
        changed += 1


def peak_bytes(graph: Graph, env: Mapping[str, int]) -> int:
    """Return the most bytes of values that are needed at once, entries and results apart."""
    return _Lives(graph, env).peak()[0]


@dataclass
class _Lives:
    """When each value is made and read, by places in the order of nodes."""

    graph: Graph
    env: Mapping[str, int]
    made: dict[Value, int] = field(default_factory=dict)
    reads: dict[Value, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for place, node in enumerate(self.graph.nodes):
            for v in node.inputs():
                if not v.is_constant:
                    self.reads.setdefault(v, []).append(place)
            for v in node.outputs:
                self.made[v] = place
        self._kept = {*self.graph.outputs, *self.graph.updates.values()}

    def bytes_of(self, v: Value) -> int:
        t = v.type
        if not isinstance(t, TensorType) or t.known_shape is None:
            return 0
        return int(evaluate(t.size, self.env)) * t.dtype.itemsize

    def peak(self) -> tuple[int, int]:
        """Return the most bytes that are needed at once, and where that is."""
        changes = [0] * (len(self.graph.nodes) + 1)
        for v, first in self.made.items():
            if v not in self._kept:
                changes[first] += self.bytes_of(v)
                changes[self.reads.get(v, [first])[-1] + 1] -= self.bytes_of(v)
        total, best, at = 0, 0, 0
        for place, change in enumerate(changes):
            total += change
            if total > best:
                best, at = total, place
        return best, at

    def best(self, at: int) -> tuple[Value, int, list[Node]] | None:
        """Return the largest value that can be let go at a place: its first reader behind it, the nodes to repeat."""
        found: tuple[Value, int, list[Node]] | None = None
        most = 0
        for v, first in self.made.items():
            size = self.bytes_of(v)
            if size <= most or v in self._kept or first >= at:
                continue
            late = next((place for place in self.reads.get(v, ()) if place > at), None)
            if late is None or at in self.reads[v]:
                continue
            chain = self._chain(v, late)
            if chain is not None:
                found, most = (v, late, chain), size
        return found

    def _chain(self, v: Value, late: int) -> list[Node] | None:
        """Return the nodes that compute a value of what is there at a place, in order."""
        nodes: dict[Node, int] = {}
        open_ = [v]
        while open_:
            node = open_.pop().node
            if node is None or node in nodes or (node.op not in _CHEAP and not isinstance(node.op, pw.Pointwise)):
                return None
            nodes[node] = self.made[node.outputs[0]]
            if len(nodes) > _CHAIN:
                return None
            for a in node.inputs():
                there = a.is_constant or a not in self.made or a in self._kept or self.reads[a][-1] > late
                if not there and a.node not in nodes:
                    open_.append(a)
        return sorted(nodes, key=nodes.__getitem__)


def _repeat(graph: Graph, value: Value, late: int, chain: list[Node]) -> None:
    """Put copies of nodes before a place and let what stands from there on read the copy of a value."""
    copies: dict[Value, Value] = {}

    def placed(a: Any) -> Any:
        if isinstance(a, list):
            return [placed(x) for x in a]
        return copies.get(a, a) if isinstance(a, Value) else a

    made = []
    for node in chain:
        copy = Node(
            node.op, tuple(placed(a) for a in node.args), node.attrs, name=node.name, source=node.source,
            several=node.several,
        )  # fmt: skip
        copy.outputs = tuple(
            Value(graph, v.type, f"{v.name}.again{late}", node=copy, index=v.index) for v in node.outputs
        )
        copies.update(zip(node.outputs, copy.outputs, strict=True))
        made.append(copy)
    copies = {value: copies[value]}
    for node in graph.nodes[late:]:
        if any(v is value for v in node.inputs()):
            node.args = tuple(placed(a) for a in node.args)
    graph.nodes[late:late] = made
