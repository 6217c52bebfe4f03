"""The exponential of matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import layout
from .create import full_like
from .dims import show
from .errors import ShapeError
from .matmul import swapped
from .op import op
from .types import TensorType


@op()
def matrix_exp(a: TensorType) -> TensorType:
    """Return the exponential of each matrix, the sum of a^k / k!.

    Shapes: (*L, n, n) -> (*L, n, n).

    Source: Higham 2005, "The scaling and squaring method for the matrix exponential revisited"; the gradient: Najfeld &
    Havel 1995, exp([[A, E], [0, A]]) holds the derivative at A in the direction E.
    """
    n, m = a.shape[-2:] if a.ndim > 1 else (0, 1)
    if isinstance(n, int) and isinstance(m, int) and n != m:
        raise ShapeError(f"matrix_exp: A must be batches of square matrices, but found {show(a.shape)}")
    return TensorType(a.dtype, a.shape)


@matrix_exp.defvjp
def _matrix_exp_vjp(g: Any, y: Any, a: Any) -> tuple[Callable[[], Any] | None, ...]:
    def entry() -> Any:
        rank, n = a.ndim, a.shape[-1]
        turned = swapped(a)
        none = full_like(a, shape=tuple(a.shape), value=0)
        upper = layout.concat(turned, g, axis=rank - 1)
        lower = layout.concat(none, turned, axis=rank - 1)
        both = matrix_exp(layout.concat(upper, lower, axis=rank - 2))
        return layout.slice_(both, starts=(0, n), stops=(n, n + n), steps=(1, 1), axes=(rank - 2, rank - 1))

    return (entry,)
