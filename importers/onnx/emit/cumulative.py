"""Emitters: running sums and products along one axis."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ....ops import create, cumulative as ops, layout, pointwise as pw, reduce as red
from ....runtime.graph.graph import Value
from .registry import emits, expands
from .writer import Writer


@emits(ops.cumsum)
def cumsum(w: Writer, x: Value, *, axis: int, exclusive: bool = False, reverse: bool = False) -> Any:
    at = w.number(axis, np.int64)
    return w.add("CumSum", x, at, exclusive=1 if exclusive else None, reverse=1 if reverse else None)


@emits(ops.cumprod)
def cumprod(w: Writer, x: Value, *, axis: int, exclusive: bool = False, reverse: bool = False) -> Any:
    if w.opset < 26:
        return None
    at = w.number(axis, np.int64)
    return w.add("CumProd", x, at, exclusive=1 if exclusive else None, reverse=1 if reverse else None)


@expands(ops.cumprod)
def products(x: Any, *, axis: int, exclusive: bool = False, reverse: bool = False) -> Any:
    """Multiply, for each place, the elements up to it: n^2 products, as older operator sets have no running one."""
    at = axis % x.ndim
    return red.prod(_pairs(x, at, 1.0, reverse, int(exclusive)), axes=(at,))


@expands(ops.logcumsumexp)
def sums_of_powers(x: Any, *, axis: int) -> Any:
    """Sum, for each place, over the elements up to it: n^2 terms."""
    at = axis % x.ndim
    return red.logsumexp(_pairs(x, at, -math.inf, False, 0), axes=(at,))


def _pairs(x: Any, at: int, rest: float, reverse: bool, apart: int) -> Any:
    """Return x beside a new axis after `at` of places: what a place does not take is `rest`."""
    n = x.shape[at]
    taking = layout.trilu(create.full_like(x, shape=(n, n), value=1), upper=not reverse, k=-apart if reverse else apart)
    shape = tuple(n if i in (at, at + 1) else 1 for i in range(x.ndim + 1))
    taken = layout.reshape(pw.greater(taking, 0.0), shape=shape)
    return pw.where(taken, layout.unsqueeze(x, axes=(at + 1,)), rest)


@emits(ops.shift)
def shift(w: Writer, x: Value, *, axis: int, by: int) -> Any:
    """Pad, which crops at the other end."""
    low = [by if i == axis % x.ndim else 0 for i in range(x.ndim)]
    return w.add("Pad", x, w.ints([*low, *(-n for n in low)]))
