"""Compute common subexpressions once: the same op of the same arguments with the same attributes.

Cases:
    1. nodes of tensors whose arguments are the same values, numbers, or small constants of equal type and bytes;
    2. random ops with the same key, which draw the same;
    3. nodes that are equal once what they read has become one.
Refused: control flow, sequences and other structural ops; large constants that are not the same array; nodes whose
sizes have names of their own that later nodes mention.
"""

from __future__ import annotations

from typing import Any

from ..graph.graph import Graph, Node, Value
from .extents import mentioned_symbols, stands_for
from .matching import is_plain
from .rewriting import PassResult, rebuild

SMALL_BYTES = 4096
"""Constants of at most this many bytes are compared by their bytes."""


def merge_equal(graph: Graph) -> PassResult:
    """Replace each node that repeats an earlier one by that one."""
    repeated = _Repeated(graph).firsts
    if not repeated:
        return PassResult(graph, 0)
    mapping: dict[Value, Value] = {}

    def rewrite(node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Any, ...] | None:
        first = repeated.get(node)
        return None if first is None else tuple(mapping[v] for v in first.outputs)

    return PassResult(rebuild(graph, rewrite, mapping=mapping), len(repeated))


class _Repeated:
    """Which node of a graph each repeated one is equal to.

    Attributes:
        firsts: the earliest equal node of each node that repeats one.
    """

    def __init__(self, graph: Graph) -> None:
        self.firsts: dict[Node, Node] = {}
        self._same: dict[Value, Value] = {}
        self._constants: dict[int, tuple[Any, ...]] = {}
        seen: dict[Any, Node] = {}
        mentioned = mentioned_symbols(graph)
        for node in graph.nodes:
            if not node.args or not is_plain(node):
                continue
            first = seen.setdefault(self._key(node), node)
            pairs = zip(first.outputs, node.outputs, strict=True)
            if first is not node and all(stands_for(a, b, mentioned) for a, b in pairs):
                self.firsts[node] = first
                self._same.update(zip(node.outputs, first.outputs, strict=True))

    def _key(self, node: Node) -> tuple[Any, ...]:
        attrs = ((k, type(v), repr(v) if isinstance(v, float) else v) for k, v in sorted(node.attrs.items()))
        return (node.op.name, *map(self._argument, node.args), *attrs)

    def _argument(self, a: Any) -> Any:
        if isinstance(a, Value):
            return self._constant(a) if a.is_constant else self._same.get(a, a)
        if isinstance(a, list):
            return tuple(map(self._argument, a))
        return type(a), repr(a)

    def _constant(self, v: Value) -> tuple[Any, ...]:
        array = v.array
        found = self._constants.get(id(array))
        if found is None:
            small = array.dtype.kind in "fiubc" and array.nbytes <= SMALL_BYTES
            found = (str(array.dtype), tuple(array.shape), array.tobytes()) if small else (id(array),)
            self._constants[id(array)] = found
        return found
