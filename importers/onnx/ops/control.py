"""Bindings: control flow. A loop's body is typed by what enters it, widened until what it returns fits."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops import control as control_ops
from ....ops.dims import Dim, DimLike
from ....ops.errors import InvalidGraphError, UnsupportedAttributeError
from ....ops.types import OptionalType, SequenceType, TensorType, ValueType
from ....runtime.graph.body import Body
from ....runtime.graph.contents import known_contents
from ....runtime.graph.graph import Value
from ..node import NodeView
from ..registry import binds

ROUNDS = 8
"""How often types of carried values are widened; two rounds settle all that do not contradict themselves."""


def outer(body: Body) -> list[Value]:
    """Return the values of the enclosing graph that a body takes after its inputs."""
    return [value for value, _ in body.graph.captures]


def carry_key(body: Body, position: int, returned: int | None) -> list[Value]:
    """Make the key of a body's random draws one of its inputs, and the key for its next run one of its outputs.

    Args:
        body: a body that is run again and again.
        position: of the key among its inputs.
        returned: of the next key among its outputs; None for none.

    Returns:
        The first key, in a list, which is empty where nothing is drawn.
    """
    graph = body.graph
    if graph.key is None:
        return []
    first = [value for value, inner in graph.captures if inner is graph.key]
    graph.captures = [pair for pair in graph.captures if pair[1] is not graph.key]
    graph.inputs.insert(position, graph.key)
    if returned is not None:
        graph.outputs.insert(returned, graph.random_key())
    return first


@binds("If", 1, 11, 13, 16, 19, 21, 23, 24, 25)
def if_(node: NodeView, pred: Any) -> Any:
    """If: a predicate that the file already decides leaves only its branch."""
    known = known_truth(pred)
    if known is not None:
        node.ignore("then_branch", "else_branch")
        return node.inline("then_branch" if known else "else_branch")
    then, orelse = node.body("then_branch"), node.body("else_branch")
    captures = outer(then)
    return control_ops.if_(pred, *captures, *outer(orelse), then=then, orelse=orelse, split=len(captures))


def known_truth(value: Value) -> bool | None:
    """Return what a predicate always is, or None where run time decides."""
    found = _known(value)
    return bool(found.reshape(-1)[0]) if found is not None and found.size == 1 else None


_DECIDABLE = {
    "equal": np.equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "logical_not": np.logical_not,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}


def _known(value: Any) -> Any:
    """Return the values of a truth value or of integers, as they follow from shapes and constants alone."""
    if not isinstance(value, Value):
        return None if value is None else np.asarray(value)
    contents = known_contents(value)
    if contents is not None:
        return None if any(isinstance(d, Dim) for d in contents.reshape(-1)) else contents
    if value.node is None:
        return None
    name = value.node.op.name
    if name in ("identity", "cast", "squeeze", "unsqueeze", "reshape"):
        return _known(value.node.args[0])
    if name not in _DECIDABLE:
        return None
    args = [_known(a) for a in value.node.args]
    if any(a is None for a in args):
        return None
    return np.asarray(_DECIDABLE[name](*args))


@binds("Loop", 1, 11, 13, 16, 19, 21, 23, 24, 25)
def loop(node: NodeView, max_trip: Any = None, cond: Any = None, *initial: Any) -> Any:
    """Loop: any number of carried values (sequences too) and of scan outputs."""
    start = [
        TensorType(np.dtype(np.int64), ()),
        TensorType(np.dtype(bool), ()),
        *(_entering(v.type) for v in initial),
    ]
    n = len(initial)
    body = _settled(node, start, first=2, last=2 + n, skip=1)
    key = carry_key(body, 2 + n, 1 + n)
    outs = control_ops.loop(max_trip, cond, *initial, *key, *outer(body), body=body, carried=n + len(key))
    return (*outs[:n], *outs[n + len(key) :])


@binds("Scan", 9, 11, 16, 19, 21, 23, 24, 25)
def scan(node: NodeView, *args: Any) -> Any:
    """Scan: any axes and directions."""
    inputs = int(node.attr("num_scan_inputs"))
    states = len(args) - inputs
    in_axes = tuple(node.attr("scan_input_axes", [0] * inputs))
    types = [_entering(v.type) for v in args[:states]]
    types += [_element(v.type, axis) for v, axis in zip(args[states:], in_axes, strict=True)]
    body = _settled(node, types, first=0, last=states, skip=0)
    made = len(body.output_types) - states
    key = carry_key(body, states, states)
    outs = control_ops.scan(
        *args[:states],
        *key,
        *args[states:],
        *outer(body),
        body=body,
        states=states + len(key),
        inputs=inputs,
        in_axes=in_axes,
        in_reverse=_flags(node, "scan_input_directions", inputs),
        out_axes=tuple(node.attr("scan_output_axes", [0] * made)),
        out_reverse=_flags(node, "scan_output_directions", made),
    )
    return (*outs[:states], *outs[states + len(key) :])


@binds("Scan", 8)
def scan_8(node: NodeView, lengths: Any, *args: Any) -> Any:
    """Scan before opset 9: a batch axis first, time second, and a length for each entry of the batch."""
    inputs = int(node.attr("num_scan_inputs"))
    states = len(args) - inputs
    types = [_element(_entering(v.type), 0) for v in args]
    types = [t if i < states else _element(t, 0) for i, t in enumerate(types)]
    body = _settled(node, types, first=0, last=states, skip=0)
    if body.graph.key is not None:
        raise UnsupportedAttributeError(f"{node}: its body draws random numbers, which Scan-8 does not pass on")
    return control_ops.scan_batch(
        lengths,
        *args,
        *outer(body),
        body=body,
        states=states,
        inputs=inputs,
        in_reverse=_flags(node, "directions", inputs),
    )


def _flags(node: NodeView, name: str, n: int) -> tuple[bool, ...]:
    found = node.attr(name, [0] * n)
    if len(found) != n or any(v not in (0, 1) for v in found):
        raise UnsupportedAttributeError(f"{node}: {name} is {found}, wanted {n} times 0 or 1")
    return tuple(bool(v) for v in found)


def _entering(t: ValueType) -> ValueType:
    """Return the type without what is known of its values: another iteration brings others."""
    return TensorType(t.dtype, t.known_shape) if isinstance(t, TensorType) else t


def _element(t: ValueType, axis: int) -> ValueType:
    if not isinstance(t, TensorType):
        raise InvalidGraphError(f"a scan input has to be a tensor, found {t}")
    if t.known_shape is None:
        return TensorType(t.dtype, None)
    axis %= t.ndim
    return TensorType(t.dtype, (*t.shape[:axis], *t.shape[axis + 1 :]))


def _settled(node: NodeView, types: list[ValueType], *, first: int, last: int, skip: int) -> Body:
    """Return the body for inputs of these types, the carried ones widened to what it returns for them."""
    wide: set[DimLike] = set()
    for _ in range(ROUNDS):
        body = node.body("body", types)
        returned = body.output_types[skip : skip + last - first]
        carried = [_wider(a, b, wide) for a, b in zip(types[first:last], returned, strict=True)]
        if carried == types[first:last]:
            return body
        types = [*types[:first], *carried, *types[last:]]
    raise InvalidGraphError(f"{node}: the types of its carried values do not settle: {', '.join(map(str, types))}")


def _wider(entering: ValueType, returned: ValueType, wide: set[DimLike]) -> ValueType:
    """Return a type for both; a size that one iteration changes becomes a symbol of its own."""

    def size(a: DimLike, b: DimLike) -> DimLike:
        if a == b or a in wide:
            return a
        wide.add(fresh := Dim.fresh())
        return fresh

    match entering, returned:
        case TensorType(), TensorType():
            if entering.known_shape is None or returned.known_shape is None:
                return TensorType(returned.dtype, None)
            if entering.ndim != returned.ndim:
                return TensorType(returned.dtype, None)
            return TensorType(
                returned.dtype, tuple(size(a, b) for a, b in zip(entering.shape, returned.shape, strict=True))
            )
        case SequenceType(), SequenceType():
            return SequenceType(_wider(entering.element, returned.element, wide))
        case OptionalType(), OptionalType():
            return OptionalType(_wider(entering.element, returned.element, wide))
    return returned
