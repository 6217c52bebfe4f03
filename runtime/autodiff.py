"""Gradients on the graph: the same VJPs, called on symbols, so forward and backward become one graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ops import layout, reduce
from ..ops.errors import AutogradError
from ..ops.pointwise import add
from ..ops.types import TensorType, is_float
from .graph import Graph, Node, Value
from .passes.drop_dead import drop_dead
from .passes.expand_compositions import expand_compositions
from .passes.rewriting import rebuild


def differentiate(graph: Graph, wrt: Sequence[str], *, output: int = 0) -> Graph:
    """Return the graph that computes the outputs and the gradients of the sum of one output.

    Args:
        graph: the forward graph; it is not changed.
        wrt: names of inputs or state entries to differentiate by.
        output: which output; its elements are summed (a loss is a scalar already).

    Returns:
        A graph with the forward outputs, then one gradient for each name.

    Raises:
        AutogradError: if an output does not depend on one of them, or a node on the way has no gradient.
    """
    new = rebuild(expand_compositions(graph).graph, name=f"{graph.name}.grad")
    by_name = {v.name: v for v in new.inputs} | dict(new.state)
    unknown = [n for n in wrt if n not in by_name]
    if unknown:
        raise AutogradError(f"no input or parameter is named {unknown}; there are {sorted(by_name)[:20]}")
    target = new.outputs[output]
    wanted = [by_name[n] for n in wrt]
    depends = _depends(new, set(wanted))
    if target not in depends:
        raise AutogradError(f"output {target.name!r} does not depend on {list(wrt)}")
    gradients: dict[Value, Any] = {}
    with new.building():
        one = new.constant(np.ones((), target.dtype))
        gradients[target] = reduce.broadcast_to(one, shape=target.shape)
        for node in reversed(list(new.nodes)):
            _step(node, gradients, depends)
        for name, value in zip(wrt, wanted, strict=True):
            if value not in gradients:
                raise AutogradError(f"output {target.name!r} does not depend on {name!r}")
            new.outputs.append(layout.identity(gradients[value]))
    new.verify()
    return drop_dead(new).graph


def _depends(graph: Graph, sources: set[Value]) -> set[Value]:
    """Return the float values that are computed from the sources."""
    depends = set(sources)
    for node in graph.nodes:
        if any(v in depends for v in node.inputs()):
            depends.update(v for v in node.outputs if isinstance(v.type, TensorType) and is_float(v.dtype))
    return depends


def _step(node: Node, gradients: dict[Value, Any], depends: set[Value]) -> None:
    gs = [gradients.get(v) for v in node.outputs]
    if all(g is None for g in gs) or not any(v in depends for v in node.inputs()):
        return
    if node.op.vjp is None:
        if node.op.composition is not None:
            raise AutogradError(
                f"{node.source or node.name or node.op.name}: {node.op.name} has no gradient on a graph yet; "
                "differentiate on the tape (call the model with Tensors) instead"
            )
        return
    entries = node.op.vjp(
        *((tuple(gs), node.outputs) if node.several else (gs[0], node.outputs[0])), *node.args, **node.attrs
    )
    for a, entry in zip(node.args, entries, strict=False):
        if entry is not None and isinstance(a, Value) and a in depends:
            g = entry()
            gradients[a] = g if a not in gradients else add(gradients[a], g)
