"""What a graph has to be before it is translated: every name defined once, nothing dangling, no cycle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...ops.errors import InvalidGraphError, LoadError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import onnx


def sorted_nodes(
    nodes: Iterable[onnx.NodeProto], given: Iterable[str], outer: frozenset[str], where: str
) -> list[onnx.NodeProto]:
    """Return nodes in an order in which they can run.

    Args:
        nodes: the nodes of one graph.
        given: names that its inputs and initializers define.
        outer: names that enclosing graphs define.
        where: the graph's name, for messages.

    Raises:
        InvalidGraphError: naming the value that is defined twice or never, or the nodes of a cycle.

    Of Constant nodes with one output name the last stands, as in onnxruntime, whose optimiser has written such files.
    """
    nodes = _last_constants(nodes)
    producer: dict[str, int] = {}
    given = set(given)
    for k, node in enumerate(nodes):
        for name in node.output:
            if not name:
                continue
            if name in producer or name in given:
                raise InvalidGraphError(
                    f"graph {where!r}: value {name!r} is defined twice, the second time by {node.op_type} {node.name!r}"
                )
            producer[name] = k
    needs = [{n for n in _reads(node)} for node in nodes]
    for node, names in zip(nodes, needs, strict=True):
        for name in sorted(names):
            if name not in producer and name not in given and name not in outer:
                raise InvalidGraphError(
                    f"graph {where!r}: {node.op_type} {node.name!r} reads {name!r}, which nothing defines"
                )
    return _topological(nodes, needs, producer, where)


NODES_LIMIT = 1_000_000
"""How many nodes the functions of a file may expand to."""
CALL_DEPTH = 64
"""How deep functions may call each other."""

Key = tuple[str, str]


def check_functions(nodes: Iterable[onnx.NodeProto], functions: dict[Key, onnx.FunctionProto]) -> None:
    """Check that the calls of model-local functions come to an end, and to one of this world.

    Raises:
        InvalidGraphError: if functions call each other in a circle.
        LoadError: if they expand to more than `NODES_LIMIT` nodes, or call each other more than `CALL_DEPTH` deep.
    """
    sizes: dict[Key, int] = {}

    def size(key: Key, path: tuple[Key, ...]) -> int:
        if key in path:
            circle = " -> ".join(name for _, name in (*path[path.index(key) :], key))
            raise InvalidGraphError(f"functions call each other in a circle: {circle}")
        if len(path) >= CALL_DEPTH:
            raise LoadError(f"functions call each other more than {CALL_DEPTH} deep, at {key[1]}")
        if key not in sizes:
            sizes[key] = count(functions[key].node, (*path, key))
        return sizes[key]

    def count(body: Iterable[onnx.NodeProto], path: tuple[Key, ...]) -> int:
        total = 0
        for node in _with_subgraphs(body):
            key = ("" if node.domain == "ai.onnx" else node.domain, node.op_type)
            total += size(key, path) if key in functions else 1
            if total > NODES_LIMIT:
                raise LoadError(f"the calls of {node.op_type} expand to more than {NODES_LIMIT:,} nodes")
        return total

    if functions:
        count(nodes, ())


def _with_subgraphs(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for a in node.attribute:
            for g in ([a.g] if a.HasField("g") else []) + list(a.graphs):
                yield from _with_subgraphs(g.node)


def _last_constants(nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    nodes = list(nodes)
    last = {n.output[0]: k for k, n in enumerate(nodes) if n.op_type == "Constant" and n.output}
    return [n for k, n in enumerate(nodes) if n.op_type != "Constant" or not n.output or last[n.output[0]] == k]


def _topological(
    nodes: list[onnx.NodeProto], needs: list[set[str]], producer: dict[str, int], where: str
) -> list[onnx.NodeProto]:
    waits = [{producer[n] for n in names if n in producer} for names in needs]
    if all(w < k for k, ws in enumerate(waits) for w in ws):
        return nodes
    readers: dict[int, list[int]] = {}
    for k, ws in enumerate(waits):
        for w in ws:
            readers.setdefault(w, []).append(k)
    left = [len(ws) for ws in waits]
    ready = [k for k, n in enumerate(left) if n == 0]
    order: list[int] = []
    while ready:
        k = ready.pop(0)
        order.append(k)
        for reader in readers.get(k, ()):
            left[reader] -= 1
            if left[reader] == 0:
                ready.append(reader)
    if len(order) < len(nodes):
        stuck = [f"{nodes[k].op_type} {nodes[k].name!r}" for k in range(len(nodes)) if left[k] > 0]
        raise InvalidGraphError(f"graph {where!r} has a cycle through {', '.join(stuck[:5])}")
    return [nodes[k] for k in order]


def _reads(node: onnx.NodeProto) -> set[str]:
    """Return the names that a node reads from its graph, through its subgraphs too."""
    names = {n for n in node.input if n}
    for a in node.attribute:
        for g in ([a.g] if a.HasField("g") else []) + list(a.graphs):
            inner = {v.name for v in g.input} | {t.name for t in g.initializer}
            inner |= {t.values.name for t in g.sparse_initializer}
            inner |= {n for sub in g.node for n in sub.output}
            names |= {n for sub in g.node for n in _reads(sub) if n not in inner}
            names |= {v.name for v in g.output if v.name not in inner}
    return names
