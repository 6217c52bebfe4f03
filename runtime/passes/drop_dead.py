"""Drop nodes whose outputs nobody reads, and what ops return for a gradient that is not there."""

from __future__ import annotations

from ...ops.op import OPS
from ..graph.graph import Graph, Node, Value
from ..graph.plan import live_nodes
from .rewriting import PassResult, rebuild


def drop_dead(graph: Graph) -> PassResult:
    """Drop every node that nothing depends on; ops that save for nobody become those they stand for."""
    nodes = live_nodes(graph)
    live = {id(n) for n in nodes}
    plain = {op.saving[0]: (op, op.saving[1]) for op in OPS.values() if op.saving is not None}
    read = {id(v) for n in nodes for v in n.inputs()}
    read.update(id(v) for v in (*graph.outputs, *graph.updates.values()))

    def idle(n: Node) -> bool:
        return n.op in plain and not any(id(v) in read for v in n.outputs[plain[n.op][1] :])

    idlers = [n for n in nodes if idle(n)]
    changed = len(graph.nodes) - len(live) + len(idlers)
    if not changed:
        return PassResult(graph, 0)
    mapping: dict[Value, Value] = {}
    new = rebuild(graph, keep=lambda n: id(n) in live, mapping=mapping)
    for n in idlers:
        made = mapping[n.outputs[0]].node
        assert made is not None
        made.op, own = plain[n.op]
        made.outputs = made.outputs[:own]
    return PassResult(new, changed)
