"""What a pass is, how passes run, and how one copies a graph with changes.

A pass takes a graph and returns a new one; it never changes the one it was given. `run_passes` verifies after each
and can stop after the n-th, to find the pass that breaks a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ...ops.errors import InvalidGraphError
from ..graph.graph import Graph, Node, Value


@dataclass(frozen=True)
class PassResult:
    """The graph after a pass, and how many changes it made."""

    graph: Graph
    changed: int


Pass: TypeAlias = Callable[[Graph], PassResult]


def run_passes(graph: Graph, passes: Sequence[Pass], *, stop_after: int | None = None) -> PassResult:
    """Run passes in order, verifying the graph after each that made a new one.

    Args:
        graph: where to start; it is not changed.
        passes: what to run.
        stop_after: run only this many, to bisect.

    Raises:
        InvalidGraphError: naming the pass after which the graph contradicts itself.
    """
    changed = 0
    for done in passes[:stop_after]:
        result = done(graph)
        try:
            if result.graph is not graph:
                result.graph.verify()
        except InvalidGraphError as error:
            raise InvalidGraphError(f"after pass {done.__name__}: {error}") from error
        graph, changed = result.graph, changed + result.changed
    return PassResult(graph, changed)


def has_graph(attribute: Any) -> bool:
    """Whether an attribute is a body of control flow with a graph that passes can rewrite."""
    return hasattr(attribute, "with_graph")


Rewrite: TypeAlias = Callable[[Node, tuple[Any, ...], Graph], tuple[Any, ...] | None]


def rebuild(
    graph: Graph,
    rewrite: Rewrite | None = None,
    *,
    keep: Callable[[Node], bool] | None = None,
    bodies: Callable[[Graph], Graph] | None = None,
    name: str | None = None,
    mapping: dict[Value, Value] | None = None,
) -> Graph:
    """Return a copy of a graph, with nodes replaced on the way.

    Args:
        graph: what to copy.
        rewrite: given a node, its new arguments and the new graph, adds other nodes and returns the values that stand
            for the node's outputs, or None to copy the node.
        keep: whether a node is copied at all.
        bodies: applied to the graph of each body of control flow.
        name: of the copy.
        mapping: filled with the new value of each old one.
    """
    new = Graph(name or graph.name, parent=graph.parent)
    new_of: dict[Value, Value] = mapping if mapping is not None else {}
    for v in graph.inputs:
        new_of[v] = new.input(v.name, v.type)
    new.draws = graph.draws
    for v in graph.keys:
        new_of[v] = Value(new, v.type, v.name)
    for outer, inner in graph.captures:
        copy = Value(new, inner.type, inner.name)
        new.captures.append((outer, copy))
        new_of[inner] = copy
    new.key = None if graph.key is None else new_of[graph.key]
    for key, v in graph.state.items():
        new_of[v] = new.add_state(key, v.type)  # type: ignore[arg-type]

    def place(a: Any) -> Any:
        if isinstance(a, Value):
            return a if a.is_constant else new_of[a]
        return [place(v) for v in a] if isinstance(a, list) else a

    def attribute(a: Any) -> Any:
        return a.with_graph(bodies(a.graph)) if bodies is not None and has_graph(a) else a

    with new.building():
        for node in graph.nodes:
            if keep is not None and not keep(node):
                continue
            args = tuple(place(a) for a in node.args)
            made = None
            if rewrite is not None:
                before, new.source = len(new.nodes), node.source
                made = rewrite(node, args, new)
                for added in new.nodes[before:]:
                    added.name, added.source = added.name or node.name, node.source
            if made is None:
                copied = Node(
                    node.op, args, {k: attribute(a) for k, a in node.attrs.items()}, name=node.name,
                    source=node.source, several=node.several,
                )  # fmt: skip
                copied.outputs = tuple(Value(new, v.type, v.name, node=copied, index=v.index) for v in node.outputs)
                new.nodes.append(copied)
                made = copied.outputs
            else:
                for old, value in zip(node.outputs, made, strict=True):
                    if value.node is not None and not value.is_constant and not value.named:
                        value.name, value.named = old.name, True
            for old, value in zip(node.outputs, made, strict=True):
                new_of[old] = value
                if value.node is not None:
                    value.named = value.named or old.named
    new.outputs = [place(v) for v in graph.outputs]
    new.updates = {k: place(v) for k, v in graph.updates.items()}
    return new
