"""Bindings: pooling."""

from __future__ import annotations

from typing import Any

from ....ops import layout, pointwise as pw, pool as pool_ops, reduce as reduce_ops
from ....ops.dims import Shape
from ....ops.errors import UnsupportedAttributeError
from ....ops.window import Window
from ....runtime.graph.contents import dims_of
from ..node import NodeView
from ..registry import binds
from .conv import window


@binds("NhwcMaxPool", 1, domain="com.microsoft")
def nhwc_max_pool(node: NodeView, x: Any) -> Any:
    """NhwcMaxPool: channels last."""
    rank = x.ndim
    x = layout.transpose(x, perm=(0, rank - 1, *range(1, rank - 1)))
    kernel, _, win = _pooling(node, x)
    return layout.transpose(pool_ops.max_pool(x, kernel=kernel, win=win), perm=(0, *range(2, rank), 1))


def _pooling(node: NodeView, x: Any) -> tuple[Shape, Window, Window]:
    """Return the kernel, the window as the node pads it, and the same with `ceil_mode`."""
    kernel = tuple(node.attr("kernel_shape"))
    size = x.shape[2:]
    plain = window(node, size, kernel)
    return kernel, plain, plain.ceiled(size, kernel) if node.attr("ceil_mode", 0) else plain


@binds("MaxPool", 1, 8, 10, 11, 12, 22)
def max_pool(node: NodeView, x: Any) -> Any:
    kernel, _, win = _pooling(node, x)
    column_major = bool(node.attr("storage_order", 0))
    y = pool_ops.max_pool(x, kernel=kernel, win=win)
    if len(node.outputs) < 2 or not node.outputs[1]:
        return y
    return y, pool_ops.max_pool_indices(x, kernel=kernel, win=win, column_major=column_major)


@binds("AveragePool", 1, 7, 10, 11, 19, 22)
def average_pool(node: NodeView, x: Any) -> Any:
    """AveragePool: padding counts as elements with `count_include_pad`; what `ceil_mode` adds never does."""
    kernel, plain, win = _pooling(node, x)
    counted = plain.pads if node.attr("count_include_pad", 0) else ((0, 0),) * len(kernel)
    return pool_ops.sum_pool(x, kernel=kernel, win=win, counted=counted)


@binds("LpPool", 1, 2, 11, 18, 22)
def lp_pool(node: NodeView, x: Any) -> Any:
    kernel, _, win = _pooling(node, x)
    return pool_ops.lp_pool(x, kernel=kernel, win=win, p=node.attr("p", 2))


@binds("GlobalAveragePool", 1, 22)
def global_average_pool(node: NodeView, x: Any) -> Any:
    return reduce_ops.mean(x, axes=tuple(range(2, x.ndim)), keepdims=True)


@binds("GlobalMaxPool", 1, 22)
def global_max_pool(node: NodeView, x: Any) -> Any:
    return reduce_ops.max_(x, axes=tuple(range(2, x.ndim)), keepdims=True)


@binds("GlobalLpPool", 1, 2, 22)
def global_lp_pool(node: NodeView, x: Any) -> Any:
    p = float(node.attr("p", 2))
    powers = pw.mul(x, x) if p == 2 else pw.pow_(pw.abs_(x), p)
    total = reduce_ops.sum_(powers, axes=tuple(range(2, x.ndim)), keepdims=True)
    return total if p == 1 else pw.pow_(total, 1 / p)


@binds("MaxUnpool", 9, 11, 22)
def max_unpool(node: NodeView, x: Any, indices: Any, output_shape: Any = None) -> Any:
    """MaxUnpool: indices are into the size that the window implies; `output_shape` then grows or crops it."""
    kernel = tuple(node.attr("kernel_shape"))
    rank = len(kernel)
    strides, pads = node.attr("strides", [1] * rank), node.attr("pads", [0] * 2 * rank)
    size = tuple(
        (n - 1) * s + k - pads[i] - pads[i + rank]
        for i, (n, s, k) in enumerate(zip(x.shape[2:], strides, kernel, strict=True))
    )
    y = pool_ops.max_unpool(x, indices, size=size)
    if output_shape is None:
        return y
    wanted = dims_of(output_shape)
    if len(wanted) != rank + 2:
        raise UnsupportedAttributeError(f"{node}: output_shape has {len(wanted)} sizes, wanted {rank + 2}")
    grown = tuple((0, w - n) for w, n in zip(wanted[2:], size, strict=True))
    return y if all(hi == 0 for _, hi in grown) else layout.pad(y, pads=((0, 0), (0, 0), *grown))
