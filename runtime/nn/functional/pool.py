"""Pooling under a window that slides over one, two or three spatial axes. Inputs may lack the batch axis."""

from __future__ import annotations

import math
from typing import Any

from ....ops import pointwise as pw, pool
from ....ops.dims import product
from ....ops.errors import OpError, ShapeError
from ....ops.window import Window
from .spatial import batched, known, window_sizes


def max_pool1d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """Return the largest element under each window along one spatial axis.

    Args:
        input: the signal.
        kernel_size: the size of the window.
        stride: how far the window moves; its size by default.
        padding: how far it reaches over the edges, where nothing is the largest.
        dilation: the distance of the elements under it.
        ceil_mode: whether a last window that reaches beyond the end counts.
        return_indices: whether to return too where the elements are: indices into the flat spatial axes.

    Shapes: (N, C, L) or (C, L) -> (N, C, O) or (C, O).

    Raises:
        ShapeError: if the window does not fit.
    """
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """Return the largest element under each window over two spatial axes; see `max_pool1d`."""
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """Return the largest element under each window over three spatial axes; see `max_pool1d`."""
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool1d_with_indices(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """Return `max_pool1d` and where its elements are."""
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, True)


def max_pool2d_with_indices(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """Return `max_pool2d` and where its elements are."""
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, True)


def max_pool3d_with_indices(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """Return `max_pool3d` and where its elements are."""
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, True)


def avg_pool1d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:  # fmt: skip
    """Return the mean under each window along one spatial axis.

    Args:
        input: the signal.
        kernel_size: the size of the window.
        stride: how far the window moves; its size by default.
        padding: zeros on both sides.
        ceil_mode: whether a last window that reaches beyond the end counts.
        count_include_pad: whether the zeros count as elements.

    Shapes: (N, C, L) or (C, L) -> (N, C, O) or (C, O).

    Raises:
        ShapeError: if the window does not fit.
    """
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Any:  # fmt: skip
    """Return the mean under each window over two spatial axes, or the sum over a divisor; see `avg_pool1d`."""
    return _avg_pool(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Any:  # fmt: skip
    """Return the mean under each window over three spatial axes, or the sum over a divisor; see `avg_pool1d`."""
    return _avg_pool(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def lp_pool1d(input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Any:
    """Return (sum of x^p)^(1/p) under each window along one spatial axis; the largest |x| where p is infinite.

    Shapes: (N, C, L) or (C, L) -> (N, C, O) or (C, O).
    """
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Any:
    """Return (sum of x^p)^(1/p) under each window over two spatial axes; see `lp_pool1d`."""
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Any:
    """Return (sum of x^p)^(1/p) under each window over three spatial axes; see `lp_pool1d`."""
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


def _window(
    n: int, function: str, input: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[tuple[int, ...], Window, tuple[tuple[int, int], ...]]:
    """Return the kernel, the window laid over the input, and the pads that were asked for."""
    if input.ndim not in (n + 1, n + 2):
        if n == 1:
            raise ShapeError(
                f"{function}: Expected 2D or 3D (batch mode) tensor with optional 0 dim batch size for input, but "
                f"got:{list(input.shape)}"
            )
        raise ShapeError(
            f"non-empty {n + 1}D or {n + 2}D (batch mode) tensor expected for input, but got:{list(input.shape)}"
        )
    kernel = window_sizes(kernel_size, n, function, "kernel_size")
    empty = stride is None or (isinstance(stride, tuple | list) and not stride)
    strides = kernel if empty else window_sizes(stride, n, function, "stride")
    pads = window_sizes(padding, n, function, "padding")
    dilations = window_sizes(dilation, n, function, "dilation")
    if known(kernel) and min(kernel) < 1:
        raise OpError(f"{function}() kernel_size must be greater than zero, but got {_shown(kernel)}")
    if known(strides) and min(strides) < 1:
        raise OpError("stride should not be zero")
    if min(dilations) < 1:
        raise OpError(f"dilation should be greater than zero, but got {_shown(dilations)}")
    if min(pads) < 0:
        raise OpError(f"pad must be non-negative, but got pad: {min(pads)}")
    for p, k, d in zip(pads, kernel, dilations, strict=True):
        if p and 2 * p > d * (k - 1) + 1:
            raise ShapeError(
                f"pad should be at most half of effective kernel size, but got pad={p}, kernel_size={k} and "
                f"dilation={d}"
            )
    own = tuple((p, p) for p in pads)
    win, size = Window(strides, own, dilations), tuple(input.shape[-n:])
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    room = [s + 2 * p - r for s, p, r in zip(size, pads, reach, strict=True)]
    if known(room) and min(room) < 0 and not (ceil_mode and _meets(room, strides)):
        out = [max(r // s + 1, 0) for r, s in zip(room, strides, strict=True)]
        raise ShapeError(
            f"Given input size: ({_by(input.shape[-n - 1 :])}). Calculated output size: "
            f"({_by([input.shape[-n - 1], *out])}). Output size is too small"
        )
    return kernel, win.ceiled(size, kernel) if ceil_mode else win, own


def _meets(room: list[int], strides: tuple[int, ...]) -> bool:
    """Whether one window that reaches beyond the end is left along every axis."""
    return all(-(-r // s) + 1 > 0 for r, s in zip(room, strides, strict=True))


def _shown(values: tuple[int, ...]) -> str:
    return str(values[0]) if len(values) == 1 else str(values)


def _by(values: Any) -> str:
    return "x".join(map(str, values))


def _max_pool(
    n: int, input: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool,
    return_indices: bool,
) -> Any:  # fmt: skip
    kernel, win, _ = _window(n, f"max_pool{n}d", input, kernel_size, stride, padding, dilation, ceil_mode)
    if not return_indices:
        return batched(lambda x: pool.max_pool(x, kernel=kernel, win=win), n, input)
    inside = product(input.shape[-n:])

    def both(x: Any) -> tuple[Any, Any]:
        flat = pool.max_pool_indices(x, kernel=kernel, win=win)
        return pool.pool_gather(x, flat), pw.mod(flat, inside)

    return batched(both, n, input)


def _avg_pool(
    n: int, input: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool,
    divisor_override: int | None,
) -> Any:  # fmt: skip
    kernel, win, own = _window(n, f"avg_pool{n}d", input, kernel_size, stride, padding, 1, ceil_mode)
    if divisor_override is not None:
        if divisor_override == 0:
            raise OpError("divisor must be not zero")
        total = batched(lambda x: pool.sum_pool(x, kernel=kernel, win=win), n, input)
        return pw.div(total, float(divisor_override))
    counted = own if count_include_pad else ((0, 0),) * n
    return batched(lambda x: pool.sum_pool(x, kernel=kernel, win=win, counted=counted), n, input)


def _lp_pool(n: int, input: Any, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool) -> Any:
    kernel = window_sizes(kernel_size, n, f"lp_pool{n}d", "kernel_size")
    if math.isinf(norm_type):
        if norm_type > 0:
            return _max_pool(n, pw.abs_(input), kernel, stride, 0, 1, ceil_mode, False)
        return pw.neg(_max_pool(n, pw.neg(pw.abs_(input)), kernel, stride, 0, 1, ceil_mode, False))
    p = float(norm_type)
    powers = input if p == 1 else pw.mul(input, input) if p == 2 else pw.pow_(input, p)
    mean = _avg_pool(n, powers, kernel, stride, 0, ceil_mode, True, None)
    total = pw.mul(mean, float(math.prod(kernel)))
    return total if p == 1 else pw.sqrt(total) if p == 2 else pw.pow_(total, 1 / p)
