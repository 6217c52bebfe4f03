"""Pointwise ops that ONNX has no operator for: their scalar expression, node by node."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ....ops.errors import DTypeError, SaveError
from ....ops.expr import Call, Const, Expr, Var
from ....ops.pointwise import Pointwise
from ....ops.primitives import PRIMITIVES
from ....ops.types import HALF, TensorType
from ....runtime.graph.graph import Node, Value
from .writer import elem_type

if TYPE_CHECKING:
    from ....ops.types import DType
    from .writer import Writer

BOOL = np.dtype(bool)
TRUTHS = frozenset({"less", "less_equal", "equal", "isnan"})
"""Primitives whose result is a truth value."""


def operand_dtype(op: Pointwise, args: tuple[Any, ...], out: TensorType) -> DType:
    """Return the element type in which an op computes: what its arrays promote to."""
    if out.dtype != BOOL:
        return out.dtype
    dtypes = {a.dtype for a in args if isinstance(a, Value)}
    numbers = dtypes - {BOOL} or dtypes
    try:
        found: DType = np.result_type(*numbers) if len(numbers) > 1 else numbers.pop()
    except TypeError:
        raise DTypeError(f"{op.name}: element types {sorted(map(str, dtypes))} do not mix") from None
    if found.kind in "iub" and any(isinstance(a, float) for a in args):
        return np.dtype(np.float64)
    return found


def operands(w: Writer, op: Pointwise, args: tuple[Any, ...], dtype: DType) -> list[str]:
    """Return the names of arguments in one element type."""
    return [w.cast(a, dtype) if isinstance(a, Value) else w.number(a, dtype) for a in args]


def write_expression(w: Writer, node: Node) -> str:
    """Write a pointwise op as what its expression consists of; half precision is computed in float32."""
    op, out = node.op, node.outputs[0].tensor_type
    assert isinstance(op, Pointwise)
    assert op.expression is not None
    own = operand_dtype(op, node.args, out)
    dtype = np.dtype(np.float32) if own in HALF else own
    return _Expression(w, op, node.args, dtype).written(out.dtype)


class _Expression:
    """The expression of one op.

    A part is a name and whether it is a truth value.
    """

    def __init__(self, writer: Writer, op: Pointwise, args: tuple[Any, ...], dtype: DType) -> None:
        self._writer, self._op, self._dtype = writer, op, dtype
        self._args = dict(zip(op.names, args, strict=True))
        self._done: dict[int, tuple[str, bool]] = {}

    def written(self, out: DType) -> str:
        assert self._op.expression is not None
        part = self._part(self._op.expression)
        if out == BOOL:
            return self._truth(part)
        name = self._number(part)
        return name if self._dtype == out else str(self._writer.add("Cast", name, to=elem_type(out)))

    def _part(self, e: Expr) -> tuple[str, bool]:
        if id(e) not in self._done:
            self._done[id(e)] = self._visited(e)
        return self._done[id(e)]

    def _visited(self, e: Expr) -> tuple[str, bool]:
        w = self._writer
        if isinstance(e, Const):
            return w.number(e.value, self._dtype), False
        if isinstance(e, Var):
            a = self._args[e.name]
            if isinstance(a, Value):
                return (w.name(a), True) if a.dtype == BOOL else (w.cast(a, self._dtype), False)
            return w.number(a, self._dtype), False
        assert isinstance(e, Call)
        parts = [self._part(a) for a in e.args]
        if e.fn == "where":
            condition, a, b = parts
            return w.add("Where", self._truth(condition), self._number(a), self._number(b)), False
        numbers = [self._number(p) for p in parts]
        own = _SPECIAL.get(e.fn)
        if own is not None:
            return own(w, self._dtype, *numbers), e.fn in TRUTHS
        operator = PRIMITIVES[e.fn].onnx
        if operator is None:
            raise SaveError(
                f"op {self._op.name!r} cannot be written as ONNX: there is no operator for {e.fn!r}, nor a form of it "
                "in other operators. Write the layer with other ops"
            )
        return w.add(operator, *numbers), e.fn in TRUTHS

    def _number(self, part: tuple[str, bool]) -> str:
        return str(self._writer.add("Cast", part[0], to=elem_type(self._dtype))) if part[1] else part[0]

    def _truth(self, part: tuple[str, bool]) -> str:
        if part[1]:
            return part[0]
        return str(self._writer.add("Cast", part[0], to=elem_type(BOOL)))


def floor_mod(w: Writer, dtype: DType, a: str, b: str) -> str:
    """Write the remainder with the sign of the divisor; ONNX's Mod has that of integers alone."""
    if dtype.kind in "iu":
        return str(w.add("Mod", a, b))
    return str(w.add("Sub", a, w.add("Mul", w.add("Floor", w.add("Div", a, b)), b)))


def _fmod(w: Writer, dtype: DType, a: str, b: str) -> str:
    return str(w.add("Mod", a, b, fmod=1))


def _trunc(w: Writer, dtype: DType, x: str) -> str:
    return str(w.add("Mul", w.add("Sign", x), w.add("Floor", w.add("Abs", x))))


def _log1p(w: Writer, dtype: DType, x: str) -> str:
    """Write log(1 + x) as log(u) x / (u - 1), with u what 1 + x rounds to: no digits of a small x are lost."""
    one = w.number(1, dtype)
    u = w.add("Add", x, one)
    less = w.add("Sub", u, one)
    flat = w.add("Equal", less, w.number(0, dtype))
    ratio = w.add("Div", x, w.add("Where", flat, one, less))
    return str(w.add("Where", flat, x, w.add("Mul", w.add("Log", u), ratio)))


def _expm1(w: Writer, dtype: DType, x: str) -> str:
    """Write e^x - 1 as tanh(x / 2) (e^x + 1): no digits are lost near 0."""
    half = w.add("Tanh", w.add("Mul", x, w.number(0.5, dtype)))
    return str(w.add("Mul", half, w.add("Add", w.add("Exp", x), w.number(1, dtype))))


def _logarithm(base: float) -> Callable[..., str]:
    def write(w: Writer, dtype: DType, x: str) -> str:
        return str(w.add("Mul", w.add("Log", x), w.number(1 / math.log(base), dtype)))

    return write


def _exp2(w: Writer, dtype: DType, x: str) -> str:
    return str(w.add("Pow", w.number(2, dtype), x))


def _logaddexp(w: Writer, dtype: DType, a: str, b: str) -> str:
    """Write log(e^a + e^b) as max(a, b) + softplus(-|a - b|); equal ones may be infinite."""
    apart = w.add("Where", w.add("Equal", a, b), w.number(0, dtype), w.add("Sub", a, b))
    return str(w.add("Add", w.add("Max", a, b), w.add("Softplus", w.add("Neg", w.add("Abs", apart)))))


def _logaddexp2(w: Writer, dtype: DType, a: str, b: str) -> str:
    two = w.number(math.log(2), dtype)
    return str(w.add("Div", _logaddexp(w, dtype, w.add("Mul", a, two), w.add("Mul", b, two)), two))


def is_minus(w: Writer, dtype: DType, x: str) -> str:
    """Write whether the sign is minus, of -0 too."""
    zero = w.number(0, dtype)
    return str(w.add("Less", w.add("Where", w.add("Equal", x, zero), w.add("Reciprocal", x), x), zero))


def _copysign(w: Writer, dtype: DType, a: str, b: str) -> str:
    size = w.add("Abs", a)
    return str(w.add("Where", is_minus(w, dtype, b), w.add("Neg", size), size))


def _hypot(w: Writer, dtype: DType, a: str, b: str) -> str:
    a, b = w.add("Abs", a), w.add("Abs", b)
    large, small = w.add("Max", a, b), w.add("Min", a, b)
    ratio = w.add("Div", small, w.add("Max", large, w.number(np.finfo(dtype).tiny, dtype)))
    return str(w.add("Mul", large, w.add("Sqrt", w.add("Add", w.add("Mul", ratio, ratio), w.number(1, dtype)))))


def _atan2(w: Writer, dtype: DType, a: str, b: str) -> str:
    """Write the angle of (b, a): atan(a / b), and the other half of the turn where b is negative; 0 at the origin."""
    zero = w.number(0, dtype)
    origin = w.add("And", w.add("Equal", a, zero), w.add("Equal", b, zero))
    ratio = w.add("Div", a, w.add("Where", origin, w.number(1, dtype), b))
    half = w.add("Where", is_minus(w, dtype, a), w.number(-math.pi, dtype), w.number(math.pi, dtype))
    turn = w.add("Where", is_minus(w, dtype, b), half, zero)
    return str(w.add("Add", w.add("Atan", ratio), turn))


def _erfc(w: Writer, dtype: DType, x: str) -> str:
    return str(w.add("Sub", w.number(1, dtype), w.add("Erf", x)))


_SPECIAL: dict[str, Any] = {
    "log2": _logarithm(2),
    "log10": _logarithm(10),
    "exp2": _exp2,
    "logaddexp": _logaddexp,
    "logaddexp2": _logaddexp2,
    "copysign": _copysign,
    "hypot": _hypot,
    "atan2": _atan2,
    "erfc": _erfc,
    "mod": floor_mod,
    "fmod": _fmod,
    "trunc": _trunc,
    "log1p": _log1p,
    "expm1": _expm1,
}
