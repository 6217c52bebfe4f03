"""Bindings: quantised operators, as compositions of integer products, quantisation and float ops.

Which axis a scale or zero point belongs to, and blocks of it, end here: they are reshaped to broadcast.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ....ops import layout, normalize, pointwise as pw, quantize as q, reduce
from ....ops.dims import Dim
from ....ops.errors import UnsupportedAttributeError
from ....ops.types import is_float
from ....ops.window import Window
from ..node import NodeView
from ..registry import binds
from ..tensors import dtype_of
from .conv import window
from .pointwise import MICROSOFT
from .pool import average_pool

UINT8 = np.dtype(np.uint8)


def along(node: NodeView, x: Any, v: Any, axis: int, block: int = 0) -> Any:
    """Return a scale or zero point so that it broadcasts to x: a scalar, one an index, or blocks."""
    if v is None or v.ndim == 0:
        return v
    if block:
        return _blocks(node, x, v, axis % x.ndim, block)
    if v.ndim != 1:
        return v
    if v.shape[0] == 1:
        return layout.reshape(v, shape=())
    return layout.reshape(v, shape=(v.shape[0], *(1,) * (x.ndim - axis % x.ndim - 1)))


def _blocks(node: NodeView, x: Any, v: Any, axis: int, block: int) -> Any:
    shape = tuple(v.shape)
    size = x.shape[axis]
    if isinstance(size, Dim) or isinstance(shape[axis], Dim) or size != shape[axis] * block:
        raise UnsupportedAttributeError(f"{node}: blocks of {block} do not fill axis {axis} of {x.shape}")
    apart = layout.reshape(v, shape=(*shape[: axis + 1], 1, *shape[axis + 1 :]))
    wide = layout.tile(apart, repeats=(*(1,) * (axis + 1), block, *(1,) * (len(shape) - axis - 1)))
    return layout.reshape(wide, shape=(*shape[:axis], size, *shape[axis + 1 :]))


def quantized(x: Any, scale: Any, zero: Any, dtype: np.dtype[Any], saturate: bool = True) -> Any:
    """Return x quantised with a scale and zero point that broadcast."""
    args = (x, scale) if zero is None else (x, scale, zero)
    attrs = {} if saturate else {"saturate": False}
    return q.quantize_linear(*args, dtype=str(dtype), **attrs)


def real(x: Any, scale: Any, zero: Any, dtype: np.dtype[Any] | None = None) -> Any:
    """Return the floats that x stands for, with a scale and zero point that broadcast."""
    args = (x, scale) if zero is None else (x, scale, zero)
    return q.dequantize_linear(*args, dtype=str(dtype or scale.dtype))


@binds("QuantizeLinear", 10, 13, 19, 21, 23, 24, 25, 28)
@binds("QuantizeLinear", 1, domain=MICROSOFT)
def quantize_linear(node: NodeView, x: Any, scale: Any, zero: Any = None) -> Any:
    axis, block = node.attr("axis", 1), node.attr("block_size", 0)
    wanted, precision = node.attr("output_dtype", 0), node.attr("precision", 0)
    if precision and dtype_of(precision) != scale.dtype and dtype_of(precision) != np.float32:
        raise UnsupportedAttributeError(f"{node}: precision {dtype_of(precision)} is not supported")
    dtype = zero.dtype if zero is not None else dtype_of(wanted) if wanted else UINT8
    saturate = bool(node.attr("saturate", 1))
    scale, zero = (along(node, x, v, axis, block) for v in (scale, zero))
    return quantized(x, scale, zero, dtype, saturate)


@binds("DequantizeLinear", 10, 13, 19, 21, 23, 24, 25, 28)
@binds("DequantizeLinear", 1, domain=MICROSOFT)
def dequantize_linear(node: NodeView, x: Any, scale: Any, zero: Any = None) -> Any:
    axis, block, wanted = node.attr("axis", 1), node.attr("block_size", 0), node.attr("output_dtype", 0)
    dtype = dtype_of(wanted) if wanted else scale.dtype
    scale, zero = (along(node, x, v, axis, block) for v in (scale, zero))
    if is_float(dtype) and (seen := _straight_through(x, scale, zero, dtype)) is not None:
        return seen
    return real(x, scale, zero, dtype)


MOVES = (layout.reshape, layout.transpose, layout.squeeze, layout.unsqueeze, layout.identity, layout.slice_)
"""Ops that may stand between the two: they only move what is quantised."""


def _straight_through(x: Any, scale: Any, zero: Any, dtype: np.dtype[Any]) -> Any:
    """Return what was quantised and is dequantised here, in one op, which a gradient goes through; None if it is not.

    Between the two there may be ops that move elements, where one scale is that of all of them.
    """
    moves = []
    while (made := getattr(x, "node", None)) is not None and made.op in MOVES:
        moves.append(made)
        x = made.args[0]
    if made is None or not is_float(made.args[0].dtype):
        return None
    if made.op is q.dynamic_quantize_linear and (scale, zero) == made.outputs[1:] and dtype == scale.dtype:
        y = q.dynamic_fake_quantize(made.args[0])
    elif made.op is q.quantize_linear:
        whole, first, zero_first = (*made.args, None)[:3]
        if moves and any(v is not None and v.ndim for v in (first, scale, zero_first, zero)):
            return None
        zeros = [] if zero is None and zero_first is None else [zero_first, zero]
        zeros = [np.zeros((), made.attrs["dtype"]) if z is None else z for z in zeros]
        y = q.fake_quantize(whole, first, scale, *zeros, to=str(dtype), **made.attrs)
    else:
        return None
    for move in reversed(moves):
        y = move.op(y, *move.args[1:], **move.attrs)
    return y


@binds("DynamicQuantizeLinear", 11)
def dynamic_quantize_linear(node: NodeView, x: Any) -> Any:
    return q.dynamic_quantize_linear(x)


def rows(v: Any) -> Any:
    """Return a left operand's scale or zero point, one a row, so that it broadcasts to the matrices."""
    return layout.reshape(v, shape=(*v.shape, 1)) if v is not None and v.ndim == 1 and v.shape[0] != 1 else v


def _products(a: Any, b: Any, a_zero: Any, b_zero: Any) -> Any:
    return q.matmul_integer(a, b, rows(a_zero), b_zero)


@binds("MatMulInteger", 10)
def matmul_integer(node: NodeView, a: Any, b: Any, a_zero: Any = None, b_zero: Any = None) -> Any:
    return _products(a, b, a_zero, b_zero)


def filters(v: Any, rank: int) -> Any:
    """Return a filter's scale or zero point, one an output channel, so that it broadcasts to the weights."""
    return layout.reshape(v, shape=(v.shape[0], *(1,) * (rank - 1))) if v is not None and v.ndim == 1 else v


def _window(node: NodeView, x: Any, w: Any) -> Window:
    win = window(node, x.shape[2:], w.shape[2:])
    return Window(win.strides, win.pads, win.dilations, node.attr("group", 1))


@binds("ConvInteger", 10)
def conv_integer(node: NodeView, x: Any, w: Any, x_zero: Any = None, w_zero: Any = None) -> Any:
    return q.conv_integer(x, w, x_zero, filters(w_zero, w.ndim), win=_window(node, x, w))


def _factor(a_scale: Any, b_scale: Any, y_scale: Any) -> Any:
    return pw.div(pw.mul(a_scale, b_scale), y_scale)


@binds("QLinearMatMul", 10, 21)
def qlinear_matmul(
    node: NodeView,
    a: Any,
    a_scale: Any,
    a_zero: Any,
    b: Any,
    b_scale: Any,
    b_zero: Any,
    y_scale: Any,
    y_zero: Any,
) -> Any:
    factor = _factor(rows(a_scale), b_scale, rows(y_scale))
    return q.requantize(_products(a, b, a_zero, b_zero), factor, rows(y_zero), dtype=str(y_zero.dtype))


@binds("QLinearConv", 10)
@binds("QLinearConv", 1, domain=MICROSOFT)
def qlinear_conv(
    node: NodeView, x: Any, x_scale: Any, x_zero: Any, w: Any, w_scale: Any, w_zero: Any,
    y_scale: Any, y_zero: Any, bias: Any = None,
) -> Any:  # fmt: skip
    """QLinearConv: the bias counts in x_scale * w_scale; that of com.microsoft may have channels last."""
    last = node.attr("channels_last", 0) if node.domain else 0
    x = first(x) if last else x
    acc = q.conv_integer(x, w, x_zero, filters(w_zero, w.ndim), win=_window(node, x, w))
    if bias is not None:
        acc = pw.add(acc, filters(bias, w.ndim - 1))
    factor = _factor(x_scale, filters(w_scale, w.ndim - 1), y_scale)
    y = q.requantize(acc, factor, y_zero, dtype=str(y_zero.dtype))
    return last_(y) if last else y


def first(x: Any) -> Any:
    """Return (N, *S, C) as (N, C, *S)."""
    return layout.transpose(x, perm=(0, x.ndim - 1, *range(1, x.ndim - 1)))


def last_(x: Any) -> Any:
    """Return (N, C, *S) as (N, *S, C)."""
    return layout.transpose(x, perm=(0, *range(2, x.ndim), 1))


@binds("MatMulIntegerToFloat", 1, domain=MICROSOFT)
def matmul_integer_to_float(
    node: NodeView,
    a: Any,
    b: Any,
    a_scale: Any,
    b_scale: Any,
    a_zero: Any = None,
    b_zero: Any = None,
    bias: Any = None,
) -> Any:
    acc = _products(a, b, a_zero, b_zero)
    y = pw.mul(pw.cast(acc, dtype=str(a_scale.dtype)), pw.mul(rows(a_scale), b_scale))
    return y if bias is None else pw.add(y, bias)


@binds("DynamicQuantizeMatMul", 1, domain=MICROSOFT)
def dynamic_quantize_matmul(node: NodeView, a: Any, b: Any, b_scale: Any, b_zero: Any = None, bias: Any = None) -> Any:
    whole, a_scale, a_zero = q.dynamic_quantize_linear(a)
    return matmul_integer_to_float(node, whole, b, a_scale, b_scale, a_zero, b_zero, bias)


@binds("QGemm", 1, domain=MICROSOFT)
def qgemm(
    node: NodeView, a: Any, a_scale: Any, a_zero: Any, b: Any, b_scale: Any, b_zero: Any,
    c: Any = None, y_scale: Any = None, y_zero: Any = None,
) -> Any:  # fmt: skip
    """QGemm: the product plus c, counted in a_scale * b_scale; floats where no result scale is given."""
    a = layout.transpose(a, perm=(1, 0)) if node.attr("transA", 0) else a
    b = layout.transpose(b, perm=(1, 0)) if node.attr("transB", 0) else b
    acc = q.matmul_integer(a, b, a_zero, b_zero)
    acc = acc if c is None else pw.add(acc, c)
    factor = pw.mul(pw.mul(a_scale, b_scale), node.attr("alpha", 1.0))
    if y_scale is None:
        return pw.mul(pw.cast(acc, dtype=str(a_scale.dtype)), factor)
    return q.requantize(acc, pw.div(factor, y_scale), y_zero, dtype=str(y_zero.dtype))


def _two(op: Any, node: NodeView, *args: Any) -> Any:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (*args, None)[:8]
    y = op(real(a, a_scale, a_zero), real(b, b_scale, b_zero))
    return quantized(y, y_scale, y_zero, a.dtype)


@binds("QLinearAdd", 1, domain=MICROSOFT)
def qlinear_add(node: NodeView, *args: Any) -> Any:
    return _two(pw.add, node, *args)


@binds("QLinearMul", 1, domain=MICROSOFT)
def qlinear_mul(node: NodeView, *args: Any) -> Any:
    return _two(pw.mul, node, *args)


@binds("QLinearWhere", 1, domain=MICROSOFT)
def qlinear_where(node: NodeView, condition: Any, *args: Any) -> Any:
    return _two(functools.partial(pw.where, condition), node, *args)


def _one(op: Any, x: Any, x_scale: Any, x_zero: Any, y_scale: Any, y_zero: Any = None) -> Any:
    return quantized(op(real(x, x_scale, x_zero)), y_scale, y_zero, x.dtype)


@binds("QLinearSigmoid", 1, domain=MICROSOFT)
def qlinear_sigmoid(node: NodeView, *args: Any) -> Any:
    return _one(pw.sigmoid, *args)


@binds("QLinearLeakyRelu", 1, domain=MICROSOFT)
def qlinear_leaky_relu(node: NodeView, *args: Any) -> Any:
    alpha = node.attr("alpha", 0.01)
    return _one(lambda x: pw.leaky_relu(x, alpha), *args)


@binds("QLinearConcat", 1, domain=MICROSOFT)
def qlinear_concat(node: NodeView, y_scale: Any, y_zero: Any, *parts: Any) -> Any:
    reals = [real(*parts[i : i + 3]) for i in range(0, len(parts), 3)]
    axis = node.attr("axis") % reals[0].ndim
    return quantized(layout.concat(*reals, axis=axis), y_scale, y_zero, y_zero.dtype)


@binds("QLinearSoftmax", 1, domain=MICROSOFT)
def qlinear_softmax(node: NodeView, *args: Any) -> Any:
    """QLinearSoftmax: before opset 13 all axes from `axis` on count as one."""
    axis, whole = node.attr("axis", -1), node.attr("opset", 13) < 13

    def softmax(x: Any) -> Any:
        at = axis % x.ndim
        if not whole or at == x.ndim - 1:
            return normalize.softmax(x, axis=at)
        flat = normalize.softmax(layout.reshape(x, shape=(*x.shape[:at], -1)), axis=at)
        return layout.reshape(flat, shape=tuple(x.shape))

    return _one(softmax, *args)


@binds("QLinearReduceMean", 1, domain=MICROSOFT)
def qlinear_reduce_mean(node: NodeView, *args: Any) -> Any:
    axes, keep = node.attr("axes"), bool(node.attr("keepdims", 1))

    def mean(x: Any) -> Any:
        chosen = tuple(a % x.ndim for a in axes) if axes else None
        return reduce.mean(x, axes=chosen, keepdims=keep)

    return _one(mean, *args)


def _channels(node: NodeView, op: Any, *args: Any) -> Any:
    """Return a pool of x, with its channels last where the node says so."""
    if not node.attr("channels_last", 0):
        return _one(op, *args)
    return _one(lambda x: last_(op(first(x))), *args)


@binds("QLinearGlobalAveragePool", 1, domain=MICROSOFT)
def qlinear_global_average_pool(node: NodeView, *args: Any) -> Any:
    return _channels(node, lambda x: reduce.mean(x, axes=tuple(range(2, x.ndim)), keepdims=True), *args)


@binds("QLinearAveragePool", 1, domain=MICROSOFT)
def qlinear_average_pool(node: NodeView, *args: Any) -> Any:
    return _channels(node, lambda x: average_pool(node, x), *args)
