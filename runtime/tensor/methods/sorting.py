"""Methods that put elements in order, or say where in an order they stand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ....ops import index, pointwise as pw, rank
from ....ops.errors import AxisError, DTypeError, OpError
from ....ops.types import is_float
from .axes import numpy_names, place
from .returned import Found, FoundKthvalue, FoundMedian, FoundMode, FoundNanmedian, FoundSort, FoundTopk, function_of

if TYPE_CHECKING:
    from ..tensor import Tensor


class Sorting:
    """Order, and what is chosen by it."""

    _array: Any

    @numpy_names
    def topk(self, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Found:
        """Return the k largest along an axis and where they are.

        Raises:
            AxisError: if there are fewer.
        """
        me: Any = self
        at = place(dim, me.ndim)
        size = me.shape[at] if me.ndim else 1
        if isinstance(size, int) and not 0 <= k <= size:
            raise AxisError(f"selected index k out of range: {k} of {size} along dim {at} of shape {tuple(me.shape)}")
        if me.ndim == 0:
            return FoundTopk(*(t.reshape(()) for t in rank.topk(me.reshape(1), k=1, axis=0)))
        return FoundTopk(*rank.topk(me, k=k, axis=at, largest=largest, ordered=sorted))

    @numpy_names
    def sort(self, dim: int = -1, descending: bool = False, stable: bool = False) -> Found:
        """Return the elements in order along an axis, and where they were; equal ones keep their order."""
        me: Any = self
        at = place(dim, me.ndim)
        return FoundSort(*self.topk(me.shape[at] if me.ndim else 1, dim, largest=descending))

    @numpy_names
    def argsort(self, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
        """Return the places of the elements in order along an axis."""
        return self.sort(dim, descending).indices  # type: ignore[no-any-return]

    def msort(self) -> Tensor:
        """Return the elements in order along the first axis."""
        return self.sort(0).values  # type: ignore[no-any-return]

    @numpy_names
    def kthvalue(self, k: int, dim: int = -1, keepdim: bool = False) -> Found:
        """Return the k-th smallest along an axis, counted from 1, and where it is.

        Raises:
            AxisError: if there is none.
        """
        me: Any = self
        at = place(dim, me.ndim)
        if not 1 <= k <= (me.shape[at] if me.ndim else 1):
            raise AxisError(f"kthvalue(): selected number k out of range for dimension {at}")
        return _entry(FoundKthvalue, self.sort(dim), np.asarray(k - 1), at, keepdim)

    @numpy_names
    def median(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """Return the middle element along an axis (of two the lower) and where it is; NaN where there is one.

        Without an axis: the middle element of all.
        """
        return self._middle(FoundMedian, dim, keepdim, False)

    @numpy_names
    def nanmedian(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """Return the middle of what is a number along an axis (of two the lower) and where it is.

        Without an axis: the middle element of all.
        """
        return self._middle(FoundNanmedian, dim, keepdim, True)

    def _middle(self, made: type[Found], dim: int | None, keepdim: bool, without_nan: bool) -> Any:
        me: Any = self
        if dim is None:
            flat = me.reshape(-1)
            if not flat.shape[0]:
                return me.new_full((), math.nan) if is_float(me.dtype) else me.new_full((), np.iinfo(me.dtype).min)
            value = flat.detach()._middle(made, 0, False, without_nan).values
            if not me.requires_grad:
                return value
            # Equal elements share the gradient.
            low = pw.where(_same(flat.detach(), value), flat, -math.inf)
            return low.amax() if not bool(value.isnan()) else flat.sum() * math.nan
        me._readable(function_of(made))
        at = place(dim, me.ndim)
        ordered = self.sort(dim)
        n = me.shape[at] if me.ndim else 1
        if not n:
            raise AxisError(f"{function_of(made)}(): Expected reduction dim {at} to have non-zero size.")
        if not is_float(me.dtype):
            return _entry(made, ordered, np.asarray((n - 1) // 2), at, keepdim)
        bad = me.isnan()._array.sum(axis=at if me.ndim else None, keepdims=bool(me.ndim))
        chosen = (np.maximum(n - bad, 1) - 1) // 2 if without_nan else np.where(bad > 0, n - bad, (n - 1) // 2)
        return _entry(made, ordered, chosen, at, keepdim)

    @numpy_names
    def mode(self, dim: int = -1, keepdim: bool = False) -> Found:
        """Return the most frequent element along an axis (of several the smallest) and the last place of it."""
        me: Any = self
        at = place(dim, me.ndim)
        if me.ndim == 0:
            return FoundMode(me.clone(), me.new_zeros((), dtype="int64"))
        me._readable("mode()")
        rows = np.moveaxis(np.asarray(me.detach().cpu()._array), at, -1)
        places = np.array([_most_frequent(row) for row in rows.reshape(-1, rows.shape[-1])], np.int64)
        where = np.expand_dims(places.reshape(rows.shape[:-1]), at)
        indices = me.new_tensor(where, dtype="int64")
        values = index.gather_elements(me, indices, axis=at)
        return FoundMode(values, indices) if keepdim else FoundMode(values.squeeze(at), indices.squeeze(at))

    @numpy_names
    def quantile(
        self, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
    ) -> Tensor:
        """Return the q-quantiles along an axis, of all elements by default; NaN where there is one.

        Args:
            q: numbers in [0, 1]; a vector of them gives a new first axis.
            dim: the axis.
            keepdim: keep the axis, with size 1.
            interpolation: `linear`, `lower`, `higher`, `midpoint` or `nearest`, between two elements.
        """
        return self._quantiles("quantile", q, dim, keepdim, interpolation, False)

    @numpy_names
    def nanquantile(
        self, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
    ) -> Tensor:
        """Return the q-quantiles of what is a number; see `quantile`."""
        return self._quantiles("nanquantile", q, dim, keepdim, interpolation, True)

    def _quantiles(self, name: str, q: Any, dim: int | None, keepdim: bool, how: str, without_nan: bool) -> Tensor:
        me: Any = self
        wanted = np.asarray(getattr(q, "_array", q), np.float64)
        if me.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise DTypeError(f"{name}() input tensor must be either float or double dtype, found {me.dtype}")
        if hasattr(q, "_array") and q.dtype != me.dtype:
            raise DTypeError(f"{name}() q tensor must be same dtype as the input tensor: {q.dtype} and {me.dtype}")
        if wanted.ndim > 1:
            raise OpError(f"{name}() q must be a scalar or 1D tensor, found {wanted.ndim}D")
        if ((wanted < 0) | (wanted > 1)).any():
            raise OpError(f"{name}() q values must be in the range [0, 1]")
        if how not in ("linear", "lower", "higher", "midpoint", "nearest"):
            raise OpError(
                f"{name}() interpolation must be one of linear, lower, higher, midpoint or nearest, but got {how}"
            )
        if not me.numel():
            raise OpError(f"{name}() input tensor must be non-empty")
        at = 0 if dim is None else place(dim, me.ndim)
        x = me.reshape(-1) if dim is None or not me.ndim else me.movedim(at, -1)
        ordered = x.sort(-1).values
        bad = x.isnan()._array.sum(-1, keepdims=True)
        count = x.shape[-1] - bad if without_nan else np.full_like(bad, x.shape[-1])
        place_of = wanted.reshape(-1) * (np.maximum(count, 1) - 1)
        if me.dtype == np.float32:
            place_of = place_of.astype(np.float32)
        found = _between(ordered, place_of, how)
        found = pw.where((bad > 0) if not without_nan else (count == 0), math.nan, found)
        found = found.movedim(-1, 0)
        if keepdim:
            found = found.reshape((-1,) + (1,) * me.ndim) if dim is None else found.unsqueeze(at + 1)
        return found if wanted.ndim else found.squeeze(0)  # type: ignore[no-any-return]

    def unique(
        self, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
    ) -> Any:
        """Return the distinct elements, or the distinct slices along an axis, in order.

        Args:
            sorted: they come in order either way.
            return_inverse: also return which of them each element is.
            return_counts: also return how often each occurs.
            dim: the axis.
        """
        me: Any = self
        me._readable("unique()")
        axis = None if dim is None else place(dim, me.ndim)
        values, _, inverse, counts = index.unique(me.detach(), axis=axis)
        inverse = inverse.reshape(me.shape) if dim is None else inverse
        return _chosen(values, inverse, counts, return_inverse, return_counts)

    def unique_consecutive(
        self, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
    ) -> Any:
        """Return the elements without those that equal the one before; with an axis, slices along it.

        Args:
            return_inverse: also return which of them each element became.
            return_counts: also return how many each stands for.
            dim: the axis.
        """
        me: Any = self
        me._readable("unique_consecutive()")
        x = me.detach().reshape(-1) if dim is None else me.detach()
        at = 0 if dim is None else place(dim, me.ndim)
        rows = np.moveaxis(np.asarray(x.cpu()._array), at, 0).reshape(x.shape[at], -1)
        new = np.ones(len(rows), bool)
        new[1:] = (rows[1:] != rows[:-1]).any(1)
        starts = np.flatnonzero(new)
        inverse = me.new_tensor(np.cumsum(new) - 1, dtype="int64")
        counts = me.new_tensor(np.diff(np.append(starts, len(rows))), dtype="int64")
        inverse = inverse.reshape(me.shape) if dim is None else inverse
        return _chosen(x.index_select(at, me.new_tensor(starts)), inverse, counts, return_inverse, return_counts)


def _same(x: Any, value: Any) -> Any:
    return pw.equal(x, value)


def _entry(made: type[Found], ordered: Found, chosen: Any, at: int, keepdim: bool) -> Found:
    """Return the entries at places of an order: one place for all rows, or one for each."""
    values, indices = ordered
    if values.ndim == 0:
        return made(values, indices)
    shape = tuple(1 if i == at else n for i, n in enumerate(values.shape))
    where = np.broadcast_to(np.asarray(chosen, np.int64), shape)
    found = [index.gather_elements(v, where, axis=at) for v in (values, indices)]
    return made(*(v if keepdim else v.squeeze(at) for v in found))


def _most_frequent(row: Any) -> int:
    values, counts = np.unique(row, return_counts=True)
    return int(np.flatnonzero(row == values[counts.argmax()])[-1])


def _between(ordered: Any, places: Any, how: str) -> Any:
    """Return what lies at fractional places of an order along the last axis."""
    low = np.floor(places)
    if how == "lower":
        places = low
    elif how == "higher":
        places = np.ceil(places)
    elif how == "nearest":
        places = np.rint(places)
    low = np.floor(places)
    start = index.gather_elements(ordered, low.astype(np.int64), axis=ordered.ndim - 1)
    if how in ("lower", "higher", "nearest"):
        return start
    end = index.gather_elements(ordered, np.ceil(places).astype(np.int64), axis=ordered.ndim - 1)
    weight = np.full_like(places, 0.5) if how == "midpoint" else places - low
    weight = np.where(np.ceil(places) == low, 0, weight).astype(ordered.dtype)
    return start + (end - start) * weight


def _chosen(values: Any, inverse: Any, counts: Any, with_inverse: bool, with_counts: bool) -> Any:
    found = (values, *((inverse,) if with_inverse else ()), *((counts,) if with_counts else ()))
    return found if len(found) > 1 else values
