"""The methods of a Tensor that are ops, by PyTorch's names; NumPy's arguments (`axis`, `keepdims`) work too."""

from __future__ import annotations

from .arithmetic import Arithmetic
from .casting import Casting
from .inplace import InPlace
from .reductions import Reductions
from .shapes import Shapes


class Methods(Arithmetic, Reductions, Shapes, Casting, InPlace):
    """All of them."""


__all__ = ["Methods"]
