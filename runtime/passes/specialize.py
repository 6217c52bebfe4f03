"""A graph for inputs of certain shapes: every type inferred anew, what follows from shapes decided, branches taken.

Exporters leave checks of ranks and sizes in the graph (`if x.dim() == 2`), behind which inference knows nothing. For
given shapes the checks are constants, and what is behind them is known.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...ops import dims
from ...ops.control import call, if_
from ...ops.dims import Dim, DimLike, Shape
from ...ops.errors import OnnxGradError
from ...ops.layout import reshape, reshape_to
from ...ops.types import TensorType
from ..graph.graph import Graph, Node, Value
from .fold_constants import fold_constants
from .rewriting import has_graph, rebuild


def specialize(
    graph: Graph, shapes: Sequence[Shape | None] | None = None, taken: Mapping[Node, bool] | None = None
) -> Graph:
    """Return the graph for inputs (then captures) of these shapes; None leaves a type as it is.

    Args:
        graph: what to specialize.
        shapes: of the inputs, the key where there is one, the captures.
        taken: what the conditions of some `If`s of the graph are; they leave only their branch.

    Raises:
        OnnxGradError: if a node cannot be inferred for them; running it would say the same.
    """
    new = Graph(f"{graph.name}.specialized", parent=graph.parent)
    new.draws = graph.draws
    made: dict[Value, Value] = {}
    env: dict[str, DimLike] = {}
    given = itertools.repeat(None) if shapes is None else iter(shapes)

    def typed(v: Value) -> Any:
        shape = next(given)
        if shape is None or not isinstance(v.type, TensorType):
            return v.type
        t = TensorType(v.dtype, tuple(int(d) for d in shape), v.type.contents)
        _learn(v, t, env)
        return t

    for v in graph.inputs:
        made[v] = new.input(v.name, typed(v))
    for v in graph.keys:
        next(given)
        made[v] = Value(new, v.type, v.name)
    for outer, inner in graph.captures:
        copied = Value(new, typed(inner), inner.name)
        new.captures.append((outer, copied))
        made[inner] = copied
    new.key = None if graph.key is None else made[graph.key]
    for name, v in graph.state.items():
        made[v] = new.add_state(name, v.type)  # type: ignore[arg-type]
    for v in new.entries:
        for s in dims.symbols_in((v.type.known_shape, v.type.contents) if isinstance(v.type, TensorType) else ()):
            env.setdefault(s, Dim.symbol(s))
    with new.building():
        _add(new, graph.nodes, made, env, taken or {})
    new.outputs = [_placed(v, made) for v in graph.outputs]
    return fold_constants(new).graph


def _add(
    new: Graph, nodes: Sequence[Node], made: dict[Value, Value], env: dict[str, DimLike], taken: Mapping[Node, bool]
) -> None:
    for node in nodes:
        args = tuple(_placed(a, made) for a in node.args)
        branch = _branch(node, args, taken.get(node))
        before = len(new.nodes)
        new.source = node.source
        results: Any
        if branch is not None:
            body, captured = branch
            inner = dict(zip((i for _, i in body.graph.captures), captured, strict=True))
            _add(new, body.graph.nodes, inner, {**env, **body.env}, {})
            results = tuple(_placed(v, inner) for v in body.graph.outputs)
        else:
            attrs = {k: _bound(a, env) for k, a in node.attrs.items()}
            results = _late(node, args, attrs) if node.op is call else None
            if node.op is reshape_to:
                results = _reshaped(*args, **attrs)
            if results is None:
                results = new.add(node.op, args, attrs)
            results = results if isinstance(results, tuple) else (results,)
        for added in new.nodes[before:]:
            added.name, added.source = added.name or node.name, added.source or node.source
        for old, value in zip(node.outputs, results, strict=True):
            made[old] = value
            if isinstance(value.type, TensorType):
                _learn(old, value.type, env)
                _keep_contents(old, value, env)


def _keep_contents(old: Value, value: Value, env: dict[str, DimLike]) -> None:
    """Leave symbols with the value whose elements run time reads them off."""
    t, declared = value.type, old.type
    if not isinstance(t, TensorType) or not isinstance(declared, TensorType) or t.contents is not None:
        return
    if declared.contents is not None and not value.is_constant and t.known_shape is not None:
        value.type = TensorType(t.dtype, t.known_shape, tuple(_bound(d, env) for d in declared.contents))


def _late(node: Node, args: Any, attrs: dict[str, Any]) -> tuple[Any, ...] | None:
    """Return what a node that waited for its types makes of them, or None where they are still open."""
    try:
        return tuple(node.op.composition(*args, **attrs))  # type: ignore[misc]
    except OnnxGradError:
        return None


def _reshaped(x: Value, shape: Value, *, allowzero: bool = False) -> Value | None:
    """Return x with the shape that it is given where that is known by now, else None."""
    sizes = shape.array.tolist() if shape.is_constant else shape.tensor_type.contents
    if sizes is None:
        return None
    if not allowzero and 0 in sizes and (x.tensor_type.known_shape is None or len(sizes) > x.ndim):
        return None
    found: Value = reshape(x, shape=tuple(x.shape[i] if n == 0 and not allowzero else n for i, n in enumerate(sizes)))
    return found


def _branch(node: Node, args: Sequence[Any], decided: bool | None) -> tuple[Any, Sequence[Any]] | None:
    """Return the body that is taken and its captures, where the condition is known."""
    if node.op is not if_:
        return None
    known = _known(args[0]) if decided is None else decided
    if known is None:
        return None
    split = node.attrs["split"]
    return (node.attrs["then"], args[1 : 1 + split]) if known else (node.attrs["orelse"], args[1 + split :])


def _known(v: Any) -> bool | None:
    if isinstance(v, bool):
        return v
    if v.is_constant:
        return bool(np.asarray(v.array).reshape(-1)[0])
    contents = v.type.contents if isinstance(v.type, TensorType) else None
    return bool(contents[0]) if contents and isinstance(contents[0], int) else None


def _bound(a: Any, env: Mapping[str, DimLike]) -> Any:
    if not has_graph(a):
        return dims.substitute(a, env)
    renamed = {n: d for n, d in env.items() if isinstance(d, Dim) and d.name != n}
    if any(s in renamed for s in dims.symbols_in(a)):
        a = a.with_graph(_renamed(a.graph, renamed))
    return a.bind({n: d for n, d in env.items() if isinstance(d, int)})


def _renamed(body: Graph, env: Mapping[str, DimLike]) -> Graph:
    """Return a body that calls the sizes of the graph around it as that does now."""
    new = rebuild(body)
    for node in new.nodes:
        node.attrs = {k: _bound(a, env) for k, a in node.attrs.items()}
    for v in new.values():
        if isinstance(v.type, TensorType):
            v.type = TensorType(v.dtype, *(dims.substitute(d, env) for d in (v.type.known_shape, v.type.contents)))
    return new


def _placed(a: Any, made: dict[Value, Value]) -> Any:
    if isinstance(a, Value):
        return a if a.is_constant else made[a]
    return [_placed(v, made) for v in a] if isinstance(a, list) else a


def _learn(declared: Value, t: TensorType, env: dict[str, DimLike]) -> None:
    """Bind the symbols of a value's declared type to what its type says."""
    old = declared.type
    if not isinstance(old, TensorType):
        return
    pairs = [*zip(old.known_shape or (), t.known_shape or (), strict=False)]
    pairs += zip(old.contents or (), t.contents or (), strict=False)
    for d, n in pairs:
        if isinstance(d, Dim) and d.name is not None and n != d:
            env.setdefault(d.name, n)
