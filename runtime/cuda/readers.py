"""Who reads what the nodes of a graph make: what is wanted at all, and how those that read it want it to lie."""

from __future__ import annotations

from collections.abc import Sequence

from ...ops import layout
from ...ops.kernels.cpu.operand import Operand as Strided
from ...ops.kernels.cuda.operand import Operand, Sizes, packed
from ..compiled.views import RESHAPES, reshaped
from ..graph.graph import Graph, Node, Value
from .arena import Placed, Storage

_MOVES = (*RESHAPES, layout.transpose)

_STRIDED = ("attention_grad",)
"""Ops beside permutations that read rows wherever they lie."""


class Readers:
    """The nodes that read each value of a graph.

    Args:
        graph: whose outputs are wanted.
        nodes: those that run.
    """

    def __init__(self, graph: Graph, nodes: Sequence[Node]) -> None:
        """Go through the nodes; see the class for the arguments."""
        self._kept = {id(v) for v in (*graph.outputs, *graph.updates.values())}
        self._nodes: dict[int, list[Node]] = {}
        for node in nodes:
            for v in node.inputs():
                self._nodes.setdefault(id(v), []).append(node)

    def wanted(self, v: Value) -> bool:
        """Whether something reads a value, or it is an output of the graph."""
        return id(v) in self._kept or id(v) in self._nodes

    def is_output(self, v: Value) -> bool:
        """Whether a value is an output of the graph, or an update of its state."""
        return id(v) in self._kept

    def nodes(self, v: Value) -> Sequence[Node]:
        """Return the nodes that read a value, one that reads it twice two times."""
        return self._nodes.get(id(v), ())

    def ops(self, v: Value) -> tuple[str, ...]:
        """Return the names of the ops that read a value."""
        return tuple(node.op.name for node in self._nodes.get(id(v), ()))

    def permuted(self, v: Value) -> Operand | None:
        """Return a value as it lies where the permutation that reads it is row-major and its last axis innermost.

        None where its readers do not agree on one, or read it otherwise.
        """
        if id(v) in self._kept:
            return None
        orders: set[Sizes] = set()
        for node in self._nodes.get(id(v), ()):
            if node.op is layout.transpose:
                orders.add(_order(node))
            elif node.op.name not in _STRIDED:
                return None
        if len(orders) != 1:
            return None
        (order,) = orders
        if not order or order[-1] != v.ndim - 1:
            return None
        shape = tuple(int(d) for d in v.shape)
        return _turned_back(packed(v.dtype, [shape[a] for a in order]), order)

    def joined(self, v: Value) -> tuple[Value, Operand] | None:
        """Return what a value becomes a part of by moving nothing, and how it lies in it, its last axis innermost.

        That is a concatenation of views of what one node makes, which nothing else reads. None where there is none.
        """
        seen = v
        while (node := self._only(seen)) is not None and node.op in _MOVES:
            seen = node.outputs[0]
        if node is None or node.op is not layout.concat:
            return None
        found: dict[int, Operand] = {}
        for x, part in zip(node.inputs(), parts(node), strict=True):
            source, made = self._source(x, part)
            if made is None or made.strides[-1] != 1 or source.node is not v.node or id(source) in found:
                return None
            found[id(source)] = made
        return (node.outputs[0], found[id(v)]) if id(v) in found else None

    def _only(self, v: Value) -> Node | None:
        """Return the only node that reads a value."""
        nodes = self._nodes.get(id(v), [])
        return nodes[0] if len(nodes) == 1 and id(v) not in self._kept else None

    def _source(self, v: Value, lies: Operand) -> tuple[Value, Operand | None]:
        """Return what a value is a view of, and how that lies if the value lies so; None if strides cannot say it."""
        found: Operand | None = lies
        while found is not None and self._only(v) is not None and v.node is not None and v.node.op in _MOVES:
            node, v = v.node, v.node.args[0]
            if node.op is layout.transpose:
                found = _turned_back(found, _order(node))
            else:
                shape = tuple(int(d) for d in v.shape)
                seen = reshaped(Strided(found.dtype, found.shape, found.strides), shape)
                steps = None if seen is None else tuple(int(s) for s in seen.strides)
                found = None if steps is None else Operand(found.dtype, shape, steps, found.offset)
        return v, found if self._only(v) is not None else None


def parts(node: Node) -> list[Operand]:
    """Return how the inputs of a concatenation lie in its result, which is row-major."""
    out = node.outputs[0]
    axis, whole = int(node.attrs["axis"]) % out.ndim, packed(out.dtype, [int(d) for d in out.shape])
    found, at = [], 0
    for x in node.inputs():
        found.append(Operand(x.dtype, tuple(int(d) for d in x.shape), whole.strides, at * whole.strides[axis]))
        at += found[-1].shape[axis]
    return found


def complete(node: Node, refs: Sequence[Sequence[Placed]], room: Storage) -> bool:
    """Whether the inputs of a concatenation lie in some memory where they belong.

    Args:
        node: the concatenation.
        refs: where each of its inputs lies.
        room: the memory.
    """
    return all(
        any(ref.storage is room and _alike(ref.operand, part) for ref in each)
        for each, part in zip(refs, parts(node), strict=True)
    )


def _alike(a: Operand, b: Operand) -> bool:
    """Whether two tensors of a storage are the same elements."""
    if a.shape != b.shape or a.offset != b.offset:
        return False
    return all(s == t for n, s, t in zip(a.shape, a.strides, b.strides, strict=True) if n != 1)


def _order(node: Node) -> Sizes:
    """Return which axis of its input a permutation puts at each place."""
    rank = node.outputs[0].ndim
    return tuple(int(a) % rank for a in node.attrs.get("perm") or reversed(range(rank)))


def _turned_back(o: Operand, order: Sizes) -> Operand:
    """Return what a permutation makes an operand of."""
    axes = [order.index(a) for a in range(o.ndim)]
    return o.transposed(axes)
