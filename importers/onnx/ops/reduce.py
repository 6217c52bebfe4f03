"""Bindings: reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ....ops import layout, pointwise as pw, reduce as red
from ....ops.errors import SymbolicError
from ....ops.types import is_float
from ....runtime.graph.contents import dims_of, known_contents
from ..node import NodeView
from ..registry import binds


def integers(node: NodeView, value: Any, name: str) -> tuple[int, ...]:
    """Return the elements of an integer input that a binding has to know.

    Raises:
        SymbolicError: if only run time knows them; the node is then translated at run time.
    """
    found = dims_of(value) if known_contents(value) is not None else (None,)
    if not all(isinstance(d, int) for d in found):
        raise SymbolicError(f"{node}: {name} is computed at run time")
    return found


def from_front(axes: tuple[int, ...], x: Any) -> tuple[int, ...]:
    """Return the axes counted from the front where the rank is known."""
    try:
        return tuple(a % x.ndim if -x.ndim <= a < x.ndim else a for a in axes)
    except SymbolicError:
        return axes


def _where(node: NodeView, x: Any, axes: Any) -> dict[str, Any]:
    """Return the axes and `keepdims` of a reduction; the axes are an attribute at first, then an input."""
    given = node.attr("axes")
    if axes is not None:
        given = integers(node, axes, "axes")
    keepdims = bool(node.attr("keepdims", 1))
    noop = bool(node.attr("noop_with_empty_axes", 0))
    if not given:
        return {"axes": () if noop else None, "keepdims": keepdims}
    return {"axes": from_front(tuple(given), x), "keepdims": keepdims}


@binds("ReduceSum", 1, 11, 13)
def reduce_sum(node: NodeView, x: Any, axes: Any = None) -> Any:
    return red.sum_(x, **_where(node, x, axes))


@binds("ReduceMean", 1, 11, 13, 18)
def reduce_mean(node: NodeView, x: Any, axes: Any = None) -> Any:
    return red.mean(x, **_where(node, x, axes))


@binds("ReduceMax", 1, 11, 12, 13, 18, 20)
def reduce_max(node: NodeView, x: Any, axes: Any = None) -> Any:
    return red.max_(x, **_where(node, x, axes))


@binds("ReduceMin", 1, 11, 12, 13, 18, 20)
def reduce_min(node: NodeView, x: Any, axes: Any = None) -> Any:
    return red.min_(x, **_where(node, x, axes))


@binds("ReduceProd", 1, 11, 13, 18)
def reduce_prod(node: NodeView, x: Any, axes: Any = None) -> Any:
    return red.prod(x, **_where(node, x, axes))


@binds("ReduceL1", 1, 11, 13, 18)
def reduce_l1(node: NodeView, x: Any, axes: Any = None) -> Any:
    return red.sum_(pw.abs_(x), **_where(node, x, axes))


@binds("ReduceSumSquare", 1, 11, 13, 18)
def reduce_sum_square(node: NodeView, x: Any, axes: Any = None) -> Any:
    return red.sum_(pw.mul(x, x), **_where(node, x, axes))


def in_floats(f: Callable[[Any], Any], x: Any) -> Any:
    """Apply f in float64 to integers, and convert back."""
    return f(x) if is_float(x.dtype) else pw.cast(f(pw.cast(x, dtype="float64")), dtype=str(x.dtype))


@binds("ReduceL2", 1, 11, 13, 18)
def reduce_l2(node: NodeView, x: Any, axes: Any = None) -> Any:
    where = _where(node, x, axes)
    return in_floats(lambda v: red.l2_norm(v, **where), x)


@binds("ReduceLogSum", 1, 11, 13, 18, 28)
def reduce_log_sum(node: NodeView, x: Any, axes: Any = None) -> Any:
    where = _where(node, x, axes)
    return in_floats(lambda v: pw.log(red.sum_(v, **where)), x)


@binds("ReduceLogSumExp", 1, 11, 13, 18, 28)
def reduce_log_sum_exp(node: NodeView, x: Any, axes: Any = None) -> Any:
    where = _where(node, x, axes)
    return in_floats(lambda v: red.logsumexp(v, **where), x)


def flattened(x: Any, axis: int, f: Callable[[Any, int], Any]) -> Any:
    """Apply f along axis 1 of x laid out as a matrix split before `axis`."""
    axis %= x.ndim
    if all(d == 1 for d in x.shape[axis + 1 :]):
        return f(x, axis)
    return layout.reshape(f(layout.flatten(x, axis=axis), 1), shape=tuple(x.shape))
