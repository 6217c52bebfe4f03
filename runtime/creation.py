"""Functions that make Tensors, and that join them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ops import layout
from ..ops.types import Array
from . import random
from .device import to_device
from .methods.arithmetic import result_type
from .tensor import Tensor


def tensor(data: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Return a Tensor of a copy of the data; Python floats become float32.

    Args:
        data: a number, nested lists, an array or a Tensor.
        dtype: the element type; that of the data by default.
        device: where it lies; the CPU by default, or where the array does.
        requires_grad: record what is computed from it.
    """
    if isinstance(data, list | tuple):
        data = _plain(data)
    array = data._array if isinstance(data, Tensor) else data
    if hasattr(array, "get") and hasattr(array, "device"):
        array = array.astype(np.dtype(dtype)) if dtype is not None else array.copy()
    else:
        array = np.array(array, dtype=None if dtype is None else np.dtype(dtype))
        if dtype is None and array.dtype == np.float64 and not hasattr(data, "dtype"):
            array = array.astype(Tensor.default_dtype)
    return Tensor(array if device is None else to_device(array, device), requires_grad)


def _plain(data: Any) -> Any:
    """Return nested lists with numbers in the place of 0-d Tensors."""
    if isinstance(data, list | tuple):
        return [_plain(v) for v in data]
    return data._array if isinstance(data, Tensor) else data


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """Return a Tensor of the data, itself or sharing its memory where that is possible."""
    t = (
        data
        if isinstance(data, Tensor)
        else Tensor(_plain(data))
        if dtype is None
        else Tensor(np.asarray(_plain(data), dtype))
    )
    return t.to(dtype=dtype, device=device)


def from_numpy(array: Array) -> Tensor:
    """Return a Tensor that shares an array's memory."""
    return Tensor(array)


def _made(array: Array, device: Any, requires_grad: bool) -> Tensor:
    return Tensor(array if device is None else to_device(array, device), requires_grad)


def _dtype(dtype: Any) -> Any:
    return Tensor.default_dtype if dtype is None else np.dtype(dtype)


def _shape(size: tuple[Any, ...]) -> tuple[int, ...]:
    given = size[0] if len(size) == 1 and isinstance(size[0], tuple | list) else size
    return tuple(int(n) for n in given)


def zeros(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Return zeros of a shape."""
    return _made(np.zeros(_shape(size), _dtype(dtype)), device, requires_grad)


def ones(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Return ones of a shape."""
    return _made(np.ones(_shape(size), _dtype(dtype)), device, requires_grad)


def empty(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Return a Tensor of a shape, with whatever is in memory."""
    return _made(np.empty(_shape(size), _dtype(dtype)), device, requires_grad)


def full(size: Any, value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Return a Tensor of a shape, every element the value."""
    if dtype is None:
        dtype = {bool: "bool", int: "int64"}.get(type(value))
    return _made(np.full(_shape((size,)), value, _dtype(dtype)), device, requires_grad)


def zeros_like(t: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Return zeros of the shape, element type and device of another."""
    return full_like(t, 0, dtype, requires_grad)


def ones_like(t: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Return ones of the shape, element type and device of another."""
    return full_like(t, 1, dtype, requires_grad)


def full_like(t: Any, value: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Return a Tensor of the shape, element type and device of another, every element the value."""
    made = np.full(t.shape, value, t.dtype if dtype is None else np.dtype(dtype))
    return _made(made, getattr(t, "device", None), requires_grad)


def arange(
    start: float,
    end: float | None = None,
    step: float = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return start, start + step, ... up to before end; int64 where all are integers."""
    start, end = (0, start) if end is None else (start, end)
    if dtype is None:
        dtype = np.int64 if all(isinstance(v, int) for v in (start, end, step)) else Tensor.default_dtype
    return _made(np.arange(start, end, step).astype(np.dtype(dtype)), device, requires_grad)


def linspace(
    start: float, end: float, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Return evenly spaced numbers from start to end, both included."""
    return _made(np.linspace(start, end, steps).astype(_dtype(dtype)), device, requires_grad)


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Return ones on the diagonal of a matrix, zeros elsewhere."""
    return _made(np.eye(n, m, dtype=_dtype(dtype)), device, requires_grad)


def randn(
    *size: Any,
    generator: random.Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return draws from the standard normal distribution."""
    like = np.empty(_shape(size), _dtype(dtype))
    return _made(random.normal(like, 0.0, 1.0, generator), device, requires_grad)


def rand(
    *size: Any,
    generator: random.Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return draws from [0, 1)."""
    like = np.empty(_shape(size), _dtype(dtype))
    return _made(random.uniform(like, 0.0, 1.0, generator), device, requires_grad)


def randn_like(t: Tensor, generator: random.Generator | None = None) -> Tensor:
    """Return draws from the standard normal distribution, of the shape, element type and device of another."""
    return Tensor(random.normal(t._array, 0.0, 1.0, generator))


def rand_like(t: Tensor, generator: random.Generator | None = None) -> Tensor:
    """Return draws from [0, 1), of the shape, element type and device of another."""
    return Tensor(random.uniform(t._array, 0.0, 1.0, generator))


def randint(
    low: int,
    high: Any = None,
    size: Any = None,
    *,
    generator: random.Generator | None = None,
    dtype: Any = None,
    device: Any = None,
) -> Tensor:
    """Return integer draws from [low, high), or from [0, low) where only a size follows."""
    if size is None:
        low, high, size = 0, low, high
    drawn = random.integers(low, int(high), _shape((size,)), generator)
    return _made(drawn if dtype is None else drawn.astype(np.dtype(dtype)), device, False)


def randperm(n: int, *, generator: random.Generator | None = None, device: Any = None) -> Tensor:
    """Return the numbers below n in random order."""
    return _made(random.permutation(n, generator), device, False)


def cat(tensors: Sequence[Any], dim: int = 0, *, axis: int | None = None) -> Tensor:
    """Return Tensors joined along an axis."""
    along = dim if axis is None else axis
    parts = [t if isinstance(t, Tensor) else Tensor(t) for t in tensors]
    if len({t.dtype for t in parts}) > 1:
        target = parts[0]
        for t in parts[1:]:
            target = target if target.dtype == result_type(target, t) else t
        parts = [t.to(dtype=target.dtype) for t in parts]
    return layout.concat(*parts, axis=along % parts[0].ndim)  # type: ignore[no-any-return]


def stack(tensors: Sequence[Any], dim: int = 0, *, axis: int | None = None) -> Tensor:
    """Return Tensors of one shape joined along a new axis."""
    along = dim if axis is None else axis
    parts = [t if isinstance(t, Tensor) else Tensor(t) for t in tensors]
    at = along % (parts[0].ndim + 1)
    return cat([t.unsqueeze(at) for t in parts], at)


def where(condition: Any, a: Any = None, b: Any = None) -> Any:
    """Return a where the condition holds, else b; of a condition alone, where it holds, one Tensor an axis."""
    c = condition if isinstance(condition, Tensor) else Tensor(condition)
    if a is None:
        return tuple(Tensor(i) for i in c._array.nonzero())
    from ..ops import pointwise as pw
    from .methods.arithmetic import matched

    if isinstance(a, int | float) and isinstance(b, int | float):
        a = Tensor(a)
    return pw.where(c, *matched(a, b))
