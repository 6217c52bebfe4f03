"""Emitters: pointwise ops that ONNX has an operator for. Others are written as their expression (`expression.py`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ....ops import pointwise as pw
from ....ops.pointwise import Pointwise
from ....ops.types import is_float
from ....runtime.graph.graph import Value
from .expression import BOOL, floor_mod, is_minus, operand_dtype, operands
from .registry import emits
from .writer import Writer, elem_type

SAME: dict[Pointwise, str] = {
    pw.add: "Add", pw.sub: "Sub", pw.mul: "Mul", pw.div: "Div", pw.maximum: "Max", pw.minimum: "Min",
    pw.less: "Less", pw.less_equal: "LessOrEqual", pw.greater: "Greater", pw.greater_equal: "GreaterOrEqual",
    pw.equal: "Equal", pw.isnan: "IsNaN", pw.neg: "Neg", pw.abs_: "Abs", pw.sign: "Sign", pw.floor: "Floor",
    pw.ceil: "Ceil", pw.round_: "Round", pw.exp: "Exp", pw.log: "Log", pw.sqrt: "Sqrt", pw.reciprocal: "Reciprocal",
    pw.sin: "Sin", pw.cos: "Cos", pw.tan: "Tan", pw.asin: "Asin", pw.acos: "Acos", pw.atan: "Atan", pw.sinh: "Sinh",
    pw.cosh: "Cosh", pw.asinh: "Asinh", pw.acosh: "Acosh", pw.atanh: "Atanh", pw.erf: "Erf", pw.tanh: "Tanh",
    pw.sigmoid: "Sigmoid", pw.softplus: "Softplus", pw.softsign: "Softsign", pw.mish: "Mish", pw.prelu: "PRelu",
}  # fmt: skip
"""Ops and the operators that compute the same, of operands of one element type."""

TRUTHS: dict[Pointwise, str] = {
    pw.logical_and: "And", pw.logical_or: "Or", pw.logical_xor: "Xor", pw.logical_not: "Not",
}  # fmt: skip
BITS: dict[Pointwise, str] = {
    pw.bitwise_and: "BitwiseAnd", pw.bitwise_or: "BitwiseOr", pw.bitwise_xor: "BitwiseXor",
    pw.bitwise_not: "BitwiseNot",
}  # fmt: skip
SET: dict[Pointwise, tuple[str, tuple[str, ...]]] = {
    pw.leaky_relu: ("LeakyRelu", ("alpha",)),
    pw.elu: ("Elu", ("alpha",)),
    pw.celu: ("Celu", ("alpha",)),
    pw.thresholded_relu: ("ThresholdedRelu", ("alpha",)),
    pw.shrink: ("Shrink", ("bias", "lambd")),
    pw.hard_sigmoid: ("HardSigmoid", ("alpha", "beta")),
}
"""Operators whose further operands are attributes, in the op's order."""


def _same(op: Pointwise, operator: str) -> Callable[..., Any]:
    def emit(w: Writer, *args: Any) -> Any:
        dtype = operand_dtype(op, args, w.out)
        if dtype == BOOL and operator in ("Mul", "Add", "Max", "Min", "Equal"):
            return _of_truths(w, operator, operands(w, op, args, dtype))
        return w.add(operator, *operands(w, op, args, dtype))

    return emit


def _of_truths(w: Writer, operator: str, names: list[str]) -> str:
    """Write arithmetic of truth values: ONNX has it as logic."""
    if operator == "Equal":
        return str(w.add("Not", w.add("Xor", *names)))
    return str(w.add("And" if operator in ("Mul", "Min") else "Or", *names))


def _logical(op: Pointwise, operator: str, *, bits: str = "") -> Callable[..., Any]:
    def emit(w: Writer, *args: Any) -> Any:
        dtype = BOOL if not bits else operand_dtype(op, args, w.out)
        names = operands(w, op, args, dtype)
        return w.add(operator if dtype == BOOL else bits, *names)

    return emit


def _set(operator: str, names: tuple[str, ...]) -> Callable[..., Any]:
    def emit(w: Writer, x: Value, *numbers: Any) -> Any:
        if not all(isinstance(n, int | float) for n in numbers):
            return None
        given: dict[str, Any] = {k: float(n) for k, n in zip(names, numbers, strict=True)}
        return w.add(operator, x, **given)

    return emit


for _op, _operator in SAME.items():
    emits(_op)(_same(_op, _operator))
for _op, _operator in TRUTHS.items():
    emits(_op)(_logical(_op, _operator))
for _op, _operator in BITS.items():
    emits(_op)(_logical(_op, _operator.replace("Bitwise", ""), bits=_operator))
for _op, (_operator, _names) in SET.items():
    emits(_op)(_set(_operator, _names))


@emits(pw.pow_)
def pow_(w: Writer, a: Any, b: Any) -> Any:
    if isinstance(b, int | float) and b == 2 and isinstance(a, Value):
        return w.add("Mul", a, a)
    return w.add("Pow", *operands(w, pw.pow_, (a, b), operand_dtype(pw.pow_, (a, b), w.out)))


@emits(pw.mod)
def mod(w: Writer, a: Any, b: Any) -> Any:
    dtype = operand_dtype(pw.mod, (a, b), w.out)
    return floor_mod(w, dtype, *operands(w, pw.mod, (a, b), dtype))


@emits(pw.fmod)
def fmod(w: Writer, a: Any, b: Any) -> Any:
    return w.add("Mod", *operands(w, pw.fmod, (a, b), operand_dtype(pw.fmod, (a, b), w.out)), fmod=1)


@emits(pw.relu)
def relu(w: Writer, x: Value) -> Any:
    return w.add("Relu", x) if is_float(x.dtype) else w.add("Max", x, w.number(0, x.dtype))


@emits(pw.relu6)
def relu6(w: Writer, x: Value) -> Any:
    return clip(w, x, 0, 6)


@emits(pw.gelu)
def gelu(w: Writer, x: Value) -> Any:
    return w.add("Gelu", x) if w.opset >= 20 else None


@emits(pw.gelu_tanh)
def gelu_tanh(w: Writer, x: Value) -> Any:
    return w.add("Gelu", x, approximate="tanh") if w.opset >= 20 else None


@emits(pw.swish)
def swish(w: Writer, x: Value, alpha: Any) -> Any:
    return w.add("Swish", x, alpha=float(alpha)) if w.opset >= 24 and isinstance(alpha, int | float) else None


@emits(pw.where)
def where(w: Writer, c: Any, a: Any, b: Any) -> Any:
    return w.add("Where", w.cast(c, BOOL), *operands(w, pw.where, (a, b), w.out.dtype))


@emits(pw.clip)
def clip(w: Writer, x: Value, low: Any, high: Any) -> Any:
    """Clip; bounds that are no numbers, and not 0-d, need Max and Min, as they broadcast."""
    plain = all(not isinstance(v, Value) or v.type.known_shape == () for v in (low, high))  # type: ignore[union-attr]
    bounds = [
        None
        if not isinstance(v, Value) and math.isinf(v)
        else (w.cast if isinstance(v, Value) else w.number)(v, x.dtype)
        for v in (low, high)
    ]
    if plain and x.dtype == w.out.dtype:
        return w.add("Clip", x, *bounds) if any(bounds) else w.name(x)
    y = w.cast(x, w.out.dtype)
    for operator, v in (("Max", low), ("Min", high)):
        y = w.add(operator, y, *operands(w, pw.clip, (v,), w.out.dtype))
    return y


@emits(pw.shift_left, pw.shift_right)
def shift(w: Writer, a: Any, b: Any) -> Any:
    left = w.node.op is pw.shift_left
    x, bits = operands(w, pw.shift_left, (a, b), w.out.dtype)
    if w.out.dtype.kind == "u":
        return w.add("BitShift", x, bits, direction="LEFT" if left else "RIGHT")
    return _signed_shift(w, x, bits, left)


def _signed_shift(w: Writer, x: str, bits: str, left: bool) -> Any:
    """Multiply by, or divide by, powers of two: ONNX shifts unsigned integers alone.

    The largest power that the type holds is 2^(width - 2); what is shifted further is so by 1 once more. Negative
    numbers of bits count as many, as NumPy has it.
    """
    dtype = w.out.dtype
    width = 8 * dtype.itemsize
    two, most = w.number(2, dtype), w.number(width - 2, dtype)
    bits = w.add("Where", w.add("Less", bits, w.number(0, dtype)), w.number(width, dtype), bits)

    def moved(y: str, by: str) -> str:
        return str(w.add("Mul", y, by) if left else w.add("Div", w.add("Sub", y, w.add("Mod", y, by)), by))

    y = moved(x, w.add("Pow", two, w.add("Min", bits, most)))
    y = w.add("Where", w.add("Greater", bits, most), moved(y, two), y)
    return w.add("Where", w.add("Less", bits, w.number(width, dtype)), y, w.number(0, dtype)) if left else y


@emits(pw.signbit)
def signbit(w: Writer, x: Value) -> Any:
    return is_minus(w, x.dtype, w.name(x)) if is_float(x.dtype) else w.add("Less", x, w.number(0, x.dtype))


@emits(pw.trunc)
def trunc(w: Writer, x: Value) -> Any:
    return None if is_float(x.dtype) else w.name(x)


@emits(pw.cast)
def cast(w: Writer, x: Value, *, dtype: str, saturate: bool = True, rounding: str = "up") -> Any:
    to = np.dtype(dtype)
    if to == x.dtype:
        return w.name(x)
    return w.add("Cast", x, to=elem_type(to), saturate=None if saturate else 0)
