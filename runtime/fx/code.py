"""A graph as Python code, for reading."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from .node import Node, target_name

INFIX = {
    operator.add: "+", operator.sub: "-", operator.mul: "*", operator.truediv: "/", operator.floordiv: "//",
    operator.mod: "%", operator.pow: "**", operator.matmul: "@", operator.and_: "&", operator.or_: "|",
    operator.xor: "^", operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=", operator.eq: "==",
    operator.ne: "!=",
}  # fmt: skip


def python_code(nodes: Sequence[Node], root: str) -> str:
    """Return a `forward` that computes what the nodes compute."""
    arguments, lines = [], []
    for node in nodes:
        if node.op == "placeholder":
            arguments.append(node.name + (f" = {node.args[0]!r}" if node.args else ""))
        elif node.op == "output":
            lines.append(f"return {_shown(node.args[0])}")
        else:
            lines.append(f"{node.name} = {_call(node, root)}")
    head = ", ".join([root, *arguments])
    body = "\n".join(f"    {line}" for line in lines or ["pass"])
    return f"def forward({head}):\n{body}\n"


def _call(node: Node, root: str) -> str:
    if node.op == "get_attr":
        return _path(root, node.target)
    if node.op == "call_module":
        return f"{_path(root, node.target)}({_arguments(node.args, node.kwargs)})"
    if node.op == "call_method":
        return f"{_shown(node.args[0])}.{node.target}({_arguments(node.args[1:], node.kwargs)})"
    if node.target in INFIX and len(node.args) == 2:
        return f"{_shown(node.args[0])} {INFIX[node.target]} {_shown(node.args[1])}"
    if node.target is operator.getitem:
        return f"{_shown(node.args[0])}[{_shown(node.args[1])}]"
    if node.target is getattr and len(node.args) == 2:
        return f"{_shown(node.args[0])}.{node.args[1]}"
    return f"{target_name(node.target)}({_arguments(node.args, node.kwargs)})"


def _path(root: str, target: str) -> str:
    out = root
    for part in target.split("."):
        out = f"{out}.{part}" if part.isidentifier() else f'getattr({out}, "{part}")'
    return out


def _arguments(args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    return ", ".join([*map(_shown, args), *(f"{k} = {_shown(v)}" for k, v in kwargs.items())])


def _shown(a: Any) -> str:
    if isinstance(a, Node):
        return a.name
    if isinstance(a, tuple):
        return "(" + ", ".join(map(_shown, a)) + ("," if len(a) == 1 else "") + ")"
    if isinstance(a, list):
        return "[" + ", ".join(map(_shown, a)) + "]"
    if isinstance(a, dict):
        return "{" + ", ".join(f"{k!r}: {_shown(v)}" for k, v in a.items()) + "}"
    if isinstance(a, slice):
        return f"slice({_shown(a.start)}, {_shown(a.stop)}, {_shown(a.step)})"
    return target_name(a) if callable(a) else repr(a)
