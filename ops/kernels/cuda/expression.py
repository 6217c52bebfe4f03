"""Scalar expressions as CUDA C++.

A value is the name of a C++ variable and its type: `bool`, `i8` ... `u64`, `float` or `double` (half precision is
calculated with as float). Types mix as NumPy's do; a constant takes the type of what it meets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ...errors import KernelError
from ...expr import Call, Const, Expr, Number, Var
from ...primitives import PRIMITIVES
from ...types import DType
from .prelude import C_TYPES, computed

NUMPY = {
    "bool": "bool", "i8": "int8", "u8": "uint8", "i16": "int16", "u16": "uint16", "i32": "int32", "u32": "uint32",
    "i64": "int64", "u64": "uint64", "float": "float32", "double": "float64",
}  # fmt: skip
"""The types that are calculated with, and their NumPy names."""

REALS = ("float", "double")
_COMPUTED = {name: ctype for ctype, name in NUMPY.items()}

_FUNCTIONS = {
    **{fn: fn for fn in ("exp", "expm1", "exp2", "log", "log1p", "log2", "sqrt", "sin", "cos", "tan", "asin", "acos")},
    **{fn: fn for fn in ("atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "erfinv")},
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "round": "rint",
}
"""Primitives that are one function of the CUDA library; the one of float has an f behind its name."""

_ROUNDINGS = frozenset({"floor", "ceil", "trunc", "round"})


@dataclass(frozen=True)
class Written:
    """An expression as text.

    Attributes:
        statements: that compute it; each declares a constant.
        result: what its value is called behind them.
        ctype: the type of the value.
    """

    statements: str
    result: str
    ctype: str


@dataclass(frozen=True)
class _Value:
    """A named value; numbers of the expression stay Python's until they meet one."""

    text: str
    ctype: str


_Operand: TypeAlias = "_Value | Number"


def write(
    expression: Expr,
    values: Mapping[str, str],
    types: Mapping[str, str],
    *,
    stored: DType | None = None,
    prefix: str = "t",
) -> Written:
    """Return the statements that compute an expression.

    Args:
        expression: what to compute; shared parts are computed once. Beside the primitives it may call `logical_and`,
            `logical_or`, `logical_xor`, `logical_not`, `bitwise_and`, `bitwise_or`, `bitwise_xor`, `bitwise_not`,
            `shift_left`, `shift_right`, `signbit` and `cast:float32:int64` (from and to).
        values: the C++ expression, mostly a name, of each variable, widened: `float` where half precision is stored.
        types: what it is: `bool`, `i8` ... `u64`, `float`, `double`.
        stored: the element type that the result is stored as; it is converted to what `narrow` takes for that.
            None leaves the type that the expression has.
        prefix: of the names that the statements declare.

    Raises:
        KernelError: naming what has no code.
    """
    writer = _Writer(values, types, prefix)
    result = writer.visit(expression)
    if not isinstance(result, _Value):
        ctype = writer.real if stored is None else computed(stored)
        result = _Value(writer.literal(result, ctype), ctype)
    if stored is not None:
        result = writer.stored(result, stored)
    return Written("\n".join(writer.statements), result.text, result.ctype)


def supports(expression: Expr, dtypes: Mapping[str, DType], stored: DType | None = None) -> bool:
    """Return whether there is code for an expression of variables of these element types."""
    try:
        write(expression, {n: n for n in dtypes}, {n: computed(t) for n, t in dtypes.items()}, stored=stored)
    except KernelError:
        return False
    return True


def named(prefix: str, expression: Expr) -> str:
    """Return a C identifier that says what an expression calls, of at most 60 letters."""
    seen: set[int] = set()
    calls: dict[str, None] = {}

    def visit(n: Expr) -> None:
        if isinstance(n, Call) and id(n) not in seen:
            seen.add(id(n))
            for a in n.args:
                visit(a)
            calls[re.sub(r"\W", "_", n.fn)] = None

    visit(expression)
    return "_".join((prefix, *calls))[:60]


class _Writer:
    """One expression: what has been written so far."""

    def __init__(self, values: Mapping[str, str], types: Mapping[str, str], prefix: str) -> None:
        for name, ctype in types.items():
            if ctype not in NUMPY:
                raise KernelError(f"{name} is {ctype}, which is not calculated with; {', '.join(NUMPY)} are")
        self.values = {
            name: _Value(text if re.fullmatch(r"\w+", text) else f"({text})", types[name])
            for name, text in values.items()
        }
        self.prefix = prefix
        self.statements: list[str] = []
        self.done: dict[int, _Operand] = {}
        self.real = next((v.ctype for v in self.values.values() if v.ctype in REALS), "double")

    def declare(self, ctype: str, text: str) -> _Value:
        """Write a statement and return the value that it declares."""
        name = f"{self.prefix}{len(self.statements)}"
        self.statements.append(f"const {ctype} {name} = {text};")
        return _Value(name, ctype)

    def literal(self, number: Number, ctype: str) -> str:
        """Return a number as a literal of a type."""
        if ctype == "bool":
            return "true" if number else "false"
        if ctype in REALS:
            return _real(float(number), ctype)
        info = np.iinfo(NUMPY[ctype])
        if int(number) != number or not info.min <= number <= info.max:
            raise KernelError(f"{number} is no {NUMPY[ctype]}")
        if number == info.min and number < 0:
            return f"({ctype})({int(number) + 1}{'ll' if ctype == 'i64' else ''} - 1)"
        ending = {"i64": "ll", "u64": "ull", "u32": "u"}.get(ctype, "")
        return f"{int(number)}{ending}" if ctype in ("i32", "u32", "i64", "u64") else f"({ctype}){int(number)}"

    def visit(self, n: Expr) -> _Operand:
        """Return a node's value."""
        if isinstance(n, Var):
            if n.name not in self.values:
                raise KernelError(f"the expression reads {n.name}, given are {sorted(self.values)}")
            return self.values[n.name]
        if isinstance(n, Const):
            return n.value
        assert isinstance(n, Call)
        if id(n) not in self.done:
            self.done[id(n)] = self.call(n)
        return self.done[id(n)]

    def call(self, n: Call) -> _Operand:
        """Return the value of a call."""
        inner = n.args[0]
        if n.fn == "tanh" and isinstance(inner, Call) and inner.fn == "softplus":
            x = self.visit(inner.args[0])
            if isinstance(x, _Value) and x.ctype in REALS:
                return self.tanh_softplus(x)
        args = self.arguments(n)
        if not any(isinstance(a, _Value) for a in args):
            if n.fn not in PRIMITIVES:
                raise KernelError(f"{n.fn} of constants alone")
            with np.errstate(all="ignore"):
                folded: Number = np.asarray(PRIMITIVES[n.fn].array(np)(*args)).item()
            return folded
        if n.fn.startswith("cast:"):
            assert isinstance(args[0], _Value)
            return self.cast(args[0], n.fn.split(":")[2])
        if n.fn in _FUNCTIONS:
            return self.function(n.fn, args[0])
        made = _CALLS.get(n.fn)
        if made is None:
            raise KernelError(f"no CUDA code for {n.fn}")
        return made(self, *args)

    def arguments(self, n: Call) -> list[_Operand]:
        """Return the values of a call's arguments; numbers alone are exact where they are cast from integers."""
        if not n.fn.startswith(("cast:int", "cast:uint")):
            return [self.visit(a) for a in n.args]
        before, self.real = self.real, "double"
        try:
            return [self.visit(a) for a in n.args]
        finally:
            self.real = before

    # types --------------------------------------------------------------------------------------------------------

    def meet(self, *args: _Operand) -> tuple[str, list[str]]:
        """Return operands as text with the one type that NumPy gives them together."""
        ctypes = [a.ctype for a in args if isinstance(a, _Value)]
        ctype = self.common(ctypes, [a for a in args if not isinstance(a, _Value)])
        return ctype, [self.convert(a, ctype).text if isinstance(a, _Value) else self.literal(a, ctype) for a in args]

    def common(self, ctypes: Sequence[str], numbers: Sequence[Number]) -> str:
        """Return the type in which these meet."""
        top = _COMPUTED[np.result_type(*(np.dtype(NUMPY[c]) for c in ctypes)).name]
        if top == "bool" and any(not isinstance(c, bool) for c in numbers):
            return self.real if any(isinstance(c, float) for c in numbers) or self.real == "float" else "i64"
        if top not in ("bool", *REALS) and any(isinstance(c, float) for c in numbers):
            return "double"
        return top

    def convert(self, x: _Value, ctype: str) -> _Value:
        """Return a value as another type; floats truncate to integers."""
        if x.ctype == ctype:
            return x
        return self.declare(ctype, converted(x.text, x.ctype, ctype))

    def cast(self, x: _Value, to: str) -> _Value:
        """Return a value rounded to an element type, by its NumPy name."""
        if to not in C_TYPES:
            raise KernelError(f"no CUDA code for a cast to {to}")
        if to not in ("float16", "bfloat16"):
            return self.convert(x, _COMPUTED[to])
        y = self.stored(x, np.dtype(to))
        stored, name = C_TYPES[to], f"{self.prefix}{len(self.statements)}"
        self.statements.append(f"{stored} {name}; narrow({y.text}, &{name});")
        return self.declare("float", f"widen({name})")

    def stored(self, x: _Value, dtype: DType) -> _Value:
        """Return a value as what `narrow` rounds to an element type: once, also float64 to float16."""
        if x.ctype != "double" or dtype.name != "float16":
            return self.convert(x, computed(dtype))
        near = self.declare("float", f"(float){x.text}")
        far = self.declare("bool", f"fabs((double){near.text}) > fabs({x.text})")
        bits = self.declare("u32", f"__float_as_uint({near.text}) - ({far.text} ? 1u : 0u)")
        odd = f"{x.text} == {x.text} && (double){near.text} != {x.text} ? {bits.text} | 1u : {bits.text}"
        return self.declare("float", f"__uint_as_float({odd})")

    def truth(self, x: _Operand) -> str:
        """Return where a value is not 0."""
        if not isinstance(x, _Value):
            return "true" if x else "false"
        return x.text if x.ctype == "bool" else f"({x.text} != 0)"

    # arithmetic ---------------------------------------------------------------------------------------------------

    def arithmetic(self, fn: str, sign: str, x: _Operand, y: _Operand) -> _Value:
        """Sum, difference or product; integers wrap around; of truth values a sum is or, a product and."""
        ctype, (a, b) = self.meet(x, y)
        if ctype == "bool":
            if fn == "sub":
                raise KernelError("sub of truth values")
            return self.declare(ctype, f"{a} {'||' if fn == 'add' else '&&'} {b}")
        if ctype in REALS:
            return self.declare(ctype, f"{a} {sign} {b}")
        wide = _unsigned(ctype)
        return self.declare(ctype, f"({ctype})(({wide}){a} {sign} ({wide}){b})")

    def div(self, x: _Operand, y: _Operand) -> _Value:
        """Quotient; of integers, towards zero, and 0 by 0."""
        ctype, (a, b) = self.meet(x, y)
        self.wants_numbers("div", ctype)
        if ctype not in REALS:
            return self.divide(ctype, a, b)[0]
        if not isinstance(y, _Value) and abs(math.frexp(y)[0]) == 0.5 and 1e-30 < abs(y) < 1e30:  # a power of 2
            return self.declare(ctype, f"{a} * {self.literal(1 / y, ctype)}")
        return self.declare(ctype, f"{a} / {b}")

    def divide(self, ctype: str, a: str, b: str) -> tuple[_Value, _Value]:
        """Return quotient and remainder of integers; by zero both are 0, as NumPy has it, and nothing traps."""
        wide = _unsigned(ctype)
        traps = f"{b} == 0" if ctype.startswith("u") else f"{b} == 0 || {b} == ({ctype})-1"
        safe = self.declare(ctype, f"{traps} ? ({ctype})1 : {b}")
        whole = self.declare(ctype, f"({ctype})({a} / {safe.text})")
        rest = self.declare(ctype, f"({ctype})({a} - {whole.text} * {safe.text})")
        turned = "" if ctype.startswith("u") else f" : {b} == ({ctype})-1 ? ({ctype})(({wide})0 - ({wide}){a})"
        return self.declare(ctype, f"{b} == 0 ? ({ctype})0{turned} : {whole.text}"), rest

    def mod(self, x: _Operand, y: _Operand) -> _Value:
        """Remainder with the sign of the divisor."""
        ctype, (a, b) = self.meet(x, y)
        self.wants_numbers("mod", ctype)
        if ctype in REALS:
            rest = self.declare(ctype, f"{_named('fmod', ctype)}({a}, {b})")
            zero = f"{_named('copysign', ctype)}({self.literal(0.0, ctype)}, {b})"
            other = f"({rest.text} < 0) != ({b} < 0) ? {rest.text} + {b} : {rest.text}"
            return self.declare(ctype, f"{rest.text} == 0 ? {zero} : {other}")
        rest = self.divide(ctype, a, b)[1]
        if ctype.startswith("u"):
            return rest
        other = f"{rest.text} != 0 && ({rest.text} < 0) != ({b} < 0)"
        return self.declare(ctype, f"{other} ? ({ctype})({rest.text} + {b}) : {rest.text}")

    def fmod(self, x: _Operand, y: _Operand) -> _Value:
        """Remainder with the sign of the dividend."""
        ctype, (a, b) = self.meet(x, y)
        self.wants_numbers("fmod", ctype)
        if ctype in REALS:
            return self.declare(ctype, f"{_named('fmod', ctype)}({a}, {b})")
        return self.divide(ctype, a, b)[1]

    def neg(self, x: _Value) -> _Value:
        """Negative."""
        self.wants_numbers("neg", x.ctype)
        if x.ctype in REALS:
            return self.declare(x.ctype, f"-{x.text}")
        wide = _unsigned(x.ctype)
        return self.declare(x.ctype, f"({x.ctype})(({wide})0 - ({wide}){x.text})")

    def abs(self, x: _Value) -> _Value:
        """Absolute value."""
        if x.ctype in REALS:
            return self.declare(x.ctype, f"{_named('fabs', x.ctype)}({x.text})")
        if not x.ctype.startswith("i"):
            return x
        return self.declare(x.ctype, f"{x.text} < 0 ? {self.neg(x).text} : {x.text}")

    def sign(self, x: _Value) -> _Value:
        """-1, 0 or 1; NaN of NaN."""
        self.wants_numbers("sign", x.ctype)
        zero, one = self.literal(0, x.ctype), self.literal(1, x.ctype)
        if x.ctype.startswith("u"):
            return self.declare(x.ctype, f"{x.text} != 0 ? {one} : {zero}")
        rest = f"({x.text} == 0 ? {zero} : {x.text})" if x.ctype in REALS else zero
        minus = self.literal(-1, x.ctype)
        return self.declare(x.ctype, f"{x.text} > 0 ? {one} : {x.text} < 0 ? {minus} : {rest}")

    def pow(self, x: _Operand, y: _Operand) -> _Value:
        """Power; by a few constants, products."""
        if not isinstance(y, _Value) and isinstance(x, _Value) and x.ctype != "bool":
            if y in (1, 2, 3, 4) and (x.ctype in REALS or isinstance(y, int)):
                if y == 1:
                    return x
                square = self.arithmetic("mul", "*", x, x)
                return square if y == 2 else self.arithmetic("mul", "*", square, x if y == 3 else square)
            if x.ctype in REALS and y == -1:
                return self.declare(x.ctype, f"{self.literal(1, x.ctype)} / {x.text}")
            if x.ctype in REALS and y in (0.5, -0.5):
                return self.root(x, y)
        ctype, (a, b) = self.meet(x, y)
        self.wants_numbers("pow", ctype)
        if ctype in REALS:
            return self.declare(ctype, f"{_named('pow', ctype)}({a}, {b})")
        return self.whole_power(ctype, a, b)

    def root(self, x: _Value, exponent: float) -> _Value:
        """Return x to the 0.5 or -0.5: unlike the square root, positive at -0 and defined at -inf."""
        zero, inf = self.literal(0.0, x.ctype), self.literal(math.inf, x.ctype)
        root = f"{_named('sqrt', x.ctype)}({x.text}) + {zero}"
        y = self.declare(x.ctype, f"{x.text} == -{inf} ? {inf} : {root}")
        return y if exponent > 0 else self.declare(x.ctype, f"{self.literal(1, x.ctype)} / {y.text}")

    def whole_power(self, ctype: str, a: str, b: str) -> _Value:
        """Power of integers, which wraps around; with a negative exponent, what its float gives, truncated."""
        wide, name = _unsigned(ctype), f"{self.prefix}{len(self.statements)}"
        loop = f"for (u64 n = (u64){b}; n != 0; n >>= 1, s *= s) if (n & 1) {name} *= s;"
        if not ctype.startswith("u"):
            small = converted(f"pow((double){a}, (double){b})", "double", ctype)
            loop = f"if ({b} < 0) {name} = ({wide}){small}; else {loop}"
        self.statements.append(f"{wide} {name} = 1; {{ {wide} s = ({wide}){a}; {loop} }}")
        return self.declare(ctype, f"({ctype}){name}")

    def extreme(self, sign: str, x: _Operand, y: _Operand) -> _Value:
        """Return the larger or smaller of two; NaN wins."""
        ctype, (a, b) = self.meet(x, y)
        if ctype == "bool":
            return self.declare(ctype, f"{a} {'||' if sign == '>' else '&&'} {b}")
        if ctype in REALS and isinstance(x, _Value) and isinstance(y, _Value):
            return self.declare(ctype, f"{a} {sign} {b} || {a} != {a} ? {a} : {b}")
        if (isinstance(y, _Value) and x != x) or (isinstance(x, _Value) and y == y):  # a NaN is what is left
            a, b = b, a
        return self.declare(ctype, f"{a} {sign} {b} ? {a} : {b}")

    def logaddexp(self, fn: str, exponential: str, log_of_2: float, x: _Operand, y: _Operand) -> _Value:
        """Logarithm of the sum of two powers of e or 2."""
        ctype, (a, b) = self.meet(x, y)
        self.wants_reals(fn, ctype)
        scale = "" if log_of_2 == 1 else f" * {self.literal(1 / math.log(2), ctype)}"
        gap = self.declare(ctype, f"{a} - {b}")
        grown = f"{_named('log1p', ctype)}({_named(exponential, ctype)}(-{_named('fabs', ctype)}({gap.text}))){scale}"
        larger = self.declare(ctype, f"{a} > {b} ? {a} : {b}")
        both = f"{a} + {self.literal(math.log(2) if log_of_2 == 1 else 1.0, ctype)}"
        return self.declare(
            ctype, f"{a} == {b} ? {both} : {gap.text} == {gap.text} ? {larger.text} + {grown} : {gap.text}"
        )

    def pair(self, fn: str, x: _Operand, y: _Operand) -> _Value:
        """Apply a function of two floats."""
        ctype, (a, b) = self.meet(x, y)
        self.wants_reals(fn, ctype)
        return self.declare(ctype, f"{_named(fn, ctype)}({a}, {b})")

    # functions ----------------------------------------------------------------------------------------------------

    def function(self, fn: str, x: _Operand) -> _Value:
        """Apply a function of one float; integers stay as they are under roundings."""
        assert isinstance(x, _Value)
        if x.ctype not in (*REALS, "bool") and fn in _ROUNDINGS:
            return x
        self.wants_reals(fn, x.ctype)
        if fn == "asin" and x.ctype == "double":  # the library's spills registers
            return self.declare(x.ctype, f"atan2({x.text}, sqrt((1.0 - {x.text}) * (1.0 + {x.text})))")
        return self.declare(x.ctype, f"{_named(_FUNCTIONS[fn], x.ctype)}({x.text})")

    def in_double(self, fn: str, x: _Value) -> _Value:
        """Apply a function whose float form is not accurate enough."""
        self.wants_reals(fn, x.ctype)
        return self.declare(x.ctype, f"({x.ctype}){fn}((double){x.text})")

    def sigmoid(self, x: _Value) -> _Value:
        """1 / (1 + e^-x); e^-x may become inf, whose reciprocal is right."""
        self.wants_reals("sigmoid", x.ctype)
        one = self.literal(1, x.ctype)
        return self.declare(x.ctype, f"{one} / ({one} + {_named('exp', x.ctype)}(-{x.text}))")

    def softplus(self, x: _Value) -> _Value:
        """log(1 + e^x), without overflow."""
        self.wants_reals("softplus", x.ctype)
        small = f"{_named('log1p', x.ctype)}({_named('exp', x.ctype)}(-{_named('fabs', x.ctype)}({x.text})))"
        return self.declare(x.ctype, f"({self.literal(0, x.ctype)} > {x.text} ? 0 : {x.text}) + {small}")

    def tanh_softplus(self, x: _Value) -> _Value:
        """tanh(log(1 + e^x)) = n / (n + 2), n = e^x (e^x + 2), at one exponential."""
        two = self.literal(2, x.ctype)
        power = self.declare(x.ctype, f"{_named('exp', x.ctype)}({x.text})")
        n = self.declare(x.ctype, f"{power.text} * ({power.text} + {two})")
        one = self.literal(1, x.ctype)
        return self.declare(x.ctype, f"{x.text} > {self.literal(20, x.ctype)} ? {one} : {n.text} / ({n.text} + {two})")

    # truth and bits -----------------------------------------------------------------------------------------------

    def compare(self, sign: str, x: _Operand, y: _Operand) -> _Value:
        """Compare."""
        _, (a, b) = self.meet(x, y)
        return self.declare("bool", f"{a} {sign} {b}")

    def where(self, condition: _Operand, x: _Operand, y: _Operand) -> _Operand:
        """Choose."""
        if not isinstance(condition, _Value):
            return x if condition else y
        if isinstance(x, _Value) or isinstance(y, _Value):
            ctype, (a, b) = self.meet(x, y)
        else:
            ctype = self.real
            if isinstance(x, bool) and isinstance(y, bool):
                ctype = "bool"
            elif not any(v.ctype in REALS for v in self.values.values()):
                ctype = "double" if isinstance(x, float) or isinstance(y, float) else "i64"
            a, b = self.literal(x, ctype), self.literal(y, ctype)
        return self.declare(ctype, f"{self.truth(condition)} ? {a} : {b}")

    def logical(self, sign: str, x: _Operand, y: _Operand) -> _Value:
        """Combine truth values."""
        return self.declare("bool", f"{self.truth(x)} {sign} {self.truth(y)}")

    def bitwise(self, sign: str, x: _Operand, y: _Operand) -> _Value:
        """Combine bits."""
        ctype, (a, b) = self.meet(x, y)
        self.wants_bits(ctype)
        return self.declare(ctype, f"({ctype})({a} {sign} {b})")

    def inverted(self, x: _Value) -> _Value:
        """Turn bits round."""
        self.wants_bits(x.ctype)
        return self.declare(x.ctype, f"!{x.text}" if x.ctype == "bool" else f"({x.ctype})~{x.text}")

    def shift(self, sign: str, x: _Operand, y: _Operand) -> _Value:
        """Move bits; by their number or more, none is left."""
        ctype, (a, b) = self.meet(x, y)
        self.wants_bits(ctype)
        self.wants_numbers("shift", ctype)
        bits = 8 * np.dtype(NUMPY[ctype]).itemsize
        none = f"({a} < 0 ? ({ctype})-1 : ({ctype})0)" if sign == ">>" and ctype.startswith("i") else f"({ctype})0"
        moved = f"({_unsigned(ctype)}){a}" if sign == "<<" else a
        return self.declare(ctype, f"(u64){b} < {bits} ? ({ctype})({moved} {sign} {b}) : {none}")

    def isnan(self, x: _Value) -> _Value:
        """Whether it is not a number."""
        return self.declare("bool", f"{x.text} != {x.text}" if x.ctype in REALS else "false")

    def signbit(self, x: _Value) -> _Value:
        """Whether the sign is minus, also of -0."""
        text = {"float": f"__float_as_uint({x.text}) >> 31 != 0", "double": f"__double_as_longlong({x.text}) < 0"}
        return self.declare("bool", text.get(x.ctype, f"{x.text} < 0" if x.ctype.startswith("i") else "false"))

    def wants_numbers(self, fn: str, ctype: str) -> None:
        """Refuse truth values."""
        if ctype == "bool":
            raise KernelError(f"{fn} of truth values")

    def wants_reals(self, fn: str, ctype: str) -> None:
        """Refuse what is no float."""
        if ctype not in REALS:
            raise KernelError(f"{fn} wants floats, found {NUMPY[ctype]}")

    def wants_bits(self, ctype: str) -> None:
        """Refuse floats."""
        if ctype in REALS:
            raise KernelError("bits of floats")


def converted(x: str, source: str, target: str) -> str:
    """Return a value of one type as the text of another; floats truncate, and wrap around below 32 bits."""
    if source == target:
        return x
    if target == "bool":
        return f"{x} != 0"
    if source in REALS and target in ("i8", "u8", "i16", "u16"):
        return f"({target})(i32){x}"
    if source in REALS and target == "u32":
        return f"(u32)(i64){x}"
    if source in REALS and target == "u64":
        return f"{x} < 0 ? (u64)(i64){x} : (u64){x}"
    return f"({target}){x}"


def _real(number: float, ctype: str) -> str:
    """Return a literal whose value is the number rounded to a float type."""
    if ctype == "double":
        if not math.isfinite(number):
            bits = int(np.float64(number).view(np.uint64))
            return f"__longlong_as_double(0x{bits:016x}ll)"
        return repr(number)
    with np.errstate(over="ignore"):
        rounded = np.float32(number)
    if not np.isfinite(rounded):
        return f"__uint_as_float(0x{int(rounded.view(np.uint32)):08x}u)"
    return f"{rounded!s}f"


def _unsigned(ctype: str) -> str:
    """Return the type in which an integer type calculates modulo a power of 2."""
    return "u64" if ctype.endswith("64") else "u32"


def _named(fn: str, ctype: str) -> str:
    """Return what the CUDA library calls a function of float or double."""
    return f"{fn}f" if ctype == "float" else fn


_CALLS: dict[str, Callable[..., _Operand]] = {
    "add": lambda self, x, y: self.arithmetic("add", "+", x, y),
    "sub": lambda self, x, y: self.arithmetic("sub", "-", x, y),
    "mul": lambda self, x, y: self.arithmetic("mul", "*", x, y),
    "div": _Writer.div,
    "mod": _Writer.mod,
    "fmod": _Writer.fmod,
    "neg": _Writer.neg,
    "abs": _Writer.abs,
    "sign": _Writer.sign,
    "pow": _Writer.pow,
    "max": lambda self, x, y: self.extreme(">", x, y),
    "min": lambda self, x, y: self.extreme("<", x, y),
    "atan2": lambda self, x, y: self.pair("atan2", x, y),
    "hypot": lambda self, x, y: self.pair("hypot", x, y),
    "copysign": lambda self, x, y: self.pair("copysign", x, y),
    "logaddexp": lambda self, x, y: self.logaddexp("logaddexp", "exp", 1, x, y),
    "logaddexp2": lambda self, x, y: self.logaddexp("logaddexp2", "exp2", math.log(2), x, y),
    "log10": lambda self, x: self.in_double("log10", x),
    "lgamma": lambda self, x: self.in_double("lgamma", x),
    "sigmoid": _Writer.sigmoid,
    "softplus": _Writer.softplus,
    "where": _Writer.where,
    "less": lambda self, x, y: self.compare("<", x, y),
    "less_equal": lambda self, x, y: self.compare("<=", x, y),
    "equal": lambda self, x, y: self.compare("==", x, y),
    "isnan": _Writer.isnan,
    "signbit": _Writer.signbit,
    "logical_and": lambda self, x, y: self.logical("&&", x, y),
    "logical_or": lambda self, x, y: self.logical("||", x, y),
    "logical_xor": lambda self, x, y: self.logical("!=", x, y),
    "logical_not": lambda self, x: self.declare("bool", f"!{self.truth(x)}"),
    "bitwise_and": lambda self, x, y: self.bitwise("&", x, y),
    "bitwise_or": lambda self, x, y: self.bitwise("|", x, y),
    "bitwise_xor": lambda self, x, y: self.bitwise("^", x, y),
    "bitwise_not": _Writer.inverted,
    "shift_left": lambda self, x, y: self.shift("<<", x, y),
    "shift_right": lambda self, x, y: self.shift(">>", x, y),
}  # fmt: skip
