"""Tensors made of shapes, numbers and ranges; of these a range alone has a gradient.

Source: ONNX Shape-25, Size-25, ConstantOfShape-25, Range-27, EyeLike-22.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import pointwise as pw
from .broadcast import sum_to
from .dims import Dim, DimLike, Shape
from .errors import ShapeError, SymbolicError
from .op import op
from .types import CONTENTS_LIMIT, STRING, TensorType, is_float, is_integer


def dtype_named(name: str) -> np.dtype[Any]:
    """Return the element type of a name; `string` is an object."""
    return STRING if name == "string" else np.dtype(name)


@op(dtype="int64")
def shape_of(x: TensorType, *, start: int = 0, end: int | None = None) -> TensorType:
    """Return the sizes of x from axis start to before end, which count and clamp as Python's slices."""
    int64 = np.dtype(np.int64)
    if x.known_shape is None:
        return TensorType(int64, (Dim.fresh(),))
    sizes = x.shape[start:end]
    return TensorType(int64, (len(sizes),), sizes)


@op(dtype="int64")
def size_of(x: TensorType) -> TensorType:
    """Return the number of elements."""
    return TensorType(np.dtype(np.int64), (), None if x.known_shape is None else (x.size,))


@op(symbolic=True)
def fill(shape: TensorType, *, value: Any, dtype: str) -> TensorType:
    """Return a tensor of a shape that is given as a tensor, every element `value`."""
    made = dtype_named(dtype)
    n = shape.shape[0]
    if shape.contents is None:
        return TensorType(made, tuple(Dim.fresh() for _ in range(n)) if isinstance(n, int) else None)
    if any(isinstance(d, int) and d < 0 for d in shape.contents):
        raise ShapeError(f"fill: sizes {shape.contents} are not a shape")
    return TensorType(made, shape.contents)


@op()
def full_like(x: TensorType, *, shape: Shape, value: float) -> TensorType:
    """Return a tensor of this shape, every element `value`, of the element type and on the device of x."""
    return TensorType(x.dtype, shape)


@op()
def range_(start: TensorType, stop: TensorType, step: TensorType) -> TensorType:
    """Return start, start + step, ... up to before stop.

    Raises:
        ShapeError: if step is 0.
    """
    known = [t.contents[0] if isinstance(t, TensorType) and t.contents else None for t in (start, stop, step)]
    a, b, by = known
    if by == 0:
        raise ShapeError("range: the step is 0")
    if a is None or b is None or not isinstance(by, int) or not is_integer(start.dtype):
        return TensorType(start.dtype, (Dim.fresh(),))
    n = _count(b - a if by > 0 else a - b, abs(by))
    if isinstance(n, int) and n <= CONTENTS_LIMIT:
        return TensorType(start.dtype, (n,), tuple(a + i * by for i in range(n)))
    return TensorType(start.dtype, (n,))


@range_.defvjp
def _range_vjp(g: Any, y: Any, start: Any, stop: Any, step: Any) -> tuple[Callable[[], Any] | None, ...]:
    if not is_float(start.dtype):
        return None, None, None

    def by_step() -> Any:
        steps = pw.div(pw.sub(y, start), step)
        return sum_to(pw.mul(g, steps), shape=tuple(step.shape))

    return lambda: sum_to(g, shape=tuple(start.shape)), None, by_step


def _count(span: DimLike, step: int) -> DimLike:
    if isinstance(span, int):
        return max(0, -(-span // step))
    try:
        empty = span < 0
    except SymbolicError:
        return Dim.fresh()
    return 0 if empty else -(-span // step)


@op()
def eye_like(x: TensorType, *, k: int = 0, dtype: str) -> TensorType:
    """Return ones on the k-th diagonal of a matrix of the shape of x, zeros elsewhere."""
    if x.ndim != 2:
        raise ShapeError(f"eye_like: wants a matrix, found rank {x.ndim}")
    return TensorType(np.dtype(dtype), x.shape)
