"""Bindings: gathers, scatters, and what finds places."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops import index, pointwise as pw
from ....ops.dims import product
from ....ops.layout import reshape
from ....ops.types import is_integer
from ....runtime.graph.graph import Value, current_graph
from ..node import NodeView
from ..registry import binds
from .layout import axis_in, has_rank, scalar_dim


@binds("Gather", 1, 11, 13)
def gather(node: NodeView, x: Any, indices: Any) -> Any:
    return index.gather(x, indices, axis=axis_in(x, node.attr("axis", 0)))


@binds("GatherElements", 11, 13)
def gather_elements(node: NodeView, x: Any, indices: Any) -> Any:
    return index.gather_elements(x, indices, axis=axis_in(x, node.attr("axis", 0)))


@binds("GatherND", 11, 12, 13)
def gather_nd(node: NodeView, x: Any, indices: Any) -> Any:
    return index.gather_nd(x, indices, batch_dims=node.attr("batch_dims", 0))


@binds("Scatter", 9, 11)
@binds("ScatterElements", 11, 13)
def scatter(node: NodeView, x: Any, indices: Any, updates: Any) -> Any:
    return index.scatter_elements(x, indices, updates, axis=axis_in(x, node.attr("axis", 0)))


@binds("ScatterElements", 16, 18)
def scatter_elements(node: NodeView, x: Any, indices: Any, updates: Any) -> Any:
    axis = axis_in(x, node.attr("axis", 0))
    return index.scatter_elements(x, indices, updates, axis=axis, reduction=_reduction(node))


@binds("ScatterND", 11, 13, 16, 18)
def scatter_nd(node: NodeView, x: Any, indices: Any, updates: Any) -> Any:
    return index.scatter_nd(x, indices, updates, reduction=_reduction(node) if node.since_version >= 16 else "none")


def _reduction(node: NodeView) -> str:
    allowed = index.REDUCTIONS if node.since_version >= 18 else index.REDUCTIONS[:3]
    return node.one_of("reduction", "none", allowed)


@binds("TensorScatter", 24)
def tensor_scatter(node: NodeView, x: Any, updates: Any, at: Any = None) -> Any:
    mode = node.one_of("mode", "linear", ("linear", "circular"))
    return index.tensor_scatter(x, updates, at, axis=axis_in(x, node.attr("axis", -2)), mode=mode)


@binds("NonZero", 9, 13)
def nonzero(node: NodeView, x: Any) -> Any:
    return index.nonzero(x)


@binds("Compress", 9, 11, 28)
def compress(node: NodeView, x: Any, condition: Any) -> Any:
    axis = node.attr("axis")
    return index.compress(x, condition, axis=None if axis is None else axis_in(x, axis))


@binds("OneHot", 9, 11, 28)
def one_hot(node: NodeView, indices: Any, depth: Any, values: Any) -> Any:
    axis = node.attr("axis", -1)
    if has_rank(indices) and -indices.ndim - 1 <= axis < 0:
        axis += indices.ndim + 1
    if not is_integer(indices.dtype):
        indices = pw.cast(indices, dtype="int64")
    if not is_integer(depth.dtype):
        depth = _scalar(np.int64(depth.array.reshape(-1)[0])) if depth.is_constant else pw.cast(depth, dtype="int64")
    on = index.one_hot(indices, depth=scalar_dim(depth), axis=axis)
    return pw.where(on, index.gather(values, _scalar(1), axis=0), index.gather(values, _scalar(0), axis=0))


def _scalar(value: Any) -> Value:
    graph = current_graph()
    assert graph is not None
    return graph.constant(np.asarray(value, np.int64))


@binds("Unique", 11, 28)
def unique(node: NodeView, x: Any) -> Any:
    axis = node.attr("axis")
    ordered = bool(node.attr("sorted", 1))
    if axis is None and has_rank(x) and x.ndim != 1:
        x = reshape(x, shape=(product(x.shape),))
    return index.unique(x, axis=None if axis is None else axis_in(x, axis), ordered=ordered)


@binds("ReverseSequence", 10, 28)
def reverse_sequence(node: NodeView, x: Any, lengths: Any) -> Any:
    time, batch = axis_in(x, node.attr("time_axis", 0)), axis_in(x, node.attr("batch_axis", 1))
    return index.reverse_sequence(x, lengths, time_axis=time, batch_axis=batch)
