"""Methods that change the shape of a Tensor in place: it becomes the view that the method without `_` returns."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from ....ops.errors import AutogradError, TraceError
from ...autograd.grad_mode import MODE

Self = TypeVar("Self", bound="Reshaping")


class Reshaping:
    """In-place changes of shape."""

    _array: Any
    requires_grad: bool
    is_leaf: Any
    _edge: Any

    def _turn(self: Self, name: str, *args: Any) -> Self:
        if MODE.trace is not None:
            raise TraceError(f"{name}_() changes a shape in place, which a compiled function cannot: use {name}()")
        if MODE.enabled and self.requires_grad and self.is_leaf:
            raise AutogradError("a leaf Variable that requires grad is being used in an in-place operation.")
        found = getattr(self, name)(*args)
        self._array = found._array
        if found._edge is not None:
            self._edge, self.requires_grad = found._edge, True
        self._bump()  # type: ignore[attr-defined]
        return self

    def squeeze_(self: Self, *dim: Any) -> Self:
        """Drop axes of size 1, all or the given ones, in place."""
        return self._turn("squeeze", *dim)

    def unsqueeze_(self: Self, dim: int) -> Self:
        """Insert an axis of size 1 in place."""
        return self._turn("unsqueeze", dim)

    def transpose_(self: Self, dim0: int, dim1: int) -> Self:
        """Swap two axes in place."""
        return self._turn("transpose", dim0, dim1)

    def t_(self: Self) -> Self:
        """Transpose a matrix in place."""
        return self._turn("t")

    swapaxes_ = transpose_
    swapdims_ = transpose_

    def detach_(self: Self) -> Self:
        """Forget where it came from, in place."""
        self._edge = None
        self.requires_grad = False
        return self

    def resize_(self: Self, *size: Any) -> Self:
        """Take another shape in place: the elements stay in their order, what is new is whatever is in memory.

        Raises:
            AutogradError: on a Tensor that requires a gradient.
        """
        if self.requires_grad:
            raise AutogradError("cannot resize variables that require grad")
        from ..creation import shape_of

        shape, flat = shape_of(size), self._array.reshape(-1)
        count = int(np.prod(shape))
        if count > flat.size:
            room = np.empty(count, flat.dtype)
            room[: flat.size] = flat
            flat = room
        self._array = flat[:count].reshape(shape)
        self._bump()  # type: ignore[attr-defined]
        return self
