"""Methods that take elements by their place."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ....ops import index as index_ops, layout
from ....ops.dims import Dim
from ....ops.errors import AxisError, DTypeError, OpError, ShapeError
from ....ops.types import is_integer
from .axes import numpy_names, place

if TYPE_CHECKING:
    from ..tensor import Tensor


def places_of(x: Any, indices: Any, what: str) -> Any:
    """Return indices, checked to be integers and, where that is known, within the axis.

    Raises:
        DTypeError: if they are no integers.
    """
    if isinstance(indices, list | tuple):
        indices = np.asarray(indices, np.int64)
    if not is_integer(indices.dtype):
        raise DTypeError(f"{what}(): Expected dtype int32/int64 for index, found {indices.dtype}")
    return indices


class Taking:
    """Elements by their place."""

    _array: Any

    def __getitem__(self, index: Any) -> Tensor:
        """Return the elements at the index, as NumPy and PyTorch have it; gradients flow through."""
        from .indexing import take

        return take(self, index)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the entries along the first axis."""
        if not self._array.shape:
            raise TypeError("iteration over a 0-d tensor")
        return (self[i] for i in range(self._array.shape[0]))

    def __contains__(self, value: Any) -> bool:
        """Return whether an element equals the value."""
        return bool((self == value).any())

    @numpy_names
    def split(self, split_size: Any, dim: int = 0) -> tuple[Tensor, ...]:
        """Return parts of this size (the last may be smaller), or of these sizes, along an axis.

        Raises:
            ShapeError: if the sizes do not add up.
        """
        at = place(dim, self._array.ndim)
        n = self._array.shape[at]
        if isinstance(split_size, int):
            if split_size < 0 or (split_size == 0 and n):
                raise ShapeError(f"split expects split_size be positive, but got split_size={split_size}")
            wanted: tuple[Any, ...] = (n,)
            if split_size and not isinstance(n, Dim) and n:
                wanted = (split_size,) * (n // split_size) + ((n % split_size,) if n % split_size else ())
        else:
            wanted = tuple(split_size)
            total = sum(wanted)
            if isinstance(total, int) and isinstance(n, int) and total != n:
                raise ShapeError(
                    f"split_with_sizes expects split_sizes to sum exactly to {n} (input tensor's size at dimension "
                    f"{at}), but got split_sizes={list(wanted)}"
                )
        return layout.split(self, axis=at, sizes=wanted)  # type: ignore[no-any-return]

    @numpy_names
    def split_with_sizes(self, split_sizes: Any, dim: int = 0) -> tuple[Tensor, ...]:
        """Return parts of these sizes along an axis."""
        return self.split(tuple(split_sizes), dim)

    @numpy_names
    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        """Return at most so many parts of equal size, the last smaller."""
        if chunks < 1:
            raise ShapeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
        return self.split(max(-(-self._array.shape[place(dim, self._array.ndim)] // chunks), 1), dim)

    @numpy_names
    def tensor_split(self, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
        """Return so many parts, their sizes 1 apart at most, or parts that begin at these places, along an axis."""
        at = place(dim, self._array.ndim)
        n = self._array.shape[at]
        given = indices_or_sections
        given = given.tolist() if hasattr(given, "tolist") else given
        if isinstance(given, int):
            if given < 1:
                raise ShapeError(f"number of sections must be larger than 0, got {given}")
            small, more = divmod(n, given)
            return self.split([small + 1] * more + [small] * (given - more), dim)
        ends = [0, *(slice(0, i).indices(n)[1] for i in given), n]
        return tuple(self._narrowed(at, a, max(b - a, 0)) for a, b in itertools.pairwise(ends))

    def _narrowed(self, at: int, start: int, length: int) -> Tensor:
        return self[(slice(None),) * at + (slice(start, start + length),)]

    def hsplit(self, indices_or_sections: Any) -> tuple[Tensor, ...]:
        """Return parts along the second axis; of a vector along its only one."""
        return self._equal_parts("hsplit", indices_or_sections, 1 if self._array.ndim > 1 else 0, 1)

    def vsplit(self, indices_or_sections: Any) -> tuple[Tensor, ...]:
        """Return parts along the first axis."""
        return self._equal_parts("vsplit", indices_or_sections, 0, 2)

    def dsplit(self, indices_or_sections: Any) -> tuple[Tensor, ...]:
        """Return parts along the third axis."""
        return self._equal_parts("dsplit", indices_or_sections, 2, 3)

    def _equal_parts(self, name: str, given: Any, at: int, rank: int) -> tuple[Tensor, ...]:
        if self._array.ndim < rank:
            raise ShapeError(
                f"torch.{name} requires a tensor with at least {rank} dimension, but got a tensor with "
                f"{self._array.ndim} dimensions!"
            )
        if isinstance(given, int) and self._array.shape[at] % given:
            raise ShapeError(
                f"torch.{name} attempted to split along dimension {at}, but the size of the dimension "
                f"{self._array.shape[at]} is not divisible by the split_size {given}!"
            )
        return self.tensor_split(given, at)

    @numpy_names
    def unbind(self, dim: int = 0) -> tuple[Tensor, ...]:
        """Return the entries along an axis."""
        at = place(dim, self._array.ndim)
        if not self._array.ndim:
            raise AxisError("Dimension specified as 0 but tensor has no dimensions")
        n = self._array.shape[at]
        return tuple(part.squeeze(at) for part in layout.split(self, axis=at, sizes=(1,) * n)) if n else ()

    @numpy_names
    def narrow(self, dim: int, start: Any, length: int) -> Tensor:
        """Return `length` entries along an axis, from `start` on.

        Raises:
            ShapeError: if there are fewer.
        """
        at = place(dim, self._array.ndim)
        if not self._array.ndim:
            raise ShapeError("narrow() cannot be applied to a 0-dim tensor.")
        n, first = self._array.shape[at], int(start)
        if isinstance(n, int):
            if length < 0:
                raise ShapeError("narrow(): length must be non-negative.")
            if not -n <= first <= n:
                raise AxisError(f"start out of range (expected to be in range of [{-n}, {n}], but got {first})")
            first = first + n if first < 0 else first
            if first + length > n:
                raise ShapeError(f"start ({first}) + length ({length}) exceeds dimension size ({n}).")
        return self._narrowed(at, first, length)

    @numpy_names
    def select(self, dim: int, index: int) -> Tensor:
        """Return one entry along an axis.

        Raises:
            AxisError: if there is none.
        """
        if not self._array.ndim:
            raise AxisError("select() cannot be applied to a 0-dim tensor.")
        at = place(dim, self._array.ndim)
        n = self._array.shape[at]
        if isinstance(n, int) and not -n <= index < n:
            raise AxisError(
                f"select(): index {index} out of range for tensor of size {list(self._array.shape)} at dimension {at}"
            )
        return self[(slice(None),) * at + (index,)]

    @numpy_names
    def index_select(self, dim: int, index: Any) -> Tensor:
        """Return the entries along an axis at a vector of places."""
        at = place(dim, self._array.ndim)
        where = places_of(self, index, "index_select")
        if where.ndim > 1:
            raise AxisError(f"index_select(): Index is supposed to be a vector, but got dim: {where.ndim}")
        where = where.reshape(1) if where.ndim == 0 else where
        _within("index_select", where, self._array.shape, at)
        if not self._array.ndim:
            return index_ops.gather(self.reshape(1), where, axis=0).reshape(())  # type: ignore[attr-defined, no-any-return]
        return index_ops.gather(self, where, axis=at)  # type: ignore[no-any-return]

    @numpy_names
    def gather(self, dim: int, index: Any, *, sparse_grad: bool = False) -> Tensor:
        """Return one element an index: the index replaces the place along the axis.

        Raises:
            ShapeError: if the index has another rank, or is larger along another axis.
        """
        me: Any = self
        at = place(dim, me.ndim)
        where = places_of(me, index, "gather")
        if me.ndim == 0 or where.ndim == 0:
            if max(me.ndim, where.ndim) > 1:
                raise ShapeError("Index tensor must have the same number of dimensions as input tensor")
            found = index_ops.gather_elements(me.reshape(-1), where.reshape(-1), axis=0)
            return found.reshape(tuple(where.shape))  # type: ignore[no-any-return]
        if where.ndim != me.ndim:
            raise ShapeError(
                f"Index tensor must have the same number of dimensions as input tensor: {where.ndim} and {me.ndim}"
            )
        for i, (m, n) in enumerate(zip(where.shape, me.shape, strict=True)):
            if i != at and isinstance(m, int) and isinstance(n, int) and m > n:
                raise ShapeError(
                    f"Size does not match at dimension {i} expected index {list(where.shape)} to be no larger than "
                    f"self {list(me.shape)} apart from dimension {at}"
                )
        _within("gather", where, me.shape, at)
        return index_ops.gather_elements(me, where, axis=at)  # type: ignore[no-any-return]

    def masked_select(self, mask: Any) -> Tensor:
        """Return the elements where the mask holds, flat; the two broadcast.

        Raises:
            DTypeError: if the mask is not of truth values.
        """
        me: Any = self
        if mask.dtype.kind != "b":
            raise DTypeError(f"masked_select: expected BoolTensor for mask, found {mask.dtype}")
        if tuple(mask.shape) != tuple(me.shape):
            from ..joining import broadcast_tensors

            me, mask = broadcast_tensors(me, mask)
        return me[mask] if me.ndim else me.reshape(1)[mask.reshape(1)]  # type: ignore[no-any-return]

    def nonzero(self, *, as_tuple: bool = False) -> Any:
        """Return the places of the elements that are not 0, one a row, or one vector an axis."""
        me: Any = self
        if not me.ndim:
            rows = index_ops.nonzero(me.reshape(1)).T
            return (rows.reshape(-1),) if as_tuple else rows[:, :0]
        found = index_ops.nonzero(me)
        return found.unbind(0) if as_tuple else found.T.contiguous()

    def argwhere(self) -> Tensor:
        """Return the places of the elements that are not 0, one a row."""
        return self.nonzero()  # type: ignore[no-any-return]

    def take(self, index: Tensor) -> Tensor:
        """Return the elements at these places of the flattened Tensor."""
        me: Any = self
        where = places_of(me, index, "take")
        _within("take", where, (me.numel(),), 0)
        return index_ops.gather(me.reshape(-1), where.reshape(-1), axis=0).reshape(tuple(where.shape))  # type: ignore[no-any-return]

    @numpy_names
    def take_along_dim(self, indices: Tensor, dim: int | None = None) -> Tensor:
        """Return one element an index, as `gather`, where the other axes broadcast.

        Raises:
            ShapeError: if the ranks differ.
        """
        me: Any = self
        if dim is None:
            return me.reshape(-1).gather(0, indices.reshape(-1))  # type: ignore[no-any-return]
        if indices.ndim != me.ndim:
            raise ShapeError(
                "torch.take_along_dim(): input and indices should have the same number of dimensions, but got "
                f"{me.ndim} dimensions for input, and {indices.ndim} dimensions for indices"
            )
        from ..joining import broadcast_shapes

        at = place(dim, me.ndim)
        rest = broadcast_shapes(*(tuple(1 if i == at else n for i, n in enumerate(t.shape)) for t in (me, indices)))
        wide = [t.expand(tuple(t.shape[at] if i == at else n for i, n in enumerate(rest))) for t in (me, indices)]
        return wide[0].gather(at, wide[1])


def _within(name: str, where: Any, shape: Any, at: int) -> None:
    """Refuse places outside an axis, where they are known."""
    array = getattr(where, "_array", where)
    n = shape[at] if len(shape) else 1
    if isinstance(array, np.ndarray) and isinstance(n, int) and array.size:
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= n:
            bad = low if low < 0 else high
            if name == "take" and low >= -n and high < n:
                return
            kind = AxisError if name in ("index_select", "take") else OpError
            raise kind(f"{name}(): index {bad} is out of bounds for dimension {at} with size {n}")
