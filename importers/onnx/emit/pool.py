"""Emitters: pooling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ....ops import create, index, layout, pointwise as pw, pool as ops
from ....ops.dims import Dim, Shape, product
from ....ops.errors import OpError
from ....ops.window import Window
from ....runtime.graph.graph import Value
from .conv import written_pads
from .create import of_type
from .registry import emits, expands
from .writer import Writer


def _own(x: Value, kernel: Shape, win: Window) -> tuple[Window, bool]:
    """Return a window with the pads of its own, and whether `ceil_mode` has to add to them at the end."""
    plain = Window(win.strides, tuple((lo, lo) for lo, _ in win.pads), win.dilations)
    size = x.shape[2:]
    if plain.pads == win.pads or plain.ceiled(size, kernel).pads != win.pads:
        return win, False
    return plain, plain.out(size, kernel) != win.out(size, kernel)


def _laid(w: Writer, x: Value, kernel: Shape, win: Window) -> tuple[Any, dict[str, Any]] | None:
    """Return what is pooled, and the attributes that every pooling has; None where ONNX cannot say them.

    Negative pads crop what is pooled.
    """
    own, ceil = _own(x, kernel, win)
    flat = [p for pair in own.pads for p in pair]
    if any(isinstance(n, Dim) for n in (*flat, *kernel)):
        return None
    source: Any = x
    if min(flat) < 0:
        source = _padded(w, x, tuple((min(lo, 0), min(hi, 0)) for lo, hi in own.pads))
    pads = written_pads([(max(lo, 0), max(hi, 0)) for lo, hi in own.pads])
    dilations = win.dilations if any(d != 1 for d in win.dilations) else None
    given = {"kernel_shape": kernel, "strides": win.strides, "pads": pads, "dilations": dilations}
    return source, {**given, "ceil_mode": 1 if ceil else None}


def _padded(w: Writer, x: Any, pairs: Any) -> str:
    return str(w.add("Pad", x, w.ints([0, 0, *(lo for lo, _ in pairs), 0, 0, *(hi for _, hi in pairs)])))


def _whole(x: Value, kernel: Shape, win: Window) -> bool:
    """Whether the window is all there is."""
    return tuple(kernel) == tuple(x.shape[2:]) and all(pair == (0, 0) for pair in win.pads)


@emits(ops.max_pool)
def max_pool(w: Writer, x: Value, *, kernel: Shape, win: Window) -> Any:
    if _whole(x, kernel, win):
        return w.add("GlobalMaxPool", x)
    laid = _laid(w, x, kernel, win)
    return None if laid is None else w.add("MaxPool", laid[0], **laid[1])


@emits(ops.max_pool_indices)
def max_pool_indices(w: Writer, x: Value, *, kernel: Shape, win: Window, column_major: bool = False) -> Any:
    laid = _laid(w, x, kernel, win)
    if laid is None or laid[0] is not x:
        return None
    return w.add("MaxPool", x, outputs=2, storage_order=1 if column_major else None, **laid[1])[1]


@expands(ops.max_pool, ops.max_pool_indices)
def refused(x: Any, **attrs: Any) -> Any:
    """Refuse: ONNX pads a window by numbers."""
    raise OpError("the sizes or the pads of the window are known only at run time")


@emits(ops.sum_pool)
def sum_pool(w: Writer, x: Value, *, kernel: Shape, win: Window, counted: Any = None) -> Any:
    """AveragePool; a sum is the mean times what is counted."""
    if counted is not None and _whole(x, kernel, win):
        return w.add("GlobalAveragePool", x)
    if any(isinstance(k, Dim) for k in kernel):
        return None
    if counted is None:
        source: Any = x if all(pair == (0, 0) for pair in win.pads) else _padded(w, x, win.pads)
        dilations = win.dilations if any(d != 1 for d in win.dilations) else None
        mean = w.add("AveragePool", source, kernel_shape=kernel, strides=win.strides, dilations=dilations)
        return w.add("Mul", mean, w.number(math.prod(int(k) for k in kernel), x.dtype))
    laid = _laid(w, x, kernel, win)
    if laid is None or laid[0] is not x:
        return None
    rank, pads = len(kernel), laid[1]["pads"]
    include = any(pair != (0, 0) for pair in counted)
    if include and tuple(counted) != tuple(zip(pads[:rank], pads[rank:], strict=True)):
        return None
    return w.add("AveragePool", x, count_include_pad=1 if include else None, **laid[1])


@expands(ops.sum_pool)
def mean_of_counted(x: Any, *, kernel: Shape, win: Window, counted: Any = None) -> Any:
    """Divide sums by how many elements of ones count."""
    if counted is None:
        raise OpError("the sizes of the window are known only at run time")
    ones = create.full_like(of_type(x.dtype), shape=(1, 1, *x.shape[2:]), value=1)
    ones = layout.pad(ones, np.ones((), x.dtype), pads=((0, 0), (0, 0), *counted))
    rest = tuple((lo - a, hi - b) for (lo, hi), (a, b) in zip(win.pads, counted, strict=True))
    count = ops.sum_pool(ones, kernel=kernel, win=Window(win.strides, rest, win.dilations))
    return pw.div(ops.sum_pool(x, kernel=kernel, win=win), count)


@expands(ops.max_unpool)
def max_unpool(x: Any, indices: Any, *, size: Shape) -> Any:
    """Write elements at flat places into zeros."""
    shape = (*x.shape[:2], *size)
    zeros = create.full_like(x, shape=(product(shape),), value=0)
    y = index.scatter_elements(zeros, layout.reshape(indices, shape=(-1,)), layout.reshape(x, shape=(-1,)), axis=0)
    return layout.reshape(y, shape=shape)


@expands(ops.pool_scatter)
def pool_scatter(g: Any, indices: Any, *, size: Shape) -> Any:
    """Add elements at flat places to zeros."""
    shape = (*g.shape[:2], *size)
    zeros = create.full_like(g, shape=(product(shape),), value=0)
    at, new = layout.reshape(indices, shape=(-1,)), layout.reshape(g, shape=(-1,))
    return layout.reshape(index.scatter_elements(zeros, at, new, axis=0, reduction="add"), shape=shape)


@expands(ops.pool_gather)
def pool_gather(x: Any, indices: Any) -> Any:
    """Take elements at flat places."""
    return index.gather(layout.reshape(x, shape=(-1,)), indices, axis=0)
