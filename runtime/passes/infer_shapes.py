"""Infer every type again from the inputs, after a change of input types or for a graph that was read with gaps."""

from __future__ import annotations

from typing import Any

from ...ops.types import TensorType, ValueType
from ..graph.graph import Graph, Node
from .rewriting import PassResult, rebuild


def infer_shapes(graph: Graph, types: dict[str, ValueType] | None = None) -> PassResult:
    """Return the graph with types inferred anew.

    Args:
        graph: what to type.
        types: new types of inputs by name.
    """
    changed = 0
    if types:
        for v in graph.inputs:
            if v.name in types and v.type != types[v.name]:
                changed += 1

    def rewrite(node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Any, ...]:
        nonlocal changed
        if not new.nodes and types:
            for v in new.inputs:
                v.type = types.get(v.name, v.type)
        out = new.add(node.op, args, node.attrs)
        outs = out if node.several else (out,)
        for old, value in zip(node.outputs, outs, strict=True):
            if isinstance(old.type, TensorType) and old.type.known_shape is None and value.type != old.type:
                changed += 1
        return tuple(outs)

    return PassResult(rebuild(graph, rewrite), changed)
