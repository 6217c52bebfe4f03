"""Make one product of several where a training step casts the matrices: what `merge_products` does, backward too.

Queries, keys and values of attention are products of one operand with three matrices. With gradients a, b, c, backward
adds up a A^T + b B^T + c C^T, multiplies a^T x, b^T x and c^T x, and sums up a, b and c. Side by side, as g = [a b c],
these are one product g [A B C]^T, parts of one product g^T x, and parts of one sum; forward is x [A B C].

Cases: sums of at least two such products, whose gradients nothing else reads, in any half precision; with gradients of
the matrices and sums for biases, or without.
Refused: gradients that something else reads; matrices that are not cast in each step, or that other products read.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...ops import layout
from ...ops.broadcast import sum_to
from ...ops.dims import product
from ...ops.matmul import matmul
from ...ops.pointwise import add, cast
from ...ops.types import HALF, TensorType
from ..graph.graph import Graph, Node, Value
from .matching import perm_of, reader_counts
from .rewriting import PassResult, rebuild

_TURNED = (1, 0)


@dataclass(eq=False)
class _Branch:
    """One of the products.

    Attributes:
        gradient: g, (..., N).
        matrix: A as it was cast, (K, N), or (N, K) where forward reads its transpose.
        turned: whether it is backward that reads its transpose.
        backward: the product g A^T.
        weight: what makes g^T x, and the cast behind it; nothing where the matrix has no gradient.
        sum: what sums up g for a bias, and the cast behind it.
        forward: the product x A, and the sum with its bias.
    """

    gradient: Value
    matrix: Value
    turned: bool
    backward: Node
    weight: tuple[Node, ...] = ()
    sum: tuple[Node, ...] = ()
    forward: tuple[Node, ...] = ()


@dataclass(eq=False)
class _Family:
    """Products that go together.

    Attributes:
        branches: in the order in which their matrices are made.
        root: the node that makes the sum of their gradients in x.
        casts: attributes of the cast between the products and the sum; None where there is none.
        rest: what else is added.
    """

    branches: list[_Branch]
    root: Node
    casts: dict[str, Any] | None
    rest: list[Value]


def merge_gradients(graph: Graph) -> PassResult:
    """Merge products of one operand with several matrices, forward and backward."""
    search = _Search(graph)
    families = [f for node in graph.nodes if node.op is add and (f := search.family(node)) is not None]
    if not families:
        return PassResult(graph, 0)
    nodes = list(graph.nodes)
    found: dict[int, tuple[_Merged, str, int]] = {}
    mapping: dict[Value, Value] = {}
    changed = 0
    for family in families:
        members = {"root": [family.root]}
        for kind in ("weight", "sum", "forward"):
            lasts = [getattr(b, kind) for b in family.branches]
            members[kind] = [last[-1] for last in lasts] if all(lasts) else []
        every = [n for some in members.values() for n in some]
        ordered = _ahead(nodes, family, members)
        if ordered is None or any(id(n) in found for n in every):
            continue
        nodes, changed = ordered, changed + 1
        merged = _Merged(family, mapping)
        found.update((id(n), (merged, kind, i)) for kind, some in members.items() for i, n in enumerate(some))

    def rewrite(node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Any, ...] | None:
        if id(node) not in found:
            return None
        merged, kind, i = found[id(node)]
        return (merged.part(kind, i),)

    ahead = copy.copy(graph)
    ahead.nodes = nodes
    return PassResult(rebuild(ahead, rewrite, mapping=mapping) if changed else graph, changed)


class _Search:
    """What reads what in a graph."""

    def __init__(self, graph: Graph) -> None:
        self.readers, self.counts = graph.consumers(), reader_counts(graph)
        self.place = {node: i for i, node in enumerate(graph.nodes)}

    def family(self, root: Node) -> _Family | None:
        """Return the products that a node, the last of several sums, adds up."""
        out = root.outputs[0]
        above = self._only(out)
        if above is not None and above.op is add and above.outputs[0].type == out.type:
            return None
        terms: list[tuple[_Branch, dict[str, Any] | None]] = []
        rest: list[Value] = []
        for leaf in self._leaves(root):
            term = self._term(leaf)
            terms += [] if term is None else [term]
            rest += [leaf] if term is None else []
        branches = sorted((b for b, _ in terms), key=lambda b: self.place[b.matrix.node])  # type: ignore[index]
        kinds = [casts for _, casts in terms]
        leads = {(b.gradient.shape[:-1], b.gradient.dtype, b.turned) for b in branches}
        if len(terms) < 2 or any(k != kinds[0] for k in kinds) or len(leads) != 1:
            return None
        if len({id(b.matrix) for b in branches}) < len(branches):
            return None
        for b in branches:
            if not self._backward(b) or not self._forward(b):
                return None
        return _Family(branches, root, kinds[0], rest) if _alike(branches) else None

    def _only(self, v: Value) -> Node | None:
        return self.readers[v][0] if self.counts[v] == 1 and self.readers.get(v) else None

    def _leaves(self, root: Node) -> list[Any]:
        """Return what a sum adds up, in order."""
        found: list[Any] = []
        waiting: list[Any] = [*root.args[::-1]]
        while waiting:
            a = waiting.pop()
            inner = a.node if isinstance(a, Value) and a.type == root.outputs[0].type else None
            if inner is not None and inner.op is add and self.counts[a] == 1:
                waiting += inner.args[::-1]
            else:
                found.append(a)
        return found

    def _term(self, leaf: Any) -> tuple[_Branch, dict[str, Any] | None] | None:
        """Return what a term of a sum is, where that is a product with the transpose of a matrix that is cast."""
        casts = None
        if not isinstance(leaf, Value) or self.counts[leaf] != 1:
            return None
        if leaf.node is not None and leaf.node.op is cast:
            casts, leaf = leaf.node.attrs, leaf.node.args[0]
        if leaf.node is None or leaf.node.op is not matmul or self.counts[leaf] != 1:
            return None
        g, factor = leaf.node.args
        found = _matrix_of(factor)
        if found is None or not isinstance(g, Value) or not _sizes(g) or g.ndim < 2:
            return None
        return _Branch(g, *found, backward=leaf.node), casts

    def _backward(self, b: _Branch) -> bool:
        """Find what else reads a gradient; whether all of that can be merged."""
        base, columns = b.gradient, b.gradient.shape[-1]
        while base.node is not None and base.node.op is layout.reshape:
            base = base.node.args[0]
        for v, node in self._terminals(base):
            if node is b.backward and v is b.gradient:
                continue
            if node.op is sum_to and tuple(node.attrs["shape"]) == (columns,) and v.shape[-1] == columns and not b.sum:
                b.sum = self._with_cast(node)
                continue
            reader = self._only(node.outputs[0]) if node.op is layout.transpose else None
            if reader is None or reader.op is not matmul or v.ndim != 2 or v.shape[1] != columns or b.weight:
                return False
            if perm_of(node) != _TURNED or reader.args[0] is not node.outputs[0] or reader.args[1].ndim != 2:
                return False
            b.weight = self._with_cast(reader)
        return True

    def _terminals(self, v: Value) -> Iterator[tuple[Value, Node]]:
        """Yield what reads a value, or a reshape of it, with that."""
        if self.counts[v] != len(self.readers.get(v, ())):
            yield v, _OUTPUT
        for node in self.readers.get(v, ()):
            if node.op is layout.reshape:
                yield from self._terminals(node.outputs[0])
            else:
                yield v, node

    def _forward(self, b: _Branch) -> bool:
        """Find the product of a branch; whether nothing but that and its gradient reads the matrix."""
        for v, turned in self._faces(b.matrix):
            for node in self.readers.get(v, ()):
                if node is b.backward and turned == b.turned:
                    continue
                if node.op is layout.transpose and not turned:
                    continue
                if node.op is not matmul or node.args[1] is not v or turned == b.turned or b.forward:
                    return False
                b.forward = (node,)
        if not b.forward:
            return False
        y = b.forward[0].outputs[0]
        adder = self._only(y)
        if adder is not None and adder.op is add and adder.outputs[0].type == y.type:
            bias = next((a for a in adder.args if a is not y), None)
            if (
                isinstance(bias, Value)
                and bias.shape == y.shape[-1:]
                and bias.node is not None
                and bias.node.op is cast
            ):
                b.forward = (*b.forward, adder)
        return True

    def _faces(self, matrix: Value) -> Iterator[tuple[Value, bool]]:
        """Yield a matrix and its transposes, and whether they are such."""
        yield matrix, False
        for node in self.readers.get(matrix, ()):
            if node.op is layout.transpose:
                yield node.outputs[0], True

    def _with_cast(self, node: Node) -> tuple[Node, ...]:
        reader = self._only(node.outputs[0])
        return (node, reader) if reader is not None and reader.op is cast else (node,)


_OUTPUT = Node(layout.identity, (), {})
"""Stands for the end of a graph among the readers of a value."""


def _alike(branches: list[_Branch]) -> bool:
    """Whether the same is made of each gradient, of the same operands, and each product has or has not a bias."""
    first = branches[0]
    for kind in ("weight", "sum", "forward"):
        nodes = [getattr(b, kind) for b in branches]
        if {len(n) for n in nodes} != {len(nodes[0])}:
            return False
        if kind != "forward" and any(len(n) > 1 and n[1].attrs != nodes[0][1].attrs for n in nodes):
            return False
    if any(b.weight and b.weight[0].args[1] is not first.weight[0].args[1] for b in branches):
        return False
    return all(b.forward[0].args[0] is first.forward[0].args[0] for b in branches)


def _matrix_of(v: Any) -> tuple[Value, bool] | None:
    """Return the matrix that a factor is, as it was cast, and whether the factor is its transpose."""
    node = v.node if isinstance(v, Value) else None
    turned = node is not None and node.op is layout.transpose and perm_of(node) == _TURNED
    if turned and node is not None:
        v = node.args[0]
        node = v.node
    if node is None or node.op is not cast or v.dtype not in HALF or not _sizes(v) or v.ndim != 2:
        return None
    return v, turned


def _sizes(v: Value) -> bool:
    """Whether the shape of a tensor is numbers."""
    shape = v.type.known_shape if isinstance(v.type, TensorType) else None
    return shape is not None and all(isinstance(d, int) for d in shape)


def _ahead(nodes: list[Node], family: _Family, members: dict[str, list[Node]]) -> list[Node] | None:
    """Return nodes with what a family's products are made of before the first of them.

    None where one is made of another.
    """
    forward, branches = members["forward"], family.branches
    backward = [n for kind, some in members.items() if kind != "forward" for n in some]
    own = {id(n) for n in (*forward, *backward, *(b.forward[0] for b in branches), *(b.backward for b in branches))}
    products = {id(b.forward[0].outputs[0]) for b in branches}
    inputs = [b.matrix for b in branches] + [v for n in forward for v in n.inputs() if id(v) not in products]
    for some, values in ((forward, inputs), (backward, [b.gradient for b in branches])):
        place = {id(n): i for i, n in enumerate(nodes)}
        first = min(place[id(n)] for n in some)
        needed: set[int] = set()
        waiting = [v.node for v in values if v.node is not None]
        while waiting:
            n = waiting.pop()
            if id(n) in needed or place.get(id(n), -1) < first:
                continue
            if id(n) in own:
                return None
            needed.add(id(n))
            waiting += [v.node for v in n.inputs() if v.node is not None]
        moved = [n for n in nodes[first:] if id(n) in needed]
        nodes = [*nodes[:first], *moved, *(n for n in nodes[first:] if id(n) not in needed)]
    return nodes


class _Merged:
    """The products of a family in a new graph, each made when its first part is asked for."""

    def __init__(self, family: _Family, mapping: dict[Value, Value]) -> None:
        self.family, self.mapping = family, mapping
        self.sizes = tuple(int(b.gradient.shape[-1]) for b in family.branches)
        self.parts: dict[str, tuple[Value, ...]] = {}
        self.joint: Value | None = None

    def _new(self, v: Value) -> Value:
        return v if v.is_constant else self.mapping[v]

    def part(self, kind: str, i: int) -> Value:
        """Return what stands for the result of a branch."""
        if kind == "root":
            return self._root()
        if kind not in self.parts:
            made, axis = getattr(self, f"_{kind}")()
            self.parts[kind] = layout.split(made, axis=axis, sizes=self.sizes)
        return self.parts[kind][i]

    def _gradient(self) -> Value:
        if self.joint is None:
            every = [self._new(b.gradient) for b in self.family.branches]
            self.joint = layout.concat(*every, axis=every[0].ndim - 1)
        return self.joint

    def _matrix(self, *, forward: bool) -> Value:
        """Return the matrices side by side, (K, N) forward and (N, K) backward."""
        turned = self.family.branches[0].turned
        found: Value = layout.concat(*(self._new(b.matrix) for b in self.family.branches), axis=int(turned))
        return found if turned == forward else layout.transpose(found, perm=_TURNED)

    def _root(self) -> Value:
        y: Value = matmul(self._gradient(), self._matrix(forward=False))
        if self.family.casts is not None:
            y = cast(y, **self.family.casts)
        for v in self.family.rest:
            y = add(y, self._new(v))
        return y

    def _weight(self) -> tuple[Value, int]:
        g, nodes = self._gradient(), self.family.branches[0].weight
        rows = layout.reshape(g, shape=(int(product(g.shape[:-1])), g.shape[-1]))
        made: Value = matmul(layout.transpose(rows, perm=_TURNED), self._new(nodes[0].args[1]))
        return cast(made, **nodes[1].attrs) if len(nodes) > 1 else made, 0

    def _sum(self) -> tuple[Value, int]:
        nodes = self.family.branches[0].sum
        made: Value = sum_to(self._gradient(), shape=(sum(self.sizes),))
        return cast(made, **nodes[1].attrs) if len(nodes) > 1 else made, 0

    def _forward(self) -> tuple[Value, int]:
        branches = self.family.branches
        y: Value = matmul(self._new(branches[0].forward[0].args[0]), self._matrix(forward=True))
        if len(branches[0].forward) > 1:
            every = [next(a for a in b.forward[1].args if a is not b.forward[0].outputs[0]) for b in branches]
            y = add(y, layout.concat(*map(self._new, every), axis=0))
        return y, y.ndim - 1
