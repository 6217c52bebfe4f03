"""Replacing every occurrence of a pattern of calls by another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ...ops.errors import GraphError
from .graph import Graph
from .graph_module import GraphModule
from .node import Node
from .tracer import Tracer


class Match(NamedTuple):
    """An occurrence of a pattern: the node that the pattern's result is, and what stands for its nodes."""

    anchor: Node
    nodes_map: dict[Node, Any]


def replace_pattern(
    gm: GraphModule, pattern: Callable[..., Any] | GraphModule, replacement: Callable[..., Any] | GraphModule
) -> list[Match]:  # fmt: skip
    """Replace what computes as a pattern does, and return what was found.

    Args:
        gm: the module whose graph is changed.
        pattern: a function or traced module; its arguments match any value.
        replacement: a function of the same arguments.

    Raises:
        GraphError: if the two take different numbers of arguments.
    """
    wanted, instead = _graph(pattern), _graph(replacement)
    inputs, given = wanted.find_nodes(op="placeholder"), instead.find_nodes(op="placeholder")
    if len(inputs) != len(given):
        raise GraphError(f"the pattern takes {len(inputs)} arguments, the replacement {len(given)}")
    anchor = wanted.output_node().args[0]
    if not isinstance(anchor, Node):
        raise GraphError("a pattern returns one value that it computes")
    matches: list[Match] = []
    used: set[Node] = set()
    for node in gm.graph.nodes:
        found: dict[Node, Any] = {}
        if not _matches(anchor, node, found):
            continue
        inside = {v for k, v in found.items() if isinstance(v, Node) and k.op != "placeholder"}
        if inside & used or any(u not in inside for v in inside if v is not node for u in v.users):
            continue
        used |= inside
        matches.append(Match(node, found))
    for match in matches:
        values = {g: match.nodes_map[i] for i, g in zip(inputs, given, strict=True)}
        values = {g: _current(v, matches) for g, v in values.items()}
        with gm.graph.inserting_before(match.anchor):
            made = gm.graph.graph_copy(instead, values)
        match.anchor.meta["replaced by"] = made
        match.anchor.replace_all_uses_with(made)
        _erase(gm.graph, match)
    gm.recompile()
    return matches


def _graph(f: Callable[..., Any] | GraphModule) -> Graph:
    return f.graph if isinstance(f, GraphModule) else Tracer().trace(f)


def _matches(pattern: Any, node: Any, found: dict[Node, Any]) -> bool:
    if not isinstance(pattern, Node):
        if isinstance(pattern, tuple | list):
            return (
                isinstance(node, tuple | list)
                and len(node) == len(pattern)
                and all(_matches(p, n, found) for p, n in zip(pattern, node, strict=True))
            )
        return type(pattern) is type(node) and bool(pattern == node)
    if pattern in found:
        return found[pattern] is node
    if pattern.op == "placeholder":
        found[pattern] = node
        return True
    if not isinstance(node, Node) or (pattern.op, pattern.target) != (node.op, node.target):
        return False
    if set(pattern.kwargs) != set(node.kwargs):
        return False
    found[pattern] = node
    return _matches(pattern.args, node.args, found) and all(
        _matches(v, node.kwargs[k], found) for k, v in pattern.kwargs.items()
    )


def _current(value: Any, matches: list[Match]) -> Any:
    """Return a value, or what has taken the place of the match that made it."""
    while isinstance(value, Node) and "replaced by" in value.meta and any(m.anchor is value for m in matches):
        value = value.meta["replaced by"]
    return value


def _erase(graph: Graph, match: Match) -> None:
    pending = [v for k, v in match.nodes_map.items() if isinstance(v, Node) and k.op != "placeholder"]
    for node in sorted(pending, key=graph._place, reverse=True):
        if not node.users:
            graph.erase_node(node)
