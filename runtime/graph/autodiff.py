"""Gradients on the graph: the same VJPs, called on symbols, so forward and backward become one graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...ops import layout, reduce
from ...ops.create import full_like
from ...ops.errors import AutogradError
from ...ops.pointwise import add
from ...ops.types import TensorType, ValueType, is_float
from ..passes.drop_dead import drop_dead
from ..passes.expand_compositions import expand_compositions
from ..passes.rewriting import rebuild
from .graph import Graph, Node, Value


def differentiate(graph: Graph, wrt: Sequence[str], *, output: int = 0) -> Graph:
    """Return the graph that computes the outputs and the gradients of the sum of one output.

    Args:
        graph: the forward graph; it is not changed.
        wrt: names of inputs or state entries to differentiate by.
        output: which output; its elements are summed (a loss is a scalar already).

    Returns:
        A graph with the forward outputs, then one gradient for each name.

    Raises:
        AutogradError: if an output does not depend on one of them, or a node on the way has no gradient.
    """
    new = rebuild(expand_compositions(graph).graph, _saving, name=f"{graph.name}.grad")
    by_name = {v.name: v for v in new.inputs} | dict(new.state)
    unknown = [n for n in wrt if n not in by_name]
    if unknown:
        raise AutogradError(f"no input or parameter is named {unknown}; there are {sorted(by_name)[:20]}")
    target = new.outputs[output]
    wanted = [by_name[n] for n in wrt]
    depends = _depends(new, set(wanted))
    if target not in depends:
        raise AutogradError(f"output {target.name!r} does not depend on {list(wrt)}")
    gradients: dict[Value, Any] = {}
    with new.building():
        one = new.constant(np.ones((), target.dtype))
        gradients[target] = reduce.broadcast_to(one, shape=target.shape)
        _flow(new, gradients, depends)
        for name, value in zip(wrt, wanted, strict=True):
            if value not in gradients:
                raise AutogradError(f"output {target.name!r} does not depend on {name!r}")
            new.outputs.append(layout.identity(gradients[value]))
    new.verify()
    return drop_dead(new).graph


def _saving(node: Node, args: tuple[Any, ...], new: Graph) -> tuple[Any, ...] | None:
    """Let an op return what its gradient reads, where it has such a form; `drop_dead` takes back what is idle."""
    if node.op.saving is None:
        return None
    op, own = node.op.saving
    return tuple(op(*args, **node.attrs)[:own])


def of_body(
    graph: Graph, given: Sequence[bool], wanted: Sequence[int], before: Sequence[ValueType], after: Sequence[ValueType]
) -> Graph:
    """Return the graph of a body's gradient; see `ops.control.Body.vjp`."""
    new = rebuild(expand_compositions(graph).graph, name=f"{graph.name}.grad")
    own, outs = list(new.entries), new.outputs
    new.inputs, new.captures, new.key, new.parent = [], [], None, None
    first = [new.input(f"before{i}", t) for i, t in enumerate(before)]
    new.inputs += own
    last = [new.input(f"after{i}", t) for i, t in enumerate(after)]
    found: dict[Value, Any] = {}
    xs = [own[i] for i in wanted]
    with new.building():
        for i, (y, there) in enumerate(zip(outs, given, strict=True)):
            if there:
                g = new.input(f"g{i}", y.type)
                found[y] = g if y not in found else add(found[y], g)
        _flow(new, found, _depends(new, set(xs)))
        floats = [v for v in first if _is_float(v)], [v for v in last if _is_float(v)]
        new.outputs = [
            *(_zeros(v) for v in floats[0]),
            *(layout.identity(found[v]) if v in found else _zeros(v) for v in xs),
            *(_zeros(v) for v in floats[1]),
        ]
    new.verify()
    return drop_dead(new).graph


def _is_float(v: Value) -> bool:
    return isinstance(v.type, TensorType) and is_float(v.dtype)


def _zeros(v: Value) -> Any:
    return full_like(v, shape=tuple(v.shape), value=0)


def gradients(y: Value, xs: Sequence[Value], at: Mapping[Value, Value]) -> tuple[Value, ...]:
    """Add the gradients of the sum of y by xs to the graph of y, and return them.

    Args:
        y: what is differentiated.
        xs: what it is differentiated by, all of them keys of `at`.
        at: values to take the gradients at, of xs and of whatever else y is computed from; what comes before them
            takes no part.

    Raises:
        AutogradError: if y does not depend on one of xs, a node on the way has no gradient, or a value to take the
            gradients at is of another type than what it stands for.
    """
    for v, given in at.items():
        if (v.tensor_type.dtype, v.shape) != (given.tensor_type.dtype, given.shape):
            raise AutogradError(f"{v!r} cannot take the value {given!r}: their types differ")
    inputs = {v: Value(v.graph, v.type, v.name) if v.is_constant else v for v in at}
    needed, nodes = {y}, []
    for node in reversed(y.graph.nodes):
        if any(v in needed and v not in inputs for v in node.outputs):
            needed.update(node.inputs())
            nodes.append(replace(node, args=tuple(_swapped(a, inputs) for a in node.args)))
    made = {v for node in nodes for v in node.outputs}
    others = [v for v in needed if v not in made and v not in inputs and not v.is_constant]
    part = Graph(f"{y.name}.part", inputs=[*inputs.values(), *others], outputs=[y], nodes=nodes[::-1])
    found = differentiate(part, [v.name for v in xs])
    found.outputs = found.outputs[1:]
    return _inlined(drop_dead(found).graph, y.graph, [*at.values(), *others])


def _inlined(part: Graph, graph: Graph, values: Sequence[Value]) -> tuple[Value, ...]:
    """Copy the nodes of one graph into another, at values for its inputs, and return its outputs there."""
    new_of = dict(zip(part.inputs, values, strict=True))
    for node in part.nodes:
        copied = replace(node, args=tuple(_swapped(a, new_of) for a in node.args), source=graph.source, name="")
        copied.outputs = tuple(
            Value(graph, v.type, f"{part.name}/{v.name}", node=copied, index=v.index) for v in node.outputs
        )
        new_of.update(zip(node.outputs, copied.outputs, strict=True))
        graph.nodes.append(copied)
    return tuple(new_of.get(v, v) for v in part.outputs)


def _swapped(a: Any, by: Mapping[Value, Value]) -> Any:
    return [_swapped(v, by) for v in a] if isinstance(a, list) else by.get(a, a) if isinstance(a, Value) else a


def _depends(graph: Graph, sources: set[Value]) -> set[Value]:
    """Return the float values that are computed from the sources."""
    depends = set(sources)
    for node in graph.nodes:
        if any(v in depends for v in node.inputs()):
            depends.update(v for v in node.outputs if _is_float(v))
    return depends


def _flow(graph: Graph, gradients: dict[Value, Any], depends: set[Value]) -> None:
    """Add the nodes that hand gradients of values on to what they were computed from."""
    for node in reversed(list(graph.nodes)):
        _step(node, gradients, depends)


def _step(node: Node, gradients: dict[Value, Any], depends: set[Value]) -> None:
    gs = [gradients.get(v) for v in node.outputs]
    if all(g is None for g in gs) or not any(v in depends for v in node.inputs()):
        return
    if node.op.vjp is None:
        if node.op.composition is not None:
            raise AutogradError(
                f"{node.source or node.name or node.op.name}: {node.op.name} has no gradient on a graph yet; "
                "differentiate on the tape (call the model with Tensors) instead"
            )
        return
    entries = node.op.vjp(
        *((tuple(gs), node.outputs) if node.several else (gs[0], node.outputs[0])), *node.args, **node.attrs
    )
    for a, entry in zip(node.args, entries, strict=False):
        if entry is not None and isinstance(a, Value) and a in depends:
            g = entry()
            gradients[a] = g if a not in gradients else add(gradients[a], g)
