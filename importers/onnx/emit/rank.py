"""Emitters: which elements are the largest or smallest, and where."""

from __future__ import annotations

from typing import Any

from ....ops import rank as ops
from ....ops.dims import DimLike
from ....runtime.graph.graph import Value
from .registry import emits
from .writer import Writer


@emits(ops.argmax, ops.argmin)
def argmax(w: Writer, x: Value, *, axis: int, keepdims: bool = False, select_last: bool = False) -> Any:
    operator = "ArgMax" if w.node.op is ops.argmax else "ArgMin"
    last = 1 if select_last else None
    return w.add(operator, x, axis=axis, keepdims=int(keepdims), select_last_index=last)


@emits(ops.hardmax)
def hardmax(w: Writer, x: Value, *, axis: int) -> Any:
    return w.add("Hardmax", x, axis=axis)


@emits(ops.topk)
def topk(w: Writer, x: Value, *, k: DimLike, axis: int, largest: bool = True, ordered: bool = True) -> Any:
    return w.add("TopK", x, w.ints((k,)), outputs=2, axis=axis, largest=int(largest), sorted=int(ordered))
