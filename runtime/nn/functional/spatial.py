"""Convolution and pooling over one, two or three spatial axes. Inputs may lack the batch axis."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ....ops import conv as conv_ops, layout, matmul, pointwise as pw, pool
from ....ops.errors import OpError, ShapeError
from ....ops.window import Window, same_pads


def sizes(value: Any, n: int, name: str) -> tuple[int, ...]:
    """Return one integer an axis.

    Raises:
        ShapeError: if a sequence has another length.
    """
    if isinstance(value, int | np.integer):
        return (int(value),) * n
    given = tuple(int(v) for v in value)
    if len(given) == 1:
        return given * n
    if len(given) != n:
        raise ShapeError(f"{name}: {value} for {n} spatial axes")
    return given


def _batched(f: Callable[..., Any], input: Any, n: int) -> Any:
    """Apply a function of (N, C, *S) to it or to (C, *S)."""
    if input.ndim == n + 2:
        return f(input)
    if input.ndim != n + 1:
        found = list(input.shape)
        raise ShapeError(f"Expected {n + 1}D (unbatched) or {n + 2}D (batched) input, but got input of size: {found}")
    return layout.squeeze(f(layout.unsqueeze(input, axes=(0,))), axes=(0,))


def _biased(y: Any, bias: Any, n: int) -> Any:
    return y if bias is None else pw.add(y, layout.reshape(bias, shape=(-1, *(1,) * n)))


def _conv(
    n: int,
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    strides, dilations = sizes(stride, n, "stride"), sizes(dilation, n, "dilation")
    pads: Any
    if padding == "same":
        if any(s != 1 for s in strides):
            raise OpError("padding='same' is not supported for strided convolutions")
        kernel = tuple(weight.shape[2:])
        pads = same_pads("SAME_UPPER", tuple(input.shape[-n:]), kernel, strides, dilations)
    else:
        pads = tuple((p, p) for p in sizes(0 if padding == "valid" else padding, n, "padding"))
    win = Window(strides, pads, dilations, groups)
    return _batched(lambda x: _biased(conv_ops.conv(x, weight, win=win), bias, n), input, n)


def _conv_transpose(
    n: int, input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Any:  # fmt: skip
    strides, dilations = sizes(stride, n, "stride"), sizes(dilation, n, "dilation")
    pads, more = sizes(padding, n, "padding"), sizes(output_padding, n, "output_padding")
    win = Window(strides, tuple((p, p) for p in pads), dilations, groups)
    size = tuple(
        (o - 1) * s - 2 * p + d * (k - 1) + m + 1
        for o, s, p, d, k, m in zip(input.shape[-n:], strides, pads, dilations, weight.shape[2:], more, strict=True)
    )
    return _batched(lambda x: _biased(conv_ops.conv_input_grad(x, weight, win=win, size=size), bias, n), input, n)


def _window(n: int, input: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Any:
    kernel = sizes(kernel_size, n, "kernel_size")
    strides = kernel if stride is None or stride == () else sizes(stride, n, "stride")
    own = tuple((p, p) for p in sizes(padding, n, "padding"))
    if any(2 * p > k for (p, _), k in zip(own, kernel, strict=True)):
        raise ShapeError(
            f"pad should be at most half of effective kernel size, but got pad={padding}, kernel_size={kernel}"
        )
    win = Window(strides, own, sizes(dilation, n, "dilation"))
    return kernel, win.ceiled(tuple(input.shape[-n:]), kernel) if ceil_mode else win, own


def _max_pool(
    n: int,
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    kernel, win, _ = _window(n, input, kernel_size, stride, padding, dilation, ceil_mode)
    y = _batched(lambda x: pool.max_pool(x, kernel=kernel, win=win), input, n)
    if not return_indices:
        return y
    inside = int(np.prod(input.shape[-n:]))
    flat = _batched(lambda x: pool.max_pool_indices(x, kernel=kernel, win=win), input, n)
    return y, pw.mod(flat, inside)


def _avg_pool(
    n: int, input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Any:  # fmt: skip
    kernel, win, own = _window(n, input, kernel_size, stride, padding, 1, ceil_mode)
    if divisor_override is not None:
        total = _batched(lambda x: pool.sum_pool(x, kernel=kernel, win=win), input, n)
        return pw.mul(total, 1 / divisor_override)
    counted = own if count_include_pad else ((0, 0),) * n
    return _batched(lambda x: pool.sum_pool(x, kernel=kernel, win=win, counted=counted), input, n)


def _adaptive_avg_pool(n: int, input: Any, output_size: Any) -> Any:
    wanted = (output_size,) * n if output_size is None or isinstance(output_size, int) else tuple(output_size)
    found = tuple(input.shape[-n:])
    out = tuple(s if o is None else int(o) for o, s in zip(wanted, found, strict=True))
    if all(s % o == 0 for s, o in zip(found, out, strict=True)):
        return _avg_pool(n, input, tuple(s // o for s, o in zip(found, out, strict=True)))
    y = input
    for axis, (size, count) in enumerate(zip(found, out, strict=True)):
        y = _mean_bins(y, input.ndim - n + axis, size, count)
    return y


def _mean_bins(x: Any, axis: int, size: int, count: int) -> Any:
    """Return the means of `count` overlapping bins of an axis, as a product with a matrix of shares."""
    shares = np.zeros((size, count), x.dtype)
    for i in range(count):
        low, high = i * size // count, -(-(i + 1) * size // count)
        shares[low:high, i] = 1 / (high - low)
    last = x.ndim - 1
    order = list(range(x.ndim))
    order[axis], order[last] = last, axis
    y = matmul.matmul(layout.transpose(x, perm=tuple(order)), shares)
    return layout.transpose(y, perm=tuple(order))


def _ranked(f: Callable[..., Any], n: int, name: str, doc: str) -> Callable[..., Any]:
    made = functools.partial(f, n)
    functools.update_wrapper(made, f)
    made.__name__, made.__qualname__, made.__doc__ = name, name, doc  # type: ignore[attr-defined]
    return made


_CONV = "Correlate over {n} spatial axes: (input, weight, bias, stride, padding, dilation, groups)."
_CONV_T = "The transposed convolution: (input, weight, bias, stride, padding, output_padding, groups, dilation)."
_MAX = "The largest under each window: (input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)."
_AVG = (
    "The mean under each window: (input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)."
)
_ADAPTIVE = "Means over as many bins as asked for: (input, output_size)."

conv1d = _ranked(_conv, 1, "conv1d", _CONV.format(n=1))
conv2d = _ranked(_conv, 2, "conv2d", _CONV.format(n=2))
conv3d = _ranked(_conv, 3, "conv3d", _CONV.format(n=3))
conv_transpose1d = _ranked(_conv_transpose, 1, "conv_transpose1d", _CONV_T)
conv_transpose2d = _ranked(_conv_transpose, 2, "conv_transpose2d", _CONV_T)
conv_transpose3d = _ranked(_conv_transpose, 3, "conv_transpose3d", _CONV_T)
max_pool1d = _ranked(_max_pool, 1, "max_pool1d", _MAX)
max_pool2d = _ranked(_max_pool, 2, "max_pool2d", _MAX)
max_pool3d = _ranked(_max_pool, 3, "max_pool3d", _MAX)
avg_pool1d = _ranked(_avg_pool, 1, "avg_pool1d", _AVG)
avg_pool2d = _ranked(_avg_pool, 2, "avg_pool2d", _AVG)
avg_pool3d = _ranked(_avg_pool, 3, "avg_pool3d", _AVG)
adaptive_avg_pool1d = _ranked(_adaptive_avg_pool, 1, "adaptive_avg_pool1d", _ADAPTIVE)
adaptive_avg_pool2d = _ranked(_adaptive_avg_pool, 2, "adaptive_avg_pool2d", _ADAPTIVE)
adaptive_avg_pool3d = _ranked(_adaptive_avg_pool, 3, "adaptive_avg_pool3d", _ADAPTIVE)
