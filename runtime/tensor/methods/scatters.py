"""Methods that return a copy with other elements at some places."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ....ops import index as index_ops, pointwise as pw
from ....ops.errors import DTypeError, OpError, ShapeError
from ....ops.types import is_float
from ...amp.casting import alike_in_half
from .axes import numpy_names, place
from .pointwise import filling
from .taking import places_of

if TYPE_CHECKING:
    from ..tensor import Tensor

_REDUCTIONS = {"sum": "add", "prod": "mul", "mean": "add", "amax": "max", "amin": "min"}


def _extreme(dtype: Any, largest: bool) -> Any:
    """Return what is above, or below, every element of a type."""
    if is_float(dtype):
        return math.inf if largest else -math.inf
    if dtype.kind == "b":
        return largest
    return np.iinfo(dtype).max if largest else np.iinfo(dtype).min


def _update(name: str, x: Any, index: Any, src: Any) -> Any:
    """Return what is written, one element an index.

    Raises:
        ShapeError: if there are not enough.
        DTypeError: if it has another element type.
    """
    shape = tuple(index.shape)
    if not hasattr(src, "dtype"):
        return x.new_full(shape, filling(x, src))
    if src.dtype != x.dtype and not alike_in_half(src, x):
        raise DTypeError(f"{name}(): Expected self.dtype to be equal to src.dtype: {x.dtype} and {src.dtype}")
    if tuple(src.shape) == shape:
        return src
    if src.ndim != index.ndim or any(m > n for m, n in zip(shape, src.shape, strict=True)):
        raise ShapeError(
            f"Expected index {list(shape)} to be no larger than self {list(x.shape)} apart from dimension, and to be "
            f"no larger size than src {list(src.shape)} in {name}"
        )
    return src[tuple(slice(0, n) for n in shape)]


class Scatters:
    """Copies with other elements at some places."""

    _array: Any

    def _scattered(self, name: str, dim: int, index: Any, src: Any, reduction: str) -> Tensor:
        x: Any = self
        at = place(dim, x.ndim)
        where = places_of(x, index, name)
        if where.ndim != x.ndim and not (where.ndim <= 1 and x.ndim <= 1):
            raise ShapeError(
                "Index tensor must have the same number of dimensions as self tensor: "
                f"{where.ndim} and {x.ndim} in {name}"
            )
        src = _update(name, x, where, src)
        if 0 in tuple(where.shape):
            return x.clone()  # type: ignore[no-any-return]
        if x.ndim == 0 or where.ndim == 0:
            flat = index_ops.scatter_elements(
                x.reshape(-1), where.reshape(-1), src.reshape(-1), axis=0, reduction=reduction
            )
            return flat.reshape(tuple(x.shape))  # type: ignore[no-any-return]
        return index_ops.scatter_elements(x, where, src, axis=at, reduction=reduction)  # type: ignore[no-any-return]

    @numpy_names
    def scatter(self, dim: int, index: Any, src: Any = None, *, value: Any = None, reduce: str | None = None) -> Tensor:
        """Return a copy with elements of src, or a number, written: the index replaces the place along the axis.

        Args:
            dim: the axis.
            index: places along it.
            src: what is written, or a number.
            value: a number.
            reduce: `add` or `multiply` combine with what is there.
        """
        reduction = {None: "none", "add": "add", "multiply": "mul"}.get(reduce)
        if reduction is None:
            raise OpError(f"reduce argument must be either add or multiply, found {reduce!r}.")
        return self._scattered("scatter", dim, index, src if value is None else value, reduction)

    @numpy_names
    def scatter_add(self, dim: int, index: Any, src: Any) -> Tensor:
        """Return a copy with elements of src added: the index replaces the place along the axis."""
        return self._scattered("scatter_add", dim, index, src, "add")

    @numpy_names
    def scatter_reduce(self, dim: int, index: Any, src: Any, reduce: str, *, include_self: bool = True) -> Tensor:
        """Return a copy with elements of src combined, by `sum`, `prod`, `mean`, `amax` or `amin`.

        Args:
            dim: the axis.
            index: places along it.
            src: what comes there.
            reduce: how what comes to one place is combined.
            include_self: what is there takes part; else it is replaced where something comes.
        """
        x: Any = self
        if reduce not in _REDUCTIONS:
            raise OpError(f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}.")
        base = x
        if not include_self:
            start = {
                "sum": 0,
                "mean": 0,
                "prod": 1,
                "amax": _extreme(x.dtype, False),
                "amin": _extreme(x.dtype, True),
            }[reduce]
            base = x._scattered("scatter_reduce", dim, index, start, "none")
        found = base._scattered("scatter_reduce", dim, index, src, _REDUCTIONS[reduce])
        if reduce != "mean":
            return found  # type: ignore[no-any-return]
        ones = x.detach().new_full(tuple(x.shape), 1 if include_self else 0)
        count = ones._scattered("scatter_reduce", dim, index, x.new_full(tuple(index.shape), 1), "add").clamp(min=1)
        return found / count if is_float(x.dtype) else found.div(count, rounding_mode="floor")  # type: ignore[no-any-return]

    @numpy_names
    def index_add(self, dim: int, index: Any, source: Any, *, alpha: float = 1) -> Tensor:
        """Return a copy with alpha * source added, entry by entry, at a vector of places along an axis."""
        return self._along("index_add", dim, index, source if alpha == 1 else source * alpha, "add")

    @numpy_names
    def index_copy(self, dim: int, index: Any, source: Any) -> Tensor:
        """Return a copy with the entries of source at a vector of places along an axis."""
        return self._along("index_copy", dim, index, source, "none")

    @numpy_names
    def index_reduce(self, dim: int, index: Any, source: Any, reduce: str, *, include_self: bool = True) -> Tensor:
        """Return a copy with the entries of source combined at places along an axis; see `scatter_reduce`."""
        x: Any = self
        where = _spread_index(x, dim, index, source, "index_reduce")
        return self.scatter_reduce(dim, where, source, reduce, include_self=include_self)

    def _along(self, name: str, dim: int, index: Any, source: Any, reduction: str) -> Tensor:
        where = _spread_index(self, dim, index, source, name)
        return self._scattered(name, dim, where, source, reduction)

    @numpy_names
    def index_fill(self, dim: int, index: Any, value: Any) -> Tensor:
        """Return a copy with a number at a vector of places along an axis."""
        x: Any = self
        at = place(dim, x.ndim)
        where = places_of(x, index, "index_fill")
        x._readable("index_fill()")
        n = x.shape[at] if x.ndim else 1
        hit = np.zeros(n, bool)
        places = np.asarray(getattr(where, "_array", where)).reshape(-1)
        if places.size and not (-n <= places.min() and places.max() < n):
            raise OpError(f"index_fill(): index is out of bounds for dimension {at} with size {n}")
        hit[places] = True
        mask = hit.reshape([-1 if i == at else 1 for i in range(x.ndim)]) if x.ndim else hit.reshape(())
        return x.masked_fill(x.new_tensor(mask, dtype=bool), value)  # type: ignore[no-any-return]

    def index_put(self, indices: Any, values: Any, accumulate: bool = False) -> Tensor:
        """Return a copy with values written, or added, where indexing by a tuple of Tensors takes elements."""
        from .indexing import plain_index

        plain = plain_index(tuple(slice(None) if i is None else i for i in indices))
        return self._at(plain, values, "add" if accumulate else "none", "index_put")

    def _at(self, index: Any, values: Any, reduction: str, name: str) -> Tensor:
        """Return a copy with values at what a NumPy index takes."""
        x: Any = self
        flat = np.arange(x.numel()).reshape(tuple(x.shape))[index]
        if not hasattr(values, "dtype"):
            values = x.new_tensor(values, dtype=x.dtype)
        if values.dtype != x.dtype and not alike_in_half(values, x):
            raise DTypeError(
                f"{name}: requires the source and destination dtypes match, got {x.dtype} for the destination and "
                f"{values.dtype} for the source."
            )
        small = (1,) * (flat.ndim - values.ndim) + tuple(values.shape)
        if len(small) != flat.ndim or any(m not in (1, n) for m, n in zip(small, flat.shape, strict=True)):
            raise ShapeError(
                f"shape mismatch: value tensor of shape {list(values.shape)} cannot be broadcast to indexing result of "
                f"shape {list(flat.shape)} in {name}"
            )
        wide = values.expand(flat.shape).reshape(-1)
        if not flat.size:
            return x.clone()  # type: ignore[no-any-return]
        found = index_ops.scatter_elements(x.reshape(-1), flat.reshape(-1), wide, axis=0, reduction=reduction)
        return found.reshape(tuple(x.shape))  # type: ignore[no-any-return]

    def masked_scatter(self, mask: Any, source: Any) -> Tensor:
        """Return a copy with the elements of source, in order, where the mask holds.

        Raises:
            DTypeError: if the element types differ, or the mask is not of truth values.
            ShapeError: if the source has too few.
        """
        x: Any = self
        if mask.dtype.kind != "b":
            raise DTypeError(f"masked_scatter_ only supports boolean masks, but got mask with dtype {mask.dtype}")
        if x.dtype != source.dtype:
            raise DTypeError(
                f"masked_scatter: expected self and source to have same dtypes but got {x.dtype} and {source.dtype}"
            )
        mask._readable("masked_scatter()")
        shape = np.broadcast_shapes(tuple(x.shape), tuple(mask.shape))
        x = x.expand(shape)
        hit = np.broadcast_to(np.asarray(mask.cpu()._array), shape)
        count = int(hit.sum())
        if source.numel() < count:
            raise ShapeError(f"Number of elements of source < number of ones in mask: {source.numel()} < {count}")
        return x._at(hit, source.reshape(-1)[:count], "none", "masked_scatter")  # type: ignore[no-any-return]

    def put(self, index: Any, source: Any, accumulate: bool = False) -> Tensor:
        """Return a copy with elements of source written, or added, at places of the flattened Tensor."""
        x: Any = self
        flat = x.reshape(-1).index_put((index.reshape(-1),), source.reshape(-1), accumulate)
        return flat.reshape(tuple(x.shape))  # type: ignore[no-any-return]

    @numpy_names
    def select_scatter(self, src: Any, dim: int, index: int) -> Tensor:
        """Return a copy with src as one entry along an axis."""
        x: Any = self
        at = place(dim, x.ndim)
        return self._embedded((slice(None),) * at + (index,), src, "select_scatter")

    @numpy_names
    def slice_scatter(
        self, src: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
    ) -> Tensor:
        """Return a copy with src as a slice along an axis."""
        x: Any = self
        at = place(dim, x.ndim)
        return self._embedded((slice(None),) * at + (slice(start, end, step),), src, "slice_scatter")

    def diagonal_scatter(self, src: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
        """Return a copy with src as a diagonal of two axes."""
        x: Any = self
        flat = np.arange(x.numel()).reshape(tuple(x.shape))
        where = np.diagonal(flat, offset, place(dim1, x.ndim), place(dim2, x.ndim))
        if tuple(src.shape) != where.shape:
            raise ShapeError(
                f"expected src to have a size equal to the diagonal of self. src size = {list(src.shape)}, diagonal "
                f"size = {list(where.shape)}"
            )
        return x.reshape(-1)._at(where.reshape(-1), src.reshape(-1), "none", "diagonal_scatter").reshape(tuple(x.shape))  # type: ignore[no-any-return]

    def _embedded(self, index: Any, src: Any, name: str) -> Tensor:
        x: Any = self
        wanted = np.empty(tuple(x.shape), np.bool_)[index].shape
        if tuple(src.shape) != wanted:
            raise ShapeError(
                f"expected src to have a size equal to the slice of self. src size = {list(src.shape)}, slice size = "
                f"{list(wanted)} in {name}"
            )
        return self._at(index, src if src.dtype == x.dtype else pw.cast(src, dtype=str(x.dtype)), "none", name)

    def renorm(self, p: float, dim: int, maxnorm: float) -> Tensor:
        """Return every entry along an axis, scaled down to a p-norm of at most maxnorm."""
        x: Any = self
        at = place(dim, x.ndim)
        rest = tuple(i for i in range(x.ndim) if i != at)
        length = x.norm(p, rest, True)
        scale = pw.where(pw.greater(length, maxnorm), maxnorm / (length + 1e-7), 1.0)
        return x * scale  # type: ignore[no-any-return]


def _spread_index(x: Any, dim: int, index: Any, source: Any, name: str) -> Any:
    """Return a vector of places as one place for each element of the source."""
    at = place(dim, x.ndim)
    where = places_of(x, index, name)
    where = where.reshape(1) if where.ndim == 0 else where
    if where.ndim != 1:
        raise ShapeError(f"{name}(): Index is supposed to be a vector, but got dim: {where.ndim}")
    shape = tuple(source.shape)
    if source.ndim != x.ndim or shape[at : at + 1] != (where.shape[0],)[: x.ndim]:
        raise ShapeError(
            f"{name}(): Number of indices ({where.shape[0]}) should be equal to source.size(dim): source has shape "
            f"{list(shape)}, self {list(x.shape)}, dim {at}"
        )
    if any(i != at and m != n for i, (m, n) in enumerate(zip(shape, x.shape, strict=True))):
        raise ShapeError(
            f"{name}(): source of shape {list(shape)} must match self of shape {list(x.shape)} except along dim {at}"
        )
    if not hasattr(where, "expand"):
        where = np.broadcast_to(where.reshape([-1 if i == at else 1 for i in range(x.ndim)]), shape)
        return where
    return where.reshape([-1 if i == at else 1 for i in range(x.ndim)]).expand(shape)
