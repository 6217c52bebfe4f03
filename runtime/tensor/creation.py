"""Functions that make Tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...ops.errors import DTypeError, ShapeError
from ...ops.types import Array
from ..graph.open_sizes import counted, filled, is_open
from .device import CPU, DEFAULT, adopted, device as _device, device_of, on, to_device
from .tensor import Tensor


def tensor(
    data: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False
) -> Tensor:
    """Return a Tensor of a copy of the data; Python floats become the default element type.

    Args:
        data: a number, nested lists, an array or a Tensor.
        dtype: the element type; that of the data by default.
        device: where it lies; the CPU by default, or where the array does.
        requires_grad: record what is computed from it.
        pin_memory: put it in page-locked memory of the CPU, where there is a CUDA device.

    Raises:
        ShapeError: if nested lists differ in length.
        TypeError: of text.
    """
    if isinstance(data, list | tuple):
        data = _plain(data)
    array = data._array if isinstance(data, Tensor) else data
    if hasattr(array, "__cuda_array_interface__"):
        array = adopted(array)
        with on(array):
            array = array.astype(np.dtype(dtype)) if dtype is not None else array.copy()
    else:
        array = _array(array, None if dtype is None else np.dtype(dtype))
        if dtype is None and array.dtype == np.float64 and not hasattr(data, "dtype") and not _wide(data):
            array = array.astype(Tensor.default_dtype)
    if device is None and isinstance(array, np.ndarray) and not isinstance(data, Tensor):
        found = made(array, None, requires_grad)
    else:
        found = Tensor(array if device is None else to_device(array, device), requires_grad)
    return found.pin_memory().requires_grad_(requires_grad) if pin_memory else found


def _array(data: Any, dtype: Any) -> Array:
    try:
        made = np.array(data, dtype)
    except ValueError:
        if isinstance(data, list | tuple):
            _check_lengths(data, ())
        raise
    if made.dtype.kind in "USOM":
        found = (
            type(data).__name__ if not isinstance(data, list | tuple) else "str" if made.dtype.kind == "U" else "object"
        )
        raise TypeError(f"new(): invalid data type '{found}'")
    return made


def _check_lengths(data: Any, shape: tuple[int, ...]) -> None:
    """Raise what says which of nested lists differ in length."""
    sizes: list[int | None] = []
    level: list[Any] = [data]
    while level and all(isinstance(v, list | tuple) or np.ndim(v) for v in level):
        n = len(level[0])
        for v in level:
            if len(v) != n:
                raise ShapeError(f"expected sequence of length {n} at dim {len(sizes)} (got {len(v)})")
        sizes.append(n)
        level = [w for v in level for w in v]
    if any(isinstance(v, list | tuple) for v in level):
        raise TypeError("not a sequence: numbers and lists stand side by side in nested lists")


def _wide(data: Any) -> bool:
    """Whether nested lists hold NumPy's float64 numbers."""
    while isinstance(data, list | tuple) and data:
        data = data[0]
    return isinstance(data, np.floating | np.ndarray)


def _plain(data: Any) -> Any:
    """Return nested lists with numbers in the place of 0-d Tensors."""
    if isinstance(data, list | tuple):
        return [_plain(v) for v in data]
    return data._array if isinstance(data, Tensor) else data


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """Return a Tensor of the data, itself or sharing its memory where that is possible."""
    if isinstance(data, Tensor):
        return data.to(dtype=dtype, device=device)
    shared = hasattr(data, "dtype") and not isinstance(data, np.generic)
    return (Tensor(data) if shared else tensor(data, dtype)).to(dtype=dtype, device=device)


def asarray(
    obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None, requires_grad: bool | None = None
) -> Tensor:
    """Return a Tensor of the data, sharing its memory unless `copy`.

    Args:
        obj: a Tensor, an array, numbers.
        dtype: the element type.
        device: where it lies.
        copy: whether the memory is another.
        requires_grad: whether it is recorded, and keeps the past of a Tensor; as the Tensor does by default.
    """
    found = as_tensor(obj, dtype, device)
    if not (found.requires_grad if requires_grad is None else requires_grad):
        return found.detach().clone() if copy else found.detach()
    return (found.clone() if copy else found).requires_grad_()


def from_numpy(ndarray: Array) -> Tensor:
    """Return a Tensor that shares an array's memory.

    Raises:
        TypeError: of what is no array, or not of numbers.
    """
    if not hasattr(ndarray, "__array_interface__") and not hasattr(ndarray, "__cuda_array_interface__"):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    if ndarray.dtype.kind in "USOMm":
        raise TypeError(f"can't convert np.ndarray of type {ndarray.dtype} to a Tensor of numbers")
    return Tensor(ndarray)


def scalar_tensor(s: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Return a 0-d Tensor of a number, of the default element type."""
    return tensor(s, Tensor.default_dtype if dtype is None else dtype, device, requires_grad)


def made(array: Array, device: Any, requires_grad: bool) -> Tensor:
    """Return a Tensor of a fresh array on a device."""
    if device is None:
        device = DEFAULT[0] if DEFAULT[0] is not CPU else None
    return Tensor(array if device is None else to_device(array, device), requires_grad)


def constant(shape: tuple[int, ...], value: Any, dtype: Any, device: Any, requires_grad: bool) -> Tensor:
    """Return a Tensor with one value everywhere, or None: whatever is in memory; made on the device itself."""
    place = DEFAULT[0] if device is None else _device(device)
    if place == CPU:
        return Tensor(np.empty(shape, dtype) if value is None else np.full(shape, value, dtype), requires_grad)
    with on(place) as xp:
        return Tensor(xp.empty(shape, dtype) if value is None else xp.full(shape, value, dtype), requires_grad)


def type_or_default(dtype: Any) -> Any:
    """Return an element type, the default one for None."""
    return Tensor.default_dtype if dtype is None else np.dtype(dtype)


def shape_of(size: tuple[Any, ...]) -> tuple[int, ...]:
    """Return sizes that came one by one or as one sequence.

    Raises:
        ShapeError: if one is negative.
    """
    given = size[0] if len(size) == 1 and isinstance(size[0], tuple | list) else size
    if is_open(given):
        return tuple(given)
    wrong = next((n for n in given if isinstance(n, str | float)), None)
    if wrong is not None:
        raise TypeError(f"sizes must be integers, found {wrong!r} of type {type(wrong).__name__}")
    found = tuple(int(n) for n in given)
    if any(n < 0 for n in found):
        raise ShapeError(f"Trying to create tensor with negative dimension {min(found)}: {list(found)}")
    return found


def _filled(name: str, value: int | None) -> Callable[..., Tensor]:
    what = "with whatever is in memory" if value is None else f"of {name}"

    def make(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, **named: Any) -> Tensor:
        if "size" in named:
            size = (named.pop("size"),)
        pinned = named.pop("pin_memory", False)
        named.pop("memory_format", None)
        if named:
            raise TypeError(f"{name}() got an unexpected keyword argument '{next(iter(named))}'")
        shape, kind = shape_of(size), type_or_default(dtype)
        if is_open(shape):
            return filled(shape, value or 0, kind)
        found = constant(shape, value, kind, device, requires_grad)
        return found.pin_memory().requires_grad_(requires_grad) if pinned else found

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"Return a Tensor {what}, of sizes that come one by one or as a sequence."
    return make


zeros = _filled("zeros", 0)
ones = _filled("ones", 1)
empty = _filled("empty", None)


def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Return a Tensor of a shape, every element the value; the element type is that of the value."""
    if isinstance(fill_value, Tensor):
        fill_value = fill_value.item()
    if dtype is None:
        dtype = {bool: "bool", int: "int64"}.get(type(fill_value))
    shape = shape_of((size,))
    if is_open(shape):
        return filled(shape, fill_value, type_or_default(dtype))
    return constant(shape, fill_value, type_or_default(dtype), device, requires_grad)


def full_like(
    input: Any,
    fill_value: Any,
    dtype: Any = None,
    requires_grad: bool = False,
    *,
    device: Any = None,
    memory_format: Any = None,
) -> Tensor:
    """Return a Tensor of the shape, element type and device of another, every element the value."""
    if isinstance(fill_value, Tensor):
        fill_value = fill_value.item()
    if is_open(input.shape):
        return filled(input.shape, fill_value, input.dtype if dtype is None else dtype)
    kind = input.dtype if dtype is None else np.dtype(dtype)
    place = device_of(getattr(input, "_array", input)) if device is None else device
    return constant(tuple(input.shape), fill_value, kind, place, requires_grad)


def zeros_like(
    input: Any, dtype: Any = None, requires_grad: bool = False, *, device: Any = None, memory_format: Any = None
) -> Tensor:
    """Return zeros of the shape, element type and device of another."""
    return full_like(input, 0, dtype, requires_grad, device=device)


def ones_like(
    input: Any, dtype: Any = None, requires_grad: bool = False, *, device: Any = None, memory_format: Any = None
) -> Tensor:
    """Return ones of the shape, element type and device of another."""
    return full_like(input, 1, dtype, requires_grad, device=device)


def empty_like(
    input: Any, dtype: Any = None, requires_grad: bool = False, *, device: Any = None, memory_format: Any = None
) -> Tensor:
    """Return a Tensor of the shape, element type and device of another, with whatever is in memory."""
    kind = input.dtype if dtype is None else np.dtype(dtype)
    place = device_of(getattr(input, "_array", input)) if device is None else device
    return constant(tuple(input.shape), None, kind, place, requires_grad)


def _number(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def arange(
    start: Any,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return start, start + step, ... up to before end; int64 where all are integers.

    Raises:
        ShapeError: if the step is 0, or leads away from the end.
    """
    start, end, step = (_number(v) for v in ((0, start, step) if end is None else (start, end, step)))
    if is_open((start, end)):
        return counted(start, end, step, np.int64 if dtype is None else dtype)
    if step == 0:
        raise ShapeError("step must be nonzero")
    if (end - start) * step < 0:
        raise ShapeError(
            f"upper bound and lower bound inconsistent with step sign: start {start}, end {end}, step {step}"
        )
    if dtype is None:
        dtype = np.int64 if all(isinstance(v, int) for v in (start, end, step)) else Tensor.default_dtype
    return made(np.arange(start, end, step).astype(np.dtype(dtype)), device, requires_grad)


def linspace(
    start: Any, end: Any, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Return evenly spaced numbers from start to end, both included."""
    if steps < 0:
        raise ShapeError("number of steps must be non-negative")
    array = np.linspace(_number(start), _number(end), steps).astype(type_or_default(dtype))
    return made(array, device, requires_grad)


def logspace(
    start: Any,
    end: Any,
    steps: int,
    base: float = 10.0,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return the base to the power of evenly spaced numbers from start to end, both included."""
    if steps < 0:
        raise ShapeError("number of steps must be non-negative")
    powers = np.float64(base) ** np.linspace(_number(start), _number(end), steps)
    return made(powers.astype(type_or_default(dtype)), device, requires_grad)


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Return ones on the diagonal of a matrix, zeros elsewhere."""
    return made(np.eye(n, m, dtype=type_or_default(dtype)), device, requires_grad)


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = "int64", device: Any = None) -> Tensor:
    """Return the places of a lower triangle: a row of row numbers, a row of column numbers."""
    return made(np.stack(np.tril_indices(row, offset, col)).astype(np.dtype(dtype)), device, False)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = "int64", device: Any = None) -> Tensor:
    """Return the places of an upper triangle: a row of row numbers, a row of column numbers."""
    return made(np.stack(np.triu_indices(row, offset, col)).astype(np.dtype(dtype)), device, False)


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """Return the powers of a vector's elements, one row an element, from the highest down unless `increasing`."""
    n = x.shape[0] if N is None else N
    powers = np.arange(n) if increasing else np.arange(n)[::-1]
    return x.unsqueeze(-1) ** Tensor(powers.astype(x.dtype))


class _Typed(type):
    """A class of Tensors by their element type: calling it makes one, and those of the type are its instances."""

    element: Any

    def __call__(cls, *data: Any) -> Tensor:
        if not data or all(isinstance(n, int) for n in data):
            return empty(*(data or (0,)), dtype=cls.element)
        if len(data) != 1:
            raise DTypeError(f"{cls.__name__}() takes sizes, or one sequence of numbers, found {len(data)} arguments")
        return tensor(data[0], cls.element)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor) and instance.dtype == cls.element


def _typed(name: str, dtype: str) -> Any:
    doc = f"A Tensor of {dtype}: of the data, or of sizes with whatever is in memory."
    return _Typed(name, (), {"__doc__": doc, "__module__": __name__, "element": np.dtype(dtype)})


FloatTensor = _typed("FloatTensor", "float32")
DoubleTensor = _typed("DoubleTensor", "float64")
HalfTensor = _typed("HalfTensor", "float16")
LongTensor = _typed("LongTensor", "int64")
IntTensor = _typed("IntTensor", "int32")
ShortTensor = _typed("ShortTensor", "int16")
CharTensor = _typed("CharTensor", "int8")
ByteTensor = _typed("ByteTensor", "uint8")
BoolTensor = _typed("BoolTensor", "bool")
