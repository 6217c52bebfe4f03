"""Whether a graph keeps the examples of a batch apart.

A file that was exported with a batch of 1 may reduce, pick or sort over that axis without harm. With more examples the
same nodes would mix them, silently; this finds such a node.
"""

from __future__ import annotations

from typing import Any

from ...ops.dims import Dim
from ...ops.types import TensorType
from ..graph.graph import Graph, Node, Value

OVER_AXES = frozenset({"sum", "mean", "max", "min", "prod", "logsumexp", "l2_norm", "standardize"})
OVER_AXIS = frozenset({"softmax", "log_softmax", "hardmax", "argmax", "argmin", "topk", "cumsum", "cumprod", "gather"})


def mixing_node(graph: Graph, batch: Dim) -> Node | None:
    """Return the first node that reduces, picks or cuts along an axis that counts the examples, or None."""
    for node in graph.nodes:
        if _mixes(node, batch):
            return node
    return None


def _mixes(node: Node, batch: Dim) -> bool:
    x = node.args[0] if node.args else None
    if not isinstance(x, Value) or not isinstance(x.type, TensorType) or x.type.known_shape is None:
        return False
    shape = x.type.known_shape
    return any(shape[axis] == batch for axis in _axes(node, len(shape)))


def _axes(node: Node, rank: int) -> tuple[int, ...]:
    name, attrs = node.op.name, node.attrs
    if name in OVER_AXES:
        axes: Any = attrs.get("axes")
        return tuple(range(rank)) if axes is None else tuple(a for a in axes if isinstance(a, int))
    if name in OVER_AXIS and isinstance(attrs.get("axis"), int):
        return (attrs["axis"],)
    if name == "slice":
        return tuple(
            a
            for a, start, stop in zip(attrs["axes"], attrs["starts"], attrs["stops"], strict=True)
            if isinstance(start, int) and isinstance(stop, int) and (start != 0 or 0 <= stop < 2**31 - 1)
        )
    return ()
