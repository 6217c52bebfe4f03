"""Drop nodes whose outputs nobody reads."""

from __future__ import annotations

from ..graph import Graph
from ..plan import live_nodes
from .rewriting import PassResult, rebuild


def drop_dead(graph: Graph) -> PassResult:
    """Drop every node that no output, update or symbol depends on."""
    live = {id(n) for n in live_nodes(graph)}
    dead = len(graph.nodes) - len(live)
    if not dead:
        return PassResult(graph, 0)
    return PassResult(rebuild(graph, keep=lambda n: id(n) in live), dead)
