"""Write ops without a gradient of their own as the compositions that they stand for.

Refused: control flow and sequences, whose compositions are Python over concrete values.
"""

from __future__ import annotations

from typing import Any

from ...ops.errors import AutogradError, SymbolicError
from ...ops.optimize import gradient_norm
from ...ops.types import TensorType
from ..graph.graph import Graph, Node
from .rewriting import PassResult, has_graph, rebuild


def expand_compositions(graph: Graph) -> PassResult:
    """Replace composed ops, and what their compositions use, until every op has a gradient or can have none.

    Raises:
        AutogradError: if a composition wants sizes that only run time knows.
    """
    total = 0
    while True:
        changed = 0

        def rewrite(node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Any, ...] | None:
            nonlocal changed
            if not _expands(node):
                return None
            changed += 1
            return _composed(node, args)

        graph = rebuild(graph, rewrite)
        total += changed
        if not changed:
            return PassResult(graph, total)


def expand_norms(graph: Graph) -> PassResult:
    """Replace norms of gradients by their compositions, for an engine that joins them with what makes the gradients."""
    changed = 0

    def rewrite(node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Any, ...] | None:
        nonlocal changed
        if node.op is not gradient_norm:
            return None
        changed += 1
        return _composed(node, args)

    if not any(node.op is gradient_norm for node in graph.nodes):
        return PassResult(graph, 0)
    return PassResult(rebuild(graph, rewrite), changed)


def _expands(node: Node) -> bool:
    if node.op.vjp is not None or node.op.composition is None:
        return False
    if any(map(has_graph, node.attrs.values())):
        return False
    return all(isinstance(v.type, TensorType) for v in (*node.inputs(), *node.outputs))


def _composed(node: Node, args: tuple[Any, ...]) -> tuple[Any, ...]:
    assert node.op.composition is not None
    try:
        made = node.op.composition(*args, **node.attrs)
    except SymbolicError as error:
        raise AutogradError(
            f"{node.source or node.name or node.op.name}: the gradient of {node.op.name} on a graph wants sizes that "
            f"only run time knows ({error}); differentiate on the tape (call the model with Tensors) instead"
        ) from error
    return tuple(made) if isinstance(made, tuple | list) else (made,)
