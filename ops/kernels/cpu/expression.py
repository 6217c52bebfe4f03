"""Scalar expressions as vector code.

Values are LLVM vectors (scalars, with one lane), and their LLVM type says what they are: `float`, `double`, `i32`,
`i64`, truth values `i1`. Types mix as NumPy's do; a constant takes the type of what it meets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import llvmlite.ir as ir
import numpy as np

from ...errors import KernelError
from ...expr import Call, Const, Expr, Number, Var
from ...primitives import PRIMITIVES
from . import vector_math
from .casts import cast
from .emitter import F32, F64, I1, I32, I64, Emitter, V, scalar_type

Operand: TypeAlias = Any
"""A value of the IR, or a Python number where the expression has a constant."""

_NAMES = {"float": "float32", "double": "float64", "i1": "bool", "i32": "int32", "i64": "int64"}
_RANK = {"bool": 0, "int32": 1, "int64": 2, "float32": 3, "float64": 4}


def evaluate(e: Emitter, expression: Expr, values: dict[str, V], lanes: int, dtype: Any) -> V:
    """Return the value of an expression over vectors (scalars, with lanes = 1), as an element of `dtype` is stored.

    Args:
        e: the emitter.
        expression: what to compute; shared parts are computed once. Beside the primitives it may call `logical_and`,
            `logical_or`, `logical_xor`, `logical_not`, `bitwise_and`, `bitwise_or`, `bitwise_xor`, `bitwise_not` and
            `cast:float32:int64` (from and to).
        values: its variables; truth values as `i1`.
        lanes: of the vectors.
        dtype: what the result is stored as; truth values become bytes.

    Raises:
        KernelError: naming what has no vector code.
    """
    evaluation = _Evaluation(e, values, lanes)
    result = evaluation.visit(expression)
    if not _is_value(result):  # a constant
        result = evaluation.constant(result, _kind_of(np.dtype(dtype)))
    name = np.dtype(dtype).name
    if name in _RANK:
        result = evaluation.convert(result, _kind_of(np.dtype(dtype)))
        return e.b.zext(result, evaluation.like(ir.IntType(8))) if name == "bool" else result
    wanted = scalar_type(dtype)
    one = _one(result)
    if one == wanted or (name == "float16" and one == ir.IntType(16)):
        return e.b.bitcast(result, evaluation.like(wanted)) if one != wanted else result
    if str(one) not in _NAMES:
        raise KernelError(f"an expression gives {one} where {name} is stored: cast it explicitly")
    result = cast(e, result, _NAMES[str(one)], name)
    return e.b.bitcast(result, evaluation.like(wanted)) if _one(result) != wanted else result


def value_of(e: Emitter, expression: Expr, values: dict[str, V], lanes: int) -> V:
    """Return the value of an expression as other expressions read it: of its own type, truth values as `i1`."""
    evaluation = _Evaluation(e, values, lanes)
    result = evaluation.visit(expression)
    return result if _is_value(result) else evaluation.constant(result, evaluation.real)


def dtype_of(value: V) -> str:
    """Return the name of the element type that a value is of.

    Raises:
        KernelError: if its LLVM type does not tell, as for 8 bits.
    """
    name = _NAMES.get(str(_one(value)))
    if name is None:
        raise KernelError(f"{value.type} is no type to calculate with")
    return name


def _is_value(x: Operand) -> bool:
    return hasattr(x, "type")


def _one(value: V) -> ir.Type:
    """Return the type of a value's elements."""
    return value.type.element if isinstance(value.type, ir.VectorType) else value.type


def _real(kind: ir.Type) -> bool:
    return isinstance(kind, ir.FloatType | ir.DoubleType)


def _kind_of(dtype: np.dtype[Any]) -> ir.Type:
    return I1 if dtype.kind == "b" else scalar_type(dtype)


class _Evaluation:
    """One evaluation: what has been computed so far."""

    def __init__(self, e: Emitter, values: dict[str, V], lanes: int) -> None:
        self.e, self.b, self.values, self.lanes = e, e.b, values, lanes
        self.done: dict[int, Operand] = {}
        reals = [_one(v) for v in values.values() if _real(_one(v))]
        self.real: ir.Type = reals[0] if reals else F64
        self.flags = ("contract",) if e.target.fma else ()

    def like(self, one: ir.Type) -> ir.Type:
        """Return the vector of elements of this type."""
        return one if self.lanes == 1 else ir.VectorType(one, self.lanes)

    def constant(self, number: Number, one: ir.Type) -> V:
        """Return a number as a vector of elements of this type."""
        if one == I1:
            return self.e.constant(int(bool(number)), self.like(one))
        return self.e.constant(float(number) if _real(one) else int(number), self.like(one))

    def visit(self, n: Expr) -> Operand:
        """Return a node's value."""
        if isinstance(n, Var):
            if n.name not in self.values:
                raise KernelError(f"{self.e.prefix}: the expression reads {n.name}, given are {sorted(self.values)}")
            return self.values[n.name]
        if isinstance(n, Const):
            return n.value
        assert isinstance(n, Call)
        if id(n) not in self.done:
            self.done[id(n)] = self.call(n)
        return self.done[id(n)]

    def call(self, n: Call) -> Operand:
        """Return the value of a call."""
        if n.fn == "tanh" and isinstance(n.args[0], Call) and n.args[0].fn == "softplus":
            (x,) = self.meet(self.visit(n.args[0].args[0]))
            if _real(_one(x)):
                return vector_math.call(self.e, "tanh_softplus", x)
        args = self.arguments(n)
        if not any(_is_value(a) for a in args):
            if n.fn not in PRIMITIVES:
                raise KernelError(f"{self.e.prefix}: {n.fn} of constants alone")
            with np.errstate(all="ignore"):
                return np.asarray(PRIMITIVES[n.fn].array(np)(*args)).item()
        if n.fn.startswith("cast:"):
            _, source, target = n.fn.split(":")
            found = _NAMES.get(str(_one(args[0])), source)
            return cast(self.e, args[0], found if found in ("float32", "float64") else source, target)
        made = _CALLS.get(n.fn)
        if made is None:
            raise KernelError(f"{self.e.prefix}: no vector code for {n.fn}")
        return made(self, *args)

    def arguments(self, n: Call) -> list[Operand]:
        """Return the values of a call's arguments; numbers alone are exact where they are cast from integers."""
        if not n.fn.startswith(("cast:int", "cast:uint")):
            return [self.visit(a) for a in n.args]
        before, self.real = self.real, F64
        try:
            return [self.visit(a) for a in n.args]
        finally:
            self.real = before

    def meet(self, *args: Operand) -> list[V]:
        """Return operands with one type: the one that NumPy gives them together."""
        names = [_NAMES.get(str(_one(a)), "") for a in args if _is_value(a)]
        if "" in names:
            raise KernelError(f"{self.e.prefix}: {[str(a.type) for a in args if _is_value(a)]} do not calculate")
        numbers = [a for a in args if not _is_value(a)]
        kind = self.common(names, numbers)
        return [self.convert(a, kind) if _is_value(a) else self.constant(a, kind) for a in args]

    def common(self, names: Sequence[str], numbers: Sequence[Number]) -> ir.Type:
        """Return the element type in which these meet."""
        top = max(names, key=_RANK.__getitem__, default="bool")
        if top == "float32" and any(n in ("int32", "int64") for n in names):
            top = "float64"
        if top == "bool" and any(not isinstance(c, bool) for c in numbers):
            return self.real if any(isinstance(c, float) for c in numbers) or self.real == F32 else I64
        if top in ("int32", "int64") and any(isinstance(c, float) for c in numbers):
            return F64
        return _kind_of(np.dtype(top))

    def convert(self, x: V, one: ir.Type) -> V:
        """Return a value as elements of another type."""
        if _one(x) == one:
            return x
        names = {**_NAMES, "half": "float16"}
        if str(_one(x)) not in names:
            raise KernelError(f"{self.e.prefix}: {x.type} has no arithmetic; cast it")
        return cast(self.e, x, names[str(_one(x))], names[str(one)])

    def truth(self, x: Operand) -> V:
        """Return a mask: where a value is not 0."""
        if not _is_value(x):
            return self.constant(bool(x), I1)
        if _one(x) == I1:
            return x
        zero = self.e.constant(0, x.type)
        return self.b.fcmp_unordered("!=", x, zero) if _real(_one(x)) else self.b.icmp_signed("!=", x, zero)

    # arithmetic ---------------------------------------------------------------------------------------------------

    def add(self, x: Operand, y: Operand) -> V:
        """Sum; of truth values, or."""
        a, c = self.meet(x, y)
        if _real(_one(a)):
            return self.b.fadd(a, c, flags=self.flags)
        return self.b.or_(a, c) if _one(a) == I1 else self.b.add(a, c)

    def sub(self, x: Operand, y: Operand) -> V:
        """Difference."""
        a, c = self.meet(x, y)
        self.wants_numbers("sub", a)
        return self.b.fsub(a, c, flags=self.flags) if _real(_one(a)) else self.b.sub(a, c)

    def mul(self, x: Operand, y: Operand) -> V:
        """Product; of truth values, and."""
        a, c = self.meet(x, y)
        if _real(_one(a)):
            return self.b.fmul(a, c, flags=self.flags)
        return self.b.and_(a, c) if _one(a) == I1 else self.b.mul(a, c)

    def div(self, x: Operand, y: Operand) -> V:
        """Quotient; of integers, towards zero."""
        a, c = self.meet(x, y)
        self.wants_numbers("div", a)
        if not _real(_one(a)):
            return self.divide(a, c)[0]
        if not _is_value(y) and abs(math.frexp(y)[0]) == 0.5 and 1e-30 < abs(y) < 1e30:  # a power of 2
            return self.b.fmul(a, self.constant(1 / y, _one(a)), flags=self.flags)
        return self.b.fdiv(a, c)

    def divide(self, a: V, c: V) -> tuple[V, V]:
        """Return quotient and remainder of integers; by zero both are 0, as NumPy has it, and nothing traps."""
        zero, one = self.e.constant(0, c.type), self.e.constant(1, c.type)
        by_zero = self.b.icmp_signed("==", c, zero)
        negates = self.b.icmp_signed("==", c, self.e.constant(-1, c.type))
        safe = self.b.select(self.b.or_(by_zero, negates), one, c)
        quotient = self.b.sdiv(a, safe)
        rest = self.b.sub(a, self.b.mul(quotient, safe))
        quotient = self.b.select(negates, self.b.sub(zero, quotient), quotient)
        return self.b.select(by_zero, zero, quotient), rest

    def mod(self, x: Operand, y: Operand) -> V:
        """Remainder with the sign of the divisor; integers alone."""
        a, c = self.meet(x, y)
        self.wants_integers("mod", a)
        _, rest = self.divide(a, c)
        zero = self.e.constant(0, c.type)
        other = self.b.icmp_signed("<", self.b.xor(rest, c), zero)
        other = self.b.and_(other, self.b.icmp_signed("!=", rest, zero))
        return self.b.select(other, self.b.add(rest, c), rest)

    def fmod(self, x: Operand, y: Operand) -> V:
        """Remainder with the sign of the dividend; integers alone."""
        a, c = self.meet(x, y)
        self.wants_integers("fmod", a)
        return self.divide(a, c)[1]

    def neg(self, x: V) -> V:
        """Negative."""
        self.wants_numbers("neg", x)
        return self.b.fneg(x) if _real(_one(x)) else self.b.sub(self.e.constant(0, x.type), x)

    def abs(self, x: V) -> V:
        """Absolute value."""
        if _one(x) == I1:
            return x
        if _real(_one(x)):
            return self.e.call("llvm.fabs", x.type, [x])
        return self.b.select(self.b.icmp_signed("<", x, self.e.constant(0, x.type)), self.neg(x), x)

    def sign(self, x: V) -> V:
        """-1, 0 or 1; NaN of NaN."""
        self.wants_numbers("sign", x)
        zero, one, minus = (self.e.constant(k, x.type) for k in (0, 1, -1))
        if _real(_one(x)):
            found = self.b.select(self.b.fcmp_ordered("<", x, zero), minus, zero)
            found = self.b.select(self.b.fcmp_ordered(">", x, zero), one, found)
            return self.b.select(self.b.fcmp_unordered("uno", x, x), x, found)
        found = self.b.select(self.b.icmp_signed("<", x, zero), minus, zero)
        return self.b.select(self.b.icmp_signed(">", x, zero), one, found)

    def pow(self, x: Operand, y: Operand) -> V:
        """Power; of integers, by a few constants alone."""
        if not _is_value(y) and _is_value(x) and _one(x) != I1:
            if y in (1, 2, 3, 4) and (_real(_one(x)) or isinstance(y, int)):
                square = self.mul(x, x)
                return (x, square, self.mul(square, x), self.mul(square, square))[int(y) - 1]
            if _real(_one(x)) and y == -1:
                return self.b.fdiv(self.constant(1, _one(x)), x)
            if _real(_one(x)) and y in (0.5, -0.5):
                return self.root(x, y)
        a, c = self.meet(x, y)
        if not _real(_one(a)):
            raise KernelError(f"{self.e.prefix}: no vector code for pow of integers")
        return vector_math.call(self.e, "pow", a, c)

    def root(self, x: V, exponent: float) -> V:
        """Return x to the 0.5 or -0.5: unlike the square root, positive at -0 and defined at -inf."""
        inf = self.constant(np.inf, _one(x))
        y = self.b.fadd(self.e.call("llvm.sqrt", x.type, [x]), self.constant(0.0, _one(x)))
        y = self.b.select(self.b.fcmp_ordered("==", x, self.b.fneg(inf)), inf, y)
        return y if exponent > 0 else self.b.fdiv(self.constant(1, _one(x)), y)

    def extreme(self, which: str, x: Operand, y: Operand) -> V:
        """Return the larger or smaller of two; NaN wins."""
        a, c = self.meet(x, y)
        if _one(a) == I1:
            return self.b.or_(a, c) if which == "max" else self.b.and_(a, c)
        if (_is_value(x) and _is_value(y)) or not _real(_one(a)) or x != x or y != y:
            return self.e.combine(which, a, c)
        # the constant first: an ordered comparison then hands on a NaN of the other, as the one instruction does
        a, c = (c, a) if _is_value(x) else (a, c)
        return self.b.select(self.b.fcmp_ordered(">" if which == "max" else "<", a, c), a, c)

    # truth --------------------------------------------------------------------------------------------------------

    def compare(self, how: str, x: Operand, y: Operand) -> V:
        """Return a mask."""
        a, c = self.meet(x, y)
        if _real(_one(a)):
            return self.b.fcmp_ordered(how, a, c)
        return self.b.icmp_unsigned(how, a, c) if _one(a) == I1 else self.b.icmp_signed(how, a, c)

    def where(self, condition: Operand, x: Operand, y: Operand) -> Operand:
        """Choose."""
        if not _is_value(condition):
            return x if condition else y
        if not _is_value(x) and not _is_value(y):
            kind = self.real if not isinstance(x, bool) or not isinstance(y, bool) else I1
            if kind == F64 and not any(_real(_one(v)) for v in self.values.values()):
                kind = F64 if isinstance(x, float) or isinstance(y, float) else I64
            a, c = self.constant(x, kind), self.constant(y, kind)
        else:
            a, c = self.meet(x, y)
        return self.b.select(self.truth(condition), a, c)

    def logical(self, how: str, x: Operand, y: Operand) -> V:
        """Combine truth values."""
        return getattr(self.b, how)(self.truth(x), self.truth(y))

    def bitwise(self, how: str, x: Operand, y: Operand) -> V:
        """Combine bits."""
        a, c = self.meet(x, y)
        if _real(_one(a)):
            raise KernelError(f"{self.e.prefix}: bits of floats")
        return getattr(self.b, how)(a, c)

    def isnan(self, x: V) -> V:
        """Whether it is not a number."""
        return self.b.fcmp_unordered("uno", x, x) if _real(_one(x)) else self.constant(False, I1)

    def function(self, fn: str, x: V) -> V:
        """Apply a function of one float; integers stay as they are under roundings."""
        if not _real(_one(x)):
            if fn in ("floor", "ceil", "trunc", "round") and _one(x) != I1:
                return x
            raise KernelError(f"{self.e.prefix}: {fn} wants floats, found {x.type}")
        return vector_math.call(self.e, fn, x)

    def wants_numbers(self, fn: str, x: V) -> None:
        """Refuse truth values."""
        if _one(x) == I1:
            raise KernelError(f"{self.e.prefix}: {fn} of truth values")

    def wants_integers(self, fn: str, x: V) -> None:
        """Refuse all else."""
        if _one(x) not in (I32, I64):
            raise KernelError(f"{self.e.prefix}: {fn} has vector code for integers alone, found {x.type}")


def _function(fn: str) -> Callable[..., V]:
    return lambda self, x: self.function(fn, x)


_CALLS: dict[str, Callable[..., Operand]] = {
    "add": _Evaluation.add,
    "sub": _Evaluation.sub,
    "mul": _Evaluation.mul,
    "div": _Evaluation.div,
    "mod": _Evaluation.mod,
    "fmod": _Evaluation.fmod,
    "neg": _Evaluation.neg,
    "abs": _Evaluation.abs,
    "sign": _Evaluation.sign,
    "pow": _Evaluation.pow,
    "max": lambda self, x, y: self.extreme("max", x, y),
    "min": lambda self, x, y: self.extreme("min", x, y),
    "where": _Evaluation.where,
    "less": lambda self, x, y: self.compare("<", x, y),
    "less_equal": lambda self, x, y: self.compare("<=", x, y),
    "equal": lambda self, x, y: self.compare("==", x, y),
    "isnan": _Evaluation.isnan,
    "logical_and": lambda self, x, y: self.logical("and_", x, y),
    "logical_or": lambda self, x, y: self.logical("or_", x, y),
    "logical_xor": lambda self, x, y: self.logical("xor", x, y),
    "logical_not": lambda self, x: self.b.not_(self.truth(x)),
    "bitwise_and": lambda self, x, y: self.bitwise("and_", x, y),
    "bitwise_or": lambda self, x, y: self.bitwise("or_", x, y),
    "bitwise_xor": lambda self, x, y: self.bitwise("xor", x, y),
    "bitwise_not": lambda self, x: self.b.not_(x),
    **{fn: _function(fn) for fn in vector_math.FUNCTIONS if fn != "pow"},
    "log2": lambda self, x: self.mul(_function("log")(self, x), 1 / math.log(2)),
    "log10": lambda self, x: self.mul(_function("log")(self, x), 1 / math.log(10)),
}  # fmt: skip
