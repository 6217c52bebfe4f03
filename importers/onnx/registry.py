"""Which binding translates which operator: the key is the exact (domain, op_type, since_version).

A binding is a function `(node, *inputs) -> outputs` that calls ops on graph Values; opset history ends in it. It
declares the attributes that it knows by reading them; a node that carries another one is a load error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from ...ops.errors import UnsupportedAttributeError, UnsupportedOperatorError
from .node import NodeView

Binding: TypeAlias = Callable[..., Any]

BINDINGS: dict[tuple[str, str, int], Binding] = {}
"""Every binding by (domain, op_type, since_version); the domain `ai.onnx` is the empty one."""


def binds(op_type: str, *versions: int, domain: str = "") -> Callable[[Binding], Binding]:
    """Register a binding for an operator's schema versions, by the version that introduced each.

    Raises:
        ValueError: if one of them is bound already.
    """

    def register(f: Binding) -> Binding:
        for v in versions:
            if (domain, op_type, v) in BINDINGS:
                raise ValueError(f"{domain or 'ai.onnx'} {op_type}-{v} is bound twice")
            BINDINGS[domain, op_type, v] = f
        return f

    return register


def bound_versions(domain: str, op_type: str) -> list[int]:
    """Return the since-versions of an operator that have a binding."""
    return sorted(v for d, o, v in BINDINGS if (d, o) == (domain, op_type))


def translate(node: NodeView, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Add a node's ops to the graph that is being built, and return its outputs.

    Raises:
        UnsupportedOperatorError: if nothing is bound to this operator at this version.
        UnsupportedAttributeError: if the node carries attributes that its binding does not know.
    """
    binding = BINDINGS.get((node.domain, node.op_type, node.since_version))
    if binding is None:
        bound = bound_versions(node.domain, node.op_type)
        have = f"versions {bound} of it are bound" if bound else "no version of it is bound"
        raise UnsupportedOperatorError(f"{node}: operator not supported; {have}")
    result = binding(node, *inputs)
    unread = node.unread()
    if unread:
        raise UnsupportedAttributeError(f"{node}: attributes not understood: {', '.join(unread)}")
    return tuple(result) if isinstance(result, tuple) else (result,)
