"""Convolution and its two adjoints.

The three ops are the partial derivatives of one trilinear form  T(x, w, g) = <g, conv(x, w)>,
so each VJP is the other two and every order of differentiation exists. ConvTranspose is `conv_input_grad`.

Axes: N batch, C in, F out, G group, K kernel, O output, S input sizes.
Source: ONNX Conv-11, ConvTranspose-11; Dumoulin & Visin 2016.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from .dims import Shape, show
from .errors import ShapeError
from .layout import pad, slice_
from .op import op
from .types import TensorType
from .window import Window

Entries: TypeAlias = tuple[Callable[[], Any] | None, ...]


@op()
def conv(x: TensorType, w: TensorType, *, win: Window) -> TensorType:
    """Correlate x with w.

    Shapes: (N, C, *S), (F, C/G, *K) -> (N, F, *O).

    Raises:
        ShapeError: if ranks or channels do not fit.
    """
    if x.ndim != w.ndim or x.ndim != len(win.strides) + 2:
        raise ShapeError(f"conv: x has shape {show(x.shape)}, w {show(w.shape)}, the window {len(win.strides)} axes")
    channels = w.shape[1] * win.group
    if isinstance(x.shape[1], int) and isinstance(channels, int) and x.shape[1] != channels:
        raise ShapeError(f"conv: x has {x.shape[1]} channels, w wants {channels} (group={win.group})")
    if isinstance(w.shape[0], int) and w.shape[0] % win.group:
        raise ShapeError(f"conv: {w.shape[0]} filters do not split into {win.group} groups")
    return TensorType(x.dtype, (x.shape[0], w.shape[0], *win.out(x.shape[2:], w.shape[2:])))


@op()
def conv_input_grad(g: TensorType, w: TensorType, *, win: Window, size: Shape) -> TensorType:
    """Return the adjoint of `conv` in x: the transposed convolution.

    Shapes: (N, F, *O), (F, C/G, *K) -> (N, C, *size).

    Raises:
        ShapeError: if channels do not fit.
    """
    if isinstance(g.shape[1], int) and isinstance(w.shape[0], int) and g.shape[1] != w.shape[0]:
        raise ShapeError(f"conv_input_grad: g has {g.shape[1]} channels, w wants {w.shape[0]}")
    if isinstance(w.shape[0], int) and w.shape[0] % win.group:
        raise ShapeError(f"conv_input_grad: {w.shape[0]} channels do not split into {win.group} groups")
    return TensorType(g.dtype, (g.shape[0], w.shape[1] * win.group, *size))


@op()
def conv_weight_grad(g: TensorType, x: TensorType, *, win: Window, kernel: Shape) -> TensorType:
    """Return the adjoint of `conv` in w.

    Shapes: (N, F, *O), (N, C, *S) -> (F, C/G, *kernel).
    """
    return TensorType(g.dtype, (g.shape[1], x.shape[1] // win.group, *kernel))


@conv.defvjp
def _conv_vjp(g: Any, y: Any, x: Any, w: Any, *, win: Window) -> Entries:
    return (
        lambda: conv_input_grad(g, w, win=win, size=tuple(x.shape[2:])),
        lambda: conv_weight_grad(g, x, win=win, kernel=tuple(w.shape[2:])),
    )


@conv_input_grad.defvjp
def _conv_input_grad_vjp(u: Any, y: Any, g: Any, w: Any, *, win: Window, size: Shape) -> Entries:
    # <u, conv_input_grad(g, w)> == <g, conv(u, w)>
    kernel, own = tuple(w.shape[2:]), tuple(g.shape[2:])
    out = win.out(size, kernel)
    if any(isinstance(a, int) and isinstance(b, int) and a > b for a, b in zip(out, own, strict=True)):
        # An output padding of a stride or more leaves room for windows that g has not.
        axes = tuple(range(2, len(g.shape)))
        ones, zeros = (1,) * len(axes), (0,) * len(axes)
        more = tuple((0, a - b) for a, b in zip(out, own, strict=True))
        return (
            lambda: slice_(conv(u, w, win=win), starts=zeros, stops=own, steps=ones, axes=axes),
            lambda: conv_weight_grad(pad(g, pads=more, axes=axes), u, win=win, kernel=kernel),
        )
    return lambda: conv(u, w, win=win), lambda: conv_weight_grad(g, u, win=win, kernel=kernel)


@conv_weight_grad.defvjp
def _conv_weight_grad_vjp(v: Any, y: Any, g: Any, x: Any, *, win: Window, kernel: Shape) -> Entries:
    # <v, conv_weight_grad(g, x)> == <g, conv(x, v)>
    return lambda: conv(x, v, win=win), lambda: conv_input_grad(g, v, win=win, size=tuple(x.shape[2:]))
