"""What replaces state: which outputs may be written over the feeds that they replace, and when updates run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...ops.broadcast import broadcast_to
from ..compiled.groups import Group
from ..compiled.views import VIEWS
from ..graph.graph import Node, Value
from .readers import Readers
from .weights import lying

UPDATES = {"sgd_update": 3, "adam_update": 5}
"""Updates of parameters, and which argument their numbers are; a flag to skip them and factors of gradients follow."""

ELEMENTWISE = (*UPDATES, "step_numbers")
"""Ops beside the pointwise ones that read each element before they write the one in its place, and no other."""

STATISTICS = {("batch_norm_train", 1): 3, ("batch_norm_train", 2): 4}
"""For outputs by op and number, the argument each of whose elements is read before the one in its place is written."""

MOVES = (*VIEWS, broadcast_to)
"""Ops whose results are views where strides can say them."""

SMALL = 1 << 18
"""Parameters of at most so many elements are updated together in the end, larger ones once there is a gradient.

Where a flag or a factor is made of all gradients there is no sooner, and all go together.
"""


def statistics_last(nodes: Sequence[Node], readers: Readers) -> list[Node]:
    """Return nodes with those behind the others that make outputs of the graph of the smaller results of a node.

    What moves running statistics then no longer stands between a layer and the pointwise ops that its kernel applies.

    Args:
        nodes: in an order in which they can run.
        readers: who reads what they make.
    """
    small = {node for node in nodes if all(lying(v).size <= SMALL for v in (*node.inputs(), *node.outputs))}
    beside: set[int] = set()
    late: set[Node] = set()
    for node in nodes:
        beside.update(id(v) for v in node.outputs[1:])
        if node in small and any(id(v) in beside for v in node.inputs()):
            beside.update(id(v) for v in node.outputs)
            late.add(node)
    for node in reversed(nodes):
        if node in late and not all(reader in late for v in node.outputs for reader in readers.nodes(v)):
            late.remove(node)
    return [*(n for n in nodes if n not in late), *(n for n in nodes if n in late)]


def in_runs(groups: Sequence[Group], alike: Callable[[Group], Any]) -> list[list[Group]]:
    """Return groups in the order in which they run, in the end the updates of parameters that go together.

    Args:
        groups: in an order in which they can run.
        alike: what updates share that can be one launch beside their numbers, None for a group that goes alone.
    """
    read = {id(v) for group in groups for v in group.reads()}
    many: dict[Any, list[Group]] = {}
    for group in groups:
        node = group.anchor
        if node is None or node.op.name not in UPDATES or len(group.nodes) > 1:
            continue
        shared = [id(v) for a in node.args[UPDATES[node.op.name] :] for v in (a if isinstance(a, list) else [a])]
        late = len(shared) > 1 or all(lying(v).size <= SMALL for v in node.outputs)
        if late and not any(id(v) in read for v in node.outputs) and (kind := alike(group)) is not None:
            many.setdefault((kind, *shared), []).append(group)
    runs = [run for run in many.values() if len(run) > 1]
    moved = {id(group) for run in runs for group in run}
    return [*([group] for group in groups if id(group) not in moved), *runs]


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
        last = [(g, r) for j, g, r in readers.get(id(old), []) if j >= i]
        if all(g is group and r is old for g, r in last) and (not last or _may_overwrite(group, v, old)):
            found[id(v)] = feed
    return found


def _may_overwrite(group: Group, v: Value, old: Value) -> bool:
    """Whether a group that reads a value may write what it makes over it."""
    node = group.anchor
    if node is None or node.op.name in ELEMENTWISE:
        return True
    places = [i for i, a in enumerate(node.args) if a is old]
    which = next((i for i, output in enumerate(node.outputs) if output is v), 0)
    return all(a is not old for a in group.operands) and places == [STATISTICS.get((node.op.name, which))]
