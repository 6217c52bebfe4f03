"""Ops that read and write at computed places.

Adjoints: gather and `gather_grad`; `gather_elements` and `gather_nd` with the adding scatter of the same
indices. The gradient of a scatter that overwrites supposes that no index repeats, as ONNX demands. Negative
indices count from the end.

Source: ONNX Gather-13, GatherElements-13, GatherND-13, ScatterElements-18, ScatterND-18, NonZero-13,
Unique-28, OneHot-28, TensorScatter-24.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from .create import full_like
from .dims import Dim, DimLike, show
from .errors import DTypeError, OpError, ShapeError
from .extent import axis_of
from .layout import reshape, swap
from .op import op
from .pointwise import cast, div, equal, mul, where
from .types import TensorType, is_integer

Entries: TypeAlias = tuple[Callable[[], Any] | None, ...]

REDUCTIONS = ("none", "add", "mul", "max", "min")


def _integers(indices: TensorType, name: str) -> None:
    if not is_integer(indices.dtype):
        raise DTypeError(f"{name}: indices are {indices.dtype}, wanted integers")


@op(symbolic=True)
def gather(x: TensorType, indices: TensorType, *, axis: int = 0) -> TensorType:
    """Take entries along an axis, an index of any shape in place of the axis.

    Shapes: (*A, n, *B), (*I) -> (*A, *I, *B).

    Raises:
        OpError: at run time, if an index is outside the axis.
    """
    _integers(indices, "gather")
    at = axis_of(axis, x.ndim, "gather")
    return TensorType(x.dtype, (*x.shape[:at], *indices.shape, *x.shape[at + 1 :]))


@op()
def gather_grad(g: TensorType, indices: TensorType, *, axis: int, size: DimLike) -> TensorType:
    """Return the adjoint of `gather` in x: entries of g added up where they were taken from.

    Shapes: (*A, *I, *B), (*I) -> (*A, size, *B).
    """
    at = axis_of(axis, g.ndim - indices.ndim + 1, "gather_grad")
    return TensorType(g.dtype, (*g.shape[:at], size, *g.shape[at + indices.ndim :]))


@gather.defvjp
def _gather_vjp(g: Any, y: Any, x: Any, indices: Any, *, axis: int = 0) -> Entries:
    return lambda: gather_grad(g, indices, axis=axis, size=x.shape[axis]), None


@gather_grad.defvjp
def _gather_grad_vjp(u: Any, y: Any, g: Any, indices: Any, *, axis: int, size: DimLike) -> Entries:
    return lambda: gather(u, indices, axis=axis), None


@op(symbolic=True)
def gather_elements(x: TensorType, indices: TensorType, *, axis: int = 0) -> TensorType:
    """Take one entry of x an index: the index replaces the place along the axis."""
    _integers(indices, "gather_elements")
    return TensorType(x.dtype, indices.known_shape)


@gather_elements.defvjp
def _gather_elements_vjp(g: Any, y: Any, x: Any, indices: Any, *, axis: int = 0) -> Entries:
    def for_x() -> Any:
        zeros = full_like(g, shape=tuple(x.shape), value=0)
        return scatter_elements(zeros, indices, g, axis=axis, reduction="add")

    return for_x, None


@op(symbolic=True)
def gather_nd(x: TensorType, indices: TensorType, *, batch_dims: int = 0) -> TensorType:
    """Take slices of x at index tuples, which lie along the last axis of `indices`.

    Shapes: (*B, *K, *S), (*B, *I, k) -> (*B, *I, *S), where K are k axes.
    """
    _integers(indices, "gather_nd")
    k = indices.shape[-1]
    if not isinstance(k, int):
        return TensorType(x.dtype, None)
    if batch_dims + k > x.ndim:
        raise ShapeError(f"gather_nd: tuples of {k} after {batch_dims} batch axes do not index {show(x.shape)}")
    return TensorType(x.dtype, (*indices.shape[:-1], *x.shape[batch_dims + k :]))


@gather_nd.defvjp
def _gather_nd_vjp(g: Any, y: Any, x: Any, indices: Any, *, batch_dims: int = 0) -> Entries:
    def for_x() -> Any:
        zeros = full_like(g, shape=tuple(x.shape), value=0)
        return scatter_nd(zeros, indices, g, reduction="add", batch_dims=batch_dims)

    return for_x, None


@op(symbolic=True)
def scatter_elements(
    x: TensorType, indices: TensorType, updates: TensorType, *, axis: int = 0, reduction: str = "none"
) -> TensorType:
    """Write updates into a copy of x, the index replacing the place along the axis.

    Reductions: `none` overwrites; `add`, `mul`, `max` and `min` combine with what is there.
    """
    _integers(indices, "scatter_elements")
    _reduces(reduction, "scatter_elements")
    return TensorType(x.dtype, x.known_shape)


@op(symbolic=True)
def scatter_nd(
    x: TensorType, indices: TensorType, updates: TensorType, *, reduction: str = "none", batch_dims: int = 0
) -> TensorType:
    """Write slices into a copy of x at index tuples, which lie along the last axis of `indices`.

    Shapes: (*B, *K, *S), (*B, *I, k), (*B, *I, *S) -> (*B, *K, *S), where K are k axes.

    Reductions as `scatter_elements`.
    """
    _integers(indices, "scatter_nd")
    _reduces(reduction, "scatter_nd")
    return TensorType(x.dtype, x.known_shape)


def _reduces(reduction: str, name: str) -> None:
    if reduction not in REDUCTIONS:
        raise OpError(f"{name}: reduction {reduction!r}, wanted one of {REDUCTIONS}")


@scatter_elements.defvjp
def _scatter_elements_vjp(
    g: Any, y: Any, x: Any, indices: Any, updates: Any, *, axis: int = 0, reduction: str = "none"
) -> Entries:
    return _scatter_vjp(
        g, y, x, updates, reduction,
        lambda v: gather_elements(v, indices, axis=axis),
        lambda v, w, r: scatter_elements(v, indices, w, axis=axis, reduction=r),
    )  # fmt: skip


@scatter_nd.defvjp
def _scatter_nd_vjp(
    g: Any, y: Any, x: Any, indices: Any, updates: Any, *, reduction: str = "none", batch_dims: int = 0
) -> Entries:
    return _scatter_vjp(
        g, y, x, updates, reduction,
        lambda v: gather_nd(v, indices, batch_dims=batch_dims),
        lambda v, w, r: scatter_nd(v, indices, w, reduction=r, batch_dims=batch_dims),
    )  # fmt: skip


def _scatter_vjp(
    g: Any, y: Any, x: Any, updates: Any, reduction: str, take: Callable[..., Any], put: Callable[..., Any]
) -> Entries:
    """Return the gradient of a scatter, given the gather and the scatter at its indices."""
    if reduction == "none":

        def untouched() -> Any:
            return put(g, full_like(g, shape=tuple(updates.shape), value=0), "none")

        return untouched, None, lambda: take(g)
    if reduction == "add":
        return lambda: g, None, lambda: take(g)
    dtype = str(x.dtype)
    if reduction == "mul":

        def for_update() -> Any:
            # The product of the others: y / update, or y without its only zero.
            zero = equal(updates, 0)
            safe = where(zero, full_like(updates, shape=tuple(updates.shape), value=1), updates)
            zeros = put(full_like(x, shape=tuple(x.shape), value=0), cast(zero, dtype=dtype), "add")
            alone = cast(equal(take(zeros), 1), dtype=dtype)
            others = where(zero, mul(alone, take(put(x, safe, "mul"))), div(take(y), safe))
            return mul(take(g), others)

        def for_x() -> Any:
            return mul(g, put(full_like(x, shape=tuple(x.shape), value=1), updates, "mul"))

        return for_x, None, for_update

    def shares() -> tuple[Any, Any, Any]:
        of_x, of_updates = cast(equal(y, x), dtype=dtype), cast(equal(take(y), updates), dtype=dtype)
        return div(g, put(of_x, of_updates, "add")), of_x, of_updates

    def winner_x() -> Any:
        share, of_x, _ = shares()
        return where(cast(of_x, dtype="bool"), share, full_like(g, shape=tuple(x.shape), value=0))

    def winner_updates() -> Any:
        share, _, of_updates = shares()
        return mul(take(share), of_updates)

    return winner_x, None, winner_updates


@op()
def tensor_scatter(
    x: TensorType, updates: TensorType, at: TensorType | None = None, *, axis: int, mode: str = "linear"
) -> TensorType:
    """Write updates into a copy of a cache, in batch entry b from place `at[b]` of the axis on (or 0).

    Modes: `linear` has to fit, `circular` goes round.
    Source: ONNX TensorScatter-24.
    """
    return TensorType(x.dtype, x.known_shape)


@op()
def tensor_window(
    x: TensorType, at: TensorType | None = None, *, axis: int, size: DimLike, mode: str = "linear"
) -> TensorType:
    """Return the part of a cache that `tensor_scatter` writes: `size` places along the axis."""
    return TensorType(x.dtype, swap(x.shape, axis_of(axis, x.ndim, "tensor_window"), size))


@tensor_scatter.defvjp
def _tensor_scatter_vjp(
    g: Any, y: Any, x: Any, updates: Any, at: Any = None, *, axis: int, mode: str = "linear"
) -> Entries:
    return (
        lambda: tensor_scatter(g, full_like(g, shape=tuple(updates.shape), value=0), at, axis=axis, mode=mode),
        lambda: tensor_window(g, at, axis=axis, size=updates.shape[axis], mode=mode),
        None,
    )


@tensor_window.defvjp
def _tensor_window_vjp(
    g: Any, y: Any, x: Any, at: Any = None, *, axis: int, size: DimLike, mode: str = "linear"
) -> Entries:
    return (
        lambda: tensor_scatter(full_like(g, shape=tuple(x.shape), value=0), g, at, axis=axis, mode=mode),
        None,
    )


@op()
def copy_slices(x: TensorType, part: TensorType, positions: TensorType) -> TensorType:
    """Put a part into a copy of x: element `positions[i]` of x, counted in row-major order, becomes `part[i]`.

    What an in-place change of a part of x is, as a function. Where positions repeat, one of their elements stays; all
    of them get its gradient, as PyTorch's `index_put_` has it.

    Shapes: (*A), (*I), (*I) -> (*A).
    """
    _integers(positions, "copy_slices")
    return TensorType(x.dtype, x.known_shape)


@copy_slices.defvjp
def _copy_slices_vjp(g: Any, y: Any, x: Any, part: Any, positions: Any) -> Entries:
    return (
        lambda: copy_slices(g, full_like(g, shape=tuple(part.shape), value=0), positions),
        lambda: gather(reshape(g, shape=(-1,)), positions, axis=0),
        None,
    )


@op()
def nonzero(x: TensorType) -> TensorType:
    """Return the places of the elements that are not 0, one a column, row-major.

    Shapes: rank r -> (r, how many), known only at run time.
    """
    return TensorType(np.dtype(np.int64), (max(x.ndim, 1), Dim.fresh()))


@op()
def one_hot(indices: TensorType, *, depth: DimLike, axis: int = -1, dtype: str = "bool") -> TensorType:
    """Return 1 at each index along a new axis of size `depth`, 0 elsewhere, also for an index outside it."""
    at = axis_of(axis, indices.ndim + 1, "one_hot")
    return TensorType(np.dtype(dtype), (*indices.shape[:at], depth, *indices.shape[at:]))


@op()
def unique(x: TensorType, *, axis: int | None = None, ordered: bool = True) -> tuple[TensorType, ...]:
    """Return the distinct elements, the first place of each, which one each element is, and their counts.

    With an axis: the distinct slices along it.
    `ordered` sorts them; else they come in the order of their first place.
    """
    int64, n = np.dtype(np.int64), Dim.fresh()
    if axis is None:
        found, total = TensorType(x.dtype, (n,)), x.size
    else:
        at = axis_of(axis, x.ndim, "unique")
        found, total = TensorType(x.dtype, swap(x.shape, at, n)), x.shape[at]
    return found, TensorType(int64, (n,)), TensorType(int64, (total,)), TensorType(int64, (n,))


@unique.defvjp
def _unique_vjp(g: Any, y: Any, x: Any, *, axis: int | None = None, ordered: bool = True) -> Entries:
    def for_x() -> Any:
        if axis is not None:
            return gather_grad(g[0], y[1], axis=axis, size=x.shape[axis])
        size = 1
        for n in x.shape:
            size = size * n
        return reshape(gather_grad(g[0], y[1], axis=0, size=size), shape=tuple(x.shape))

    return (for_x,)


def compress(x: Any, condition: Any, *, axis: int | None = None) -> Any:
    """Take the entries along an axis (of the flattened x by default) where the condition holds."""
    if axis is None:
        x, axis = reshape(x, shape=(-1,)), 0
    return gather(x, reshape(nonzero(condition), shape=(-1,)), axis=axis)


@op()
def reverse_sequence(x: TensorType, lengths: TensorType, *, time_axis: int, batch_axis: int) -> TensorType:
    """Turn round the first `lengths[b]` elements along the time axis of each batch entry b.

    Source: ONNX ReverseSequence-10.
    """
    return TensorType(x.dtype, x.known_shape)


@reverse_sequence.defvjp
def _reverse_sequence_vjp(g: Any, y: Any, x: Any, lengths: Any, *, time_axis: int, batch_axis: int) -> Entries:
    return lambda: reverse_sequence(g, lengths, time_axis=time_axis, batch_axis=batch_axis), None
