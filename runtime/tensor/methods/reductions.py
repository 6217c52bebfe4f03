"""Reductions over axes. `axis` and `keepdims` are other names of `dim` and `keepdim`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ....ops import index, normalize, pointwise as pw, rank, reduce as red
from ....ops.errors import AxisError, DTypeError
from ....ops.types import is_float
from ...autograd.node_names import labelled
from .axes import every, numpy_names, place
from .promotion import binary, floating
from .returned import Ends, Found, FoundMin

if TYPE_CHECKING:
    from ..tensor import Tensor


def counted(x: Any) -> Any:
    """Return x as what sums are made of: int64 for integers and truth values."""
    return pw.cast(x, dtype="int64") if x.dtype.kind in "iub" else x


def as_type(x: Any, dtype: Any) -> Any:
    """Return x as an element type, where one is given."""
    return x if dtype is None else x.to(dtype=dtype)


def _not_empty(x: Any, axes: tuple[int, ...] | None, name: str) -> None:
    shape = x.shape
    if 0 not in shape:
        return
    if axes is None:
        raise AxisError(
            f"{name}(): Expected reduction dim to be specified for input.numel() == 0. "
            "Specify the reduction dim with the 'dim' argument."
        )
    for a in axes:
        if shape[a] == 0:
            raise AxisError(f"{name}(): Expected reduction dim {a} to have non-zero size.")


class Reductions:
    """Reductions over axes."""

    _array: Any

    @numpy_names
    def sum(self, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
        """Return the sum over the axes, all by default; integers sum as int64."""
        x: Any = counted(self) if dtype is None else as_type(self, dtype)
        return red.sum_(x, axes=every(dim, x.ndim, "sum"), keepdims=keepdim)  # type: ignore[no-any-return]

    @numpy_names
    def nansum(self, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
        """Return the sum over the axes, all by default, of what is a number."""
        x: Any = as_type(self, dtype)
        return (x.masked_fill(x.isnan(), 0) if is_float(x.dtype) else x).sum(dim, keepdim)  # type: ignore[no-any-return]

    @numpy_names
    def mean(self, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
        """Return the mean over the axes, all by default.

        Raises:
            DTypeError: of integers.
        """
        x: Any = as_type(self, dtype)
        if not is_float(x.dtype):
            raise DTypeError(
                "mean(): could not infer output dtype. Input dtype must be either a floating point or complex dtype. "
                f"Got: {x.dtype}"
            )
        return red.mean(x, axes=every(dim, x.ndim, "mean"), keepdims=keepdim)  # type: ignore[no-any-return]

    @numpy_names
    def nanmean(self, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
        """Return the mean over the axes, all by default, of what is a number."""
        x: Any = as_type(self, dtype)
        return x.nansum(dim, keepdim) / (~x.isnan()).sum(dim, keepdim)  # type: ignore[no-any-return]

    @numpy_names
    def prod(self, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
        """Return the product over the axes, all by default; integers multiply as int64."""
        x: Any = counted(self) if dtype is None else as_type(self, dtype)
        return red.prod(x, axes=every(dim, x.ndim, "prod"), keepdims=keepdim)  # type: ignore[no-any-return]

    @numpy_names
    def amax(self, dim: Any = (), keepdim: bool = False) -> Tensor:
        """Return the largest over the axes; equal ones share the gradient."""
        axes = every(dim, self._array.ndim, "amax")
        _not_empty(self._array, axes, "amax")
        return red.max_(self, axes=axes, keepdims=keepdim)  # type: ignore[no-any-return]

    @numpy_names
    def amin(self, dim: Any = (), keepdim: bool = False) -> Tensor:
        """Return the smallest over the axes; equal ones share the gradient."""
        axes = every(dim, self._array.ndim, "amin")
        _not_empty(self._array, axes, "amin")
        return red.min_(self, axes=axes, keepdims=keepdim)  # type: ignore[no-any-return]

    @numpy_names
    def aminmax(self, *, dim: int | None = None, keepdim: bool = False) -> Ends:
        """Return the smallest and the largest along an axis; of all elements by default."""
        axes: Any = () if dim is None else dim
        return Ends(self.amin(axes, keepdim), self.amax(axes, keepdim))

    @numpy_names
    def max(self, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
        """Return the largest; along an axis also where it is; with another Tensor the larger of the two."""
        other = dim if hasattr(dim, "dtype") else other
        if other is not None:
            return binary(pw.maximum, self, other)
        if dim is None:
            _not_empty(self._array, None, "max")
            return red.max_(self, axes=None, keepdims=False)
        return self._pick("argmax", Found, dim, keepdim, "max")

    @numpy_names
    def min(self, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
        """Return the smallest; along an axis also where it is; with another Tensor the smaller of the two."""
        other = dim if hasattr(dim, "dtype") else other
        if other is not None:
            return binary(pw.minimum, self, other)
        if dim is None:
            _not_empty(self._array, None, "min")
            return red.min_(self, axes=None, keepdims=False)
        return self._pick("argmin", FoundMin, dim, keepdim, "min")

    def _pick(self, function: str, made: type[Found], dim: int, keepdim: bool, name: str) -> Found:
        me: Any = self
        at = place(dim, me.ndim)
        if me.ndim == 0:
            return made(me.clone(), getattr(me, function)())
        _not_empty(self._array, (at,), name)
        where = getattr(rank, function)(me, axis=at, keepdims=True)
        values = index.gather_elements(me, where, axis=at)
        return made(values, where) if keepdim else made(values.squeeze(at), where.squeeze(at))

    @numpy_names
    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Return where the largest is along an axis; by default in the flattened Tensor."""
        return self._where_extreme("argmax", dim, keepdim)

    @numpy_names
    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Return where the smallest is along an axis; by default in the flattened Tensor."""
        return self._where_extreme("argmin", dim, keepdim)

    def _where_extreme(self, name: str, dim: int | None, keepdim: bool) -> Tensor:
        me: Any = self
        n = me.ndim
        flat = dim is None or n == 0
        if dim is not None:
            at = place(dim, n)
            _not_empty(self._array, (at,) if n else None, name)
        else:
            _not_empty(self._array, None, name)
        x = me.reshape(-1) if flat else me
        x = pw.cast(x, dtype="uint8") if x.dtype.kind == "b" else x
        found: Any = getattr(rank, name)(x, axis=0 if flat else at, keepdims=keepdim and not flat)
        return found.reshape((1,) * n) if flat and keepdim else found  # type: ignore[no-any-return]

    @numpy_names
    def var(self, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None) -> Tensor:
        """Return the variance over the axes; divided by the number of elements less 1, or less `correction`."""
        found = self._spread("var", dim, unbiased, keepdim, correction)[0]
        return labelled(found, "Var")  # type: ignore[no-any-return]

    @numpy_names
    def std(self, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None) -> Tensor:
        """Return the standard deviation over the axes; see `var`."""
        found = self._spread("std", dim, unbiased, keepdim, correction)[0]
        return labelled(found, "Std")  # type: ignore[no-any-return]

    @numpy_names
    def var_mean(
        self, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None
    ) -> tuple[Tensor, Tensor]:
        """Return the variance over the axes and the mean; see `var`."""
        return self._spread("var", dim, unbiased, keepdim, correction)

    @numpy_names
    def std_mean(
        self, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None
    ) -> tuple[Tensor, Tensor]:
        """Return the standard deviation over the axes and the mean; see `var`."""
        return self._spread("std", dim, unbiased, keepdim, correction)

    def _spread(self, name: str, dim: Any, unbiased: bool, keepdim: bool, correction: Any) -> tuple[Tensor, Tensor]:
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        x: Any = self
        if not is_float(x.dtype):
            raise DTypeError(f"std and var only support floating point and complex dtypes, found {x.dtype}")
        half = x.dtype.itemsize == 2
        axes = every(dim, x.ndim, name)
        wide = pw.cast(x, dtype="float32") if half else x
        mean = red.mean(wide, axes=axes, keepdims=True)
        centred = pw.sub(wide, mean)
        less = float(unbiased) if correction is None else correction
        count: Any = red.elements(x.shape, axes) - less
        room = max(count, 0) if isinstance(count, int | float) else count
        total = red.sum_(pw.mul(centred, centred), axes=axes, keepdims=keepdim)
        found: Any = pw.div(total, float(room)) if isinstance(room, int | float) else total / room
        if name == "std":
            found = pw.sqrt(found)
        mean = mean if keepdim else mean.reshape(tuple(found.shape))
        return (found.to(x.dtype), mean.to(x.dtype)) if half else (found, mean)

    @numpy_names
    def norm(self, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
        """Return the p-norm over the axes, all by default; `fro` is 2, `nuc` the sum of the singular values."""
        from ..linalg import matrix_norm, vector_norm

        x: Any = as_type(self, dtype)
        if p == "nuc":
            return matrix_norm(x, "nuc", (-2, -1) if dim is None else dim, keepdim)
        return vector_norm(x, 2 if p == "fro" or p is None else p, dim, keepdim)

    @numpy_names
    def logsumexp(self, dim: Any, keepdim: bool = False) -> Tensor:
        """Return the logarithm of the sum of e^x over the axes."""
        x: Any = floating(self)
        return red.logsumexp(x, axes=every(dim, x.ndim, "logsumexp"), keepdims=keepdim)  # type: ignore[no-any-return]

    @numpy_names
    def any(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        """Return whether any element is not 0."""
        return self._truth(red.max_, dim, keepdim, "any")

    @numpy_names
    def all(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        """Return whether no element is 0."""
        return self._truth(red.min_, dim, keepdim, "all")

    def _truth(self, reduce: Any, dim: Any, keepdim: bool, name: str) -> Tensor:
        me: Any = self
        hit = pw.cast(me if me.dtype.kind == "b" else pw.logical_not(pw.equal(me, 0)), dtype="uint8")
        found = reduce(hit, axes=every(dim, me.ndim, name), keepdims=keepdim)
        return pw.cast(found, dtype="uint8" if me.dtype == "uint8" else "bool")  # type: ignore[no-any-return]

    @numpy_names
    def count_nonzero(self, dim: Any = None) -> Tensor:
        """Return how many elements are not 0."""
        me: Any = self
        return (me != 0).sum(dim)  # type: ignore[no-any-return]

    @numpy_names
    def softmax(self, dim: int, dtype: Any = None) -> Tensor:
        """Return e^x over its sum along an axis."""
        x: Any = _of_floats("softmax", as_type(self, dtype))
        at = place(dim, x.ndim)
        if x.ndim == 0:
            return normalize.softmax(x.reshape(1), axis=0).reshape(())  # type: ignore[no-any-return]
        return normalize.softmax(x, axis=at)  # type: ignore[no-any-return]

    @numpy_names
    def log_softmax(self, dim: int, dtype: Any = None) -> Tensor:
        """Return the logarithm of softmax along an axis."""
        x: Any = _of_floats("log_softmax", as_type(self, dtype))
        at = place(dim, x.ndim)
        if x.ndim == 0:
            return normalize.log_softmax(x.reshape(1), axis=0).reshape(())  # type: ignore[no-any-return]
        return normalize.log_softmax(x, axis=at)  # type: ignore[no-any-return]


def _of_floats(name: str, x: Any) -> Any:
    if not is_float(x.dtype):
        raise DTypeError(f'"{name}" not implemented for {x.dtype}: pass dtype=, or floats')
    return x
