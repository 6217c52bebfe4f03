"""Bindings: convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ....ops import conv as conv_ops, layout, pointwise as pw
from ....ops.dims import DimLike, Shape, at_least, show
from ....ops.errors import ShapeError
from ....ops.window import Window, same_pads
from ....runtime.graph.contents import dims_of
from ..node import NodeView
from ..registry import binds


def window(node: NodeView, size: Shape, kernel: Shape, *, dilated: bool = True) -> Window:
    """Return the window of a node's strides, pads or auto_pad, dilations; `auto_pad` ends here."""
    rank = len(kernel)
    check_kernel(node, kernel)
    strides = tuple(node.attr("strides", [1] * rank))
    dilations = tuple(node.attr("dilations", [1] * rank)) if dilated else (1,) * rank
    pads = node.attr("pads", [0] * 2 * rank)
    mode = node.one_of("auto_pad", "NOTSET", ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"))
    pairs = tuple(zip(pads[:rank], pads[rank:], strict=True))
    if mode != "NOTSET":
        pairs = same_pads(mode, size, kernel, strides, dilations)
    return Window(strides, pairs, dilations)


def check_kernel(node: NodeView, kernel: Shape) -> None:
    """Check that `kernel_shape`, where it is given, is the weight's.

    Raises:
        ShapeError: if it is not.
    """
    given = node.attr("kernel_shape")
    fits = given is None or len(given) == len(kernel)
    if not fits or any(isinstance(k, int) and k != g for g, k in zip(given or (), kernel, strict=False)):
        raise ShapeError(f"kernel_shape is {given}, the weight's is {show(kernel)}")


def add_channel_bias(y: Any, bias: Any) -> Any:
    """Add a bias of shape (C,) along axis 1 of (N, C, *S)."""
    return y if bias is None else pw.add(y, layout.reshape(bias, shape=(-1, *(1,) * (y.ndim - 2))))


@binds("Conv", 1, 11, 22)
def conv(node: NodeView, x: Any, w: Any, bias: Any = None) -> Any:
    """Conv: `auto_pad`, groups, dilations, an optional bias."""
    win = window(node, x.shape[2:], w.shape[2:])
    win = Window(win.strides, win.pads, win.dilations, node.attr("group", 1))
    return add_channel_bias(conv_ops.conv(x, w, win=win), bias)


def activated(node: NodeView, y: Any, params: list[float]) -> Any:
    """Return y under a fused node's `activation`, with the parameters that it takes."""
    name = node.one_of(
        "activation", "", ("", "Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid", "HardSwish")
    )
    match name:
        case "":
            return y
        case "LeakyRelu":
            return pw.leaky_relu(y, *(params or [0.01]))
        case "Clip":
            return pw.clip(y, *params)
        case "HardSigmoid":
            return pw.hard_sigmoid(y, *(params or [0.2, 0.5]))
        case "HardSwish":
            return pw.mul(y, pw.hard_sigmoid(y, 1 / 6, 0.5))
    return {"Relu": pw.relu, "Sigmoid": pw.sigmoid, "Tanh": pw.tanh}[name](y)


@binds("FusedConv", 1, domain="com.microsoft")
def fused_conv(node: NodeView, x: Any, w: Any, bias: Any = None, residual: Any = None) -> Any:
    """FusedConv: a Conv, a residual added to it, then an activation."""
    y = conv(node, x, w, bias)
    return activated(node, y if residual is None else pw.add(y, residual), node.attr("activation_params", []))


@binds("NhwcFusedConv", 1, domain="com.microsoft")
def nhwc_fused_conv(node: NodeView, x: Any, w: Any, bias: Any = None, residual: Any = None) -> Any:
    """NhwcFusedConv: as FusedConv, with the channels last in the input, the residual and the output."""
    rank = x.ndim - 2
    first, last = (0, rank + 1, *range(1, rank + 1)), (0, *range(2, rank + 2), 1)
    x, residual = (v if v is None else layout.transpose(v, perm=first) for v in (x, residual))
    return layout.transpose(fused_conv(node, x, w, bias, residual), perm=last)


@binds("ConvTransposeWithDynamicPads", 1, domain="com.microsoft")
def conv_transpose_with_dynamic_pads(node: NodeView, x: Any, w: Any, pads: Any = None, bias: Any = None) -> Any:
    """ConvTransposeWithDynamicPads: as ConvTranspose, with the pads as an input."""
    return _transposed(node, x, w, bias, None if pads is None else dims_of(pads))


@binds("ConvTranspose", 1, 11, 22)
def conv_transpose(node: NodeView, x: Any, w: Any, bias: Any = None) -> Any:
    """ConvTranspose: `output_padding`, `output_shape` (which sets the pads), `auto_pad`, groups."""
    return _transposed(node, x, w, bias, node.attr("pads"))


def _transposed(node: NodeView, x: Any, w: Any, bias: Any, pads: Sequence[DimLike] | None) -> Any:
    kernel, size = w.shape[2:], x.shape[2:]
    check_kernel(node, kernel)
    rank = len(kernel)
    strides, dilations = node.attr("strides", [1] * rank), node.attr("dilations", [1] * rank)
    extra = node.attr("output_padding", [0] * rank)
    pads = [0] * 2 * rank if pads is None else pads
    wanted = node.attr("output_shape")
    mode = node.one_of("auto_pad", "NOTSET", ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"))
    reach = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(size, strides, dilations, kernel, strict=True)]
    if wanted is None and mode.startswith("SAME"):
        wanted = [n * s for n, s in zip(size, strides, strict=True)]
    pairs: list[tuple[DimLike, DimLike]] = []
    for axis, (r, e) in enumerate(zip(reach, extra, strict=True)):
        if wanted is not None:
            total = at_least(r + e - wanted[axis - rank], 0)
            low = total // 2 if mode == "SAME_UPPER" else total - total // 2
            pairs.append((low, r - wanted[axis - rank] - low))
        else:
            low, high = (pads[axis], pads[axis + rank]) if mode == "NOTSET" else (0, 0)
            pairs.append((low, high - e))
    out = tuple(r - low - high for r, (low, high) in zip(reach, pairs, strict=True))
    win = Window(tuple(strides), tuple(pairs), tuple(dilations), node.attr("group", 1))
    return add_channel_bias(conv_ops.conv_input_grad(x, w, win=win, size=out), bias)
