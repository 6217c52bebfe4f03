"""Which values lie as bfloat16 where contractions multiply bfloat16: those that no reader needs otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...ops import layout
from ...ops.kernels.cpu.bfloat16 import WRITERS
from ...ops.kernels.cpu.lowering import LOWERINGS
from ...ops.types import TensorType
from ..graph.graph import Graph, Node, Value
from .groups import Group
from .views import VIEWS


def rounded_values(
    graph: Graph, groups: Sequence[Group], native: Callable[[Node], bool], site: Callable[[Group], Any]
) -> set[int]:
    """Return the ids of the values that lie as bfloat16.

    Args:
        graph: whose outputs keep their type.
        groups: in the order in which they run.
        native: whether a node has sizes and types of which kernels can be made.
        site: gives what a rule is given for a group.
    """
    readers: dict[int, list[Group]] = {}
    for group in groups:
        for v in {id(v): v for v in group.reads()}.values():
            readers.setdefault(id(v), []).append(group)
    kept = {id(v) for v in (*graph.outputs, *graph.updates.values())}
    found: set[int] = set()
    for group in reversed(groups):
        if not all(native(n) for n in group.nodes) or not _writes(group):
            continue
        for v in (group.output, *group.node.outputs[1:]):
            mine = readers.get(id(v), [])
            if not mine or id(v) in kept or not isinstance(v.type, TensorType) or v.dtype != np.float32:
                continue
            if all(all(native(n) for n in g.nodes) and _takes(g, v, found, site) for g in mine):
                found.add(id(v))
    return found


def _moves(group: Group) -> bool:
    """Whether a group only moves the elements of its inputs."""
    return len(group.nodes) == 1 and (group.node.op in VIEWS or group.node.op is layout.concat)


def _writes(group: Group) -> bool:
    """Whether a group's output may lie as bfloat16."""
    if group.anchor is None:
        return group.expression is not None
    return _moves(group) or (group.anchor.op.name in WRITERS and not group.anchor.several)


def _takes(group: Group, v: Value, found: set[int], site: Callable[[Group], Any]) -> bool:
    """Whether a group reads a value that lies as bfloat16."""
    if group.anchor is None:
        return group.expression is not None
    if _moves(group):
        return all(id(out) in found for out in group.node.outputs)
    if not any(a is v for a in group.anchor.inputs()):
        return True  # an operand of the epilogue
    rule = LOWERINGS.get(group.anchor.op.name)
    if rule is None or rule.rounds is None or [i for i, a in enumerate(group.anchor.args) if a is v] != [0]:
        return False
    return rule.rounds(site(group))
