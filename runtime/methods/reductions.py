"""Reductions, and what is built from them. `axis` and `keepdims` are other names of `dim` and `keepdim`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ...ops import index, normalize, pointwise as pw, reduce as red
from ...ops.errors import DTypeError
from ...ops.types import is_float
from .arithmetic import binary

if TYPE_CHECKING:
    from ..tensor import Tensor


class Found(NamedTuple):
    """Values along an axis, and where they are."""

    values: Any
    indices: Any


def _axes(dim: Any, axis: Any) -> tuple[int, ...] | None:
    chosen = axis if dim is None else dim
    if chosen is None:
        return None
    return tuple(chosen) if isinstance(chosen, tuple | list) else (int(chosen),)


def _counted(x: Any) -> Any:
    """Return x as what sums are made of: int64 for integers and truth values."""
    return pw.cast(x, dtype="int64") if x.dtype.kind in "iub" else x


class Reductions:
    """Reductions over axes, and along one."""

    _array: Any

    def sum(
        self, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, axis: Any = None, keepdims: bool = False
    ) -> Tensor:
        """Return the sum over the axes, all by default; integers sum as int64."""
        x: Any = _counted(self) if dtype is None else self.to(dtype=dtype)  # type: ignore[attr-defined]
        return red.sum_(x, axes=_axes(dim, axis), keepdims=keepdim or keepdims)  # type: ignore[no-any-return]

    def mean(
        self, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, axis: Any = None, keepdims: bool = False
    ) -> Tensor:
        """Return the mean over the axes, all by default.

        Raises:
            DTypeError: of integers.
        """
        x: Any = self if dtype is None else self.to(dtype=dtype)  # type: ignore[attr-defined]
        if not is_float(x.dtype):
            raise DTypeError(f"mean(): wants floats, found {x.dtype}; pass dtype=")
        return red.mean(x, axes=_axes(dim, axis), keepdims=keepdim or keepdims)  # type: ignore[no-any-return]

    def prod(self, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Tensor:
        """Return the product over the axes, all by default."""
        return red.prod(_counted(self), axes=_axes(dim, axis), keepdims=keepdim or keepdims)  # type: ignore[no-any-return]

    def amax(self, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Tensor:
        """Return the largest over the axes; equal ones share the gradient."""
        return red.max_(self, axes=_axes(dim, axis), keepdims=keepdim or keepdims)  # type: ignore[no-any-return]

    def amin(self, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Tensor:
        """Return the smallest over the axes; equal ones share the gradient."""
        return red.min_(self, axes=_axes(dim, axis), keepdims=keepdim or keepdims)  # type: ignore[no-any-return]

    def max(self, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Any:
        """Return the largest; along an axis also where it is; with another Tensor the larger of the two."""
        if hasattr(dim, "dtype"):
            return binary(pw.maximum, self, dim)
        if dim is None and axis is None:
            return self.amax()
        return self._pick(self.argmax(dim, True, axis=axis), dim, axis, keepdim or keepdims)

    def min(self, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Any:
        """Return the smallest; along an axis also where it is; with another Tensor the smaller of the two."""
        if hasattr(dim, "dtype"):
            return binary(pw.minimum, self, dim)
        if dim is None and axis is None:
            return self.amin()
        return self._pick(self.argmin(dim, True, axis=axis), dim, axis, keepdim or keepdims)

    def _pick(self, at: Any, dim: Any, axis: Any, keepdim: bool) -> Found:
        (along,) = _axes(dim, axis) or (0,)
        values = index.gather_elements(self, at, axis=along % max(self._array.ndim, 1))
        return Found(values, at) if keepdim else Found(values.squeeze(along), at.squeeze(along))

    def argmax(
        self, dim: int | None = None, keepdim: bool = False, *, axis: int | None = None, keepdims: bool = False
    ) -> Tensor:
        """Return where the largest is along an axis; by default in the flattened Tensor."""
        return self._where_extreme("argmax", dim, axis, keepdim or keepdims)

    def argmin(
        self, dim: int | None = None, keepdim: bool = False, *, axis: int | None = None, keepdims: bool = False
    ) -> Tensor:
        """Return where the smallest is along an axis; by default in the flattened Tensor."""
        return self._where_extreme("argmin", dim, axis, keepdim or keepdims)

    def _where_extreme(self, name: str, dim: int | None, axis: int | None, keepdim: bool) -> Tensor:
        from ...ops import rank

        axes = _axes(dim, axis)
        x: Any = self if axes is not None else self.reshape(-1)  # type: ignore[attr-defined]
        return getattr(rank, name)(x, axis=axes[0] if axes else 0, keepdims=keepdim and axes is not None)  # type: ignore[no-any-return]

    def topk(self, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Found:
        """Return the k largest along an axis and where they are."""
        from ...ops.rank import topk

        return Found(*topk(self, k=k, axis=dim % self._array.ndim, largest=largest, ordered=sorted))

    def sort(self, dim: int = -1, descending: bool = False) -> Found:
        """Return the elements in order along an axis, and where they were."""
        return self.topk(self._array.shape[dim], dim, largest=descending)

    def argsort(self, dim: int = -1, descending: bool = False) -> Any:
        """Return the places of the elements in order along an axis."""
        return self.sort(dim, descending).indices

    def cumsum(self, dim: int) -> Tensor:
        """Return the running sum along an axis."""
        from ...ops.cumulative import cumsum

        return cumsum(_counted(self), axis=dim % self._array.ndim)  # type: ignore[no-any-return]

    def var(
        self,
        dim: Any = None,
        unbiased: bool = True,
        keepdim: bool = False,
        *,
        correction: int | None = None,
        axis: Any = None,
    ) -> Tensor:
        """Return the variance over the axes; divided by the number of elements less 1, or less `correction`."""
        axes = _axes(dim, axis)
        less = int(unbiased) if correction is None else correction
        me: Any = self
        centred = me - me.mean(axes, True)
        n = red.elements(self._array.shape, axes)
        return (centred * centred).sum(axes, keepdim) / max(n - less, 0)  # type: ignore[no-any-return]

    def std(
        self,
        dim: Any = None,
        unbiased: bool = True,
        keepdim: bool = False,
        *,
        correction: int | None = None,
        axis: Any = None,
    ) -> Tensor:
        """Return the standard deviation over the axes; see `var`."""
        return self.var(dim, unbiased, keepdim, correction=correction, axis=axis).sqrt()

    def norm(self, p: float = 2, dim: Any = None, keepdim: bool = False) -> Tensor:
        """Return the p-norm over the axes, all by default."""
        axes = _axes(dim, None)
        if p == 2:
            return red.l2_norm(self, axes=axes, keepdims=keepdim)  # type: ignore[no-any-return]
        if p == float("inf"):
            return red.max_(pw.abs_(self), axes=axes, keepdims=keepdim)  # type: ignore[no-any-return]
        if p == 1:
            return red.sum_(pw.abs_(self), axes=axes, keepdims=keepdim)  # type: ignore[no-any-return]
        total = red.sum_(pw.pow_(pw.abs_(self), float(p)), axes=axes, keepdims=keepdim)
        return pw.pow_(total, 1 / p)  # type: ignore[no-any-return]

    def logsumexp(self, dim: Any, keepdim: bool = False) -> Tensor:
        """Return the logarithm of the sum of e^x over the axes."""
        return red.logsumexp(self, axes=_axes(dim, None), keepdims=keepdim)  # type: ignore[no-any-return]

    def any(self, dim: Any = None, keepdim: bool = False, *, axis: Any = None) -> Tensor:
        """Return whether any element is not 0."""
        hit = pw.cast(pw.logical_not(pw.equal(self, 0)), dtype="int64")
        return pw.cast(red.max_(hit, axes=_axes(dim, axis), keepdims=keepdim), dtype="bool")  # type: ignore[no-any-return]

    def all(self, dim: Any = None, keepdim: bool = False, *, axis: Any = None) -> Tensor:
        """Return whether no element is 0."""
        hit = pw.cast(pw.logical_not(pw.equal(self, 0)), dtype="int64")
        return pw.cast(red.min_(hit, axes=_axes(dim, axis), keepdims=keepdim), dtype="bool")  # type: ignore[no-any-return]

    def softmax(self, dim: int = -1, *, axis: int | None = None) -> Tensor:
        """Return e^x over its sum along an axis."""
        return normalize.softmax(self, axis=dim if axis is None else axis)  # type: ignore[no-any-return]

    def log_softmax(self, dim: int = -1, *, axis: int | None = None) -> Tensor:
        """Return the logarithm of softmax along an axis."""
        return normalize.log_softmax(self, axis=dim if axis is None else axis)  # type: ignore[no-any-return]
