"""Tensors whose sizes are symbols: what `zeros` and `arange` make while a function is traced with open sizes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops import create, cumulative, pointwise as pw
from ...ops.dims import Dim, DimLike, Shape
from ...ops.errors import TraceError
from ..autograd.grad_mode import MODE

if TYPE_CHECKING:
    from ..tensor.tensor import Tensor


def is_open(sizes: Iterable[Any]) -> bool:
    """Whether one of these is known only when what is traced runs."""
    return any(isinstance(n, Dim) for n in sizes)


def filled(shape: Shape, value: float, dtype: Any) -> Tensor:
    """Return a Tensor of a shape, every element the value.

    Raises:
        TraceError: outside of a trace, where sizes are numbers.
    """
    from ..tensor.tensor import Tensor

    if MODE.trace is None:
        raise TraceError(f"sizes {shape} are symbols outside of what is traced")
    like = Tensor(MODE.trace.graph.constant(np.zeros((), np.dtype(dtype))))
    made: Tensor = create.full_like(like, shape=tuple(shape), value=value)
    return made


def counted(start: DimLike, end: DimLike, step: int, dtype: Any) -> Tensor:
    """Return start, start + step, ... up to before end.

    Raises:
        TraceError: if the start is a symbol, or the step is none of 1, 2, ...
    """
    if not isinstance(start, int) or not isinstance(step, int) or step < 1:
        raise TraceError(f"arange({start}, {end}, {step}) of an open size wants numbers for its start and step")
    ones = filled(((end - start + step - 1) // step,), 1, np.int64)
    y: Tensor = cumulative.cumsum(ones, axis=0, exclusive=True)
    if step != 1:
        y = pw.mul(y, step)
    if start:
        y = pw.add(y, start)
    return y if np.dtype(dtype) == np.int64 else pw.cast(y, dtype=str(np.dtype(dtype)))
