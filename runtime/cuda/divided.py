"""A graph whose sizes are known up to some nodes: a program for what comes before them, array kernels behind.

Boxes that are kept, words that are found: detectors and decoders end in sizes that hang on elements, behind a network
that does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ops.kernels.cuda import load_rules
from ...ops.kernels.cuda.lowering import LOWERINGS
from ..graph.graph import Graph, Node, Value
from .compiler import why_unknown

HEAVY = frozenset({"attention", "conv", "conv_input_grad", "einsum", "gru", "lstm", "matmul", "rnn"})
"""A program pays where it has one of these."""


class Divided:
    """The two parts of a graph.

    Attributes:
        before: what is known ahead. It has the inputs of the whole graph.
        behind: the rest. Its inputs are what it reads of `before` and of the inputs.
        fed: the inputs of the whole graph, by number, that `behind` reads beside what `before` makes.
        why: which value is the first that is not known ahead.
    """

    def __init__(self, graph: Graph, known: Sequence[Node], why: str) -> None:
        """Divide a graph.

        Args:
            graph: with its sizes as far as they are known.
            known: the nodes of the first part, which read nothing of others.
            why: see `why`.
        """
        first = {id(n) for n in known}
        rest = [n for n in graph.nodes if id(n) not in first]
        made = {id(v) for n in known for v in n.outputs}
        read = {id(v): v for n in rest for v in n.inputs()} | {id(v): v for v in graph.outputs}
        across = [v for v in read.values() if id(v) in made]
        self.why = why
        self.before = Graph(graph.name, nodes=list(known), outputs=across)
        self.before.inputs, self.before.key, self.before.draws = graph.inputs, graph.key, graph.draws
        used = {id(v) for n in known for v in n.inputs()}
        self.before.state = {k: v for k, v in graph.state.items() if id(v) in used}
        entries = [*graph.inputs, *graph.keys]
        self.fed = [i for i, v in enumerate(entries) if id(v) in read]
        self.behind = _part(f"{graph.name}.behind", [*across, *(entries[i] for i in self.fed)], graph, rest, read)


def divide(graph: Graph) -> Divided | None:
    """Return a graph in two parts, None where the first would hold nothing heavy."""
    load_rules()
    known: list[Node] = []
    there: set[int] = {id(v) for v in (*graph.inputs, *graph.keys, *graph.state.values()) if not why_unknown(v)}
    why = ""
    for node in graph.nodes:
        values = list(node.inputs())
        unknown = next((w for v in (*values, *node.outputs) if (w := why_unknown(v))), "")
        why = why or unknown
        if not unknown and all(v.is_constant or id(v) in there for v in values):
            known.append(node)
            there.update(id(v) for v in node.outputs)
    if not any(n.op.name in HEAVY and n.op.name in LOWERINGS for n in known):
        return None
    return Divided(graph, known, why)


def _part(name: str, inputs: Sequence[Value], graph: Graph, nodes: Sequence[Node], read: dict[int, Value]) -> Graph:
    """Return nodes of a graph as a graph with these inputs."""
    new = Graph(name)
    new_of = {id(v): new.input(v.name, v.type) for v in inputs}
    new_of |= {id(v): new.add_state(k, v.tensor_type) for k, v in graph.state.items() if id(v) in read}

    def place(a: Any) -> Any:
        if isinstance(a, list):
            return [place(v) for v in a]
        return new_of.get(id(a), a) if isinstance(a, Value) else a

    for node in nodes:
        copied = Node(
            node.op, tuple(place(a) for a in node.args), node.attrs, name=node.name, source=node.source,
            several=node.several,
        )  # fmt: skip
        copied.outputs = tuple(Value(new, v.type, v.name, node=copied, index=v.index) for v in node.outputs)
        new.nodes.append(copied)
        new_of.update((id(v), c) for v, c in zip(node.outputs, copied.outputs, strict=True))
    new.outputs = [place(v) for v in graph.outputs]
    return new
