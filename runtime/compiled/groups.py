"""Which nodes run as one kernel: pointwise chains, and the pointwise tail of a node whose kernel applies an epilogue.

A group grows backward from its last node: a producer joins where nobody outside the group reads it. Values inside a
group are never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...ops import pointwise as pw
from ...ops.dims import product
from ...ops.expr import Call, Const, Expr, Var, substitute, wrap
from ...ops.kernels.cpu.quantize import QUANTISATION, expression as quantisation
from ...ops.types import HALF, TensorType
from ..graph.graph import Graph, Node, Value

Fusable = Callable[[Node], bool]
Accepts = Callable[[Node, Expr], bool]
Supports = Callable[[Expr, dict[str, Any], Any], bool]

EXPRESSION_LIMIT = 48
"""A group has at most this many pointwise nodes: more would not fit into registers."""

NUMBERS = tuple(np.dtype(t) for t in ("float32", "float64", "int32", "int64", "bool"))


@dataclass(eq=False)
class Group:
    """Nodes that run together.

    Attributes:
        anchor: the node whose kernel applies the rest as its epilogue; None where all are pointwise.
        nodes: all of them, in order.
        output: the value (of several, the first) that the last one makes.
        expression: over `x`, the anchor's result, and `a0`, `a1` ...: `operands`. None for a node alone.
        operands: the values that the expression reads.
        prologues: by the numbers of the anchor's arguments, pointwise groups that its kernel computes as it reads.
        rounded: the cast to half precision of its output that its kernel writes beside that.
    """

    anchor: Node | None
    nodes: list[Node]
    output: Value
    expression: Expr | None = None
    operands: list[Value] = field(default_factory=list)
    prologues: dict[int, Group] = field(default_factory=dict)
    rounded: Group | None = None

    @property
    def node(self) -> Node:
        """The node that names it."""
        return self.anchor or self.nodes[-1]

    def reads(self) -> list[Value]:
        """Return the values that it reads, of lists too."""
        own = list(self.anchor.inputs()) if self.anchor is not None else []
        if self.anchor is None and self.expression is None:
            own = list(self.nodes[0].inputs())
        for before in self.prologues.values():
            own = [*(v for v in own if v is not before.output), *before.reads()]
        return own + self.operands


def pointwise_call(node: Node, elements: Collection[Any] = NUMBERS) -> Callable[[Sequence[Expr]], Expr] | None:
    """Return what a node computes of the expressions of its arguments, or None where it is not pointwise."""
    op = node.op
    if op is pw.cast:
        source, to = node.args[0], np.dtype(node.attrs["dtype"])
        if not isinstance(source, Value) or to not in elements or source.dtype not in elements:
            return None
        if to in HALF:
            return lambda args: args[0]  # storing it rounds; where it is not the last, `_expression` says so
        name = f"cast:{source.dtype.name}:{to.name}"
        return lambda args: args[0] if source.dtype == to else Call(name, (args[0],))
    if op.name in QUANTISATION:
        return _quantisation(node)
    if not isinstance(op, pw.Pointwise) or not _same_types(node, elements):
        return None
    if op.expression is None:
        return lambda args: Call(op.name, tuple(args))
    expression: Expr = op.expression
    return lambda args: substitute(expression, dict(zip(op.names, args, strict=False)))


def _quantisation(node: Node) -> Callable[[Sequence[Expr]], Expr] | None:
    """Return what an op of quantisation computes of the expressions of its arguments, or None without vector code."""
    types = [a.dtype if isinstance(a, Value) else None for a in node.args]
    if any(not isinstance(a, Value) and a is not None for a in node.args):
        return None

    def of(args: Sequence[Expr]) -> Expr | None:
        return quantisation(node.op.name, node.attrs, types, node.outputs[0].dtype, args)

    return None if of([Var("x")] * len(types)) is None else of  # type: ignore[return-value]


def _same_types(node: Node, elements: Collection[Any]) -> bool:
    """Whether its numbers are of one type that code is written for; a condition of `where` is apart."""
    arrays = [a for a in node.args if isinstance(a, Value)]
    if not all(isinstance(a.type, TensorType) and a.dtype in elements for a in (*arrays, *node.outputs)):
        return False
    if any(a is None or isinstance(a, list | str) for a in node.args):
        return False
    numbers = arrays[1:] if node.op is pw.where else arrays
    if node.op.name.startswith("where_grad"):
        numbers = [a for a in arrays if a.dtype.kind != "b"]
    if len({a.dtype for a in numbers}) > 1:
        return False
    real = node.outputs[0].dtype.kind == "f" and numbers and numbers[0].dtype.kind != "f"
    return not real


def group_nodes(
    graph: Graph, nodes: Sequence[Node], *, fuses: Fusable, native: Fusable, supports: Supports,
    elements: Collection[Any] = NUMBERS, accepts: Accepts | None = None, rounds: bool = False,
) -> list[Group]:  # fmt: skip
    """Return groups in an order in which they can run.

    Args:
        graph: whose outputs must be stored.
        nodes: those to group, in order.
        fuses: whether a node's kernel applies an epilogue.
        native: whether a node may run in native code at all.
        supports: whether code can be written for an expression over inputs of these types.
        elements: the types that it can be written for.
        accepts: whether a node's kernel applies this epilogue; every one by default.
        rounds: whether code rounds to half precision within an expression; else a cast to it is the last of a group.
    """
    readers: dict[Value, set[int]] = {}
    for i, node in enumerate(nodes):
        for v in node.inputs():
            readers.setdefault(v, set()).add(i)
    kept = {*graph.outputs, *graph.updates.values()}
    place = {node: i for i, node in enumerate(nodes)}
    calls = {node: call for node in nodes if native(node) and (call := pointwise_call(node, elements)) is not None}
    taken: dict[Node, Group] = {}
    ends: list[tuple[float, Group]] = []
    late: dict[Node, float] = {}
    for end in range(len(nodes) - 1, -1, -1):
        node = nodes[end]
        if node in taken:
            continue
        if node not in calls:
            group = Group(node, [node], node.outputs[0])
            taken[node] = group
            ends.append((late.get(node, end), group))
            continue
        members = _grow(node, calls, readers, kept, place, taken, rounds=rounds)
        anchor = _anchor(node, members, readers, kept, place, taken, fuses, calls, nodes)
        if rounds:
            _leave_tails(node, members, anchor, calls, readers, kept, place, taken, fuses)
        made = _expression(node, members, anchor, calls)
        if anchor is not None and accepts is not None and made is not None and not accepts(anchor, made[0]):
            anchor, made = None, _expression(node, members, None, calls)
        if made is None or not _fits(made, anchor, node, supports):
            members, anchor = {node}, None
            made = _expression(node, members, None, calls)
        assert made is not None or members == {node}
        ordered = sorted(members, key=place.__getitem__)
        group = Group(anchor, [*([anchor] if anchor else []), *ordered], node.outputs[0])
        if made is not None:
            group.expression, group.operands = made
        for member in group.nodes:
            taken[member] = group
        runs = late.get(node, end)
        ends.append((runs, group))
        if anchor is not None:
            late.update((r, runs + 0.5) for r in _between(anchor, node, readers, place, nodes))
    return [group for _, group in sorted(ends, key=lambda pair: pair[0])]


def _fits(made: tuple[Expr, list[Value]], anchor: Node | None, end: Node, supports: Supports) -> bool:
    dtypes = {f"a{i}": v.dtype for i, v in enumerate(made[1])}
    if anchor is not None:
        dtypes["x"] = anchor.outputs[0].dtype
    return supports(made[0], dtypes, end.outputs[0].dtype)


def _grow(
    end: Node, calls: dict[Node, Any], readers: dict[Value, set[int]], kept: set[Value], place: dict[Node, int],
    taken: dict[Node, Group], *, rounds: bool,
) -> set[Node]:  # fmt: skip
    members, inside = {end}, {place[end]}
    shape = end.outputs[0].tensor_type.known_shape
    changed = True
    while changed and len(members) < EXPRESSION_LIMIT:
        changed = False
        for member in list(members):
            for v in member.inputs():
                p = v.node
                if p is None or p in members or p not in calls or p in taken or v in kept:
                    continue
                if v.dtype in HALF and p.op is pw.cast and not rounds:
                    continue
                if v.tensor_type.known_shape != shape or not readers[v] <= inside:
                    continue
                members.add(p)
                inside.add(place[p])
                changed = True
                if len(members) >= EXPRESSION_LIMIT:
                    return members
    return members


def _anchor(
    end: Node, members: set[Node], readers: dict[Value, set[int]], kept: set[Value], place: dict[Node, int],
    taken: dict[Node, Group], fuses: Fusable, calls: dict[Node, Any], nodes: Sequence[Node],
) -> Node | None:  # fmt: skip
    """Return the last node with an epilogue whose result only the group reads."""
    inside = {place[m] for m in members}
    shape = end.outputs[0].tensor_type.known_shape
    found: Node | None = None
    for member in members:
        for v in member.inputs():
            p = v.node
            if p is None or p in calls or p in taken or p not in place or v in kept or v is not p.outputs[0]:
                continue
            if v.tensor_type.known_shape != shape or not readers[v] <= inside or not fuses(p):
                continue
            if any(r in members or any(map(readers.get, r.outputs)) for r in _between(p, end, readers, place, nodes)):
                continue
            if found is None or place[p] > place[found]:
                found = p
    return found


def _leave_tails(
    end: Node, members: set[Node], anchor: Node | None, calls: dict[Node, Any], readers: dict[Value, set[int]],
    kept: set[Value], place: dict[Node, int], taken: dict[Node, Group], fuses: Fusable,
) -> None:  # fmt: skip
    """Take out casts to half precision that another kernel's epilogue does: a group reads less of what they make."""
    for member in list(members):
        source = member.args[0]
        if member is end or member.op is not pw.cast or member.outputs[0].dtype not in HALF:
            continue
        p = source.node if isinstance(source, Value) else None
        if p is None or p is anchor or p in calls or p in taken or p not in place or source is not p.outputs[0]:
            continue
        if source not in kept and readers[source] == {place[member]} and fuses(p):
            members.remove(member)


def _between(
    anchor: Node, end: Node, readers: dict[Value, set[int]], place: dict[Node, int], nodes: Sequence[Node]
) -> list[Node]:
    """Return the nodes before the end of a group that read what its anchor makes beside the first output."""
    return [nodes[i] for v in anchor.outputs[1:] for i in readers.get(v, ()) if i <= place[end]]


def _expression(
    end: Node, members: set[Node], anchor: Node | None, calls: dict[Node, Any]
) -> tuple[Expr, list[Value]] | None:
    operands: list[Value] = []
    done: dict[int, Expr] = {}

    def of(a: Any) -> Expr:
        if not isinstance(a, Value):
            return wrap(a)
        if id(a) in done:
            return done[id(a)]
        if anchor is not None and a is anchor.outputs[0]:
            e: Expr = Var("x")
        elif a.node is not None and a.node in members:
            e = calls[a.node]([of(v) for v in a.node.args])
            if a.node.op is pw.cast and a.dtype in HALF and a is not end.outputs[0]:
                e = Call(f"cast:{a.node.args[0].dtype.name}:{a.dtype.name}", (e,))
        elif a.is_constant and a.array.size == 1 and a.dtype.kind in "fi" and a.ndim <= end.outputs[0].ndim:
            e = Const(a.array.item())
        else:
            e = Var(f"a{len(operands)}")
            operands.append(a)
        done[id(a)] = e
        return e

    expression = of(end.outputs[0])
    if anchor is None and not any(_full(v, end.outputs[0]) for v in operands) and not operands:
        return None
    return expression, operands


def _full(v: Value, like: Value) -> bool:
    return product(v.shape) == product(like.shape)
