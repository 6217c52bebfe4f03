"""Pointwise methods: functions of every element by itself, and of two or three that broadcast."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ....ops import pointwise as pw
from ....ops.errors import DTypeError, ShapeError
from ....ops.types import is_float
from .arithmetic import of_any, of_floats, of_steps
from .axes import numpy_names
from .promotion import all_matched, binary, binary_of_floats, default_float, floating, has_float, matched, unary

if TYPE_CHECKING:
    from ..tensor import Tensor


def where(condition: Any, a: Any, b: Any) -> Any:
    """Return a where the condition holds, else b, with their element types matched.

    Raises:
        DTypeError: if the condition is not of truth values.
    """
    from ..tensor import Tensor

    if hasattr(condition, "dtype") and condition.dtype.kind != "b":
        raise DTypeError(
            f"where expected condition to be a boolean tensor, but got a tensor with dtype {condition.dtype}"
        )
    if isinstance(a, bool | int | float) and isinstance(b, bool | int | float):
        kinds = {type(a), type(b)}
        dtype = default_float() if float in kinds else "int64" if int in kinds else "bool"
        return pw.cast(pw.where(condition, Tensor(a), Tensor(b)), dtype=str(dtype))
    return pw.where(condition, *matched(a, b))


def filling(x: Any, value: Any) -> Any:
    """Return a number, or a Tensor of one, as what stands among the elements of x.

    Raises:
        DTypeError: if the element type has no such number.
    """
    if hasattr(value, "dtype"):
        if value.ndim:
            raise ShapeError(
                "masked_fill_ only supports a 0-dimensional value tensor, but got tensor with "
                f"{value.ndim} dimension(s)."
            )
        return pw.cast(value, dtype=str(x.dtype))
    if is_float(x.dtype):
        return float(value)
    if value != value or abs(value) == math.inf:
        raise DTypeError(f"value cannot be converted to type {x.dtype} without overflow")
    return bool(value) if x.dtype.kind == "b" else int(value)


class Pointwise:
    """Pointwise methods."""

    _array: Any

    @numpy_names
    def maximum(self, other: Any) -> Tensor:
        """Return the larger of the two, NaN where one is NaN; equal ones share the gradient."""
        return binary(pw.maximum, self, other)

    @numpy_names
    def minimum(self, other: Any) -> Tensor:
        """Return the smaller of the two, NaN where one is NaN; equal ones share the gradient."""
        return binary(pw.minimum, self, other)

    def fmax(self, other: Any) -> Tensor:
        """Return the larger of the two, the other one where one is NaN."""
        a, b = matched(self, other)
        return pw.where(_nan(b), a, pw.where(_nan(a), b, pw.maximum(a, b)))  # type: ignore[no-any-return]

    def fmin(self, other: Any) -> Tensor:
        """Return the smaller of the two, the other one where one is NaN."""
        a, b = matched(self, other)
        return pw.where(_nan(b), a, pw.where(_nan(a), b, pw.minimum(a, b)))  # type: ignore[no-any-return]

    def logical_and(self, other: Any) -> Tensor:
        """Return self and other."""
        return pw.logical_and(self, other)  # type: ignore[no-any-return]

    def logical_or(self, other: Any) -> Tensor:
        """Return self or other."""
        return pw.logical_or(self, other)  # type: ignore[no-any-return]

    def logical_xor(self, other: Any) -> Tensor:
        """Return whether one of the two holds."""
        return pw.logical_xor(self, other)  # type: ignore[no-any-return]

    def logical_not(self) -> Tensor:
        """Return whether it is 0 or False."""
        return pw.logical_not(self)  # type: ignore[no-any-return]

    def isnan(self) -> Tensor:
        """Return where it is not a number."""
        return _nan(self)  # type: ignore[no-any-return]

    def isfinite(self) -> Tensor:
        """Return where it is neither infinite nor not a number."""
        return pw.less(pw.abs_(_numbers(self)), float("inf"))  # type: ignore[no-any-return]

    def isinf(self) -> Tensor:
        """Return where it is infinite."""
        return pw.equal(pw.abs_(_numbers(self)), float("inf"))  # type: ignore[no-any-return]

    def isposinf(self) -> Tensor:
        """Return where it is infinity."""
        return pw.equal(_numbers(self), float("inf"))  # type: ignore[no-any-return]

    def isneginf(self) -> Tensor:
        """Return where it is minus infinity."""
        return pw.equal(_numbers(self), -float("inf"))  # type: ignore[no-any-return]

    def isreal(self) -> Tensor:
        """Return True everywhere: there are no complex numbers."""
        zero = pw.equal(_numbers(self), 0)
        return pw.logical_or(zero, pw.logical_not(zero))  # type: ignore[no-any-return]

    def signbit(self) -> Tensor:
        """Return where the sign is minus, also that of -0."""
        return pw.signbit(self) if is_float(self._array.dtype) else pw.less(_numbers(self), 0)  # type: ignore[no-any-return]

    @numpy_names
    def clamp(self, min: Any = None, max: Any = None) -> Tensor:
        """Return self kept between min and max.

        Raises:
            OpError: if there is neither.
        """
        x: Any = self
        if min is None and max is None:
            raise DTypeError("torch.clamp: At least one of 'min' or 'max' must not be None")
        if self._array.dtype.kind == "f" and not hasattr(min, "shape") and not hasattr(max, "shape"):
            low, high = -float("inf") if min is None else min, float("inf") if max is None else max
            return pw.clip(x, low, high)  # type: ignore[no-any-return]
        if min is not None:
            x = binary(pw.maximum, x, min)
        return x if max is None else binary(pw.minimum, x, max)

    def clamp_min(self, min: Any) -> Tensor:
        """Return self, or min where it is smaller."""
        return self.clamp(min=min)

    def clamp_max(self, max: Any) -> Tensor:
        """Return self, or max where it is larger."""
        return self.clamp(max=max)

    clip = clamp

    def where(self, condition: Any, other: Any) -> Tensor:
        """Return self where the condition holds, else other."""
        return where(condition, self, other)  # type: ignore[no-any-return]

    def masked_fill(self, mask: Any, value: Any) -> Tensor:
        """Return value where the mask holds, else self.

        Raises:
            DTypeError: if the mask is not of truth values.
        """
        if hasattr(mask, "dtype") and mask.dtype.kind != "b":
            raise DTypeError(f"masked_fill_ only supports boolean masks, but got mask with dtype {mask.dtype}")
        return pw.where(mask, filling(self, value), self)  # type: ignore[no-any-return]

    def lerp(self, end: Any, weight: Any) -> Tensor:
        """Return self + weight * (end - self)."""
        me: Any = self
        return me + weight * (end - me)  # type: ignore[no-any-return]

    def addcmul(self, tensor1: Any, tensor2: Any, *, value: float = 1) -> Tensor:
        """Return self + value * tensor1 * tensor2."""
        product = tensor1 * tensor2
        return self + (product if value == 1 else value * product)  # type: ignore[no-any-return]

    def addcdiv(self, tensor1: Any, tensor2: Any, *, value: float = 1) -> Tensor:
        """Return self + value * tensor1 / tensor2.

        Raises:
            DTypeError: of integers.
        """
        if not has_float(tensor1, tensor2):
            raise DTypeError("Integer division with addcdiv is no longer supported; divide first, or use floats.")
        quotient = tensor1 / tensor2
        return self + (quotient if value == 1 else value * quotient)  # type: ignore[no-any-return]

    exp = of_floats(pw.exp)
    exp2 = of_floats(pw.exp2)
    expm1 = of_floats(pw.expm1)
    log = of_floats(pw.log)
    log2 = of_floats(pw.log2)
    log10 = of_floats(pw.log10)
    log1p = of_floats(pw.log1p)
    sqrt = of_floats(pw.sqrt)
    reciprocal = of_floats(pw.reciprocal)
    sin = of_floats(pw.sin)
    cos = of_floats(pw.cos)
    tan = of_floats(pw.tan)
    asin = arcsin = of_floats(pw.asin)
    acos = arccos = of_floats(pw.acos)
    atan = arctan = of_floats(pw.atan)
    sinh = of_floats(pw.sinh)
    cosh = of_floats(pw.cosh)
    asinh = arcsinh = of_floats(pw.asinh)
    acosh = arccosh = of_floats(pw.acosh)
    atanh = arctanh = of_floats(pw.atanh)
    erf = of_floats(pw.erf)
    erfc = of_floats(pw.erfc)
    erfinv = of_floats(pw.erfinv)
    lgamma = of_floats(pw.lgamma)
    tanh = of_floats(pw.tanh)
    sigmoid = of_floats(pw.sigmoid)
    floor = of_steps(pw.floor)
    ceil = of_steps(pw.ceil)
    trunc = fix = of_steps(pw.trunc)
    relu = of_any(pw.relu)

    def round(self, *, decimals: int = 0) -> Tensor:
        """Return the nearest integers, halves to even, or that many digits after the point."""
        if self._array.dtype.kind in "iu":
            return self.clone()  # type: ignore[attr-defined, no-any-return]
        if decimals == 0:
            return pw.round_(self)  # type: ignore[no-any-return]
        if decimals > 0:
            return pw.div(pw.round_(pw.mul(self, 10.0**decimals)), 10.0**decimals)  # type: ignore[no-any-return]
        return pw.mul(pw.round_(pw.div(self, 10.0**-decimals)), 10.0**-decimals)  # type: ignore[no-any-return]

    def sign(self) -> Tensor:
        """Return -1, 0 or 1, 0 where it is not a number; of truth values themselves."""
        me: Any = self
        if me.dtype.kind == "b":
            return me.clone()  # type: ignore[no-any-return]
        return pw.where(pw.isnan(me), 0.0, pw.sign(me)) if is_float(me.dtype) else pw.sign(me)  # type: ignore[no-any-return]

    sgn = sign

    def frac(self) -> Tensor:
        """Return what is behind the point, with the sign of self."""
        return pw.sub(self, pw.trunc(self))  # type: ignore[no-any-return]

    def square(self) -> Tensor:
        """Return self * self."""
        return pw.mul(_numbers(self), _numbers(self))  # type: ignore[no-any-return]

    def rsqrt(self) -> Tensor:
        """Return 1 / sqrt(self)."""
        return pw.reciprocal(unary(pw.sqrt, self))  # type: ignore[no-any-return]

    def digamma(self) -> Tensor:
        """Return the derivative of lgamma."""
        return pw.polygamma(0, floating(self))  # type: ignore[no-any-return]

    def sinc(self) -> Tensor:
        """Return sin(pi x) / (pi x), 1 at 0."""
        x = floating(self)
        angle = pw.mul(pw.where(pw.equal(x, 0), 1.0, x), math.pi)
        return pw.where(pw.equal(x, 0), 1.0, pw.div(pw.sin(angle), angle))  # type: ignore[no-any-return]

    def logit(self, eps: float | None = None) -> Tensor:
        """Return log(x / (1 - x)), x kept between eps and 1 - eps where it is given."""
        x = floating(self)
        if eps is not None:
            x = pw.clip(x, eps, 1 - eps)
        return pw.log(pw.div(x, pw.sub(1.0, x)))  # type: ignore[no-any-return]

    def deg2rad(self) -> Tensor:
        """Return degrees as radians."""
        return pw.mul(floating(self), math.pi / 180)  # type: ignore[no-any-return]

    def rad2deg(self) -> Tensor:
        """Return radians as degrees."""
        return pw.mul(floating(self), 180 / math.pi)  # type: ignore[no-any-return]

    def atan2(self, other: Any) -> Tensor:
        """Return the angle of the point (other, self)."""
        return binary_of_floats(pw.atan2, self, other)

    arctan2 = atan2

    def hypot(self, other: Any) -> Tensor:
        """Return sqrt(self^2 + other^2)."""
        return binary_of_floats(pw.hypot, self, other)

    def copysign(self, other: Any) -> Tensor:
        """Return self with the sign of other."""
        return binary_of_floats(pw.copysign, self, float(other) if isinstance(other, int) else other)

    def logaddexp(self, other: Any) -> Tensor:
        """Return log(e^self + e^other)."""
        return binary_of_floats(pw.logaddexp, self, other)

    def logaddexp2(self, other: Any) -> Tensor:
        """Return log2(2^self + 2^other)."""
        return binary_of_floats(pw.logaddexp2, self, other)

    def xlogy(self, other: Any) -> Tensor:
        """Return self * log(other), 0 where self is 0 and other is a number."""
        return xlogy(self, other)

    def float_power(self, exponent: Any) -> Tensor:
        """Return self to the exponent, computed in float64."""
        a = pw.cast(self, dtype="float64")
        b = pw.cast(exponent, dtype="float64") if hasattr(exponent, "dtype") else float(exponent)
        return pw.pow_(a, b)  # type: ignore[no-any-return]

    def ldexp(self, other: Any) -> Tensor:
        """Return self * 2^other."""
        return binary(pw.mul, floating(self), unary(pw.exp2, other))

    def heaviside(self, values: Any) -> Tensor:
        """Return 0 where it is negative, 1 where it is positive, and values where it is 0. Not differentiable.

        Raises:
            DTypeError: if the element types differ.
        """
        me: Any = self
        if me.dtype != values.dtype:
            raise DTypeError("heaviside is not yet implemented for tensors with different dtypes.")
        step = pw.cast(pw.greater(_numbers(me.detach()), 0), dtype=str(me.dtype))
        return pw.where(pw.equal(me.detach(), 0), values.detach(), step)  # type: ignore[no-any-return]

    def nan_to_num(self, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
        """Return numbers in the place of NaN and of the infinities; of these the largest of the type by default."""
        from ..dtypes import finfo

        x: Any = self
        if not is_float(x.dtype):
            return x.clone()  # type: ignore[no-any-return]
        most = finfo(x.dtype).max
        x = pw.where(pw.isnan(x), 0.0 if nan is None else float(nan), x)
        x = pw.where(pw.equal(x, float("inf")), most if posinf is None else float(posinf), x)
        return pw.where(pw.equal(x, -float("inf")), -most if neginf is None else float(neginf), x)  # type: ignore[no-any-return]

    def isclose(self, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
        """Return where |self - other| is at most atol + rtol |other|.

        Raises:
            DTypeError: if the element types differ.
        """
        me: Any = self
        if me.dtype != other.dtype:
            raise DTypeError(f"isclose: {me.dtype} did not match {other.dtype}")
        a, b = _numbers(me.detach()), _numbers(other.detach())
        same = pw.equal(a, b)
        near = pw.less_equal(pw.abs_(pw.sub(a, b)), pw.add(pw.mul(pw.abs_(b), rtol), atol)) if has_float(a) else same
        if has_float(a):
            near = pw.logical_and(near, pw.less(pw.abs_(b), float("inf")))
        close = pw.logical_or(same, near)
        return pw.logical_or(close, pw.logical_and(_nan(a), _nan(b))) if equal_nan else close  # type: ignore[no-any-return]

    def allclose(self, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
        """Return whether all elements are close; see `isclose`."""
        return bool(self.isclose(other, rtol, atol, equal_nan).all())

    def equal(self, other: Tensor) -> bool:
        """Return whether it has the shape and the elements of another."""
        me: Any = self
        return tuple(me.shape) == tuple(other.shape) and bool((me == other).all())

    def dist(self, other: Any, p: float = 2) -> Tensor:
        """Return the p-norm of the difference."""
        return (self - other).norm(p)  # type: ignore[no-any-return]


def xlogy(input: Any, other: Any) -> Tensor:
    """Return input * log(other), 0 where input is 0 and other is a number; one of them may be a Python number."""
    a, b = all_matched(input, other)
    a, b = (floating(v) if hasattr(v, "dtype") else float(v) for v in (a, b))
    zero = pw.equal(a, 0.0) if hasattr(a, "dtype") else a == 0.0
    if not hasattr(b, "dtype"):
        return pw.mul(a, math.log(b) if b > 0 else -math.inf if b == 0 else math.nan)  # type: ignore[no-any-return]
    if zero is False or zero is True:
        return pw.where(_nan(b), b, pw.mul(b, 0.0)) if zero else pw.mul(pw.log(b), a)  # type: ignore[no-any-return]
    safe = pw.where(pw.logical_and(zero, pw.logical_not(_nan(b))), 1.0, b)
    return pw.mul(a, pw.log(safe))  # type: ignore[no-any-return]


def polygamma(n: int, input: Any) -> Tensor:
    """Return the n-th derivative of digamma.

    Raises:
        ShapeError: if n is negative.
    """
    if n < 0:
        raise ShapeError("polygamma(n, x) does not support negative n.")
    return pw.polygamma(int(n), floating(input))  # type: ignore[no-any-return]


def _nan(x: Any) -> Any:
    if not hasattr(x, "dtype"):
        return x != x
    if is_float(x.dtype):
        return pw.isnan(x)
    zero = pw.equal(x, 0)
    return pw.logical_and(zero, pw.logical_not(zero))


def _numbers(x: Any) -> Any:
    """Return x with truth values as integers."""
    return pw.cast(x, dtype="int64") if x.dtype.kind == "b" else x
