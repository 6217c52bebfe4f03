"""Casts of what a run brings, parameters above all: those that go together are one launch, before everything else.

What is cast lies as its source does. Matrices that are cast only to be one, side by side, are written side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...ops import layout
from ...ops.kernels.cuda.casts import cast_several
from ...ops.kernels.cuda.operand import Operand
from ...ops.pointwise import cast
from ...ops.types import HALF
from ..compiled.groups import Group
from ..compiled.views import RESHAPES
from ..graph.graph import Node, Value
from .readers import Readers
from .site import NodeSite
from .weights import lying

_READ_LAST = ("conv", "conv_input_grad", "conv_weight_grad")
"""Ops that read channels last."""


def casts_first(
    groups: Sequence[Group], fed: Sequence[Value], readers: Readers
) -> tuple[list[list[Group]], list[Group]]:
    """Return the runs of groups that come first, the views of what is fed and their casts, and the other groups.

    A cast goes along where its result may lie as its source does: convolutions want filters otherwise. Behind the casts
    are the concatenations that they make.

    Args:
        groups: in an order in which they can run.
        fed: what a run brings.
        readers: who reads what.
    """
    lies = {id(v): lying(v) for v in fed}
    made: dict[int, Operand] = {}
    views: list[Group] = []
    casts: list[Group] = []
    for group in groups:
        source, node = _source(group), group.nodes[0]
        if source is None or id(source) not in lies:
            continue
        o = lies[id(source)]
        if node.op is layout.transpose or (node.op in RESHAPES and o.contiguous):
            views.append(group)
            turned = node.op is layout.transpose
            perm = node.attrs.get("perm") or tuple(reversed(range(o.ndim)))
            lies[id(group.output)] = o.transposed(perm) if turned else lying(group.output)
        elif group.anchor is None and node.op is cast and _goes_along(source, group.output, readers):
            casts.append(group)
            made[id(group.output)] = replace(o, dtype=group.output.dtype)
    if len(casts) < 2:
        return [], [*groups]
    joint = [g for g in groups if _is_joint(g, made, readers) and side_by_side(g.nodes[0], made) is not None]
    moved = {id(group) for group in (*views, *casts, *joint)}
    return [*([view] for view in views), [*casts, *joint]], [group for group in groups if id(group) not in moved]


def cast_together(sites: Sequence[NodeSite]) -> bool:
    """Let casts, and concatenations of their results, be one launch; whether they are such."""
    if sites[0].op != cast.name:
        return False
    casts = {id(site.values[0]): site for site in sites if site.op == cast.name}
    sources = {v: site.read(0) for v, site in casts.items()}
    lies = {v: replace(ref.operand, dtype=casts[v].values[0].dtype, offset=0) for v, ref in sources.items()}
    targets = {}
    for site in sites:
        node = site.group.node
        found = side_by_side(node, lies) if site.op != cast.name else None
        if found is not None:
            whole, parts = found
            room = site.lying(whole)
            for x, part in zip(node.inputs(), parts, strict=True):
                targets[id(x)] = casts[id(x)].lying(part, room)
    for v, site in casts.items():
        if v not in targets:
            targets[v] = site.lying(lies[v])
    cast_several(sites[-1], list(sources.values()), [targets[v] for v in sources])
    return True


def side_by_side(node: Node, lies: Mapping[int, Operand]) -> tuple[Operand, list[Operand]] | None:
    """Return how a concatenation lies if its parts lie one behind the other, and the parts in it.

    None where they cannot: they lie in the order of other axes.

    Args:
        node: the concatenation.
        lies: how its parts lie by themselves, without gaps, by the ids of values.
    """
    out = node.outputs[0]
    axis, at = int(node.attrs["axis"]) % out.ndim, 0
    parts: list[Operand] = []
    for x in node.inputs():
        o = lies[id(x)]
        if o.strides[axis] * o.shape[axis] != o.size or (parts and o.strides != parts[0].strides):
            return None
        parts.append(replace(o, offset=at))
        at += o.size
    return replace(parts[0], shape=tuple(int(d) for d in out.shape), offset=0), parts


def _source(group: Group) -> Value | None:
    """Return what a group of one node reads, where that is one tensor."""
    reads = group.reads()
    return reads[0] if len(group.nodes) == 1 and len(reads) == 1 and not group.prologues else None


def _goes_along(source: Value, made: Value, readers: Readers) -> bool:
    if source.dtype != np.float32 or made.dtype not in HALF or readers.is_output(made) or 0 in made.shape:
        return False
    filters = made.ndim > 2 and not lying(made).channels_last
    return not filters or not any(op in _READ_LAST for op in readers.ops(made))


def _is_joint(group: Group, casts: Mapping[int, Operand], readers: Readers) -> bool:
    """Whether a group is a concatenation of different casts that nothing else reads, and no result."""
    node = group.nodes[0]
    if len(group.nodes) > 1 or node.op is not layout.concat or readers.is_output(group.output):
        return False
    parts = list(node.inputs())
    return len({id(v) for v in parts}) == len(parts) and all(
        id(v) in casts and list(readers.nodes(v)) == [node] for v in parts
    )
