"""Turn products instead of their results: (A B)^T = B^T A^T, whose transposes are views.

Cases: a transpose of the last two axes of a product that nothing else reads, both factors of the product's rank; casts
may lie between, and follow the product then. So the gradient of a weight that is stored transposed is made as it is
stored, in the element type that it is stored in.
Refused: products that are results themselves, or casts of them; one-dimensional factors; other permutations.
"""

from __future__ import annotations

from typing import Any

from ...ops import layout
from ...ops.matmul import matmul
from ...ops.pointwise import cast
from ...ops.types import TensorType
from ..graph.graph import Graph, Node, Value
from .rewriting import PassResult, rebuild


def turn_products(graph: Graph) -> PassResult:
    """Replace transposes of products."""
    readers = graph.consumers()
    kept = {*graph.outputs, *graph.updates.values()}
    mapping: dict[Value, Value] = {}
    changed = 0

    def product_of(node: Node) -> tuple[Value, Value, list[Node]] | None:
        """Return the factors of what a node transposes, and the casts behind their product."""
        if node.op is not layout.transpose:
            return None
        x, casts = node.args[0], list[Node]()
        while isinstance(x, Value) and x.node is not None and x not in kept and len(readers[x]) == 1:
            if x.node.op is matmul:
                break
            if x.node.op is not cast:
                return None
            casts.append(x.node)
            x = x.node.args[0]
        else:
            return None
        a, b = x.node.args
        if not isinstance(a, Value) or not isinstance(b, Value):
            return None
        ranks = {v.ndim if isinstance(v.type, TensorType) and v.type.known_shape is not None else -1 for v in (a, b)}
        if ranks != {x.ndim} or x.ndim < 2 or tuple(_perm(node, x.ndim)) != _swap(x.ndim):
            return None
        return a, b, casts[::-1]

    def rewrite(node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Any, ...] | None:
        nonlocal changed
        found = product_of(node)
        if found is None:
            return None
        changed += 1
        *factors, casts = found
        a, b = (mapping.get(v, v) for v in factors)
        perm = _swap(a.ndim)
        made = matmul(layout.transpose(b, perm=perm), layout.transpose(a, perm=perm))
        for each in casts:
            made = cast(made, **each.attrs)
        return (made,)

    made = rebuild(graph, rewrite, mapping=mapping)
    return PassResult(made if changed else graph, changed)


def _perm(node: Node, ndim: int) -> tuple[int, ...]:
    perm = node.attrs.get("perm")
    return tuple(reversed(range(ndim))) if perm is None else tuple(p % ndim for p in perm)


def _swap(ndim: int) -> tuple[int, ...]:
    return (*range(ndim - 2), ndim - 1, ndim - 2)
