"""Methods that change shape. Those of PyTorch's that share memory share it here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ....ops import layout, pointwise as pw, reduce as red
from ....ops.errors import ShapeError
from ...autograd.grad_mode import MODE
from ...autograd.node_names import labelled
from ...autograd.saved import Late
from ...cuda.guard import placed
from .axes import numpy_names, place, places, sizes

if TYPE_CHECKING:
    from ..tensor import Tensor


def copied(out: Any) -> Any:
    """Return the result of an op whose kernel made a view, with memory of its own."""
    if MODE.trace is None and getattr(out._array, "base", None) is not None:
        with placed(out._array):
            out._array, out._counter, out._base = out._array.copy(), None, None
    return out


class Shapes:
    """Shapes."""

    _array: Any

    @property
    def T(self) -> Tensor:  # noqa: N802 - NumPy's and PyTorch's name
        """The Tensor with its axes reversed."""
        return labelled(layout.transpose(self, perm=None), "Permute")  # type: ignore[no-any-return]

    @property
    def mT(self) -> Tensor:  # noqa: N802 - PyTorch's name
        """The Tensor with its last two axes exchanged.

        Raises:
            ShapeError: with fewer than two axes.
        """
        if self._array.ndim < 2:
            raise ShapeError(
                f"tensor.mT is only supported on matrices or batches of matrices. Got {self._array.ndim}-D tensor."
            )
        return self.transpose(-2, -1)

    @property
    def H(self) -> Tensor:  # noqa: N802 - PyTorch's name
        """A matrix with its axes exchanged: real numbers are their own conjugates."""
        if self._array.ndim not in (0, 2):
            raise ShapeError(f"tensor.H is only supported on matrices (2-D tensors). Got {self._array.ndim}-D tensor.")
        return self.T

    @property
    def mH(self) -> Tensor:  # noqa: N802 - PyTorch's name
        """The Tensor with its last two axes exchanged: real numbers are their own conjugates."""
        return self.mT

    def adjoint(self) -> Tensor:
        """Return it with its last two axes exchanged."""
        return self.mT

    def reshape(self, *shape: Any, **named: Any) -> Tensor:
        """Return the elements in another shape; one -1 is what the others leave."""
        wanted = sizes(shape, named.pop("shape", None))
        no_more(named, "reshape")
        try:
            return layout.reshape(self, shape=wanted)  # type: ignore[no-any-return]
        except ValueError:
            holes = [n for n in wanted if isinstance(n, int) and n < 0]
            if len(holes) > 1 and set(holes) == {-1}:
                raise ShapeError("only one dimension can be inferred") from None
            if any(n < -1 for n in holes):
                raise ShapeError(f"invalid shape dimension {min(holes)}") from None
            raise ShapeError(f"shape '{list(wanted)}' is invalid for input of size {self._array.size}") from None

    def view(self, *shape: Any, **named: Any) -> Tensor:
        """Return the elements in another shape, or their bits as another element type, sharing memory.

        Raises:
            ShapeError: where that is not possible without a copy.
        """
        dtype = named.pop("dtype", None)
        if dtype is None and len(shape) == 1 and isinstance(shape[0], np.dtype | type | str):
            dtype = shape[0]
        if dtype is not None:
            return self._view_type(np.dtype(dtype))
        out = self.reshape(*shape, shape=named.pop("size", None))
        no_more(named, "view")
        if MODE.trace is None and out._array.size and not shares(out._array, self._array):
            raise ShapeError(
                "view size is not compatible with input tensor's size and stride (at least one dimension spans across "
                "two contiguous subspaces). Use .reshape(...) instead."
            )
        return out

    def _view_type(self, dtype: np.dtype[Any]) -> Tensor:
        me: Any = self
        if dtype == me.dtype:
            return layout.identity(me)  # type: ignore[no-any-return]
        if dtype.itemsize == me.dtype.itemsize:
            return pw.bitcast(me, dtype=str(dtype))  # type: ignore[no-any-return]
        try:
            array = self._array.view(dtype)
        except (ValueError, TypeError):
            raise ShapeError(
                f"self.size(-1) must be divisible by {dtype.itemsize // max(me.dtype.itemsize, 1) or 1} to view "
                f"{me.dtype} as {dtype} (different element sizes), but got {me.shape}"
            ) from None
        from ...autograd.record import note_view
        from ..tensor import wrap

        out = wrap(array)
        out._counter = me._shared_counter()
        note_view(out, me)
        return out

    def view_as(self, other: Tensor) -> Tensor:
        """Return the elements in the shape of another, sharing memory."""
        return self.view(tuple(other.shape))

    def reshape_as(self, other: Tensor) -> Tensor:
        """Return the elements in the shape of another."""
        return self.reshape(tuple(other.shape))

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Return the axes from start to end joined into one.

        Raises:
            ShapeError: if start comes after end.
        """
        shape = self._array.shape
        n = len(shape)
        first, last = place(start_dim, n), place(end_dim, n)
        if n == 0:
            return self.reshape(1)
        if first > last:
            raise ShapeError("flatten() has invalid args: start_dim cannot come after end_dim")
        joined = 1
        for size in shape[first : last + 1]:
            joined *= size
        return self.reshape(*shape[:first], joined, *shape[last + 1 :])

    def ravel(self) -> Tensor:
        """Return the elements in one axis."""
        return self.contiguous().reshape(-1)

    @numpy_names
    def unflatten(self, dim: int, sizes: Any) -> Tensor:
        """Return an axis split into several; one -1 is what the others leave.

        Raises:
            ShapeError: if the sizes do not multiply to the axis's.
        """
        shape = self._array.shape
        at = place(dim, len(shape))
        given = (sizes,) if isinstance(sizes, int) else tuple(sizes)
        known = 1
        for size in given:
            known *= size
        full = tuple(-shape[at] // known if size == -1 else size for size in given)
        total: Any = 1
        for size in full:
            total = total * size
        if isinstance(total, int) and isinstance(shape[at], int) and total != shape[at]:
            raise ShapeError(
                f"unflatten: Provided sizes {list(given)} don't multiply up to the size of dim {at} ({shape[at]}) in "
                "the input tensor"
            )
        return self.reshape(*shape[:at], *full, *shape[at + 1 :])

    def permute(self, *dims: Any, **named: Any) -> Tensor:
        """Return the axes in another order."""
        n = self._array.ndim
        given = sizes(dims, named.pop("dims", None))
        no_more(named, "permute")
        if len(given) != n:
            raise ShapeError(
                "permute(sparse_coo): number of dimensions in the tensor input does not match the length of the "
                f"desired ordering of dimensions i.e. input.dim() = {n} is not equal to len(dims) = {len(given)}"
            )
        order = places(given, n, "permute") if n else ()
        return labelled(layout.transpose(self, perm=order), "Permute")  # type: ignore[no-any-return]

    def transpose(self, *dims: Any, **named: Any) -> Tensor:
        """Return two axes exchanged; with other than two arguments, all axes in that order, as NumPy has it."""
        if named:
            dims = (*dims, *(named.pop(k) for k in ("dim0", "dim1") if k in named))
            no_more(named, "transpose")
        if len(dims) != 2:
            return self.permute(*dims) if dims else self.T
        n = self._array.ndim
        order = list(range(n))
        a, b = place(dims[0], n), place(dims[1], n)
        if n:
            order[a], order[b] = b, a
        return layout.transpose(self, perm=tuple(order))  # type: ignore[no-any-return]

    swapaxes = swapdims = transpose

    def movedim(self, source: Any, destination: Any) -> Tensor:
        """Return axes moved to other places, the others in their order."""
        n = self._array.ndim
        old = places(source, n, "movedim")
        new = places(destination, n, "movedim")
        if len(old) != len(new):
            raise ShapeError(
                f"movedim: Invalid source or destination dims: source ({list(old)} dims) should contain the same "
                f"number of dims as destination ({list(new)} dims)"
            )
        rest = iter(i for i in range(n) if i not in old)
        to = dict(zip(new, old, strict=True))
        return layout.transpose(self, perm=tuple(to[i] if i in to else next(rest) for i in range(n)))  # type: ignore[no-any-return]

    moveaxis = movedim

    def t(self) -> Tensor:
        """Return a matrix with its axes exchanged.

        Raises:
            ShapeError: of more than two axes.
        """
        if self._array.ndim > 2:
            raise ShapeError(f"t() expects a tensor with <= 2 dimensions, but self is {self._array.ndim}D")
        return labelled(self.T, "T")  # type: ignore[no-any-return]

    @numpy_names
    def squeeze(self, dim: Any = None) -> Tensor:
        """Return it without axes of size 1: all of them, or these where they are."""
        shape = self._array.shape
        n = len(shape)
        if dim is None:
            return layout.squeeze(self, axes=tuple(i for i in range(n) if shape[i] == 1))  # type: ignore[no-any-return]
        chosen = places(dim, n, "squeeze")
        return layout.squeeze(self, axes=tuple(a for a in chosen if n and shape[a] == 1))  # type: ignore[no-any-return]

    @numpy_names
    def unsqueeze(self, dim: int) -> Tensor:
        """Return it with a new axis of size 1 there."""
        return layout.unsqueeze(self, axes=(place(dim, self._array.ndim + 1),))  # type: ignore[no-any-return]

    def expand(self, *size: Any, **named: Any) -> Tensor:
        """Return axes of size 1 repeated without a copy; -1 keeps a size.

        Raises:
            ShapeError: where another size would have to grow.
        """
        shape, wanted = self._array.shape, sizes(size, named.pop("size", None))
        no_more(named, "expand")
        lead = len(wanted) - len(shape)
        if lead < 0:
            raise ShapeError(
                f"expand({self._array.dtype}{list(shape)}, size={list(wanted)}): the number of sizes provided "
                f"({len(wanted)}) must be greater or equal to the number of dimensions in the tensor ({len(shape)})"
            )
        full = []
        for i, n in enumerate(wanted):
            old = shape[i - lead] if i >= lead else 1
            if isinstance(n, int) and n == -1 and i < lead:
                raise ShapeError(
                    f"The expanded size of the tensor (-1) isn't allowed in a leading, non-existing dimension {i}"
                )
            new = old if isinstance(n, int) and n == -1 else n
            if isinstance(old, int) and isinstance(new, int) and old not in (1, new):
                raise ShapeError(
                    f"The expanded size of the tensor ({new}) must match the existing size ({old}) at non-singleton "
                    f"dimension {i}.  Target sizes: {list(wanted)}.  Tensor sizes: {list(shape)}"
                )
            full.append(new)
        return red.broadcast_to(self, shape=tuple(full))  # type: ignore[no-any-return]

    broadcast_to = expand

    def expand_as(self, other: Tensor) -> Tensor:
        """Return it expanded to the shape of another."""
        return self.expand(tuple(other.shape))

    def sum_to_size(self, *size: Any) -> Tensor:
        """Return it summed over the axes along which a shape broadcasts to its own."""
        from ....ops.broadcast import sum_to

        return sum_to(self, shape=sizes(size))  # type: ignore[no-any-return]

    def contiguous(self, memory_format: Any = None) -> Tensor:
        """Return it with its elements in row-major order; itself where they are."""
        out: Any = self
        return out if MODE.trace is not None or self._array.flags.c_contiguous else out.clone()  # type: ignore[no-any-return]

    def clone(self, *, memory_format: Any = None) -> Tensor:
        """Return a copy through which gradients flow."""
        out: Tensor = layout.identity(self)
        if MODE.trace is not None:
            return out
        if Late.guard is None:
            out._array = self._array.copy(order="C")
        else:
            with placed(self._array, "clone"):
                out._array = self._array.copy(order="C")
        out._counter = out._base = None
        return out


def no_more(named: dict[str, Any], name: str) -> None:
    """Refuse keyword arguments that a method does not have."""
    if named:
        raise TypeError(f"{name}() got an unexpected keyword argument '{next(iter(named))}'")


def shares(a: Any, b: Any) -> bool:
    """Whether two arrays are over the same memory."""
    return a is b or a.base is b or (a.base is not None and a.base is b.base)
