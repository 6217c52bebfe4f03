"""Broadcasting, and the sum that undoes it."""

from __future__ import annotations

from ...broadcast import broadcast_to, sum_to
from ...dims import Shape
from ...op import namespace
from ...types import Array


@sum_to.kernel("array")
def _sum_to(x: Array, *, shape: Shape) -> Array:
    if x.shape == shape:
        return x
    lead = x.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(i + lead for i, n in enumerate(shape) if n == 1 and x.shape[i + lead] != 1)
    return x.sum(axis=axes, keepdims=True, dtype=x.dtype).reshape(shape)


@broadcast_to.kernel("array", half="native")
def _broadcast_to(x: Array, *, shape: Shape) -> Array:
    return namespace(x).broadcast_to(x, shape)
