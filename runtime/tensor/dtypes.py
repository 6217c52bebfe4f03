"""Element types by PyTorch's names; each is a NumPy dtype."""

from __future__ import annotations

import builtins
import math
from typing import Any

import ml_dtypes
import numpy as np

from ...ops.types import BFLOAT16, is_float

float64 = double = np.dtype(np.float64)
float32 = float = np.dtype(np.float32)
float16 = half = np.dtype(np.float16)
bfloat16 = BFLOAT16
int64 = long = np.dtype(np.int64)
int32 = int = np.dtype(np.int32)
int16 = short = np.dtype(np.int16)
int8 = np.dtype(np.int8)
uint64 = np.dtype(np.uint64)
uint32 = np.dtype(np.uint32)
uint16 = np.dtype(np.uint16)
uint8 = np.dtype(np.uint8)
bool = np.dtype(np.bool_)
dtype = np.dtype


class finfo:  # noqa: N801 - PyTorch's name
    """What numbers a float type has.

    Attributes:
        bits: the size in bits.
        eps: the distance from 1 to the next larger number.
        max: the largest finite number.
        min: the smallest finite number.
        tiny: the smallest positive number of full precision; also `smallest_normal`.
        resolution: about the relative distance of decimal numbers that stay apart.
        dtype: the element type's name.
    """

    def __init__(self, type: Any = None) -> None:
        """Look at an element type; the default one by default."""
        from .tensor import Tensor

        given = np.dtype(Tensor.default_dtype if type is None else type)
        if not is_float(given):
            raise TypeError(f"torch.finfo() requires a floating point input type. Use torch.iinfo to handle '{given}'")
        known: Any = ml_dtypes.finfo(given)  # type: ignore[no-untyped-call]
        self.bits = given.itemsize * 8
        self.eps, self.max, self.min = (builtins.float(v) for v in (known.eps, known.max, known.min))
        self.tiny = self.smallest_normal = builtins.float(known.smallest_normal)
        self.resolution = builtins.float(f"1e-{builtins.int(-math.log10(self.eps))}")
        self.dtype = str(given)

    def __repr__(self) -> str:
        """Return it as PyTorch prints it."""
        return (
            f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, eps={self.eps:g}, "
            f"smallest_normal={self.smallest_normal:g}, tiny={self.tiny:g}, dtype={self.dtype})"
        )


class iinfo:  # noqa: N801 - PyTorch's name
    """What numbers an integer type has.

    Attributes:
        bits: the size in bits.
        max: the largest number.
        min: the smallest number.
        dtype: the element type's name.
    """

    def __init__(self, type: Any) -> None:
        """Look at an element type."""
        given = np.dtype(type)
        if given.kind not in "iu":
            raise TypeError(f"torch.iinfo() requires an integer input type. Use torch.finfo to handle '{given}'")
        known = np.iinfo(given)
        self.bits, self.max, self.min = given.itemsize * 8, builtins.int(known.max), builtins.int(known.min)
        self.dtype = str(given)

    def __repr__(self) -> str:
        """Return it as PyTorch prints it."""
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"
