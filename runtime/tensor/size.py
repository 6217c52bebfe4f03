"""`Size`: a tuple of sizes that PyTorch programs write and compare shapes with."""

from __future__ import annotations

import math
from typing import Any, SupportsIndex, overload


class Size(tuple[int, ...]):
    """Sizes, equal to the tuple of them."""

    __slots__ = ()

    def numel(self) -> int:
        """Return how many elements a Tensor of these sizes has."""
        return math.prod(self)

    @overload
    def __getitem__(self, index: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Size: ...
    def __getitem__(self, index: Any) -> Any:
        """Return a size, or several as `Size`."""
        found = super().__getitem__(index)
        return Size(found) if isinstance(index, slice) else found

    def __add__(self, other: Any) -> Size:
        """Return these sizes and others behind them."""
        return Size((*self, *other))

    def __repr__(self) -> str:
        """Return it as PyTorch prints it."""
        return f"torch.Size({list(self)})"
