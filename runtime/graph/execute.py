"""The executor: a loop over the steps of a plan.

With `interpret` it calls the ops themselves instead of the chosen kernels, so that Tensors record and Values trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...ops import dims
from ...ops.errors import DeviceError, OnnxGradError, SymbolicError
from ...ops.places import HOST, arrays_in, brought_together, place_of
from ...ops.types import TensorType
from ..autograd.saved import Late
from .graph import Graph, Node, Value
from .plan import Bind, Plan, Slot, make_plan

Watch = Callable[[Value, Any], Any]

_MIXED = (DeviceError, TypeError, ValueError, AttributeError)
"""What array kernels raise of arrays on several devices."""


def execute(
    plan: Plan,
    feeds: Sequence[Any],
    *,
    env: Mapping[str, int] | None = None,
    interpret: bool = False,
    watch: Watch | None = None,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Run a plan on the entries of its graph, in their order.

    Args:
        plan: what to run.
        feeds: one array (or Tensor, with `interpret`) an entry of the plan.
        env: symbols that are bound already.
        interpret: call the ops instead of their kernels.
        watch: called with each node output and its value; what it returns other than None replaces the value.

    Returns:
        The outputs, and the updates of state by name.
    """
    if Late.guard is None or interpret:
        return _execute(plan, feeds, env, interpret, watch)
    with Late.guard.where(feeds, "a graph"):
        return _execute(plan, feeds, env, interpret, watch)


def _execute(
    plan: Plan, feeds: Sequence[Any], env: Mapping[str, int] | None, interpret: bool, watch: Watch | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    slots: list[Any] = [*feeds, *([None] * (plan.slots - len(feeds)))]
    bound = dict(env) if env else {}
    for value, binds in zip(feeds, plan.entry_binds, strict=True):
        if binds:
            _bind(value, binds, bound)
    for i in plan.entry_free:
        slots[i] = None
    for step in plan.steps:
        args = [_fetch(a, slots) for a in step.args]
        attrs = step.attrs
        try:
            if step.symbolic:
                attrs = {**attrs, **{n: dims.bind(attrs[n], bound) for n in step.symbolic}}
                if step.doubtful:
                    step.op.infer_types(*map(type_of_argument, args), **attrs)
            kernel = step.op if interpret else step.kernel
            if Late.guard is not None and not interpret and any(place_of(a) != HOST for a in arrays_in(args)):
                kernel = step.op.eager_kernel or kernel
            result = kernel(*args, **attrs) if Late.guard is None else _on_a_device(kernel, args, attrs)
        except Exception as error:
            plain = error if Late.guard is None else Late.guard.explained(error, step.op.name, args)
            found = located(plain, step.node, args)
            if found is error:
                raise
            raise found from error
        del args
        results = result if step.several else (result,)
        for index, value, out, binds in zip(step.outs, results, step.node.outputs, step.binds, strict=True):
            if watch is not None:
                replaced = watch(out, value)
                value = value if replaced is None else replaced
            slots[index] = value
            if binds:
                _bind(value, binds, bound)
        del result, results, value
        for i in step.free:
            slots[i] = None
    return tuple(_fetch(r, slots) for r in plan.results), {n: _fetch(r, slots) for n, r in plan.updates}


def _on_a_device(kernel: Callable[..., Any], args: list[Any], attrs: dict[str, Any]) -> Any:
    """Call a kernel; sizes that lie on the host go to the device where they meet what lies there."""
    moved: list[Any] | None = None
    try:
        result = kernel(*args, **attrs)
    except _MIXED:
        moved = brought_together(args)
        if moved is None:
            raise
    if moved is not None:
        result = kernel(*moved, **attrs)
    Late.guard.waited()
    return result


def type_of_argument(a: Any) -> Any:
    """Return the type of an argument as inference wants it."""
    if isinstance(a, list):
        return [type_of_argument(v) for v in a]
    array = getattr(a, "array", a)
    if isinstance(a, Value):
        return a.type
    return TensorType(array.dtype, array.shape) if hasattr(array, "dtype") else a


def _fetch(a: Any, slots: list[Any]) -> Any:
    if type(a) is Slot:
        return slots[a.index]
    return [_fetch(v, slots) for v in a] if type(a) is list else a


def _bind(value: Any, binds: tuple[Bind, ...], bound: dict[str, int]) -> None:
    for b in binds:
        if b.contents:
            array = getattr(value, "_array", value)
            if isinstance(array, Value):
                bound[b.symbol] = _content(array, b)
            else:
                bound[b.symbol] = int(array.reshape(-1)[b.axis])
        else:
            bound[b.symbol] = value.shape[b.axis]


def _content(value: Value, bind: Bind) -> Any:
    """Return an element of a symbolic tensor.

    Raises:
        SymbolicError: if only running tells it.
    """
    contents = value.tensor_type.contents
    if contents is None:
        raise SymbolicError(f"{bind.symbol} is an element of {value!r}, which is known only at run time")
    return contents[bind.axis]


def located(error: Exception, node: Node, args: Sequence[Any]) -> Exception:
    """Return the error with the node and the shapes that it met; the same class where that is one of ours."""
    if getattr(error, "located", False):
        return error
    where = node.source or node.name or node.op.name
    found = ", ".join(f"{a.dtype}{dims.show(a.shape)}" if hasattr(a, "shape") else repr(a)[:40] for a in args)
    kind = type(error) if isinstance(error, OnnxGradError) else OnnxGradError
    placed = kind(f"{where}: {node.op.name}({found}): {error}")
    placed.located = True  # type: ignore[attr-defined]
    return placed


def plan_of(graph: Graph) -> Plan:
    """Return the graph's plan, made once; a finished graph does not change."""
    plan = graph.__dict__.get("_plan")
    if plan is None:
        plan = graph.__dict__["_plan"] = make_plan(graph)
    return plan


def run_graph(graph: Graph, args: Sequence[Any], *, env: Mapping[str, int] | None = None) -> tuple[Any, ...]:
    """Run a body on arrays, Tensors or Values, whichever it is given."""
    interpret = any(getattr(v, "interpret_priority", 0) for a in args for v in (a if isinstance(a, list) else (a,)))
    return execute(plan_of(graph), args, env=env, interpret=interpret)[0]
