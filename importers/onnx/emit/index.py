"""Emitters: gathers, scatters, and what finds places."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops import create, index as ops, layout
from ....ops.broadcast import broadcast_to
from ....ops.dims import DimLike
from ....runtime.graph.graph import Value
from .registry import emits, expands
from .writer import Writer, elem_type

PLACES = (np.dtype(np.int32), np.dtype(np.int64))


def places(w: Writer, indices: Value) -> str:
    """Return indices in an element type that ONNX takes them in."""
    return w.name(indices) if indices.dtype in PLACES else w.cast(indices, np.int64)


@emits(ops.gather)
def gather(w: Writer, x: Value, indices: Value, *, axis: int = 0) -> Any:
    return w.add("Gather", x, places(w, indices), axis=axis)


@emits(ops.gather_elements)
def gather_elements(w: Writer, x: Value, indices: Value, *, axis: int = 0) -> Any:
    return w.add("GatherElements", x, places(w, indices), axis=axis)


@emits(ops.gather_nd)
def gather_nd(w: Writer, x: Value, indices: Value, *, batch_dims: int = 0) -> Any:
    return w.add("GatherND", x, w.cast(indices, np.int64), batch_dims=batch_dims or None)


@emits(ops.scatter_elements)
def scatter_elements(
    w: Writer, x: Value, indices: Value, updates: Value, *, axis: int = 0, reduction: str = "none"
) -> Any:
    how = None if reduction == "none" else reduction
    return w.add("ScatterElements", x, places(w, indices), w.cast(updates, x.dtype), axis=axis, reduction=how)


@emits(ops.scatter_nd)
def scatter_nd(
    w: Writer, x: Value, indices: Value, updates: Value, *, reduction: str = "none", batch_dims: int = 0
) -> Any:
    if batch_dims:
        return None
    how = None if reduction == "none" else reduction
    return w.add("ScatterND", x, w.cast(indices, np.int64), w.cast(updates, x.dtype), reduction=how)


@expands(ops.gather_grad)
def gather_grad(g: Any, indices: Any, *, axis: int, size: DimLike) -> Any:
    """Add entries to zeros where they were taken from."""
    at, rank = axis % (g.ndim - indices.ndim + 1), indices.ndim
    lead, tail = g.shape[:at], g.shape[at + rank :]
    entries = layout.reshape(g, shape=(*lead, -1, *tail))
    rows = layout.reshape(indices, shape=(*(1,) * len(lead), -1, *(1,) * len(tail)))
    zeros = create.full_like(g, shape=(*lead, size, *tail), value=0)
    wide = broadcast_to(rows, shape=tuple(entries.shape))
    return ops.scatter_elements(zeros, wide, entries, axis=at, reduction="add")


@emits(ops.tensor_scatter)
def tensor_scatter(
    w: Writer, x: Value, updates: Value, at: Value | None = None, *, axis: int, mode: str = "linear"
) -> Any:
    return w.add("TensorScatter", x, updates, at, axis=axis, mode=mode) if w.opset >= 24 else None


@expands(ops.copy_slices)
def copy_slices(x: Any, part: Any, positions: Any) -> Any:
    """Write into the flat elements."""
    flat = layout.reshape(x, shape=(-1,))
    at, new = (layout.reshape(v, shape=(-1,)) for v in (positions, part))
    return layout.reshape(ops.scatter_elements(flat, at, new, axis=0), shape=tuple(x.shape))


@emits(ops.nonzero)
def nonzero(w: Writer, x: Value) -> Any:
    return w.add("NonZero", x)


@emits(ops.one_hot)
def one_hot(w: Writer, indices: Value, *, depth: DimLike, axis: int = -1, dtype: str = "bool") -> Any:
    at = w.cast(indices, np.int64)
    made = np.dtype(np.int64) if np.dtype(dtype) == np.int64 else np.dtype(np.float32)
    y = w.add("OneHot", at, w.ints((depth,)), np.array([0, 1], made), axis=axis)
    return y if made == np.dtype(dtype) else w.add("Cast", y, to=elem_type(dtype))


@emits(ops.unique)
def unique(w: Writer, x: Value, *, axis: int | None = None, ordered: bool = True) -> Any:
    return w.add("Unique", x, outputs=4, axis=axis, sorted=None if ordered else 0)


@emits(ops.reverse_sequence)
def reverse_sequence(w: Writer, x: Value, lengths: Value, *, time_axis: int, batch_axis: int) -> Any:
    return w.add("ReverseSequence", x, w.cast(lengths, np.int64), time_axis=time_axis, batch_axis=batch_axis)
