"""What passes ask about a graph before they rewrite it: who reads a value, what follows from the weights alone.

Every answer is about the graph that a pass was given; none of it changes while the pass builds its copy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ...ops import layout, pointwise as pw
from ...ops.dims import Dim, DimLike, Shape
from ...ops.op import Op
from ...ops.types import TensorType, is_float
from ..graph.graph import Graph, Node, Value
from .drop_dead import drop_dead
from .rewriting import Pass, PassResult, has_graph


def reader_counts(graph: Graph) -> Counter[Value]:
    """Return how often each value is read: by nodes, as an output, as an update."""
    counts = Counter(v for node in graph.nodes for v in node.inputs())
    counts.update(graph.outputs)
    counts.update(graph.updates.values())
    return counts


def weight_values(graph: Graph) -> set[Value]:
    """Return the state of a graph and what nodes compute of state and constants alone."""
    found = set(graph.state.values())
    for node in graph.nodes:
        if node.op.structural or any(map(has_graph, node.attrs.values())):
            continue
        values = list(node.inputs())
        if values and all(v.is_constant or v in found for v in values):
            found.update(node.outputs)
    return found


def is_weight(a: Any, weights: set[Value]) -> bool:
    """Whether an argument is a number, a constant, or one of the weight values."""
    return isinstance(a, bool | int | float) or (isinstance(a, Value) and (a.is_constant or a in weights))


def is_ranked(node: Node) -> bool:
    """Whether everything that a node reads and makes is a tensor of known rank."""
    return all(
        isinstance(v.type, TensorType) and v.type.known_shape is not None for v in (*node.inputs(), *node.outputs)
    )


def made_by(a: Any, *ops: Op) -> Node | None:
    """Return the node that made a value if it applies one of the ops to tensors of known rank."""
    node = a.node if isinstance(a, Value) else None
    return node if node is not None and node.op in ops and is_ranked(node) else None


def shape_of(a: Any) -> Shape | None:
    """Return the shape of an argument, None where its rank is unknown; a number's is empty."""
    if isinstance(a, Value):
        return a.type.known_shape if isinstance(a.type, TensorType) else None
    return () if isinstance(a, bool | int | float) else None


def number(a: Any) -> float | None:
    """Return the number that an argument is: a Python one, or a constant of one float or integer."""
    if isinstance(a, bool):
        return None
    if isinstance(a, int | float):
        return float(a)
    if isinstance(a, Value) and a.is_constant and a.array.size == 1 and (is_float(a.dtype) or a.dtype.kind in "iu"):
        return float(np.asarray(a.array.reshape(()), np.float64))
    return None


def is_plain(node: Node) -> bool:
    """Whether a node computes tensors from tensors, the same ones each time, with no body of control flow."""
    return (
        not node.op.structural
        and not any(map(has_graph, node.attrs.values()))
        and all(isinstance(v.type, TensorType) for v in node.outputs)
        and all(isinstance(v.type, TensorType) for v in node.inputs())
    )


def changes_nothing(node: Node) -> bool:
    """Whether a node hands its input on: identity, dropout in evaluation, a cast to the type that it has."""
    if node.op.name in ("identity", "dropout"):
        return True
    return node.op is pw.cast and isinstance(node.args[0], Value) and node.args[0].type == node.outputs[0].type


def through(a: Any) -> Any:
    """Return the value behind identities, dropout in evaluation and casts that change nothing."""
    while isinstance(a, Value) and a.node is not None and changes_nothing(a.node):
        a = a.node.args[0]
    return a


def perm_of(node: Node) -> tuple[int, ...]:
    """Return the order of axes of a transpose."""
    rank = len(node.outputs[0].shape)
    perm = node.attrs.get("perm")
    return tuple(reversed(range(rank))) if perm is None else tuple(p % rank for p in perm)


def lined_up(a: Any, rank: int) -> Shape | None:
    """Return the shape of an argument as it broadcasts to `rank` axes, None where it has more or they are unknown."""
    shape = shape_of(a)
    return None if shape is None or len(shape) > rank else ((1,) * (rank - len(shape)) + tuple(shape))


def along(a: Any, axis: int, rank: int, size: DimLike) -> bool:
    """Whether an argument broadcasts to `rank` axes as one number, or as one a place of this axis."""
    shape = lined_up(a, rank)
    if shape is None:
        return False
    return all(d == 1 or (i == axis and d == size) for i, d in enumerate(shape))


def laid(a: Any, axis: int, rank: int) -> Any:
    """Return a vector, or a tensor of one element, along one of `rank` axes; what is `along` an axis is either."""
    if not isinstance(a, Value):
        return a
    if not shape_of(a) or (rank == 1 and len(a.shape) == 1):
        return a
    return layout.reshape(a, shape=(*(1,) * axis, -1, *(1,) * (rank - 1 - axis)))


def like(made: Value, old: Value) -> Value:
    """Return a new value with the type of the one that it stands for: its symbols are what later nodes mention."""
    if made.node is not None and made.node.outputs[made.index] is made:
        made.type = old.type
    return made


def symbolic(shape: Iterable[Any]) -> bool:
    """Whether a shape mentions a size that only run time knows."""
    return any(isinstance(d, Dim) for d in shape)


def until_stable(graph: Graph, once: Pass, *, rounds: int = 8) -> PassResult:
    """Repeat a rewriting, without the nodes that it leaves unread, until it finds nothing more."""
    total = 0
    for _ in range(rounds):
        result = once(graph)
        if not result.changed:
            break
        total += result.changed
        graph = drop_dead(result.graph).graph
    return PassResult(graph, total)


Mapped = Callable[[Any], Any]


def mapped(mapping: dict[Value, Value]) -> Mapped:
    """Return the function from an argument of the old graph to that of the new one."""

    def place(a: Any) -> Any:
        if isinstance(a, Value):
            return a if a.is_constant else mapping[a]
        return [place(v) for v in a] if isinstance(a, list) else a

    return place
