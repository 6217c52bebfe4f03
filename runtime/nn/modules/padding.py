"""Padding as modules: one number, or (low, high) of the last axis, then of the one before it, and so on."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ....ops.errors import ShapeError
from .. import functional as F
from ..module import Module


class _Pad(Module):
    """What stands at the edges follows from the input."""

    rank: ClassVar[int]
    mode: ClassVar[str]
    padding: tuple[int, ...]

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.padding = _sides(padding, self.rank)

    def forward(self, input: Any) -> Any:
        """Pad."""
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.padding}"


def _sides(padding: Any, rank: int) -> tuple[int, ...]:
    return (int(padding),) * (2 * rank) if isinstance(padding, int | np.integer) else tuple(padding)


class _ConstantPad(Module):
    """A value stands at the edges."""

    rank: ClassVar[int]
    padding: tuple[int, ...]

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__()
        self.padding, self.value = _sides(padding, self.rank), value

    def forward(self, input: Any) -> Any:
        """Pad."""
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        """Return the sizes and the value."""
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """A value at the edges of one spatial axis."""

    rank = 1


class ConstantPad2d(_ConstantPad):
    """A value at the edges of two spatial axes."""

    rank = 2


class ConstantPad3d(_ConstantPad):
    """A value at the edges of three spatial axes."""

    rank = 3


class ZeroPad1d(ConstantPad1d):
    """Zeros at the edges of one spatial axis."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.padding}"


class ZeroPad2d(ConstantPad2d):
    """Zeros at the edges of two spatial axes."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.padding}"


class ZeroPad3d(ConstantPad3d):
    """Zeros at the edges of three spatial axes."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.padding}"


class ReflectionPad1d(_Pad):
    """What reflecting at the outermost element gives, along one spatial axis."""

    rank, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """What reflecting at the outermost element gives, along two spatial axes."""

    rank, mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """What reflecting at the outermost element gives, along three spatial axes."""

    rank, mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """The outermost element again, along one spatial axis."""

    rank, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """The outermost element again, along two spatial axes."""

    rank, mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """The outermost element again, along three spatial axes."""

    rank, mode = 3, "replicate"


class _CircularPad(_Pad):
    mode = "circular"

    def forward(self, input: Any) -> Any:
        """Pad.

        Raises:
            ShapeError: if the input has another rank.
        """
        if input.ndim not in (self.rank + 1, self.rank + 2):
            raise ShapeError(f"expected {self.rank + 1}D or {self.rank + 2}D input (got {input.ndim}D input)")
        return super().forward(input)


class CircularPad1d(_CircularPad):
    """What going round gives, along one spatial axis."""

    rank = 1


class CircularPad2d(_CircularPad):
    """What going round gives, along two spatial axes."""

    rank = 2


class CircularPad3d(_CircularPad):
    """What going round gives, along three spatial axes."""

    rank = 3
