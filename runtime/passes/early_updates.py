"""Update each parameter as soon as its gradient is there, while it is in the cache, and let the gradient go.

An update moves up to behind what it reads and behind the last other reader of what it replaces, so that it may write
over that.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...ops.optimize import adam_update, sgd_update
from ...ops.pointwise import Pointwise
from ..compiled.views import VIEWS
from ..graph.graph import Graph, Node, Value
from .rewriting import PassResult, rebuild

_UPDATES = (sgd_update, adam_update)


def early_updates(graph: Graph) -> PassResult:
    """Move the updates of optimizers up."""
    if not any(n.op in _UPDATES for n in graph.nodes):
        return PassResult(graph, 0)
    new = rebuild(graph)
    others = [n for n in new.nodes if n.op not in _UPDATES]
    updates = [n for n in new.nodes if n.op in _UPDATES]
    made = {v: i for i, n in enumerate(others) for v in n.outputs}
    whole: dict[Value, Value] = {}
    read: dict[Value, int] = {}
    used: dict[int, int] = {}
    for i, n in enumerate(others):
        for v in n.inputs():
            v = whole.get(v, v)
            read[v] = i
            if v in made and n.op not in VIEWS:
                used.setdefault(made[v], i)
        source = n.args[0] if n.op in VIEWS else None
        if isinstance(source, Value) and not source.is_constant:
            whole.update(dict.fromkeys(n.outputs, whole.get(source, source)))
    of_update = {v for n in updates for v in n.outputs}
    if any(v in of_update for n in new.nodes for v in n.inputs()):
        return PassResult(graph, 0)
    behind: dict[int, list[Node]] = {}
    for node in updates:
        places = [made[v] if v in made else _after(read.get(v, -1), used, others) for v in node.inputs()]
        behind.setdefault(max(places, default=-1), []).append(node)
    before = new.nodes
    new.nodes = [
        *behind.get(-1, ()), *(n for i, other in enumerate(others) for n in (other, *behind.get(i, ())))
    ]  # fmt: skip
    return PassResult(new, sum(a is not b for a, b in zip(before, new.nodes, strict=True)))


def _after(reader: int, used: dict[int, int], nodes: Sequence[Node]) -> int:
    """Return the place of what reads the result of a node, so that an engine does not run both side by side.

    Pointwise nodes may become part of the kernel of the node before them.
    """
    place = used.get(reader, reader)
    while place in used and isinstance(nodes[place].op, Pointwise):
        place = used[place]
    return place
