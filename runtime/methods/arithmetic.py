"""Operators and pointwise methods.

Element types mix as in PyTorch: a Python number never widens a Tensor of its own kind, a 0-d Tensor never widens one
with axes, integers meet floats as the float type, and what has no integer result computes integers in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops import matmul as matmul_ops, pointwise as pw
from ...ops.op import Op
from ...ops.types import is_float
from ..node import record

if TYPE_CHECKING:
    from ..tensor import Tensor

_ORDER = {"b": 0, "u": 1, "i": 1, "f": 2, "V": 2, "c": 3}


def unary(op: Callable[..., Any], x: Any) -> Tensor:
    """Apply an op of floats; integers become float32."""
    if x.dtype.kind in "iub":
        x = pw.cast(x, dtype="float32")
    return op(x)  # type: ignore[no-any-return]


def binary(op: Op, a: Any, b: Any) -> Tensor:
    """Apply an op to a Tensor and another, an array or a number, with their element types matched."""
    x, y = getattr(a, "_array", None), getattr(b, "_array", None)
    if x is not None and y is not None and x.dtype is y.dtype:
        return record(op, (a, b), {})  # type: ignore[no-any-return]
    a, b = matched(a, b)
    return op(a, b)  # type: ignore[no-any-return]


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
    target = str(result_type(a, b))
    return pw.cast(a, dtype=target), pw.cast(b, dtype=target)


def result_type(a: Any, b: Any) -> np.dtype[Any]:
    """Return the element type of a result of two arrays or Tensors, as PyTorch has it."""
    kinds = _ORDER[a.dtype.kind], _ORDER[b.dtype.kind]
    if kinds[0] != kinds[1]:
        return a.dtype if kinds[0] > kinds[1] else b.dtype  # type: ignore[no-any-return]
    if (a.ndim == 0) != (b.ndim == 0):
        return b.dtype if a.ndim == 0 else a.dtype  # type: ignore[no-any-return]
    try:
        return np.promote_types(a.dtype, b.dtype)
    except TypeError:
        return np.dtype(np.float32)


def _operand(x: Any) -> Any:
    if isinstance(x, np.generic):
        return x.item()
    if isinstance(x, list | tuple):
        from ..creation import tensor

        return tensor(x)
    return x


def _roomy(x: Any, number: float) -> Any:
    """Return x as what can hold the number's kind: float32 for a float, int64 for an integer beside truth values."""
    if type(number) is float and x.dtype.kind in "iub":
        return pw.cast(x, dtype="float32")
    if type(number) is int and x.dtype.kind == "b":
        return pw.cast(x, dtype="int64")
    return x


def _divide(a: Any, b: Any) -> Any:
    a, b = matched(a, b)
    if not any(is_float(v.dtype) if hasattr(v, "dtype") else isinstance(v, float) for v in (a, b)):
        a, b = (pw.cast(v, dtype="float32") if hasattr(v, "dtype") else v for v in (a, b))
    return pw.div(a, b)


def _floor_divide(a: Any, b: Any) -> Any:
    a, b = matched(a, b)
    if any(is_float(v.dtype) for v in (a, b) if hasattr(v, "dtype")):
        return pw.floor(pw.div(a, b))
    return pw.div(pw.sub(a, pw.mod(a, b)), b)


def _compare(op: Op, a: Any, b: Any) -> Any:
    if b is None or isinstance(b, str):
        return NotImplemented
    return binary(op, a, b)


def _of_floats(op: Any) -> Callable[[Any], Tensor]:
    def method(self: Any) -> Tensor:
        return unary(op, self)

    return _named(method, op)


def _of_any(op: Any) -> Callable[[Any], Tensor]:
    def method(self: Any) -> Tensor:
        return op(self)  # type: ignore[no-any-return]

    return _named(method, op)


def _named(method: Callable[[Any], Tensor], op: Any) -> Callable[[Any], Tensor]:
    method.__doc__, method.__name__, method.__qualname__ = op.__doc__, op.name, f"Tensor.{op.name}"
    return method


class Arithmetic:
    """Operators and pointwise methods."""

    _array: Any

    def __add__(self, other: Any) -> Tensor:
        """Return self + other."""
        return binary(pw.add, self, other)

    def __radd__(self, other: Any) -> Tensor:
        """Return other + self."""
        return binary(pw.add, other, self)

    def __sub__(self, other: Any) -> Tensor:
        """Return self - other."""
        return binary(pw.sub, self, other)

    def __rsub__(self, other: Any) -> Tensor:
        """Return other - self."""
        return binary(pw.sub, other, self)

    def __mul__(self, other: Any) -> Tensor:
        """Return self * other."""
        return binary(pw.mul, self, other)

    def __rmul__(self, other: Any) -> Tensor:
        """Return other * self."""
        return binary(pw.mul, other, self)

    def __truediv__(self, other: Any) -> Tensor:
        """Return self / other; of integers too, as floats."""
        return _divide(self, other)  # type: ignore[no-any-return]

    def __rtruediv__(self, other: Any) -> Tensor:
        """Return other / self."""
        return _divide(other, self)  # type: ignore[no-any-return]

    def __floordiv__(self, other: Any) -> Tensor:
        """Return self / other rounded down."""
        return _floor_divide(self, other)  # type: ignore[no-any-return]

    def __rfloordiv__(self, other: Any) -> Tensor:
        """Return other / self rounded down."""
        return _floor_divide(other, self)  # type: ignore[no-any-return]

    def __mod__(self, other: Any) -> Tensor:
        """Return the remainder, with the sign of the divisor."""
        return binary(pw.mod, self, other)

    def __rmod__(self, other: Any) -> Tensor:
        """Return the remainder of other by self."""
        return binary(pw.mod, other, self)

    def __pow__(self, other: Any) -> Tensor:
        """Return self to the other."""
        return binary(pw.pow_, self, other)

    def __rpow__(self, other: Any) -> Tensor:
        """Return other to the self."""
        return binary(pw.pow_, other, self)

    def __matmul__(self, other: Any) -> Tensor:
        """Return the matrix product."""
        return binary(matmul_ops.matmul, self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        """Return the matrix product of other and self."""
        from ..tensor import Tensor

        return binary(matmul_ops.matmul, other if isinstance(other, Tensor) else Tensor(other), self)

    def __neg__(self) -> Tensor:
        """Return -self."""
        return pw.neg(self)  # type: ignore[no-any-return]

    def __pos__(self) -> Any:
        """Return self."""
        return self

    def __abs__(self) -> Tensor:
        """Return the absolute value."""
        return pw.abs_(self)  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> Any:
        """Return where they are equal."""
        return _compare(pw.equal, self, other)

    def __ne__(self, other: object) -> Any:
        """Return where they differ."""
        same = _compare(pw.equal, self, other)
        return same if same is NotImplemented else pw.logical_not(same)

    def __lt__(self, other: Any) -> Any:
        """Return where self is smaller."""
        return _compare(pw.less, self, other)

    def __le__(self, other: Any) -> Any:
        """Return where self is at most other."""
        return _compare(pw.less_equal, self, other)

    def __gt__(self, other: Any) -> Any:
        """Return where self is larger."""
        return _compare(pw.greater, self, other)

    def __ge__(self, other: Any) -> Any:
        """Return where self is at least other."""
        return _compare(pw.greater_equal, self, other)

    __hash__ = object.__hash__

    def __invert__(self) -> Tensor:
        """Return not self, bit by bit for integers."""
        return (pw.logical_not if self._array.dtype.kind == "b" else pw.bitwise_not)(self)  # type: ignore[no-any-return]

    def __and__(self, other: Any) -> Tensor:
        """Return self & other, bit by bit."""
        return binary(pw.bitwise_and, self, other)

    def __or__(self, other: Any) -> Tensor:
        """Return self | other, bit by bit."""
        return binary(pw.bitwise_or, self, other)

    def __xor__(self, other: Any) -> Tensor:
        """Return self ^ other, bit by bit."""
        return binary(pw.bitwise_xor, self, other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def add(self, other: Any, *, alpha: float = 1) -> Tensor:
        """Return self + alpha * other."""
        return binary(pw.add, self, other if alpha == 1 else other * alpha)

    def sub(self, other: Any, *, alpha: float = 1) -> Tensor:
        """Return self - alpha * other."""
        return binary(pw.sub, self, other if alpha == 1 else other * alpha)

    def div(self, other: Any, *, rounding_mode: str | None = None) -> Tensor:
        """Return self / other, rounded `floor` or `trunc` where asked."""
        if rounding_mode == "floor":
            return self.__floordiv__(other)
        quotient = self.__truediv__(other)
        if rounding_mode is None:
            return quotient
        return pw.mul(pw.sign(quotient), pw.floor(pw.abs_(quotient)))  # type: ignore[no-any-return]

    mul = multiply = __mul__
    pow = __pow__
    matmul = mm = bmm = mv = dot = __matmul__
    remainder = __mod__
    floor_divide = __floordiv__
    true_divide = divide = div
    subtract = sub
    neg = negative = __neg__
    abs = absolute = __abs__
    eq, ne, lt, le, gt, ge = __eq__, __ne__, __lt__, __le__, __gt__, __ge__
    logical_not = __invert__

    def fmod(self, other: Any) -> Tensor:
        """Return the remainder, with the sign of the dividend."""
        return binary(pw.fmod, self, other)

    def maximum(self, other: Any) -> Tensor:
        """Return the larger of the two."""
        return binary(pw.maximum, self, other)

    def minimum(self, other: Any) -> Tensor:
        """Return the smaller of the two."""
        return binary(pw.minimum, self, other)

    def logical_and(self, other: Any) -> Tensor:
        """Return self and other."""
        return pw.logical_and(self, other)  # type: ignore[no-any-return]

    def logical_or(self, other: Any) -> Tensor:
        """Return self or other."""
        return pw.logical_or(self, other)  # type: ignore[no-any-return]

    def isnan(self) -> Tensor:
        """Return where it is not a number."""
        return pw.isnan(self)  # type: ignore[no-any-return]

    def isfinite(self) -> Tensor:
        """Return where it is neither infinite nor not a number."""
        return pw.less(pw.abs_(self), float("inf"))  # type: ignore[no-any-return]

    def isinf(self) -> Tensor:
        """Return where it is infinite."""
        return pw.equal(pw.abs_(self), float("inf"))  # type: ignore[no-any-return]

    def clamp(self, min: Any = None, max: Any = None) -> Tensor:
        """Return self kept between min and max."""
        x: Any = self
        if self._array.dtype.kind == "f" and not hasattr(min, "shape") and not hasattr(max, "shape"):
            low, high = -float("inf") if min is None else min, float("inf") if max is None else max
            return pw.clip(x, low, high)  # type: ignore[no-any-return]
        if min is not None:
            x = binary(pw.maximum, x, min)
        return x if max is None else binary(pw.minimum, x, max)

    clip = clamp

    def where(self, condition: Any, other: Any) -> Tensor:
        """Return self where the condition holds, else other."""
        a, b = matched(self, other)
        return pw.where(condition, a, b)  # type: ignore[no-any-return]

    def masked_fill(self, mask: Any, value: Any) -> Tensor:
        """Return value where the mask holds, else self."""
        return pw.where(mask, value, self)  # type: ignore[no-any-return]

    exp = _of_floats(pw.exp)
    log = _of_floats(pw.log)
    sqrt = _of_floats(pw.sqrt)
    reciprocal = _of_floats(pw.reciprocal)
    sin = _of_floats(pw.sin)
    cos = _of_floats(pw.cos)
    tan = _of_floats(pw.tan)
    asin = arcsin = _of_floats(pw.asin)
    acos = arccos = _of_floats(pw.acos)
    atan = arctan = _of_floats(pw.atan)
    sinh = _of_floats(pw.sinh)
    cosh = _of_floats(pw.cosh)
    asinh = _of_floats(pw.asinh)
    acosh = _of_floats(pw.acosh)
    atanh = _of_floats(pw.atanh)
    erf = _of_floats(pw.erf)
    tanh = _of_floats(pw.tanh)
    sigmoid = _of_floats(pw.sigmoid)
    sign = _of_any(pw.sign)
    floor = _of_any(pw.floor)
    ceil = _of_any(pw.ceil)
    round = _of_any(pw.round_)
    relu = _of_any(pw.relu)

    def square(self) -> Tensor:
        """Return self * self."""
        return pw.mul(self, self)  # type: ignore[no-any-return]

    def rsqrt(self) -> Tensor:
        """Return 1 / sqrt(self)."""
        return pw.reciprocal(unary(pw.sqrt, self))  # type: ignore[no-any-return]

    def log2(self) -> Tensor:
        """Return the logarithm to base 2."""
        return unary(pw.log, self) * 1.4426950408889634

    def log10(self) -> Tensor:
        """Return the logarithm to base 10."""
        return unary(pw.log, self) * 0.4342944819032518
