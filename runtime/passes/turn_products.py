"""Turn products instead of their results: (A B)^T = B^T A^T, whose transposes are views.

Cases: a transpose of the last two axes of a product that nothing else reads, both factors of the product's rank. So the
gradient of a weight that is stored transposed is made as it is stored.
Refused: products that are results themselves; one-dimensional factors; other permutations.
"""

from __future__ import annotations

from typing import Any

from ...ops import layout
from ...ops.matmul import matmul
from ...ops.types import TensorType
from ..graph.graph import Graph, Node, Value
from .rewriting import PassResult, rebuild


def turn_products(graph: Graph) -> PassResult:
    """Replace transposes of products."""
    readers = graph.consumers()
    kept = {*graph.outputs, *graph.updates.values()}
    mapping: dict[Value, Value] = {}
    changed = 0

    def factors(node: Node) -> tuple[Value, Value] | None:
        product = node.args[0]
        made = product.node if isinstance(product, Value) else None
        if node.op is not layout.transpose or made is None or made.op is not matmul or product in kept:
            return None
        a, b = made.args
        if not isinstance(a, Value) or not isinstance(b, Value) or len(readers[product]) != 1:
            return None
        ranks = {v.ndim if isinstance(v.type, TensorType) and v.type.known_shape is not None else -1 for v in (a, b)}
        if ranks != {product.ndim} or product.ndim < 2 or tuple(_perm(node, product.ndim)) != _swap(product.ndim):
            return None
        return a, b

    def rewrite(node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Any, ...] | None:
        nonlocal changed
        found = factors(node) if node.args else None
        if found is None:
            return None
        changed += 1
        a, b = (mapping.get(v, v) for v in found)
        perm = _swap(a.ndim)
        return (matmul(layout.transpose(b, perm=perm), layout.transpose(a, perm=perm)),)

    made = rebuild(graph, rewrite, mapping=mapping)
    return PassResult(made if changed else graph, changed)


def _perm(node: Node, ndim: int) -> tuple[int, ...]:
    perm = node.attrs.get("perm")
    return tuple(reversed(range(ndim))) if perm is None else tuple(p % ndim for p in perm)


def _swap(ndim: int) -> tuple[int, ...]:
    return (*range(ndim - 2), ndim - 1, ndim - 2)
