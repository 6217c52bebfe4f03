"""Pooling: maxima, sums and means under a window.

`max_pool` picks elements, so its derivatives of every order are `pool_scatter` and `pool_gather` at the same
indices, each the other's adjoint; `max_pool_grad` is the first, without indices. Sums and means are linear: `sum_pool`,
`sum_pool_grad` are a closed family.

Axes: N batch, C channel, K kernel, O output, S input sizes.
Source: ONNX MaxPool-12, AveragePool-19, LpPool-18, MaxUnpool-11.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from .dims import DimLike, Shape, show
from .errors import ShapeError
from .op import op
from .pointwise import abs_, mul, pow_
from .types import TensorType
from .window import Window

Entries: TypeAlias = tuple[Callable[[], Any] | None, ...]
Pads: TypeAlias = tuple[tuple[DimLike, DimLike], ...]


def _shape(name: str, x: TensorType, kernel: Shape, win: Window) -> Shape:
    if not x.ndim - 2 == len(kernel) == len(win.strides):
        raise ShapeError(f"{name}: x has shape {show(x.shape)}, the kernel {len(kernel)} axes {show(kernel)}")
    return (*x.shape[:2], *win.out(x.shape[2:], kernel))


@op()
def max_pool(x: TensorType, *, kernel: Shape, win: Window) -> TensorType:
    """Return the largest element under each window; padding never wins.

    Shapes: (N, C, *S) -> (N, C, *O).

    Raises:
        ShapeError: if the window does not fit the input.
    """
    return TensorType(x.dtype, _shape("max_pool", x, kernel, win))


@op()
def max_pool_grad(g: TensorType, x: TensorType, *, kernel: Shape, win: Window) -> TensorType:
    """Return the gradient of `max_pool` in x: each element of g where its window's maximum is, the first of equals.

    Shapes: (N, C, *O), (N, C, *S) -> (N, C, *S).
    """
    return TensorType(x.dtype, x.shape)


@max_pool.defvjp
def _max_pool_vjp(g: Any, y: Any, x: Any, *, kernel: Shape, win: Window) -> Entries:
    return (lambda: max_pool_grad(g, x, kernel=kernel, win=win),)


@op(dtype="int64")
def max_pool_indices(x: TensorType, *, kernel: Shape, win: Window, column_major: bool = False) -> TensorType:
    """Return where in x the elements of `max_pool` are: indices into the flat x; of equal elements the first.

    Shapes: (N, C, *S) -> (N, C, *O).

    Args:
        x: the input.
        kernel: the sizes of the window.
        win: the window.
        column_major: count the spatial axes with the first one fastest; such indices are for output only.
    """
    return TensorType(np.dtype(np.int64), _shape("max_pool_indices", x, kernel, win))


@max_pool_indices.defvjp
def _max_pool_indices_vjp(g: Any, y: Any, x: Any, **attrs: Any) -> Entries:
    return (None,)


@op()
def pool_scatter(g: TensorType, indices: TensorType, *, size: Shape) -> TensorType:
    """Add each element at its index in a tensor of zeros; indices are into the flat result.

    Shapes: (N, C, *O), (N, C, *O) -> (N, C, *size).
    """
    return TensorType(g.dtype, (*g.shape[:2], *size))


@max_pool_grad.compose
def _max_pool_grad(g: Any, x: Any, *, kernel: Shape, win: Window) -> Any:
    return pool_scatter(g, max_pool_indices(x, kernel=kernel, win=win), size=tuple(x.shape[2:]))


@pool_scatter.defvjp
def _pool_scatter_vjp(u: Any, y: Any, g: Any, indices: Any, *, size: Shape) -> Entries:
    return lambda: pool_gather(u, indices), None


@op()
def pool_gather(x: TensorType, indices: TensorType) -> TensorType:
    """Return the elements of x at these indices into the flat x.

    Shapes: (N, C, *S), (N, C, *O) -> (N, C, *O).
    """
    return TensorType(x.dtype, indices.shape)


@pool_gather.defvjp
def _pool_gather_vjp(g: Any, y: Any, x: Any, indices: Any) -> Entries:
    return lambda: pool_scatter(g, indices, size=tuple(x.shape[2:])), None


@op()
def max_unpool(x: TensorType, indices: TensorType, *, size: Shape) -> TensorType:
    """Put each element at its index in a tensor of zeros; of several at one index the last stays.

    The gradient is read at the indices, as in PyTorch: exact where they are distinct.

    Shapes: (N, C, *O), (N, C, *O) -> (N, C, *size).
    """
    return TensorType(x.dtype, (*x.shape[:2], *size))


@max_unpool.defvjp
def _max_unpool_vjp(g: Any, y: Any, x: Any, indices: Any, *, size: Shape) -> Entries:
    return lambda: pool_gather(g, indices), None


@op()
def sum_pool(x: TensorType, *, kernel: Shape, win: Window, counted: Pads | None = None) -> TensorType:
    """Sum the elements under each window, or with `counted` take their mean.

    Shapes: (N, C, *S) -> (N, C, *O).

    Args:
        x: the input.
        kernel: the sizes of the window.
        win: the window.
        counted: the pads whose zeros count as elements of the mean: none for `count_include_pad=0`, the
            window's own for 1. What `ceil_mode` adds beyond them never counts.

    Raises:
        ShapeError: if the window does not fit the input.
    """
    return TensorType(x.dtype, _shape("sum_pool", x, kernel, win))


@op()
def sum_pool_grad(g: TensorType, *, kernel: Shape, win: Window, size: Shape, counted: Pads | None = None) -> TensorType:
    """Return the adjoint of `sum_pool`.

    Shapes: (N, C, *O) -> (N, C, *size).
    """
    return TensorType(g.dtype, (*g.shape[:2], *size))


@sum_pool.defvjp
def _sum_pool_vjp(g: Any, y: Any, x: Any, **window: Any) -> Entries:
    return (lambda: sum_pool_grad(g, size=tuple(x.shape[2:]), **window),)


@sum_pool_grad.defvjp
def _sum_pool_grad_vjp(u: Any, y: Any, g: Any, *, size: Shape, **window: Any) -> Entries:
    return (lambda: sum_pool(u, **window),)


def lp_pool(x: Any, *, kernel: Shape, win: Window, p: float) -> Any:
    """Return the p-norm of the elements under each window."""
    powers = mul(x, x) if p == 2 else pow_(abs_(x), float(p))
    total = sum_pool(powers, kernel=kernel, win=win)
    return total if p == 1 else pow_(total, 1 / p)
