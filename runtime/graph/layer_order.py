"""An order of a graph's nodes in which those of one layer stand together, and what flows in and out of each layer."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from ...ops.errors import ModuleError
from .graph import Graph, Node, Value
from .plan import live_nodes


@dataclass(frozen=True)
class Group:
    """The nodes of a layer.

    Attributes:
        inputs: values that are computed, or given to the model, and read by the layer: no parameters, no constants.
        outputs: values of the layer that are read elsewhere, or are the model's.
    """

    first: Node
    last: Node
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def contiguous(graph: Graph, names: set[str]) -> tuple[list[Node], dict[str, Group]]:
    """Return the nodes, those of each named layer together, and the layers by name.

    Args:
        graph: whose nodes.
        names: of the layers.

    Raises:
        ModuleError: if a layer computes from what is computed from itself.
    """
    live = live_nodes(graph)
    units: list[list[Node]] = []
    unit_of: dict[str, int] = {}
    for node in live:
        if node.name in unit_of:
            units[unit_of[node.name]].append(node)
            continue
        if node.name in names:
            unit_of[node.name] = len(units)
        units.append([node])
    order = _sorted(units)
    groups = {name: _group(graph, live, units[i]) for name, i in unit_of.items()}
    return [node for i in order for node in units[i]], {n: g for n, g in groups.items() if g.outputs}


def _sorted(units: list[list[Node]]) -> list[int]:
    """Return the units in an order in which they can run, near the one that they have."""
    made = {v: i for i, unit in enumerate(units) for node in unit for v in node.outputs}
    before = [{made[v] for node in unit for v in node.inputs() if v in made} - {i} for i, unit in enumerate(units)]
    after: list[list[int]] = [[] for _ in units]
    for i, needed in enumerate(before):
        for j in needed:
            after[j].append(i)
    missing = [len(needed) for needed in before]
    ready = [i for i, n in enumerate(missing) if not n]
    order = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for j in after[i]:
            missing[j] -= 1
            if not missing[j]:
                heapq.heappush(ready, j)
    if len(order) < len(units):
        stuck = next(unit[0].name for unit, n in zip(units, missing, strict=True) if n and len(unit) > 1)
        raise ModuleError(f"layer {stuck} cannot have hooks: it reads what is computed from its own results")
    return order


def _group(graph: Graph, live: Iterable[Node], nodes: list[Node]) -> Group:
    own, inside = set(map(id, nodes)), {v for node in nodes for v in node.outputs}
    given = set(graph.inputs)
    inputs = dict.fromkeys(
        v
        for node in nodes
        for v in node.inputs()
        if v not in inside and (v in given or (v.node is not None and v.node.op.name != "fold_key"))
    )
    read = {v for node in live if id(node) not in own for v in node.inputs()} | set(graph.outputs)
    outputs = tuple(v for node in nodes for v in node.outputs if v in read)
    return Group(nodes[0], nodes[-1], tuple(inputs), outputs)
