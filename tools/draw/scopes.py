"""Nodes of a graph in groups that can be drawn as one: by the ONNX node they came from, by the scope in their names.

A group must not be left and entered again, or the picture would have cycles: where that would be, another group of
the same name begins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence

from ...runtime.graph.graph import Node


def grouped(nodes: Sequence[Node], label: Callable[[Node], Hashable]) -> list[list[Node]]:
    """Return groups of nodes with one label, in an order in which they can run.

    Args:
        nodes: in an order in which they can run.
        label: of a node; None for one that stays alone.
    """
    groups: list[list[Node]] = []
    of: dict[int, int] = {}
    after: list[set[int]] = []
    latest: dict[Hashable, int] = {}
    for node in nodes:
        before = {of[id(v.node)] for v in node.inputs() if v.node is not None and id(v.node) in of}
        name = label(node)
        mine = latest.get(name) if name is not None else None
        if mine is None or any(b != mine and _reaches(after, mine, b) for b in before):
            mine = len(groups)
            groups.append([])
            after.append(set())
            latest[name] = mine
        groups[mine].append(node)
        of[id(node)] = mine
        for b in before - {mine}:
            after[b].add(mine)
    return [groups[i] for i in _ordered(after)]


def _reaches(after: Sequence[set[int]], start: int, end: int) -> bool:
    stack, seen = [start], {start}
    while stack:
        at = stack.pop()
        if at == end:
            return True
        for i in after[at] - seen:
            seen.add(i)
            stack.append(i)
    return False


def _ordered(after: Sequence[set[int]]) -> list[int]:
    from .layers import topological

    return topological(len(after), [(a, b) for a, found in enumerate(after) for b in sorted(found)])


def scopes(nodes: Sequence[Node], depth: int) -> dict[int, str]:
    """Return the scope of each node by its identity, without those that have none.

    A node without one in its name that stands between nodes of one scope belongs to it.

    Args:
        nodes: in an order in which they can run.
        depth: how many parts of a name are kept.
    """
    own = {id(n): scope for n in nodes if (scope := scope_of(n.name, depth)) is not None}
    before, after = dict(own), dict(own)
    for n in nodes:
        for v in n.inputs():
            if v.node is not None and id(v.node) in before:
                before.setdefault(id(n), before[id(v.node)])
    for n in reversed(nodes):
        if id(n) in after:
            for v in n.inputs():
                if v.node is not None:
                    after.setdefault(id(v.node), after[id(n)])
    return {i: scope for i, scope in before.items() if after.get(i) == scope}


def scope_of(name: str, depth: int) -> str | None:
    """Return the first parts of a name such as `/layer1/conv1/Conv`; None where the name has no scope."""
    parts = [p for p in re.split(r"/|::", name) if p][:-1]
    return "/".join(parts[:depth]) if parts else None
