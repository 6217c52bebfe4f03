"""Bindings: which elements are largest."""

from __future__ import annotations

from typing import Any

from ....ops import rank
from ....runtime.graph.contents import dims_of
from ..node import NodeView
from ..registry import binds
from .reduce import flattened, from_front


def _arg(node: NodeView, x: Any) -> dict[str, Any]:
    return {
        "axis": from_front((node.attr("axis", 0),), x)[0],
        "keepdims": bool(node.attr("keepdims", 1)),
        "select_last": bool(node.attr("select_last_index", 0)),
    }


@binds("ArgMax", 1, 11, 12, 13)
def argmax(node: NodeView, x: Any) -> Any:
    return rank.argmax(x, **_arg(node, x))


@binds("ArgMin", 1, 11, 12, 13)
def argmin(node: NodeView, x: Any) -> Any:
    return rank.argmin(x, **_arg(node, x))


@binds("Hardmax", 1, 11)
def hardmax_of_matrix(node: NodeView, x: Any) -> Any:
    """Hardmax as it was: over all axes from `axis` on, 1 by default."""
    return flattened(x, node.attr("axis", 1), lambda v, axis: rank.hardmax(v, axis=axis))


@binds("Hardmax", 13)
def hardmax(node: NodeView, x: Any) -> Any:
    return rank.hardmax(x, axis=from_front((node.attr("axis", -1),), x)[0])


@binds("TopK", 1, 10, 11, 24)
def topk(node: NodeView, x: Any, k: Any = None) -> Any:
    """TopK: k is an attribute at first, then an input, which may be computed."""
    wanted = node.attr("k") if k is None else dims_of(k)[0]
    largest, ordered = bool(node.attr("largest", 1)), bool(node.attr("sorted", 1))
    axis = from_front((node.attr("axis", -1),), x)[0]
    return rank.topk(x, k=wanted, axis=axis, largest=largest, ordered=ordered)
