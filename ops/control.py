"""Control flow: a choice between two bodies, a loop, and a scan along axes.

They are structural: each runs as Python over whatever it is given, so arrays compute, Tensors record the
body's own ops on the tape (gradients of every order follow), and graph Values become one node. A body is
called with its own inputs and then its captures, and returns a tuple; `output_types` gives the types of what
it returns.

Source: ONNX If-25, Loop-25, Scan-25, Scan-8.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from . import layout
from .dims import Dim, DimLike
from .errors import OpError, ShapeError, SymbolicError
from .meeting import Types, bare, merged, outward, stacked_type, symbols_of
from .op import namespace, op
from .types import TensorType, ValueType, is_float, type_of


class Body(Protocol):
    """What a control-flow op calls; `runtime.graph.Body` is one."""

    @property
    def output_types(self) -> Types:
        """The types of what it returns."""

    def __call__(self, *args: Any) -> tuple[Any, ...]:
        """Run it on its inputs, then its captures."""

    def vjp(self, given: tuple[bool, ...], wanted: tuple[int, ...], before: Types, after: Types) -> Body:
        """Return the body of its gradient.

        It takes what is before, what this body takes, what is after, and a cotangent of each output that is `given`;
        it returns zeros for each float before, the gradient of each input that is `wanted`, zeros for each float after.
        """


@op()
def if_(pred: TensorType, *captures: Any, then: Body, orelse: Body, split: int) -> Types:
    """Run one of two bodies: `then` where the predicate holds, else `orelse`.

    Shapes: one element, the captures of `then` (the first `split`), those of `orelse` -> what both bodies
    return; a size in which they differ is known only at run time, and so is the rank where they differ in
    that.

    Raises:
        OpError: if the bodies return different numbers of values.
    """
    known = symbols_of(captures)
    one, other = (outward(body.output_types, known) for body in (then, orelse))
    if len(one) != len(other):
        raise OpError(f"if: one branch returns {len(one)} values, the other {len(other)}")
    return tuple(merged(a, b) for a, b in zip(one, other, strict=True))


@if_.compose
def _if(pred: Any, *captures: Any, then: Body, orelse: Body, split: int) -> tuple[Any, ...]:
    return then(*captures[:split]) if truth(pred) else orelse(*captures[split:])


@if_.defvjp
def _if_vjp(
    g: Any, y: Any, pred: Any, *captures: Any, then: Body, orelse: Body, split: int
) -> tuple[Callable[[], Any] | None, ...]:
    given = tuple(v is not None for v in g)
    types = tuple(type_of(v) if not hasattr(v, "type") else v.type for v in captures)
    floats = [i for i, t in enumerate(types) if isinstance(t, TensorType) and is_float(t.dtype)]

    @functools.cache
    def gradients() -> tuple[Any, ...]:
        found: tuple[Any, ...] = if_(
            pred, *(*captures, *(v for v in g if v is not None)) * 2,
            then=then.vjp(given, tuple(i for i in floats if i < split), (), types[split:]),
            orelse=orelse.vjp(given, tuple(i - split for i in floats if i >= split), types[:split], ()),
            split=len(captures) + sum(given),
        )  # fmt: skip
        return found

    def entry(at: int) -> Callable[[], Any]:
        return lambda: gradients()[at]

    entries = [entry(floats.index(i)) if i in floats else None for i in range(len(captures))]
    return (None, *entries)


@op()
def call(*args: Any, body: Body) -> Types:
    """Run a body on its inputs; a body may wait for them to see what it has to do."""
    return outward(body.output_types, symbols_of(args))


@call.compose
def _call(*args: Any, body: Body) -> tuple[Any, ...]:
    return body(*args)


TRIPS = 1 << 24
"""How often a loop runs whose body never stops; what asks for more is refused at once."""


@op()
def loop(max_trip: Any, cond: Any, *args: Any, body: Body, carried: int) -> Types:
    """Repeat a body, at most `max_trip` times and as long as it says so; None leaves a limit out.

    The body takes (iteration, condition, *carried, *captures) and returns (condition, *carried, *elements).

    Shapes: the trip count and the condition, one element each; the initial carried values; the captures
    -> the final carried values, then each element stacked along a new first axis.

    Raises:
        OpError: if the body returns too few values.
    """
    if len(body.output_types) < 1 + carried:
        raise OpError(f"loop: the body returns {len(body.output_types)} values, wanted at least {1 + carried}")
    outs = outward(body.output_types, symbols_of(args))[1:]
    trips = Dim.fresh()
    return (
        *(merged(bare(a), bare(b)) for a, b in zip(args[:carried], outs[:carried], strict=True)),
        *(stacked_type(t, 0, trips) for t in outs[carried:]),
    )


@loop.compose
def _loop(max_trip: Any, cond: Any, *args: Any, body: Body, carried: int) -> tuple[Any, ...]:
    limit = None if max_trip is None else int(item(max_trip))
    going = cond is None or truth(cond)
    state, captures = args[:carried], args[carried:]
    if limit is not None and limit > TRIPS and _never_stops(body):
        raise OpError(f"loop: {limit} iterations of a body that never stops; at most {TRIPS} are run")
    xp = namespace(*(getattr(a, "array", a) for a in args))
    stacks: list[list[Any]] = [[] for _ in body.output_types[1 + carried :]]
    i = 0
    while going and (limit is None or i < limit):
        outs = body(xp.asarray(i, np.int64), xp.asarray(True), *state, *captures)
        going, state = truth(outs[0]), outs[1 : 1 + carried]
        for stack, value in zip(stacks, outs[1 + carried :], strict=True):
            stack.append(value)
        i += 1
    return (*state, *_collect(stacks, body.output_types[1 + carried :], (0,) * len(stacks), args))


def _never_stops(body: Body) -> bool:
    """Whether the body hands its condition back as it was given, or a constant."""
    graph = getattr(body, "graph", None)
    if graph is None:
        return False
    value = graph.outputs[0]
    while getattr(value, "node", None) is not None and value.node.op.name in ("identity", "cast"):
        value = value.node.args[0]
    return value is graph.inputs[1] or bool(getattr(value, "is_constant", False) and value.array.all())


@op()
def scan(
    *args: Any,
    body: Body,
    states: int,
    inputs: int,
    in_axes: tuple[int, ...],
    in_reverse: tuple[bool, ...],
    out_axes: tuple[int, ...],
    out_reverse: tuple[bool, ...],
) -> Types:
    """Run a body over the elements of sequences, one axis of each input, handing states from one to the next.

    The body takes (*states, *elements, *captures) and returns (*states, *elements).

    Shapes: the initial states, the sequences with their elements along `in_axes`, the captures
    -> the final states, then each element stacked along its axis of `out_axes`.

    Raises:
        ShapeError: if the sequences differ in length.
    """
    outs = outward(body.output_types, symbols_of(args))
    steps = _length(args[states : states + inputs], in_axes)
    return (
        *(merged(bare(a), bare(b)) for a, b in zip(args[:states], outs[:states], strict=True)),
        *(stacked_type(t, axis, steps) for t, axis in zip(outs[states:], out_axes, strict=True)),
    )


@scan.compose
def _scan(
    *args: Any,
    body: Body,
    states: int,
    inputs: int,
    in_axes: tuple[int, ...],
    in_reverse: tuple[bool, ...],
    out_axes: tuple[int, ...],
    out_reverse: tuple[bool, ...],
) -> tuple[Any, ...]:
    state, sequences, captures = args[:states], args[states : states + inputs], args[states + inputs :]
    steps = _length([type_of(x) for x in sequences], in_axes)
    if not isinstance(steps, int):
        raise ShapeError("scan: there is no sequence to scan")
    columns = [
        items[::-1] if back else items for items, back in zip(map(unstack, sequences, in_axes), in_reverse, strict=True)
    ]
    stacks: list[list[Any]] = [[] for _ in out_axes]
    for t in range(steps):
        outs = body(*state, *(column[t] for column in columns), *captures)
        state = outs[:states]
        for stack, value in zip(stacks, outs[states:], strict=True):
            stack.append(value)
    ordered = [stack[::-1] if back else stack for stack, back in zip(stacks, out_reverse, strict=True)]
    return (*state, *_collect(ordered, body.output_types[states:], out_axes, args))


@op()
def scan_batch(lengths: Any, *args: Any, body: Body, states: int, inputs: int, in_reverse: tuple[bool, ...]) -> Types:
    """Run `scan` for each entry of a batch, on the first `lengths` of its elements (all, where that is None).

    Shapes: (N,), the states (N, ...), the sequences (N, T, ...), the captures -> (N, ...), (N, T, ...) with
    zeros after the entry's length. Source: ONNX Scan-8.
    """
    outs = outward(body.output_types, symbols_of(args))
    batch = _length(args[: states + inputs], (0,) * (states + inputs))
    steps = _length(args[states : states + inputs], (1,) * inputs)
    return (
        *(merged(bare(a), stacked_type(b, 0, batch)) for a, b in zip(args[:states], outs[:states], strict=True)),
        *(stacked_type(stacked_type(t, 0, steps), 0, batch) for t in outs[states:]),
    )


@scan_batch.compose
def _scan_batch(
    lengths: Any, *args: Any, body: Body, states: int, inputs: int, in_reverse: tuple[bool, ...]
) -> tuple[Any, ...]:
    entries, captures = [unstack(x, 0) for x in args[: states + inputs]], args[states + inputs :]
    steps = _length([type_of(x) for x in args[states : states + inputs]], (1,) * inputs)
    assert isinstance(steps, int)
    made = len(body.output_types) - states
    rows = []
    for n in range(len(entries[0])):
        length = steps if lengths is None else int(lengths[n])
        sequences = [head(column[n], length) for column in entries[states:]]
        outs = _scan(
            *(column[n] for column in entries[:states]),
            *sequences,
            *captures,
            body=body,
            states=states,
            inputs=inputs,
            in_axes=(0,) * inputs,
            in_reverse=in_reverse,
            out_axes=(0,) * made,
            out_reverse=(False,) * made,
        )
        rows.append((*outs[:states], *(_grown(y, steps) for y in outs[states:])))
    return tuple(stacked(list(column), 0) for column in zip(*rows, strict=True))


def truth(x: Any) -> bool:
    """Return the truth of the only element of an array or Tensor."""
    return bool(item(x))


def item(x: Any) -> Any:
    """Return the only element of an array or Tensor.

    Raises:
        ShapeError: if there are more, or none.
    """
    array = getattr(x, "array", x)
    if array is None:
        raise SymbolicError("the value is known only at run time")
    if getattr(array, "size", 1) != 1:
        raise ShapeError(f"control flow: wants one element, found shape {tuple(array.shape)}")
    return array.item() if hasattr(array, "item") else array


def unstack(x: Any, axis: int) -> list[Any]:
    """Return the slices of an array or Tensor along an axis, without that axis."""
    axis %= x.ndim
    if not hasattr(x, "interpret_priority"):
        return [x[(slice(None),) * axis + (t,)] for t in range(x.shape[axis])]
    if isinstance(x.shape[axis], Dim):
        raise SymbolicError(f"the number of slices of {x!r} is known only at run time")
    if x.shape[axis] == 0:
        return []
    rest = tuple(n for k, n in enumerate(x.shape) if k != axis)
    pieces = layout.split(x, axis=axis, sizes=(1,) * x.shape[axis])
    return [layout.reshape(p, shape=rest) for p in pieces]


def stacked(items: Sequence[Any], axis: int) -> Any:
    """Join arrays or Tensors of one shape along a new axis."""
    if not any(hasattr(x, "interpret_priority") for x in items):
        return namespace(*items).stack(items, axis=axis)
    axis %= items[0].ndim + 1
    return layout.concat(*(layout.unsqueeze(x, axes=(axis,)) for x in items), axis=axis)


def head(x: Any, length: int) -> Any:
    """Return the first elements along the first axis."""
    if not hasattr(x, "interpret_priority"):
        return x[:length]
    if length == x.shape[0]:
        return x
    return layout.split(x, axis=0, sizes=(length, x.shape[0] - length))[0]


def _grown(x: Any, length: int) -> Any:
    """Append zeros along the first axis up to a length."""
    if x.shape[0] == length:
        return x
    array = getattr(x, "array", x)
    zeros = namespace(array).zeros((length - x.shape[0], *x.shape[1:]), x.dtype)
    return layout.concat(x, zeros, axis=0)


def _collect(
    stacks: Sequence[Sequence[Any]], types: Sequence[ValueType], axes: Sequence[int], args: Sequence[Any]
) -> list[Any]:
    """Stack what the iterations gave; where there was none, make an array of size 0 by the body's type."""
    made = []
    for items, t, axis in zip(stacks, types, axes, strict=True):
        if items:
            made.append(stacked(items, axis))
            continue
        assert isinstance(t, TensorType)
        shape = [d if isinstance(d, int) else 0 for d in t.known_shape or ()]
        shape.insert(axis % (len(shape) + 1), 0)
        arrays = [getattr(a, "array", a) for a in args if hasattr(a, "dtype")]
        made.append(namespace(*arrays).empty(tuple(shape), t.dtype))
    return made


def _length(sequences: Sequence[Any], axes: Sequence[int]) -> DimLike:
    """Return the number of elements of the sequences, an integer where one of them says it."""
    lengths = [t.shape[a] for t, a in zip(sequences, axes, strict=True) if t.known_shape is not None]
    known = {n for n in lengths if isinstance(n, int)}
    if len(known) > 1:
        raise ShapeError(f"scan: the sequences have different lengths {sorted(known)}")
    if known:
        return known.pop()
    return lengths[0] if lengths else Dim.fresh()
