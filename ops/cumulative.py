"""Running sums and products along one axis, and the linear recurrence behind them.

`shift` is its own adjoint with the sign turned, and `linear_scan` in `b` with the direction turned. From
these come gradients of running products that are exact at every order, where factors are zero too.

Source: ONNX CumSum-14, CumProd-26; Blelloch 1990.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

from . import pointwise as pw
from .dims import show
from .errors import ShapeError
from .extent import axis_of
from .op import op
from .types import TensorType

Entries: TypeAlias = tuple[Callable[[], Any] | None, ...]


@op()
def cumsum(x: TensorType, *, axis: int, exclusive: bool = False, reverse: bool = False) -> TensorType:
    """Return the running sum along the axis.

    `exclusive` leaves each element itself out, `reverse` starts at the end.

    Shapes: any, unchanged.
    """
    axis_of(axis, x.ndim, "cumsum")
    return TensorType(x.dtype, x.shape)


@cumsum.defvjp
def _cumsum_vjp(g: Any, y: Any, x: Any, *, axis: int, exclusive: bool = False, reverse: bool = False) -> Entries:
    return (lambda: cumsum(g, axis=axis, exclusive=exclusive, reverse=not reverse),)


@op()
def cumprod(x: TensorType, *, axis: int, exclusive: bool = False, reverse: bool = False) -> TensorType:
    """Return the running product along the axis; `exclusive` leaves each element itself out.

    Shapes: any, unchanged.
    """
    axis_of(axis, x.ndim, "cumprod")
    return TensorType(x.dtype, x.shape)


@cumprod.defvjp
def _cumprod_vjp(g: Any, y: Any, x: Any, *, axis: int, exclusive: bool = False, reverse: bool = False) -> Entries:
    def gradient() -> Any:
        # dx_j = (product before j) s_j, where s_j = g_j + x_{j+1} s_{j+1} runs against the product.
        step = 1 if reverse else -1
        inclusive = shift(g, axis=axis, by=step) if exclusive else g
        s = linear_scan(shift(x, axis=axis, by=step), inclusive, axis=axis, reverse=not reverse)
        return pw.mul(cumprod(x, axis=axis, exclusive=True, reverse=reverse), s)

    return (gradient,)


@op()
def shift(x: TensorType, *, axis: int, by: int) -> TensorType:
    """Move the elements along the axis by so many places, towards the end where positive; zeros come in.

    Shapes: any, unchanged.
    """
    axis_of(axis, x.ndim, "shift")
    return TensorType(x.dtype, x.shape)


@shift.defvjp
def _shift_vjp(g: Any, y: Any, x: Any, *, axis: int, by: int) -> Entries:
    return (lambda: shift(g, axis=axis, by=-by),)


@op()
def linear_scan(a: TensorType, b: TensorType, *, axis: int, reverse: bool = False) -> TensorType:
    """Return y with y_t = a_t y_{t-1} + b_t along the axis, from y_{-1} = 0; `reverse` runs from the end.

    Shapes: any, the same for both -> that.

    Raises:
        ShapeError: if the shapes differ.
    """
    axis_of(axis, a.ndim, "linear_scan")
    if a.ndim != b.ndim or any(m != n for m, n in zip(a.shape, b.shape, strict=True) if type(m) is type(n) is int):
        raise ShapeError(f"linear_scan: wants two arrays of one shape, found {show(a.shape)} and {show(b.shape)}")
    return TensorType(b.dtype, b.shape)


@linear_scan.defvjp
def _linear_scan_vjp(g: Any, y: Any, a: Any, b: Any, *, axis: int, reverse: bool = False) -> Entries:
    step = -1 if reverse else 1

    @functools.cache
    def adjoint() -> Any:
        return linear_scan(shift(a, axis=axis, by=-step), g, axis=axis, reverse=not reverse)

    return lambda: pw.mul(adjoint(), shift(y, axis=axis, by=step)), adjoint


@op()
def logcumsumexp(x: TensorType, *, axis: int) -> TensorType:
    """Return the logarithm of the running sum of e^x along the axis, without overflow.

    Shapes: any, unchanged.
    """
    axis_of(axis, x.ndim, "logcumsumexp")
    return TensorType(x.dtype, x.shape)


@logcumsumexp.defvjp
def _logcumsumexp_vjp(g: Any, y: Any, x: Any, *, axis: int) -> Entries:
    def gradient() -> Any:
        # dx_j = e^(x_j - y_j) s_j, where s_j = g_j + e^(y_j - y_{j+1}) s_{j+1}: no exponent is above 0.
        # What is shifted into the first place could be larger; it is shifted out again, and must not become infinite.
        step = pw.exp(pw.clip(pw.sub(shift(y, axis=axis, by=1), y), -float("inf"), 0.0))
        s = linear_scan(shift(step, axis=axis, by=-1), g, axis=axis, reverse=True)
        return pw.mul(pw.exp(pw.sub(x, y)), s)

    return (gradient,)
