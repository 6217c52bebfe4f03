"""Methods that overwrite elements in place, by PyTorch's trailing underscore."""

from __future__ import annotations

from typing import Any, TypeVar

from ...ops.errors import AutogradError, ShapeError
from ...ops.op import namespace
from ..grad_mode import MODE
from .arithmetic import matched

Self = TypeVar("Self", bound="InPlace")


def _plain(value: Any) -> Any:
    """Return the array of a Tensor; under a trace the Tensor, without its past."""
    if MODE.trace is not None:
        return value.detach() if hasattr(value, "detach") else value
    return getattr(value, "_array", value)


class InPlace:
    """Every change counts as a new version, so that a backward that needs the old elements refuses.

    Changes that gradients would have to flow through are refused; `x += y` then makes a new Tensor instead.
    """

    _array: Any
    requires_grad: bool

    def _records(self, *values: Any) -> bool:
        return MODE.enabled and (self.requires_grad or any(getattr(v, "requires_grad", False) for v in values))

    def _changeable(self, *values: Any) -> None:
        """Refuse a change that would have to be recorded."""
        if not self._records(*values):
            return
        if self.requires_grad and self.is_leaf:  # type: ignore[attr-defined]
            raise AutogradError("a leaf Variable that requires grad is being used in an in-place operation.")
        raise AutogradError(
            "an in-place change that gradients would have to flow through cannot be recorded; compute a new Tensor "
            "instead (x = x + y), or change it under no_grad()"
        )

    def _write(self: Self, value: Any, where: Any = ...) -> Self:
        self._changeable(value)
        if MODE.trace is not None:
            MODE.trace.overwrite(self, value, where)
            self._bump()  # type: ignore[attr-defined]
            return self
        try:
            self._array[where] = _plain(value)
        except ValueError as error:
            raise ShapeError(f"in-place change of shape {self._array.shape}: {error}") from None
        self._bump()  # type: ignore[attr-defined]
        return self

    def _update(self: Self, function: str, value: Any) -> Self:
        """Put function(self, value) in the place of self."""
        self._changeable(value)
        if MODE.trace is not None:
            MODE.trace.update(self, function, value)
            self._bump()  # type: ignore[attr-defined]
            return self
        x = self._array
        try:
            getattr(namespace(x), function)(x, _plain(value), out=x, casting="same_kind")
        except ValueError as error:
            raise ShapeError(f"in-place {function} on shape {x.shape}: {error}") from None
        self._bump()  # type: ignore[attr-defined]
        return self

    def __setitem__(self, index: Any, value: Any) -> None:
        """Overwrite the elements at the index."""
        from .indexing import plain_index

        self._write(value, index if MODE.trace is not None else plain_index(index))

    def copy_(self: Self, other: Any) -> Self:
        """Overwrite the elements with those of another."""
        return self._write(other)

    def fill_(self: Self, value: float) -> Self:
        """Overwrite every element with a number."""
        return self._write(value)

    def zero_(self: Self) -> Self:
        """Overwrite every element with 0."""
        return self._write(0)

    def add_(self: Self, other: Any, *, alpha: float = 1) -> Self:
        """Add alpha * other."""
        return self._update("add", other if alpha == 1 else _plain(other) * alpha)

    def sub_(self: Self, other: Any, *, alpha: float = 1) -> Self:
        """Subtract alpha * other."""
        return self._update("subtract", other if alpha == 1 else _plain(other) * alpha)

    def mul_(self: Self, other: Any) -> Self:
        """Multiply by other."""
        return self._update("multiply", other)

    def div_(self: Self, other: Any) -> Self:
        """Divide by other."""
        return self._update("true_divide", other)

    def addcmul_(self: Self, a: Any, b: Any, *, value: float = 1) -> Self:
        """Add value * a * b."""
        return self._update("add", value * (_plain(a) * _plain(b)))

    def addcdiv_(self: Self, a: Any, b: Any, *, value: float = 1) -> Self:
        """Add value * a / b."""
        return self._update("add", value * (_plain(a) / _plain(b)))

    def clamp_(self: Self, min: Any = None, max: Any = None) -> Self:
        """Keep the elements between min and max."""
        self._changeable(min, max)
        if MODE.trace is not None:
            return self._write(_plain(self).clamp(_plain(min), _plain(max)))
        return self._write(namespace(self._array).clip(self._array, _plain(min), _plain(max)))

    def uniform_(self: Self, low: float = 0.0, high: float = 1.0) -> Self:
        """Draw every element uniformly from [low, high)."""
        from ..random import uniform

        return self._write(uniform(self._array, low, high))

    def normal_(self: Self, mean: float = 0.0, std: float = 1.0) -> Self:
        """Draw every element from a normal distribution."""
        from ..random import normal

        return self._write(normal(self._array, mean, std))

    def __iadd__(self, other: Any) -> Any:
        """Add in place; where that would have to be recorded, make a new Tensor."""
        return self._in_place_or_new("add", "__add__", other)

    def __isub__(self, other: Any) -> Any:
        """Subtract in place; where that would have to be recorded, make a new Tensor."""
        return self._in_place_or_new("subtract", "__sub__", other)

    def __imul__(self, other: Any) -> Any:
        """Multiply in place; where that would have to be recorded, make a new Tensor."""
        return self._in_place_or_new("multiply", "__mul__", other)

    def __itruediv__(self, other: Any) -> Any:
        """Divide in place; where that would have to be recorded, make a new Tensor."""
        return self._in_place_or_new("true_divide", "__truediv__", other)

    def _in_place_or_new(self, function: str, operator: str, other: Any) -> Any:
        leaf = self.requires_grad and self.is_leaf  # type: ignore[attr-defined]
        if self._records(other) and not leaf:
            return getattr(self, operator)(other)
        return self._update(function, matched(self, other)[1] if isinstance(other, list | tuple) else other)
