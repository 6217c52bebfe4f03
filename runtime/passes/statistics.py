"""Recognise means, mean squares and variances, however they were written, and over which axes they were taken."""

from __future__ import annotations

import math
from typing import Any

from ...ops import layout, pointwise as pw, reduce as red
from ...ops.dims import DimLike
from ..graph.graph import Value
from .matching import made_by, number, shape_of, through


def unspread(v: Any) -> Any:
    """Return a value before it was put back into the shape that it was reduced from."""
    while True:
        v = through(v)
        node = made_by(v, layout.expand, red.broadcast_to)
        if node is None or shape_of(node.args[0]) is None or len(node.args[0].shape) != len(v.shape):
            return v
        v = node.args[0]


def _reduced(v: Any) -> tuple[Value, tuple[int, ...]] | None:
    """Return what a value is the mean of, and over which axes; it has the rank of what was reduced."""
    v = unspread(v)
    if not isinstance(v, Value) or (shape := shape_of(v)) is None:
        return None
    inner = v
    while (node := made_by(inner, layout.reshape, layout.unsqueeze)) is not None:
        inner = through(node.args[0])
    found = _mean(inner)
    if found is None:
        return None
    x, axes = found
    axes = red.positive(axes, len(x.shape))
    kept = tuple(1 if i in axes else d for i, d in enumerate(x.shape))
    return (x, axes) if tuple(shape) == kept else None


def _mean(v: Any) -> tuple[Value, Any] | None:
    node = made_by(v, red.mean, pw.mul, pw.div)
    if node is None:
        return None
    if node.op is red.mean:
        return through(node.args[0]), node.attrs.get("axes")
    for total, by in (node.args, node.args[::-1]):
        summed, n = made_by(through(total), red.sum_), number(by)
        if summed is None or n is None or shape_of(summed.args[0]) is None:
            continue
        x = through(summed.args[0])
        count: DimLike = red.elements(x.shape, summed.attrs.get("axes"))
        if not isinstance(count, int) or not count or (node.op is pw.div and total is not node.args[0]):
            continue
        if math.isclose(n if node.op is pw.div else 1 / n if n else 0.0, count, rel_tol=1e-6):
            return x, summed.attrs.get("axes")
    return None


def mean_axes(m: Any, x: Any) -> tuple[int, ...] | None:
    """Return over which axes a value is the mean of x, None where it is not."""
    found = _reduced(m)
    return found[1] if found is not None and found[0] is through(x) else None


def square_axes(v: Any, x: Any) -> tuple[int, ...] | None:
    """Return over which axes a value is the mean of x * x, None where it is not."""
    found = _reduced(v)
    if found is None:
        return None
    node = made_by(found[0], pw.mul, pw.pow_)
    if node is None:
        return None
    a, b = through(node.args[0]), through(node.args[1])
    squared = a is b if node.op is pw.mul else number(b) == 2
    return found[1] if squared and _same(a, through(x)) else None


def _same(a: Any, b: Any) -> bool:
    """Whether two values are the same, or the same difference computed twice."""
    if a is b:
        return True
    one, other = made_by(a, pw.sub), made_by(b, pw.sub)
    if one is None or other is None:
        return False
    return all(through(p) is through(q) for p, q in zip(one.args, other.args, strict=True))


def variance_axes(v: Any, x: Value) -> tuple[int, ...] | None:
    """Return over which axes a value is the variance of x, None where it is not."""
    found = _reduced(v)
    if found is not None and (node := made_by(found[0], pw.mul, pw.pow_)) is not None:
        difference = made_by(through(node.args[0]), pw.sub)
        if difference is not None and through(difference.args[0]) is x:
            axes = mean_axes(difference.args[1], x)
            return axes if axes is not None and square_axes(v, difference.outputs[0]) == axes else None
    v = unspread(v)
    shape = shape_of(v)
    while (node := made_by(v, layout.reshape, layout.unsqueeze)) is not None:
        v = through(node.args[0])
    if (node := made_by(v, pw.maximum)) is not None:
        for inner, low in (node.args, node.args[::-1]):
            if number(low) == 0:
                v = through(inner)
    if (node := made_by(v, pw.sub)) is None:
        return None
    square = made_by(through(node.args[1]), pw.mul, pw.pow_)
    if square is None:
        return None
    m, other = through(square.args[0]), through(square.args[1])
    if not (m is other if square.op is pw.mul else number(other) == 2):
        return None
    means, squares = _mean(m), _mean(through(node.args[0]))
    if means is None or squares is None or means[0] is not x:
        return None
    axes = red.positive(means[1], len(x.shape))
    kept = tuple(1 if i in axes else d for i, d in enumerate(x.shape))
    if red.positive(squares[1], len(x.shape)) != axes or tuple(shape or ()) != kept:
        return None
    power = made_by(squares[0], pw.mul, pw.pow_)
    if power is None or through(power.args[0]) is not x:
        return None
    other = through(power.args[1])
    return axes if (other is x if power.op is pw.mul else number(other) == 2) else None
