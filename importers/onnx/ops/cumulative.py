"""Bindings: running sums and products."""

from __future__ import annotations

from typing import Any

from ....ops import cumulative
from ..node import NodeView
from ..registry import binds
from .reduce import from_front, integers


def _how(node: NodeView, x: Any, axis: Any) -> dict[str, Any]:
    return {
        "axis": from_front(integers(node, axis, "axis"), x)[0],
        "exclusive": bool(node.attr("exclusive", 0)),
        "reverse": bool(node.attr("reverse", 0)),
    }


@binds("CumSum", 11, 14)
def cumsum(node: NodeView, x: Any, axis: Any) -> Any:
    return cumulative.cumsum(x, **_how(node, x, axis))


@binds("CumProd", 26)
def cumprod(node: NodeView, x: Any, axis: Any) -> Any:
    return cumulative.cumprod(x, **_how(node, x, axis))
