"""Emitters: tensors made of shapes, numbers and ranges."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops import create
from ....ops.dims import Dim, Shape, product
from ....runtime.graph.graph import Value, current_graph
from ..tensors import to_proto
from .registry import emits
from .writer import Writer, elem_type

FILLED = 1024
"""Filled tensors of at most this many elements are written as constants."""


def of_type(dtype: Any) -> Value:
    """Return a 0-d constant of an element type, for expansions that have no other tensor of it."""
    graph = current_graph()
    assert graph is not None
    return graph.constant(np.zeros((), dtype))


@emits(create.shape_of)
def shape_of(w: Writer, x: Value, *, start: int = 0, end: int | None = None) -> Any:
    return w.add("Shape", x, start=start or None, end=end)


@emits(create.size_of)
def size_of(w: Writer, x: Value) -> Any:
    return w.add("Size", x)


def _filled(w: Writer, shape: str, value: Any, dtype: Any) -> Any:
    return w.add("ConstantOfShape", shape, value=to_proto(np.asarray([value]).astype(dtype), "value"))


@emits(create.fill)
def fill(w: Writer, shape: Value, *, value: Any, dtype: str) -> Any:
    return _filled(w, w.cast(shape, np.int64), value, create.dtype_named(dtype))


@emits(create.full_like)
def full_like(w: Writer, x: Value, *, shape: Shape, value: float) -> Any:
    if not any(isinstance(d, Dim) for d in shape) and product(shape) <= FILLED:
        return w.constant(np.full([int(d) for d in shape], value).astype(w.out.dtype))
    return _filled(w, w.ints(shape), value, w.out.dtype)


@emits(create.range_)
def range_(w: Writer, start: Value, stop: Value, step: Value) -> Any:
    return w.add("Range", start, stop, step)


@emits(create.eye_like)
def eye_like(w: Writer, x: Value, *, k: int = 0, dtype: str) -> Any:
    return w.add("EyeLike", x, k=k, dtype=elem_type(dtype))
