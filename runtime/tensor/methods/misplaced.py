"""What is wrong with an index, in PyTorch's words."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops.errors import AxisError, DTypeError


def misplaced(error: Exception, index: Any, shape: tuple[int, ...]) -> Exception:
    """Return an error that says which index does not fit which axis; the array library's where none is found.

    Args:
        error: the array library's.
        index: as it was given to it, arrays for Tensors.
        shape: of what was indexed.
    """
    entries = list(index) if isinstance(index, tuple) else [index]
    widths = [i.ndim if _is_mask(i) else int(i is not None and i is not Ellipsis) for i in entries]
    shown = list(shape)
    if sum(widths) > len(shape):
        return AxisError(
            f"too many indices for tensor of dimension {len(shape)}: {sum(widths)} for a tensor of shape {shown}"
        )
    axis = 0
    for i, width in zip(entries, widths, strict=True):
        if i is Ellipsis:
            axis = len(shape) - sum(widths) + axis
        elif _is_mask(i) and i.shape != shape[axis : axis + width]:
            return AxisError(
                f"The shape of the mask {list(i.shape)} at index {axis} does not match the shape of the indexed tensor "
                f"{shown} at index {axis}"
            )
        elif isinstance(i, int | np.integer) or (hasattr(i, "dtype") and i.dtype.kind in "iu"):
            outside = [int(k) for k in np.ravel(i) if not -shape[axis] <= k < shape[axis]]
            if outside:
                return AxisError(
                    f"index {outside[0]} is out of bounds for dimension {axis} with size {shape[axis]}: the tensor has "
                    f"shape {shown}"
                )
        elif hasattr(i, "dtype") and i.dtype.kind not in "b":
            return AxisError(f"tensors used as indices must be long, int, byte or bool tensors, found {i.dtype}")
        elif i is not None and not isinstance(i, slice | np.ndarray):
            return AxisError(f"a tensor of shape {shown} is not indexed by {i!r}, of type {type(i).__name__}")
        axis += 0 if i is Ellipsis else width
    return DTypeError(str(error)) if isinstance(error, TypeError) else AxisError(str(error))


def _is_mask(i: Any) -> bool:
    return hasattr(i, "dtype") and i.dtype.kind == "b" and i.ndim > 0
