"""Which element type a result has, as PyTorch decides it.

A Python number never widens a Tensor of its own kind, a 0-d Tensor never widens one with axes, integers meet floats as
the float type, and what has no integer result computes integers in the default element type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ....ops import pointwise as pw
from ....ops.op import Op
from ....ops.types import is_float
from ...autograd.record import record

if TYPE_CHECKING:
    from ..tensor import Tensor

_ORDER = {"b": 0, "u": 1, "i": 1, "f": 2, "V": 2, "c": 3}


def default_float() -> np.dtype[Any]:
    """Return the element type of Python floats."""
    from ..tensor import Tensor

    return Tensor.default_dtype  # type: ignore[no-any-return]


def floating(x: Any) -> Any:
    """Return x as floats: integers and truth values become the default element type."""
    return pw.cast(x, dtype=str(default_float())) if x.dtype.kind in "iub" else x


def unary(op: Callable[..., Any], x: Any) -> Tensor:
    """Apply an op of floats; integers become the default element type."""
    if x.dtype.kind in "iub":
        x = floating(x)
    return op(x)  # type: ignore[no-any-return]


def binary(op: Op, a: Any, b: Any) -> Tensor:
    """Apply an op to a Tensor and another, an array or a number, with their element types matched."""
    x, y = getattr(a, "_array", None), getattr(b, "_array", None)
    if x is not None and y is not None and x.dtype is y.dtype:
        return record(op, (a, b), {})  # type: ignore[no-any-return]
    a, b = matched(a, b)
    return op(a, b)  # type: ignore[no-any-return]


def binary_of_floats(op: Op, a: Any, b: Any) -> Tensor:
    """Apply an op of floats to a Tensor and another, an array or a number, with their element types matched."""
    a, b = matched(a, b)
    return op(*(floating(v) if hasattr(v, "dtype") else v for v in (a, b)))  # type: ignore[no-any-return]


def matched(a: Any, b: Any) -> tuple[Any, Any]:
    """Return the operands with one element type; Python numbers stay what they are."""
    a, b = _operand(a), _operand(b)
    numbers = (bool, int, float)
    if isinstance(a, numbers):
        return (a, b) if isinstance(b, numbers) else (a, _roomy(b, a))
    if isinstance(b, numbers):
        return _roomy(a, b), b
    if a.dtype == b.dtype:
        return a, b
    target = str(promoted(a, b))
    return pw.cast(a, dtype=target), pw.cast(b, dtype=target)


def all_matched(*operands: Any) -> list[Any]:
    """Return several operands with one element type; Python numbers stay what they are."""
    arrays = [a for a in operands if hasattr(a, "dtype")]
    target: Any = arrays[0]
    for a in operands:
        target = matched(target, a)[0]
    return [pw.cast(a, dtype=str(target.dtype)) if hasattr(a, "dtype") else a for a in operands]


def promoted(a: Any, b: Any) -> np.dtype[Any]:
    """Return the element type of a result of two arrays or Tensors."""
    kinds = _ORDER[a.dtype.kind], _ORDER[b.dtype.kind]
    if kinds[0] != kinds[1]:
        return a.dtype if kinds[0] > kinds[1] else b.dtype  # type: ignore[no-any-return]
    if (a.ndim == 0) != (b.ndim == 0):
        return b.dtype if a.ndim == 0 else a.dtype  # type: ignore[no-any-return]
    return promote_types(a.dtype, b.dtype)


def promote_types(type1: Any, type2: Any) -> np.dtype[Any]:
    """Return the smallest element type that holds both, where floats hold every integer."""
    a, b = np.dtype(type1), np.dtype(type2)
    kinds = _ORDER[a.kind], _ORDER[b.kind]
    if kinds[0] != kinds[1]:
        return a if kinds[0] > kinds[1] else b  # type: ignore[no-any-return]
    try:
        return np.promote_types(a, b)
    except TypeError:
        return np.dtype(np.float32)


def result_type(tensor1: Any, tensor2: Any) -> np.dtype[Any]:
    """Return the element type of arithmetic on two Tensors or numbers."""
    numbers = (bool, int, float)
    if isinstance(tensor1, numbers) and isinstance(tensor2, numbers):
        a, b = (_of_number(v) for v in (tensor1, tensor2))
        return promote_types(a, b)
    a, b = matched(tensor1, tensor2)
    return a.dtype if hasattr(a, "dtype") else b.dtype  # type: ignore[no-any-return]


def _of_number(value: Any) -> np.dtype[Any]:
    if isinstance(value, bool):
        return np.dtype(bool)
    return np.dtype(np.int64) if isinstance(value, int) else default_float()


def can_cast(from_: Any, to: Any) -> bool:
    """Whether a result of one element type may be written into a Tensor of another: floats not into integers."""
    a, b = np.dtype(from_), np.dtype(to)
    return _ORDER[a.kind] <= _ORDER[b.kind] and not (a.kind == "i" and b.kind == "b")


def _operand(x: Any) -> Any:
    if isinstance(x, np.generic):
        return x.item()
    if isinstance(x, list | tuple):
        from ..creation import tensor

        return tensor(x)
    if not hasattr(x, "dtype") and not isinstance(x, bool | int | float):
        raise TypeError(
            f"unsupported operand of type '{type(x).__name__}' for an operation on a Tensor: wanted a Tensor, an array "
            "or a number"
        )
    return x


def _roomy(x: Any, number: float) -> Any:
    """Return x as what can hold the number's kind: floats for a float, int64 for an integer beside truth values."""
    if type(number) is float and x.dtype.kind in "iub":
        return floating(x)
    if type(number) is int and x.dtype.kind == "b":
        return pw.cast(x, dtype="int64")
    return x


def has_float(*operands: Any) -> bool:
    """Whether an operand is of floats."""
    return any(is_float(v.dtype) if hasattr(v, "dtype") else isinstance(v, float) for v in operands)
