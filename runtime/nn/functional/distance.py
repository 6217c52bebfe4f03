"""Lengths, distances and angles along an axis."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ....ops import create, index as index_ops, pointwise as pw, reduce as red
from ....ops.broadcast import broadcast_to
from ....ops.dims import broadcast
from ....ops.errors import OpError, ShapeError
from ...amp.casting import in_float32
from .spatial import beside


def p_norm(x: Any, p: float, axes: tuple[int, ...], keepdims: bool = False) -> Any:
    """Return the p-norm over some axes. Its gradient is 0 where it is 0, and where p < 1 at elements that are 0."""
    size = pw.abs_(x)
    if p == 2:
        return red.l2_norm(x, axes=axes, keepdims=keepdims)
    if p == 1:
        return red.sum_(size, axes=axes, keepdims=keepdims)
    if math.isinf(p):
        return (red.max_ if p > 0 else red.min_)(size, axes=axes, keepdims=keepdims)
    nothing = pw.equal(size, 0.0)
    powers = pw.where(nothing, 0.0 if p >= 0 else math.inf, pw.pow_(pw.where(nothing, 1.0, size), float(p)))
    total = red.sum_(powers, axes=axes, keepdims=keepdims)
    if p == 0:
        return total
    none = pw.equal(total, 0.0)
    return pw.where(none, 0.0, pw.pow_(pw.where(none, 1.0, total), 1 / p))


def normalize(input: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None) -> Any:
    """Divide by the p-norm along an axis or several, or by eps where that is larger; `out` is overwritten with it."""
    axes = (dim,) if isinstance(dim, int) else tuple(dim)
    y = pw.div(input, pw.maximum(p_norm(input, p, axes, True), eps))
    return y if out is None else out.copy_(y)


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """Return the cosine of the angle along an axis of what the two broadcast to.

    Lengths below eps count as eps; gradients are those of the lengths, as in PyTorch.
    """
    _meet(x1, x2)
    x1, x2 = in_float32(x1, x2)
    shape = broadcast(tuple(x1.shape), tuple(x2.shape))
    given = [x if tuple(x.shape) == shape else broadcast_to(x, shape=shape) for x in (x1, x2)]
    return red.sum_(pw.mul(*(pw.div(x, _length(x, dim, eps)) for x in given)), axes=(dim,))


def _length(x: Any, dim: int, eps: float) -> Any:
    length = red.l2_norm(x, axes=(dim,), keepdims=True)
    fixed = length.detach() if hasattr(length, "detach") else length
    return pw.add(length, pw.sub(pw.maximum(fixed, eps), fixed))


def pairwise_distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Any:
    """Return the p-norm of x1 - x2 + eps along the last axis."""
    _meet(x1, x2)
    x1, x2 = in_float32(x1, x2)
    return p_norm(pw.add(pw.sub(x1, x2), eps), p, (-1,), keepdim)


def pdist(input: Any, p: float = 2.0) -> Any:
    """Return the p-norm distances of all pairs of rows, in the order (0, 1), (0, 2) ... (1, 2) ...

    Shapes: (N, M) -> (N (N - 1) / 2,).

    Raises:
        ShapeError: if the input is no matrix.
        OpError: if p is negative.
    """
    if input.ndim != 2:
        raise ShapeError(f"pdist only supports 2D tensors, got: {input.ndim}D")
    if p < 0:
        raise OpError("pdist only supports non-negative p values")
    (input,) = in_float32(input)
    first, second = np.triu_indices(input.shape[0], 1)
    if not input.shape[1]:
        return create.full_like(input, shape=(len(first),), value=0)
    a, b = (index_ops.gather(input, beside(input, at), axis=0) for at in (first, second))
    return p_norm(pw.sub(a, b), p, (-1,))


def _meet(x1: Any, x2: Any) -> None:
    for back, (a, b) in enumerate(zip(reversed(x1.shape), reversed(x2.shape), strict=False), start=1):
        if isinstance(a, int) and isinstance(b, int) and a != b and 1 not in (a, b):
            axis = max(x1.ndim, x2.ndim) - back
            raise ShapeError(
                f"The size of tensor a ({a}) must match the size of tensor b ({b}) at non-singleton dimension {axis}"
            )
