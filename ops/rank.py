"""Which elements are the largest or smallest, and where.

Source: ONNX ArgMax-13, ArgMin-13, Hardmax-13, TopK-11.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from .create import full_like
from .dims import DimLike, show
from .errors import ShapeError
from .extent import axis_of
from .index import scatter_elements
from .op import op
from .types import TensorType

Entries: TypeAlias = tuple[Callable[[], Any] | None, ...]

INT64 = np.dtype(np.int64)


@op(dtype="int64")
def argmax(x: TensorType, *, axis: int, keepdims: bool = False, select_last: bool = False) -> TensorType:
    """Return where the largest along the axis is: of equal ones the first, or the last.

    Shapes: any -> without the axis, or with size 1 there.
    """
    return _reduced(x, axis_of(axis, x.ndim, "argmax"), keepdims)


@op(dtype="int64")
def argmin(x: TensorType, *, axis: int, keepdims: bool = False, select_last: bool = False) -> TensorType:
    """Return where the smallest along the axis is: of equal ones the first, or the last.

    Shapes: any -> without the axis, or with size 1 there.
    """
    return _reduced(x, axis_of(axis, x.ndim, "argmin"), keepdims)


def _reduced(x: TensorType, axis: int, keepdims: bool) -> TensorType:
    return TensorType(INT64, (*x.shape[:axis], *((1,) if keepdims else ()), *x.shape[axis + 1 :]))


@op()
def hardmax(x: TensorType, *, axis: int) -> TensorType:
    """Return 1 at the first of the largest along the axis, 0 elsewhere.

    Shapes: any, unchanged.
    """
    axis_of(axis, x.ndim, "hardmax")
    return TensorType(x.dtype, x.shape)


@op()
def topk(
    x: TensorType, *, k: DimLike, axis: int, largest: bool = True, ordered: bool = True
) -> tuple[TensorType, TensorType]:
    """Return the k largest (or smallest) along the axis and where they are.

    Of equal ones the first come first. They come in order, also where `ordered` does not ask for it.

    Shapes: any -> twice that with k along the axis.

    Raises:
        ShapeError: if there are fewer than k.
    """
    at = axis_of(axis, x.ndim, "topk")
    size = x.shape[at]
    if isinstance(k, int) and isinstance(size, int) and not 0 <= k <= size:
        raise ShapeError(f"topk: wants {k} elements of the {size} along axis {axis} of {show(x.shape)}")
    shape = (*x.shape[:at], k, *x.shape[at + 1 :])
    return TensorType(x.dtype, shape), TensorType(INT64, shape)


@topk.defvjp
def _topk_vjp(g: Any, y: Any, x: Any, *, k: DimLike, axis: int, largest: bool = True, ordered: bool = True) -> Entries:
    def for_x() -> Any:
        zeros = full_like(g[0], shape=tuple(x.shape), value=0)
        return scatter_elements(zeros, y[1], g[0], axis=axis, reduction="add")

    return (for_x,)
