"""Reductions over axes.

Each takes `axes` (a tuple; None is all of them, `()` none) and `keepdims`.

Source: ONNX ReduceSum-13, ReduceMean-18, ReduceMax-20, ReduceProd-18, ReduceLogSumExp-18, ReduceL2-18.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from . import layout, pointwise as pw
from .broadcast import broadcast_to, sum_to
from .cumulative import cumprod
from .dims import DimLike, Shape, product
from .errors import DTypeError, ShapeError
from .op import op
from .types import TensorType, is_float

Entries: TypeAlias = tuple[Callable[[], Any] | None, ...]
Axes: TypeAlias = tuple[int, ...] | None

__all__ = [
    "Axes", "broadcast_to", "divided", "elements", "kept", "l2_norm", "logsumexp", "max_", "mean", "min_",
    "positive", "prod", "spread", "sum_", "sum_to",
]  # fmt: skip


@op()
def divided(x: TensorType, *, count: DimLike) -> TensorType:
    """Return x / count, where the count is a number of elements that may be known only at run time.

    Shapes: any, unchanged.
    """
    return TensorType(x.dtype, x.known_shape)


@divided.defvjp
def _divided_vjp(g: Any, y: Any, x: Any, *, count: DimLike) -> Entries:
    return (lambda: divided(g, count=count),)


def positive(axes: Axes, ndim: int, name: str = "reduction") -> tuple[int, ...]:
    """Return the axes in order, counted from the front, all of them where they are None.

    Raises:
        ShapeError: if one is out of range or named twice.
    """
    if axes is None:
        return tuple(range(ndim))
    if any(not -ndim <= a < ndim for a in axes):
        raise ShapeError(f"{name}: axes {axes} are out of range for rank {ndim}")
    found = tuple(sorted(a % ndim for a in axes))
    if len(set(found)) != len(found):
        raise ShapeError(f"{name}: axes {axes} name one twice")
    return found


def kept(shape: Shape, axes: Axes) -> Shape:
    """Return the shape with the reduced axes of size 1."""
    reduced = positive(axes, len(shape))
    return tuple(1 if i in reduced else d for i, d in enumerate(shape))


def elements(shape: Shape, axes: Axes) -> DimLike:
    """Return how many elements a reduction over the axes takes together."""
    return product(shape[i] for i in positive(axes, len(shape)))


def spread(g: Any, shape: Shape, axes: Axes, keepdims: bool) -> Any:
    """Broadcast the result of a reduction back over the shape that was reduced."""
    if not keepdims:
        g = layout.reshape(g, shape=kept(shape, axes))
    return broadcast_to(g, shape=shape)


def _reduced(name: str, x: TensorType, axes: Axes, keepdims: bool) -> TensorType:
    reduced = positive(axes, x.ndim, name)
    shape = kept(x.shape, axes) if keepdims else tuple(d for i, d in enumerate(x.shape) if i not in reduced)
    return TensorType(x.dtype, shape)


@op(symbolic=True)
def sum_(x: TensorType, *, axes: Axes = None, keepdims: bool = False) -> TensorType:
    """Sum over the axes; 0 where there is nothing to sum.

    Shapes: any -> without the axes, or with size 1 there.

    Raises:
        ShapeError: if an axis is out of range or named twice.
    """
    return _reduced("sum", x, axes, keepdims)


@sum_.defvjp
def _sum_vjp(g: Any, y: Any, x: Any, *, axes: Axes = None, keepdims: bool = False) -> Entries:
    return (lambda: spread(g, tuple(x.shape), axes, keepdims),)


@op()
def mean(x: TensorType, *, axes: Axes = None, keepdims: bool = False) -> TensorType:
    """Average over the axes; of integers, rounded towards zero.

    Shapes: any -> without the axes, or with size 1 there.
    """
    return _reduced("mean", x, axes, keepdims)


@mean.defvjp
def _mean_vjp(g: Any, y: Any, x: Any, *, axes: Axes = None, keepdims: bool = False) -> Entries:
    shape = tuple(x.shape)
    return (lambda: spread(divided(g, count=elements(shape, axes)), shape, axes, keepdims),)


@op(symbolic=True)
def max_(x: TensorType, *, axes: Axes = None, keepdims: bool = False) -> TensorType:
    """Return the largest over the axes; equal ones share the gradient evenly.

    Of nothing it is minus infinity, or the least value of the element type.

    Shapes: any -> without the axes, or with size 1 there.
    """
    return _reduced("max", x, axes, keepdims)


@op(symbolic=True)
def min_(x: TensorType, *, axes: Axes = None, keepdims: bool = False) -> TensorType:
    """Return the smallest over the axes; equal ones share the gradient evenly.

    Of nothing it is infinity, or the greatest value of the element type.

    Shapes: any -> without the axes, or with size 1 there.
    """
    return _reduced("min", x, axes, keepdims)


def _extreme_vjp(g: Any, y: Any, x: Any, *, axes: Axes = None, keepdims: bool = False) -> Entries:
    shape = tuple(x.shape)

    def share() -> Any:
        hit = pw.cast(pw.equal(x, spread(y, shape, axes, keepdims)), dtype=str(g.dtype))
        each = pw.div(g, sum_(hit, axes=axes, keepdims=keepdims))
        return pw.mul(hit, spread(each, shape, axes, keepdims))

    return (share,)


max_.defvjp(_extreme_vjp)
min_.defvjp(_extreme_vjp)


@op(symbolic=True)
def prod(x: TensorType, *, axes: Axes = None, keepdims: bool = False) -> TensorType:
    """Multiply over the axes; 1 where there is nothing to multiply.

    Shapes: any -> without the axes, or with size 1 there.
    """
    return _reduced("prod", x, axes, keepdims)


@prod.defvjp
def _prod_vjp(g: Any, y: Any, x: Any, *, axes: Axes = None, keepdims: bool = False) -> Entries:
    def others() -> Any:
        # Each element's gradient is the product of all others: of those before it and those after it.
        shape = tuple(x.shape)
        reduced = positive(axes, len(shape))
        perm = (*(i for i in range(len(shape)) if i not in reduced), *reduced)
        back = tuple(perm.index(i) for i in range(len(shape)))
        moved = tuple(shape[i] for i in perm)
        rest = len(shape) - len(reduced)
        row = layout.reshape(layout.transpose(x, perm=perm), shape=(*moved[:rest], product(shape[i] for i in reduced)))
        before = cumprod(row, axis=rest, exclusive=True, reverse=False)
        after = cumprod(row, axis=rest, exclusive=True, reverse=True)
        both = layout.transpose(layout.reshape(pw.mul(before, after), shape=moved), perm=back)
        return pw.mul(spread(g, shape, axes, keepdims), both)

    return (others,)


@op()
def logsumexp(x: TensorType, *, axes: Axes = None, keepdims: bool = False) -> TensorType:
    """Return the logarithm of the sum of e^x over the axes, without overflow.

    Shapes: any -> without the axes, or with size 1 there.
    """
    _floats("logsumexp", x)
    return _reduced("logsumexp", x, axes, keepdims)


@logsumexp.defvjp
def _logsumexp_vjp(g: Any, y: Any, x: Any, *, axes: Axes = None, keepdims: bool = False) -> Entries:
    shape = tuple(x.shape)

    def weights() -> Any:
        part = pw.exp(pw.sub(x, spread(y, shape, axes, keepdims)))
        return pw.mul(spread(g, shape, axes, keepdims), part)

    return (weights,)


@op()
def l2_norm(x: TensorType, *, axes: Axes = None, keepdims: bool = False) -> TensorType:
    """Return the square root of the sum of squares over the axes; its gradient at 0 is 0.

    Shapes: any -> without the axes, or with size 1 there.
    """
    _floats("l2_norm", x)
    return _reduced("l2_norm", x, axes, keepdims)


@l2_norm.defvjp
def _l2_norm_vjp(g: Any, y: Any, x: Any, *, axes: Axes = None, keepdims: bool = False) -> Entries:
    def direction() -> Any:
        zero = pw.equal(y, 0.0)
        scale = pw.where(zero, 0.0, pw.div(g, pw.where(zero, 1.0, y)))
        return pw.mul(x, spread(scale, tuple(x.shape), axes, keepdims))

    return (direction,)


def _floats(name: str, x: TensorType) -> None:
    if not is_float(x.dtype):
        raise DTypeError(f"{name}: wants floats, found {x.dtype}")
