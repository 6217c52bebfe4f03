"""Methods that repeat elements, turn them round, or move them about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ....ops import layout
from ....ops.errors import OpError, ShapeError
from .axes import numpy_names, place, places, sizes
from .shapes import copied, no_more

if TYPE_CHECKING:
    from ..tensor import Tensor


class Rearranging:
    """Repetitions, rotations, windows and triangles."""

    _array: Any
    clone: Any
    reshape: Any

    def repeat(self, *repeats: Any, **named: Any) -> Tensor:
        """Return it laid out several times along each axis."""
        times = sizes(repeats, named.pop("repeats", None))
        no_more(named, "repeat")
        if len(times) < self._array.ndim:
            raise ShapeError(
                "Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor: "
                f"{list(times)} for shape {list(self._array.shape)}"
            )
        x: Any = self.reshape((1,) * (len(times) - self._array.ndim) + tuple(self._array.shape))
        return layout.tile(x, repeats=times)  # type: ignore[no-any-return]

    def tile(self, *dims: Any, **named: Any) -> Tensor:
        """Return it laid out several times along each axis; missing numbers are 1."""
        times = sizes(dims, named.pop("dims", None))
        return self.repeat((1,) * (self._array.ndim - len(times)) + times)

    def flip(self, *dims: Any, **named: Any) -> Tensor:
        """Return a copy with these axes turned round."""
        axes = places(sizes(dims, named.pop("dims", None)), self._array.ndim, "flip")
        no_more(named, "flip")
        return copied(layout.flip(self, axes=axes if self._array.ndim else ()))  # type: ignore[no-any-return]

    def fliplr(self) -> Tensor:
        """Return it turned round from left to right: along the second axis."""
        if self._array.ndim < 2:
            raise ShapeError("Input must be >= 2-d.")
        return self.flip(1)

    def flipud(self) -> Tensor:
        """Return it turned round from top to bottom: along the first axis."""
        if self._array.ndim < 1:
            raise ShapeError("Input must be >= 1-d.")
        return self.flip(0)

    def rot90(self, k: int = 1, dims: Any = (0, 1)) -> Tensor:
        """Return it turned by k quarters from the first towards the second axis."""
        n = self._array.ndim
        if len(dims) != 2:
            raise ShapeError(f"expected total rotation dims == 2, but got dims = {len(dims)}")
        a, b = places(dims, n, "rot90")
        k %= 4
        if k == 0:
            return self.clone()  # type: ignore[no-any-return]
        if k == 2:
            return self.flip(a, b)
        return self.flip(b).transpose(a, b) if k == 1 else self.flip(a).transpose(a, b)

    def roll(self, shifts: Any, dims: Any = None) -> Tensor:
        """Return the elements moved along the axes, what falls off at the end coming in at the start.

        Raises:
            ShapeError: unless there is one shift an axis.
        """
        x: Any = self
        moves = tuple(shifts) if isinstance(shifts, tuple | list) else (shifts,)
        if dims is None or dims == ():
            if len(moves) != 1:
                raise ShapeError(f"shifts and dimensions must align. shifts: {len(moves)}, dims:0")
            return self.reshape(-1).roll(moves[0], 0).reshape(tuple(x.shape))  # type: ignore[no-any-return]
        axes = tuple(dims) if isinstance(dims, tuple | list) else (dims,)
        if len(axes) != len(moves):
            raise ShapeError(f"shifts and dimensions must align. shifts: {len(moves)}, dims:{len(axes)}")
        for move, dim in zip(moves, axes, strict=True):
            at = place(dim, x.ndim)
            n = x.shape[at]
            by = move % n if n else 0
            if by:
                first, last = layout.split(x, axis=at, sizes=(n - by, by))
                x = layout.concat(last, first, axis=at)
        return copied(layout.identity(x)) if x is self else x  # type: ignore[no-any-return]

    def unfold(self, dimension: int, size: int, step: int) -> Tensor:
        """Return all slices of a size along an axis, a step apart, each as a new last axis; they share memory.

        Raises:
            OpError: if the axis is shorter than the size, or the step is not positive.
        """
        from ....ops.signal import frames

        me: Any = self
        at = place(dimension, me.ndim)
        room = me.shape[at] if me.ndim else 1
        if isinstance(room, int) and size > room:
            raise OpError(f"maximum size for tensor at dimension {at} is {room} but size is {size}")
        if step <= 0:
            raise OpError(f"step is {step} but must be > 0")
        if me.ndim == 0:
            return self.reshape(1)[:size]  # type: ignore[no-any-return]
        cut = frames(me.movedim(at, 0).unsqueeze(0), length=size, step=step)
        order = list(range(2, cut.ndim))
        order.insert(at, 0)
        return cut.squeeze(0).movedim(1, -1).movedim(0, at)  # type: ignore[no-any-return]

    @numpy_names
    def repeat_interleave(
        self, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None
    ) -> Tensor:
        """Return every entry along an axis repeated, each so often or each its own number of times.

        Args:
            repeats: a number, or a vector of one number an entry; without any, the Tensor is that vector and the
                places are repeated.
            dim: the axis; the flattened Tensor by default.
            output_size: how many entries the result has; it is found out either way.

        Raises:
            ShapeError: unless there is one number an entry.
        """
        if repeats is None:
            from ..creation import arange

            return arange(self._array.shape[0], device=self.device).repeat_interleave(self)  # type: ignore[attr-defined]
        x: Any = self.reshape(-1) if dim is None else self
        at = 0 if dim is None else place(dim, x.ndim)
        if isinstance(repeats, int):
            wide = x.unsqueeze(at + 1)
            shape = [repeats if i == at + 1 else n for i, n in enumerate(wide.shape)]
            return wide.expand(shape).reshape([n * repeats if i == at else n for i, n in enumerate(x.shape)])  # type: ignore[no-any-return]
        times = np.asarray(getattr(repeats, "_array", repeats))
        if times.ndim == 0 or times.size == 1:
            return self.repeat_interleave(int(times.reshape(())), dim)
        if times.shape != (x.shape[at],):
            raise ShapeError(
                f"repeats must have the same size as input along dim, but got repeats.size(0) = {times.shape[0]} and "
                f"input.size({at}) = {x.shape[at]}"
            )
        return x.index_select(at, np.repeat(np.arange(len(times)), times))  # type: ignore[no-any-return]

    def tril(self, diagonal: int = 0) -> Tensor:
        """Return the lower triangle, zeros elsewhere."""
        return layout.trilu(self, k=diagonal, upper=False)  # type: ignore[no-any-return]

    def triu(self, diagonal: int = 0) -> Tensor:
        """Return the upper triangle, zeros elsewhere."""
        return layout.trilu(self, k=diagonal, upper=True)  # type: ignore[no-any-return]
