"""Operators, and the methods of the same names. How element types mix is said in `promotion.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ....ops import matmul as matmul_ops, pointwise as pw
from ....ops.errors import DTypeError, OpError
from ....ops.op import Op
from ...amp.casting import in_half
from .axes import numpy_names
from .promotion import binary, floating, has_float, matched, unary

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["Arithmetic", "binary", "matched", "of_any", "of_floats", "of_steps", "unary"]


def _divide(a: Any, b: Any) -> Any:
    a, b = matched(a, b)
    if not has_float(a, b):
        a, b = (floating(v) if hasattr(v, "dtype") else v for v in (a, b))
    return pw.div(a, b)


def _floor_divide(a: Any, b: Any) -> Any:
    a, b = matched(a, b)
    if not has_float(a, b):
        return pw.div(pw.sub(a, pw.mod(a, b)), b)
    # The quotient less its remainder is whole but for rounding: floor(1 / 0.1) would be 10.
    rest = pw.fmod(a, b)
    apart = pw.logical_xor(pw.less(rest, 0), pw.less(b, 0) if hasattr(b, "dtype") else b < 0)
    step = pw.cast(pw.logical_and(apart, pw.logical_not(pw.equal(rest, 0))), dtype=str(rest.dtype))
    whole = pw.round_(pw.sub(pw.div(pw.sub(a, rest), b), step))
    if hasattr(b, "dtype"):
        return pw.where(pw.equal(b, 0), pw.div(a, b), whole)
    return whole if b else pw.div(a, b)


def _truncate_divide(a: Any, b: Any) -> Any:
    a, b = matched(a, b)
    return pw.trunc(pw.div(a, b)) if has_float(a, b) else pw.div(a, b)


def _subtract(a: Any, b: Any) -> Tensor:
    try:
        return binary(pw.sub, a, b)
    except OpError:
        if _kind(a) == _kind(b) == "b":
            raise DTypeError(
                "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or `logical_xor()` "
                "operator instead."
            ) from None
        raise


def _kind(x: Any) -> str:
    """Return NumPy's letter of a kind of numbers."""
    if hasattr(x, "dtype"):
        return x.dtype.kind  # type: ignore[no-any-return]
    return "b" if isinstance(x, bool) else "i" if isinstance(x, int) else "f"


def _power(a: Any, b: Any) -> Any:
    if _kind(a) in "iub":
        if type(b) is int and b < 0:
            raise DTypeError("Integers to negative integer powers are not allowed.")
        if _kind(a) == _kind(b) == "b":
            return pw.logical_or(a, pw.logical_not(b) if hasattr(b, "dtype") else not b)
    return binary(pw.pow_, a, b)


def _product(a: Any, b: Any) -> Any:
    from ..tensor import Tensor

    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.dtype != b.dtype:
            a, b = in_half(a, b)
        if a.dtype != b.dtype:
            raise DTypeError(
                f"matmul: expected m1 and m2 to have the same dtype, but got: {a.dtype} != {b.dtype} "
                f"(shapes {a.shape} and {b.shape})"
            )
    else:
        a, b = (v if isinstance(v, Tensor) else Tensor(v) for v in (a, b))
    return binary(matmul_ops.matmul, a, b)


def _compare(op: Op, a: Any, b: Any) -> Any:
    if b is None or isinstance(b, str):
        return NotImplemented
    return binary(op, a, b)


def of_floats(op: Any) -> Callable[[Any], Tensor]:
    """Return the method of an op of floats."""

    def method(self: Any) -> Tensor:
        return unary(op, self)

    return _named(method, op)


def of_any(op: Any) -> Callable[[Any], Tensor]:
    """Return the method of an op of any numbers."""

    def method(self: Any) -> Tensor:
        return op(self)  # type: ignore[no-any-return]

    return _named(method, op)


def of_steps(op: Any) -> Callable[[Any], Tensor]:
    """Return the method of an op that gives whole numbers; it copies integers."""

    def method(self: Any) -> Tensor:
        return self.clone() if self.dtype.kind in "iu" else op(self)  # type: ignore[no-any-return]

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
        return _subtract(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        """Return other - self."""
        return _subtract(other, self)

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
        return _power(self, other)  # type: ignore[no-any-return]

    def __rpow__(self, other: Any) -> Tensor:
        """Return other to the self."""
        return _power(other, self)  # type: ignore[no-any-return]

    def __matmul__(self, other: Any) -> Tensor:
        """Return the matrix product."""
        return _product(self, other)  # type: ignore[no-any-return]

    def __rmatmul__(self, other: Any) -> Tensor:
        """Return the matrix product of other and self."""
        return _product(other, self)  # type: ignore[no-any-return]

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

    def __lshift__(self, other: Any) -> Tensor:
        """Return self with its bits moved up."""
        return binary(pw.shift_left, self, other)

    def __rlshift__(self, other: Any) -> Tensor:
        """Return other with its bits moved up."""
        return binary(pw.shift_left, other, self)

    def __rshift__(self, other: Any) -> Tensor:
        """Return self with its bits moved down."""
        return binary(pw.shift_right, self, other)

    def __rrshift__(self, other: Any) -> Tensor:
        """Return other with its bits moved down."""
        return binary(pw.shift_right, other, self)

    @numpy_names
    def add(self, other: Any, *, alpha: float = 1) -> Tensor:
        """Return self + alpha * other."""
        return binary(pw.add, self, other if alpha == 1 else other * alpha)

    @numpy_names
    def sub(self, other: Any, *, alpha: float = 1) -> Tensor:
        """Return self - alpha * other."""
        return _subtract(self, other if alpha == 1 else other * alpha)

    def rsub(self, other: Any, *, alpha: float = 1) -> Tensor:
        """Return other - alpha * self."""
        return _subtract(other, self if alpha == 1 else self * alpha)

    @numpy_names
    def div(self, other: Any, *, rounding_mode: str | None = None) -> Tensor:
        """Return self / other, rounded `floor` or `trunc` where asked."""
        if rounding_mode is None:
            return self.__truediv__(other)
        if rounding_mode == "floor":
            return self.__floordiv__(other)
        if rounding_mode == "trunc":
            return _truncate_divide(self, other)  # type: ignore[no-any-return]
        raise OpError(f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found '{rounding_mode}'")

    @numpy_names
    def mul(self, other: Any) -> Tensor:
        """Return self * other."""
        return binary(pw.mul, self, other)

    def pow(self, exponent: Any) -> Tensor:
        """Return self to the exponent."""
        return _power(self, exponent)  # type: ignore[no-any-return]

    @numpy_names
    def remainder(self, other: Any) -> Tensor:
        """Return the remainder, with the sign of the divisor."""
        return binary(pw.mod, self, other)

    @numpy_names
    def fmod(self, other: Any) -> Tensor:
        """Return the remainder, with the sign of the dividend."""
        return binary(pw.fmod, self, other)

    multiply = mul
    matmul = __matmul__
    floor_divide = __floordiv__
    true_divide = divide = div
    subtract = sub
    neg = negative = __neg__
    positive = __pos__
    abs = absolute = __abs__
    eq, ne, lt, le, gt, ge = __eq__, __ne__, __lt__, __le__, __gt__, __ge__
    not_equal, less, less_equal, greater, greater_equal = __ne__, __lt__, __le__, __gt__, __ge__
    bitwise_not, bitwise_and, bitwise_or, bitwise_xor = __invert__, __and__, __or__, __xor__
    bitwise_left_shift, bitwise_right_shift = __lshift__, __rshift__
