"""Methods that change shape, or take elements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...ops import index as index_ops, layout, reduce as red
from ...ops.dims import Dim
from ...ops.errors import ShapeError
from ..grad_mode import MODE

if TYPE_CHECKING:
    from ..tensor import Tensor


def _sizes(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return sizes or axes that came one by one or as one sequence."""
    given = args[0] if len(args) == 1 and isinstance(args[0], tuple | list) else args
    return tuple(n if isinstance(n, Dim) else int(n) for n in given)


class Shapes:
    """Shapes, and elements by index."""

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

    @property
    def T(self) -> Tensor:  # noqa: N802 - NumPy's and PyTorch's name
        """The Tensor with its axes reversed."""
        return layout.transpose(self, perm=None)  # type: ignore[no-any-return]

    @property
    def mT(self) -> Tensor:  # noqa: N802 - PyTorch's name
        """The Tensor with its last two axes exchanged."""
        return self.transpose(-2, -1)

    def reshape(self, *shape: Any) -> Tensor:
        """Return the elements in another shape; one -1 is what the others leave."""
        sizes = _sizes(shape)
        try:
            return layout.reshape(self, shape=sizes)  # type: ignore[no-any-return]
        except ValueError:
            raise ShapeError(f"shape '{list(sizes)}' is invalid for input of size {self._array.size}") from None

    def view(self, *shape: Any) -> Tensor:
        """Return the elements in another shape, sharing memory.

        Raises:
            ShapeError: where that is not possible without a copy.
        """
        out = self.reshape(*shape)
        if MODE.trace is None and out._array.size and not _shares(out._array, self._array):
            raise ShapeError(
                "view size is not compatible with input tensor's size and stride. Use .reshape(...) instead."
            )
        return out

    def view_as(self, other: Tensor) -> Tensor:
        """Return the elements in the shape of another."""
        return self.view(other.shape)

    def reshape_as(self, other: Tensor) -> Tensor:
        """Return the elements in the shape of another."""
        return self.reshape(other.shape)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Return the axes from start to end joined into one."""
        shape = self._array.shape
        n = len(shape)
        if n == 0:
            return self.reshape(1)
        first, last = start_dim % n, end_dim % n
        joined = 1
        for size in shape[first : last + 1]:
            joined *= size
        return self.reshape(*shape[:first], joined, *shape[last + 1 :])

    def unflatten(self, dim: int, sizes: tuple[int, ...]) -> Tensor:
        """Return an axis split into several."""
        shape = self._array.shape
        at = dim % len(shape)
        known = 1
        for size in sizes:
            known *= size
        full = tuple(-shape[at] // known if size == -1 else size for size in sizes)
        return self.reshape(*shape[:at], *full, *shape[at + 1 :])

    def permute(self, *dims: Any) -> Tensor:
        """Return the axes in another order."""
        n = self._array.ndim
        order = tuple(d % n if n else d for d in _sizes(dims))
        if sorted(order) != list(range(n)):
            raise ShapeError(f"permute: {dims} is no order of {n} axes")
        return layout.transpose(self, perm=order)  # type: ignore[no-any-return]

    def transpose(self, *dims: Any) -> Tensor:
        """Return two axes exchanged; with other than two arguments, all axes in that order, as NumPy has it."""
        if len(dims) != 2:
            return self.permute(*dims) if dims else self.T
        n = self._array.ndim
        order = list(range(n))
        a, b = dims[0] % n, dims[1] % n
        order[a], order[b] = b, a
        return layout.transpose(self, perm=tuple(order))  # type: ignore[no-any-return]

    swapaxes = transpose

    def t(self) -> Tensor:
        """Return a matrix with its axes exchanged.

        Raises:
            ShapeError: of more than two axes.
        """
        if self._array.ndim > 2:
            raise ShapeError(f"t() expects a tensor with <= 2 dimensions, but self is {self._array.ndim}D")
        return self.T

    def squeeze(self, dim: Any = None) -> Tensor:
        """Return it without axes of size 1: all of them, or these where they are."""
        shape = self._array.shape
        n = len(shape)
        if dim is None:
            return layout.squeeze(self, axes=tuple(i for i in range(n) if shape[i] == 1))  # type: ignore[no-any-return]
        axes = tuple(d % n if n else 0 for d in (dim if isinstance(dim, tuple | list) else (dim,)))
        return layout.squeeze(self, axes=tuple(a for a in axes if n and shape[a] == 1))  # type: ignore[no-any-return]

    def unsqueeze(self, dim: int) -> Tensor:
        """Return it with a new axis of size 1 there."""
        return layout.unsqueeze(self, axes=(dim % (self._array.ndim + 1),))  # type: ignore[no-any-return]

    def expand(self, *sizes: Any) -> Tensor:
        """Return axes of size 1 repeated without a copy; -1 keeps a size."""
        shape, wanted = self._array.shape, _sizes(sizes)
        lead = len(wanted) - len(shape)
        full = tuple(shape[i - lead] if n == -1 else n for i, n in enumerate(wanted))
        return red.broadcast_to(self, shape=full)  # type: ignore[no-any-return]

    broadcast_to = expand

    def expand_as(self, other: Tensor) -> Tensor:
        """Return it expanded to the shape of another."""
        return self.expand(other.shape)

    def repeat(self, *repeats: Any) -> Tensor:
        """Return it laid out several times along each axis."""
        times = _sizes(repeats)
        x: Any = self.reshape((1,) * (len(times) - self._array.ndim) + self._array.shape)
        return layout.tile(x, repeats=times)  # type: ignore[no-any-return]

    def flip(self, *dims: Any) -> Tensor:
        """Return it with these axes turned round."""
        return layout.flip(self, axes=tuple(d % self._array.ndim for d in _sizes(dims)))  # type: ignore[no-any-return]

    def split(self, size: Any, dim: int = 0) -> tuple[Tensor, ...]:
        """Return parts of this size (the last may be smaller), or of these sizes, along an axis."""
        n, at = self._array.shape[dim], dim % self._array.ndim
        sizes = (size,) * (n // size) + ((n % size,) if n % size else ()) if isinstance(size, int) else tuple(size)
        return layout.split(self, axis=at, sizes=sizes)  # type: ignore[no-any-return]

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        """Return at most so many parts of equal size, the last smaller."""
        return self.split(-(-self._array.shape[dim] // chunks), dim)

    def unbind(self, dim: int = 0) -> tuple[Tensor, ...]:
        """Return the entries along an axis."""
        return tuple(part.squeeze(dim) for part in self.split(1, dim))

    def narrow(self, dim: int, start: int, length: int) -> Tensor:
        """Return `length` entries along an axis, from `start` on."""
        return self[(slice(None),) * (dim % self._array.ndim) + (slice(start, start + length),)]

    def select(self, dim: int, index: int) -> Tensor:
        """Return one entry along an axis."""
        return self[(slice(None),) * (dim % self._array.ndim) + (index,)]

    def index_select(self, dim: int, index: Any) -> Tensor:
        """Return the entries along an axis at a vector of places."""
        return index_ops.gather(self, index, axis=dim % self._array.ndim)  # type: ignore[no-any-return]

    def gather(self, dim: int, index: Any) -> Tensor:
        """Return one element an index: the index replaces the place along the axis."""
        return index_ops.gather_elements(self, index, axis=dim % self._array.ndim)  # type: ignore[no-any-return]

    def masked_select(self, mask: Any) -> Tensor:
        """Return the elements where the mask holds, flat."""
        return self[mask]

    def nonzero(self) -> Tensor:
        """Return the places of the elements that are not 0, one a row."""
        return index_ops.nonzero(self).T  # type: ignore[no-any-return]

    def contiguous(self) -> Tensor:
        """Return it with its elements in row-major order; itself where they are."""
        out: Any = self
        return out if MODE.trace is not None or self._array.flags.c_contiguous else out.clone()  # type: ignore[no-any-return]

    def clone(self) -> Tensor:
        """Return a copy through which gradients flow."""
        out: Tensor = layout.identity(self)
        if MODE.trace is not None:
            return out
        out._array, out._counter = self._array.copy(order="C"), None
        return out

    def tril(self, diagonal: int = 0) -> Tensor:
        """Return the lower triangle, zeros elsewhere."""
        return layout.trilu(self, k=diagonal, upper=False)  # type: ignore[no-any-return]

    def triu(self, diagonal: int = 0) -> Tensor:
        """Return the upper triangle, zeros elsewhere."""
        return layout.trilu(self, k=diagonal, upper=True)  # type: ignore[no-any-return]


def _shares(a: Any, b: Any) -> bool:
    return a is b or a.base is b or (a.base is not None and a.base is b.base)
