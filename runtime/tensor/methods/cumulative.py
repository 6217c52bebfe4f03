"""Running sums, products and extremes along an axis, and differences of neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ....ops import cumulative, index, pointwise as pw
from ....ops.errors import OpError
from ....ops.op import namespace
from .axes import numpy_names, place
from .promotion import floating
from .reductions import as_type, counted
from .returned import Found, FoundCummax, FoundCummin, function_of

if TYPE_CHECKING:
    from ..tensor import Tensor


class Cumulative:
    """Running sums, products and extremes."""

    _array: Any

    @numpy_names
    def cumsum(self, dim: int, *, dtype: Any = None) -> Tensor:
        """Return the running sum along an axis; integers sum as int64."""
        return self._running(cumulative.cumsum, counted(self) if dtype is None else as_type(self, dtype), dim)

    @numpy_names
    def cumprod(self, dim: int, *, dtype: Any = None) -> Tensor:
        """Return the running product along an axis; integers multiply as int64."""
        return self._running(cumulative.cumprod, counted(self) if dtype is None else as_type(self, dtype), dim)

    @numpy_names
    def logcumsumexp(self, dim: int) -> Tensor:
        """Return the logarithm of the running sum of e^x along an axis."""
        return self._running(cumulative.logcumsumexp, floating(self), dim)

    def _running(self, op: Any, x: Any, dim: int) -> Tensor:
        at = place(dim, x.ndim)
        return op(x, axis=at) if x.ndim else op(x.reshape(1), axis=0).reshape(())  # type: ignore[no-any-return]

    @numpy_names
    def cummax(self, dim: int) -> Found:
        """Return the largest so far along an axis, and where it is: of equal ones the last."""
        return self._extreme("maximum", FoundCummax, dim)

    @numpy_names
    def cummin(self, dim: int) -> Found:
        """Return the smallest so far along an axis, and where it is: of equal ones the last."""
        return self._extreme("minimum", FoundCummin, dim)

    def _extreme(self, function: str, made: type[Found], dim: int) -> Found:
        from ..tensor import Tensor

        me: Any = self
        at = place(dim, me.ndim)
        if me.ndim == 0:
            return made(me.clone(), Tensor(np.zeros((), np.int64)))
        me._readable(function_of(made))
        x = self._array
        xp = namespace(x)
        best = getattr(xp, function).accumulate(x, axis=at)
        counted_up = xp.arange(x.shape[at]).reshape([-1 if i == at else 1 for i in range(x.ndim)])
        places = xp.maximum.accumulate(xp.where((x == best) | (x != x), counted_up, 0), axis=at)
        indices = Tensor(places.astype(np.int64))
        return made(index.gather_elements(me, indices, axis=at), indices)

    @numpy_names
    def diff(self, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Tensor:
        """Return the differences of neighbours along an axis, n times.

        Raises:
            OpError: of a scalar, and if n is negative.
        """
        from ..joining import cat

        x: Any = self
        if x.ndim == 0:
            raise OpError("diff expects input to be at least one-dimensional")
        if n < 0:
            raise OpError(f"order must be non-negative but got {n}")
        at = place(dim, x.ndim)
        parts = [p for p in (prepend, x, append) if p is not None]
        x = cat(parts, at) if len(parts) > 1 else x
        for _ in range(min(n, x.shape[at])):
            size = x.shape[at]
            late, early = x.narrow(at, 1, size - 1), x.narrow(at, 0, size - 1)
            x = late ^ early if x.dtype.kind == "b" else pw.sub(late, early)
        return x.clone() if n == 0 else x  # type: ignore[no-any-return]
