"""What replaces state: which outputs may be written over the feeds that they replace, and when updates run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...ops.broadcast import broadcast_to
from ..compiled.groups import Group
from ..compiled.views import VIEWS
from ..graph.graph import Value
from .weights import placed_operand

ELEMENTWISE = ("sgd_update", "adam_update")
"""Ops beside the pointwise ones that read each element before they write the one in its place, and no other."""

MOVES = (*VIEWS, broadcast_to)
"""Ops whose results are views where strides can say them."""

SMALL = 1 << 18
"""Parameters of at most so many elements are updated together in the end, larger ones once there is a gradient."""


def in_runs(groups: Sequence[Group], alike: Callable[[Group], Any]) -> list[list[Group]]:
    """Return groups in the order in which they run, in the end the small updates of parameters that go together.

    Args:
        groups: in an order in which they can run.
        alike: what updates share that can be one launch beside their numbers, None for a group that goes alone.
    """
    read = {id(v) for group in groups for v in group.reads()}
    many: dict[Any, list[Group]] = {}
    for group in groups:
        node = group.anchor
        if node is None or node.op.name not in ELEMENTWISE or len(group.nodes) > 1:
            continue
        small = all(placed_operand(v).size <= SMALL for v in node.outputs)
        if small and not any(id(v) in read for v in node.outputs) and (kind := alike(group)) is not None:
            many.setdefault((kind, id(node.args[-1])), []).append(group)
    late = [run for run in many.values() if len(run) > 1]
    moved = {id(group) for run in late for group in run}
    return [*([group] for group in groups if id(group) not in moved), *late]


def targets(
    outputs: Sequence[Value], fed: Sequence[Value], runs: Sequence[Sequence[Group]], in_place: Mapping[int, int]
) -> dict[int, int]:
    """Return, by the ids of values, the feeds over which they are written where they are made.

    Nothing reads such a feed, or a view of it, afterwards or in the same run of groups; only what makes the value may,
    where it reads each element before it writes the one in its place.

    Args:
        outputs: of the graph.
        fed: what a run brings.
        runs: groups in the order in which they run, those of one run at once.
        in_place: outputs, and the feeds that they replace, by number.
    """
    roots: dict[int, int] = {id(v): id(v) for v in fed}
    made: dict[int, tuple[int, Group]] = {}
    readers: dict[int, list[tuple[int, Group, Value]]] = {}
    for i, group in ((i, group) for i, run in enumerate(runs) for group in run):
        moves = group.anchor is not None and len(group.nodes) == 1 and group.node.op in MOVES
        for v in group.reads():
            root = roots.get(id(v))
            if root is not None and moves:
                roots.update((id(out), root) for out in group.node.outputs)
            elif root is not None:
                readers.setdefault(root, []).append((i, group, v))
        if not moves:
            made.update((id(v), (i, group)) for v in (group.output, *group.node.outputs))
    results = [roots.get(id(v)) for v in outputs]
    found: dict[int, int] = {}
    for output, feed in in_place.items():
        v, old = outputs[output], fed[feed]
        if id(v) not in made or id(v) in found or id(old) in results or v.shape != old.shape or v.dtype != old.dtype:
            continue
        i, group = made[id(v)]
        elementwise = group.anchor is None or group.anchor.op.name in ELEMENTWISE
        if all(j < i or (g is group and elementwise and r is old) for j, g, r in readers.get(id(old), [])):
            found[id(v)] = feed
    return found
