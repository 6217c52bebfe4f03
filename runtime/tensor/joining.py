"""Functions of several Tensors that lay them beside each other, or bring them to one shape."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ops import layout
from ...ops.dims import Dim
from ...ops.errors import OpError, ShapeError
from ..autograd.node_names import labelled
from .methods.axes import place
from .methods.promotion import promoted
from .tensor import Tensor


def _all(tensors: Any) -> list[Any]:
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], tuple | list) else tensors
    return [t if isinstance(t, Tensor) else Tensor(t) for t in given]


def cat(tensors: Sequence[Any], dim: int = 0, *, axis: int | None = None) -> Tensor:
    """Return Tensors joined along an axis; their element types mix as in arithmetic.

    Raises:
        OpError: without Tensors.
        ShapeError: if another size differs.
    """
    parts = [t if isinstance(t, Tensor) else Tensor(t) for t in tensors]
    if not parts:
        raise OpError("torch.cat(): expected a non-empty list of Tensors")
    if any(t.ndim == 0 for t in parts):
        raise ShapeError(
            f"zero-dimensional tensor (at position {next(i for i, t in enumerate(parts) if t.ndim == 0)}) "
            "cannot be concatenated"
        )
    if len({t.dtype for t in parts}) > 1:
        target: Any = parts[0]
        for t in parts[1:]:
            target = target if target.dtype == promoted(target, t) else t.to(dtype=promoted(target, t))
        parts = [t.to(dtype=target.dtype) for t in parts]
    # PyTorch leaves out vectors of no elements, whatever the rank of the others.
    full = [t for t in parts if t.ndim != 1 or t.shape[0] != 0] or parts[:1]
    along = place(dim if axis is None else axis, full[0].ndim)
    _one_shape(full, along)
    return layout.concat(*full, axis=along)  # type: ignore[no-any-return]


concat = concatenate = cat


def _one_shape(parts: Sequence[Tensor], along: int) -> None:
    first = parts[0].shape
    for number, t in enumerate(parts[1:], 1):
        if len(t.shape) != len(first):
            raise ShapeError(f"Tensors must have same number of dimensions: got {len(first)} and {len(t.shape)}")
        for i, (n, m) in enumerate(zip(first, t.shape, strict=True)):
            if i != along and not isinstance(n, Dim) and not isinstance(m, Dim) and n != m:
                raise ShapeError(
                    f"Sizes of tensors must match except in dimension {along}. Expected size {n} but got size {m} for "
                    f"tensor number {number} in the list."
                )


def stack(tensors: Sequence[Any], dim: int = 0, *, axis: int | None = None) -> Tensor:
    """Return Tensors of one shape joined along a new axis.

    Raises:
        OpError: without Tensors.
        ShapeError: if their shapes differ.
    """
    parts = [t if isinstance(t, Tensor) else Tensor(t) for t in tensors]
    if not parts:
        raise OpError("stack expects a non-empty TensorList")
    for number, t in enumerate(parts):
        if t.shape != parts[0].shape:
            raise ShapeError(
                f"stack expects each tensor to be equal size, but got {list(parts[0].shape)} at entry 0 and "
                f"{list(t.shape)} at entry {number}"
            )
    at = place(dim if axis is None else axis, parts[0].ndim + 1)
    return labelled(cat([t.unsqueeze(at) for t in parts], at), "Stack")  # type: ignore[no-any-return]


def atleast_1d(*tensors: Any) -> Any:
    """Return Tensors with at least one axis."""
    return _each([t.reshape(1) if t.ndim == 0 else t for t in _all(tensors)], tensors)


def atleast_2d(*tensors: Any) -> Any:
    """Return Tensors with at least two axes, new ones in front."""
    return _each([t.reshape((1,) * (2 - t.ndim) + t.shape) if t.ndim < 2 else t for t in _all(tensors)], tensors)


def atleast_3d(*tensors: Any) -> Any:
    """Return Tensors with at least three axes; a new one comes last."""
    found = []
    for t in _all(tensors):
        two = t.reshape((1,) * (2 - t.ndim) + t.shape) if t.ndim < 2 else t
        found.append(two.unsqueeze(-1) if two.ndim < 3 else two)
    return _each(found, tensors)


def _each(found: list[Any], given: tuple[Any, ...]) -> Any:
    return found[0] if len(given) == 1 and not isinstance(given[0], tuple | list) else tuple(found)


def hstack(tensors: Sequence[Any]) -> Tensor:
    """Return Tensors joined along the second axis; vectors along their only one."""
    parts = [atleast_1d(t) for t in tensors]
    return cat(parts, 0 if parts[0].ndim == 1 else 1)


def vstack(tensors: Sequence[Any]) -> Tensor:
    """Return Tensors joined along the first axis; vectors are rows."""
    return cat([atleast_2d(t) for t in tensors], 0)


row_stack = vstack


def dstack(tensors: Sequence[Any]) -> Tensor:
    """Return Tensors joined along the third axis."""
    return cat([atleast_3d(t) for t in tensors], 2)


def column_stack(tensors: Sequence[Any]) -> Tensor:
    """Return Tensors joined along the second axis; vectors are columns."""
    return hstack([t.reshape(-1, 1) if t.ndim < 2 else t for t in _all((tensors,))])


def block_diag(*tensors: Any) -> Tensor:
    """Return matrices along the diagonal of a larger one, zeros elsewhere."""
    parts = [atleast_2d(t) for t in _all(tensors)]
    width = sum(t.shape[1] for t in parts)
    rows, start = [], 0
    for t in parts:
        pads = ((0, 0), (start, width - start - t.shape[1]))
        rows.append(layout.pad(t, pads=pads))
        start += t.shape[1]
    return cat(rows, 0)


def broadcast_shapes(*shapes: Any) -> tuple[int, ...]:
    """Return the shape that shapes broadcast to.

    Raises:
        ShapeError: if they do not.
    """
    try:
        return np.broadcast_shapes(*((s,) if isinstance(s, int) else tuple(s) for s in shapes))
    except ValueError as error:
        raise ShapeError(f"Shape mismatch: objects cannot be broadcast to a single shape: {error}") from None


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """Return Tensors broadcast to one shape, as views."""
    parts = _all(tensors)
    shape = broadcast_shapes(*(t.shape for t in parts))
    return tuple(t.expand(shape) for t in parts)


def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """Return the coordinates of the grid that vectors span.

    Args:
        tensors: vectors, or scalars.
        indexing: `ij` lets the first vector run along the first axis, `xy` along the second.

    Raises:
        OpError: if indexing is neither.
    """
    parts = [t.reshape(-1) for t in _all(tensors)]
    if indexing not in (None, "ij", "xy"):
        raise OpError(f'torch.meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}')
    turned = indexing == "xy" and len(parts) > 1
    if turned:
        parts[0], parts[1] = parts[1], parts[0]
    shape = tuple(t.shape[0] for t in parts)
    grids = [t.reshape([-1 if i == k else 1 for i in range(len(parts))]).expand(shape) for k, t in enumerate(parts)]
    if turned:
        grids[0], grids[1] = grids[1], grids[0]
    return tuple(grids)


def cartesian_prod(*tensors: Any) -> Tensor:
    """Return every choice of one element of each vector, one a row."""
    parts = _all(tensors)
    return parts[0] if len(parts) == 1 else stack([g.reshape(-1) for g in meshgrid(*parts)], 1)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """Return every choice of r elements of a vector, one a row."""
    if input.ndim != 1:
        raise ShapeError(f"Expect a 1D vector, but got shape {list(input.shape)}")
    chosen = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = np.array(list(chosen(range(input.shape[0]), r)), np.int64).reshape(-1, r)
    return input[Tensor(rows)]


def trapezoid(y: Tensor, x: Any = None, *, dx: float = 1, dim: int = -1) -> Tensor:
    """Return the integral along an axis by the trapezoid rule, at points x or dx apart."""
    return _trapezoids(y, x, dx, dim).sum(dim)


trapz = trapezoid


def cumulative_trapezoid(y: Tensor, x: Any = None, *, dx: float = 1, dim: int = -1) -> Tensor:
    """Return the running integral along an axis by the trapezoid rule, at points x or dx apart."""
    return _trapezoids(y, x, dx, dim).cumsum(dim)


def _trapezoids(y: Tensor, x: Any, dx: float, dim: int) -> Tensor:
    at, n = place(dim, y.ndim), y.shape[dim]
    both = y.narrow(at, 1, n - 1) + y.narrow(at, 0, n - 1)
    if x is None:
        return both * (dx / 2)
    width = x.diff() if x.ndim == 1 else x.diff(dim=at)
    return both * (width.reshape([-1 if i == at else 1 for i in range(y.ndim)]) if x.ndim == 1 else width) / 2  # type: ignore[no-any-return]
