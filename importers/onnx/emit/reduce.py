"""Emitters: reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ....ops import reduce as red
from ....ops.dims import Dim, DimLike
from ....runtime.graph.graph import Value
from .registry import emits
from .writer import Writer, elem_type

OPERATORS = {
    red.sum_: "ReduceSum", red.mean: "ReduceMean", red.max_: "ReduceMax", red.min_: "ReduceMin", red.prod: "ReduceProd",
    red.logsumexp: "ReduceLogSumExp", red.l2_norm: "ReduceL2",
}  # fmt: skip


def _reduction(operator: str) -> Callable[..., Any]:
    def emit(w: Writer, x: Value, *, axes: red.Axes = None, keepdims: bool = False) -> Any:
        if axes == ():
            return (
                w.name(x) if operator in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd") else None
            )
        at = None if axes is None else w.ints(red.positive(axes, x.ndim))
        truths = x.dtype == np.dtype(bool)
        y = w.add(operator, w.cast(x, np.int32) if truths else x, at, keepdims=int(keepdims))
        return w.add("Cast", y, to=elem_type(bool)) if truths else y

    return emit


for _op, _operator in OPERATORS.items():
    emits(_op)(_reduction(_operator))


@emits(red.divided)
def divided(w: Writer, x: Value, *, count: DimLike) -> Any:
    by = w.add("Cast", w.sizes.scalar(count), to=elem_type(x.dtype)) if isinstance(count, Dim) else None
    return w.add("Div", x, by or w.number(int(count), x.dtype))
