"""Pointwise ops that are part of the kernel that reads what they make, which is then never written.

And casts to half precision that are part of the kernel before, which writes what it makes in two element types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...ops.expr import Call, Var, substitute
from ...ops.kernels.cuda.fusion import tail_of
from ...ops.kernels.cuda.lowering import Lowering, Prologue
from ...ops.kernels.cuda.operand import Operand
from ...ops.pointwise import cast
from ...ops.types import HALF, is_float
from ..compiled.groups import Group
from ..graph.graph import Node, Value
from .arena import Placed
from .readers import Readers

OPERANDS = 4
"""A prologue reads at most so many tensors."""


def with_prologues(groups: Sequence[Group], readers: Readers, rules: Mapping[str, Lowering]) -> list[Group]:
    """Return groups, with the pointwise ops whose only reader computes them as it reads in that reader's group.

    Args:
        groups: in an order in which they can run.
        readers: who reads what they make.
        rules: by op name.
    """
    made = {id(g.output): g for g in groups}
    instead: dict[int, Group | None] = {}
    for group in groups:
        reader = group.anchor
        if reader is None or reader.op.name not in rules:
            continue
        for i, times in rules[reader.op.name].prologue.items():
            chain = _chain(reader, i, made, readers)
            before = _pointwise(chain, rules)
            if before is None or not _pays(before, times):
                continue
            group.prologues[i] = before
            instead.update((id(g), None) for g in chain)
            anchor = chain[0].anchor
            if anchor is not None:
                instead[id(chain[0])] = Group(anchor, [anchor], anchor.outputs[0])
    kept = (instead.get(id(g), g) for g in groups)
    return [g for g in kept if g is not None]


def with_casts(groups: Sequence[Group], readers: Readers, rules: Mapping[str, Lowering]) -> list[Group]:
    """Return groups, with casts to half precision in the groups before them whose kernels also write what is rounded.

    Args:
        groups: in an order in which they can run.
        readers: who reads what they make.
        rules: by op name.
    """
    made = {id(g.output): g for g in groups if g.anchor is not None and g.anchor.op.name in rules}
    taken: set[int] = set()
    for group in groups:
        node = group.nodes[0]
        source = node.args[0] if node.op is cast and len(group.nodes) == 1 and group.anchor is None else None
        before = made.get(id(source))
        if before is None or before.anchor is None or before.rounded is not None or group.output.dtype not in HALF:
            continue
        if rules[before.anchor.op.name].rounds and not readers.is_output(group.output):
            before.rounded = group
            taken.add(id(group))
    return [group for group in groups if id(group) not in taken]


def _chain(reader: Node, i: int, made: Mapping[int, Group], readers: Readers) -> list[Group]:
    """Return the group that makes an argument for nobody else, or that and the cast behind it; nothing without one."""
    chain: list[Group] = []
    v = reader.args[i]
    while isinstance(v, Value) and list(readers.nodes(v)) == [reader] and not readers.is_output(v):
        group = made.get(id(v))
        if group is None:
            return []
        chain.insert(0, group)
        node = group.anchor
        if node is None or node.op is not cast or chain[1:]:
            return chain
        reader, v = node, node.args[0]
    return []


def _pointwise(chain: Sequence[Group], rules: Mapping[str, Lowering]) -> Group | None:
    """Return the pointwise ops of groups as one group.

    None where there are none, or where the kernel before them applies them at no cost.
    """
    if not chain or chain[0].expression is None or not is_float(chain[-1].output.dtype):
        return None
    first, last = chain[0], chain[-1]
    expression, operands, nodes = first.expression, list(first.operands), list(first.nodes)
    assert expression is not None
    if first.anchor is not None:
        window = first.anchor.attrs.get("win")
        own = window is not None and window.group > 1
        if own or not rules[first.anchor.op.name].finishes or tail_of(expression) is not None:
            return None
        expression = substitute(expression, {"x": Var(f"a{len(operands)}")})
        operands.append(first.anchor.outputs[0])
        nodes.remove(first.anchor)
    if last is not first:
        expression = Call(f"cast:{first.output.dtype.name}:{last.output.dtype.name}", (expression,))
        nodes += last.nodes
    return Group(None, nodes, last.output, expression, operands)


def _pays(group: Group, times: int) -> bool:
    """Whether reading what a group is made of, so many times, moves less than writing and reading what it makes."""
    read = sum(v.shape == group.output.shape for v in group.operands)
    return 0 < len(group.operands) <= OPERANDS and read * times < read + 1 + times


def prologue(group: Group, refs: Sequence[Placed | None]) -> Prologue | None:
    """Return a group as a prologue; None where its tensors do not lie alike.

    Args:
        group: of pointwise ops.
        refs: its operands, None for one that lies across the others.
    """
    shape = tuple(int(d) for d in group.output.shape)
    found = [Placed(ref.operand.broadcast_to(shape), ref.storage) for ref in refs if ref is not None]
    whole = [i for i, ref in enumerate(found) if _has_all_axes(ref.operand)]
    if len(found) < len(refs) or not whole or group.expression is None:
        return None
    order = sorted(range(len(found)), key=lambda i: i != whole[0])
    names = {f"a{i}": Var(f"a{n}") for n, i in enumerate(order)}
    return Prologue(substitute(group.expression, dict(names)), tuple(found[i] for i in order))


def _has_all_axes(o: Operand) -> bool:
    return all(s != 0 or n == 1 for n, s in zip(o.shape, o.strides, strict=True))
