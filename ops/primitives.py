"""The primitives of scalar expressions, and what follows from them: derivatives and array kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .dims import Dim
from .expr import (
    Call,
    Const,
    Expr,
    Number,
    Operand,
    Var,
    call,
    cos,
    equal,
    exp,
    is_number,
    log,
    pow_,
    sigmoid,
    sign,
    sin,
    sqrt,
    where,
    wrap,
)
from .op import namespace, quiet, quietly


@dataclass(frozen=True)
class Primitive:
    """What a primitive is: its array function, its partial derivatives, its ONNX operator.

    `partials(y, *args)` gives one expression an argument; None is a derivative of zero wherever it exists.
    """

    array: Callable[[Any], Callable[..., Any]]
    partials: Callable[..., tuple[Operand | None, ...]]
    onnx: str | None = None


def _np(name: str) -> Callable[[Any], Callable[..., Any]]:
    return lambda xp: getattr(xp, name)


def _erf(xp: Any) -> Callable[..., Any]:
    from .kernels.array._special import erf as array_erf

    return array_erf


def _log10(xp: Any) -> Callable[..., Any]:
    """The logarithm to base 10; in float32 NumPy's is 1 ulp off at powers of 10."""

    def log10(x: Any) -> Any:
        return xp.log10(x.astype(np.float64)).astype(np.float32) if x.dtype == np.float32 else xp.log10(x)

    return log10


def _special(name: str) -> Callable[[Any], Callable[..., Any]]:
    """Return one of the functions that neither NumPy nor CuPy has."""

    def find(xp: Any) -> Callable[..., Any]:
        from .kernels.array import _gamma

        found: Callable[..., Any] = getattr(_gamma, name)
        return found

    return find


def _sigmoid(xp: Any) -> Callable[..., Any]:
    """Small for large negative x without losing digits; e^-x may become inf, whose reciprocal is right."""
    return lambda x: 1 / (1 + xp.exp(-x))


def _softplus(xp: Any) -> Callable[..., Any]:
    return lambda x: xp.maximum(x, 0) + xp.log1p(xp.exp(-abs(x)))


def _power(xp: Any) -> Callable[..., Any]:
    """Power; an integer with a negative exponent is what its float gives, truncated."""

    def power(a: Any, b: Any) -> Any:
        base, exponent = getattr(a, "dtype", None), getattr(b, "dtype", None)
        if base is not None and base.kind in "iu":
            whole = isinstance(b, int) if exponent is None else exponent.kind == "i"
            if whole and xp.any(xp.asarray(b) < 0):
                return xp.power(a.astype(np.float64), b).astype(base)
        return xp.power(a, b)

    return power


def _equal(xp: Any) -> Callable[..., Any]:
    """Equality; of dimensions only where every binding agrees on it."""

    def equal(a: Any, b: Any) -> Any:
        if getattr(a, "dtype", None) == np.object_ or getattr(b, "dtype", None) == np.object_:
            return np.asarray(_DECIDED(a, b), bool)
        return xp.equal(a, b)

    return equal


def _decided(a: Any, b: Any) -> bool:
    difference = a - b if isinstance(a, Dim) or isinstance(b, Dim) else None
    return not difference if isinstance(difference, Dim) else bool(a == b)


_DECIDED = np.frompyfunc(_decided, 2, 1)


def _where(xp: Any) -> Callable[..., Any]:
    from .kernels.array._special import select

    return select if xp is np else xp.where


def _div(xp: Any) -> Callable[..., Any]:
    """True division for floats; for integers ONNX truncates towards zero."""

    def div(a: Any, b: Any) -> Any:
        dtype = getattr(a, "dtype", None) or getattr(b, "dtype", None)
        if dtype is None or dtype.kind not in "iuO" or isinstance(a, float) or isinstance(b, float):
            return xp.true_divide(a, b)
        if dtype.kind == "O":
            return _TRUNCATED(a, b)
        if dtype.kind == "u":
            return a // b
        q = a // b
        return q + ((q < 0) & (q * b != a))

    return div


def _truncated(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int) and a * b < 0:
        return -(-a // b)
    return a // b


_TRUNCATED = np.frompyfunc(_truncated, 2, 1)


def _mod(xp: Any) -> Callable[..., Any]:
    return lambda a, b: a % b


def _half(a: Expr, b: Expr, first: Expr) -> Expr:
    return where(equal(a, b), 0.5, first)


def _pow_partials(y: Expr, a: Expr, b: Expr) -> tuple[Operand | None, ...]:
    d_base = where(equal(b, 0), 0.0, b * pow_(a, b - 1))
    d_exponent = where(equal(a, 0), where(b < 0, -np.inf, 0.0), y * log(where(equal(a, 0), 1.0, a)))
    return d_base, d_exponent


_ZERO1: Callable[..., tuple[None]] = lambda y, a: (None,)  # noqa: E731 - one table row each
_ZERO2: Callable[..., tuple[None, None]] = lambda y, a, b: (None, None)  # noqa: E731 - one table row each

PRIMITIVES: dict[str, Primitive] = {
    "add": Primitive(_np("add"), lambda y, a, b: (1, 1), "Add"),
    "sub": Primitive(_np("subtract"), lambda y, a, b: (1, -1), "Sub"),
    "mul": Primitive(_np("multiply"), lambda y, a, b: (b, a), "Mul"),
    "div": Primitive(_div, lambda y, a, b: (1 / b, -(y / b)), "Div"),
    "mod": Primitive(_mod, lambda y, a, b: (1, -call("floor", a / b))),
    "fmod": Primitive(_np("fmod"), lambda y, a, b: (1, -call("trunc", a / b))),
    "neg": Primitive(_np("negative"), lambda y, a: (-1,), "Neg"),
    "exp": Primitive(_np("exp"), lambda y, a: (y,), "Exp"),
    "log": Primitive(_np("log"), lambda y, a: (1 / a,), "Log"),
    "log1p": Primitive(_np("log1p"), lambda y, a: (1 / (1 + a),)),
    "expm1": Primitive(_np("expm1"), lambda y, a: (y + 1,)),
    "log2": Primitive(_np("log2"), lambda y, a: (1 / (0.6931471805599453 * a),)),
    "log10": Primitive(_log10, lambda y, a: (1 / (2.302585092994046 * a),)),
    "exp2": Primitive(_np("exp2"), lambda y, a: (0.6931471805599453 * y,)),
    "logaddexp": Primitive(_np("logaddexp"), lambda y, a, b: (sigmoid(a - b), sigmoid(b - a))),
    "logaddexp2": Primitive(
        _np("logaddexp2"),
        lambda y, a, b: (sigmoid(0.6931471805599453 * (a - b)), sigmoid(0.6931471805599453 * (b - a))),
    ),
    "sqrt": Primitive(_np("sqrt"), lambda y, a: (0.5 / y,), "Sqrt"),
    "sin": Primitive(_np("sin"), lambda y, a: (cos(a),), "Sin"),
    "cos": Primitive(_np("cos"), lambda y, a: (-sin(a),), "Cos"),
    "tan": Primitive(_np("tan"), lambda y, a: (1 + y * y,), "Tan"),
    "asin": Primitive(_np("arcsin"), lambda y, a: (1 / sqrt(1 - a * a),), "Asin"),
    "acos": Primitive(_np("arccos"), lambda y, a: (-1 / sqrt(1 - a * a),), "Acos"),
    "atan": Primitive(_np("arctan"), lambda y, a: (1 / (1 + a * a),), "Atan"),
    "atan2": Primitive(_np("arctan2"), lambda y, a, b: (b / (a * a + b * b), -(a / (a * a + b * b)))),
    "hypot": Primitive(_np("hypot"), lambda y, a, b: (a / y, b / y)),
    "copysign": Primitive(_np("copysign"), lambda y, a, b: (where(equal(a, 0), 0.0, sign(a) * sign(y)), None)),
    "sinh": Primitive(_np("sinh"), lambda y, a: (call("cosh", a),), "Sinh"),
    "cosh": Primitive(_np("cosh"), lambda y, a: (call("sinh", a),), "Cosh"),
    "asinh": Primitive(_np("arcsinh"), lambda y, a: (1 / sqrt(1 + a * a),), "Asinh"),
    "acosh": Primitive(_np("arccosh"), lambda y, a: (1 / sqrt(a * a - 1),), "Acosh"),
    "atanh": Primitive(_np("arctanh"), lambda y, a: (1 / (1 - a * a),), "Atanh"),
    "tanh": Primitive(_np("tanh"), lambda y, a: (1 - y * y,), "Tanh"),
    "sigmoid": Primitive(_sigmoid, lambda y, a: (y * (1 - y),), "Sigmoid"),
    "softplus": Primitive(_softplus, lambda y, a: (sigmoid(a),), "Softplus"),
    "erf": Primitive(_erf, lambda y, a: (1.1283791670955126 * exp(-(a * a)),), "Erf"),
    "erfc": Primitive(_special("erfc"), lambda y, a: (-1.1283791670955126 * exp(-(a * a)),)),
    "erfinv": Primitive(_special("erfinv"), lambda y, a: (0.886226925452758 * exp(y * y),)),
    "lgamma": Primitive(_special("lgamma"), lambda y, a: (call("polygamma", 0, a),)),
    "polygamma": Primitive(_special("polygamma"), lambda y, n, a: (None, call("polygamma", n + 1, a))),
    "abs": Primitive(_np("absolute"), lambda y, a: (sign(a),), "Abs"),
    "sign": Primitive(_np("sign"), _ZERO1, "Sign"),
    "floor": Primitive(_np("floor"), _ZERO1, "Floor"),
    "ceil": Primitive(_np("ceil"), _ZERO1, "Ceil"),
    "trunc": Primitive(_np("trunc"), _ZERO1),
    "round": Primitive(_np("rint"), _ZERO1, "Round"),
    "pow": Primitive(_power, _pow_partials, "Pow"),
    "max": Primitive(_np("maximum"), lambda y, a, b: (_half(a, b, b < a), _half(a, b, a < b)), "Max"),
    "min": Primitive(_np("minimum"), lambda y, a, b: (_half(a, b, a < b), _half(a, b, b < a)), "Min"),
    "where": Primitive(_where, lambda y, c, a, b: (None, where(c, 1, 0), where(c, 0, 1)), "Where"),
    "less": Primitive(_np("less"), _ZERO2, "Less"),
    "less_equal": Primitive(_np("less_equal"), _ZERO2, "LessOrEqual"),
    "equal": Primitive(_equal, _ZERO2, "Equal"),
    "isnan": Primitive(_np("isnan"), _ZERO1, "IsNaN"),
}


def differentiate(e: Expr, by: str) -> Expr:
    """Return the partial derivative of an expression by one of its variables."""
    done: dict[int, Expr] = {}

    def visit(n: Expr) -> Expr:
        if isinstance(n, Var) and n.name == by:
            return Const(1)
        if not isinstance(n, Call):
            return Const(0)
        if id(n) in done:
            return done[id(n)]
        total: Expr = Const(0)
        inner = [visit(a) for a in n.args]
        if any(not is_number(d, 0) for d in inner):
            for d, partial in zip(inner, PRIMITIVES[n.fn].partials(n, *n.args), strict=True):
                if partial is not None and not is_number(d, 0):
                    total = total + (wrap(partial) if is_number(d, 1) else _product(wrap(partial), d))
        done[id(n)] = total
        return total

    return visit(e)


def _product(partial: Expr, d: Expr) -> Expr:
    """Multiply, but choose between derivatives instead of multiplying by a mask: inf * 0 would be NaN."""
    if (
        isinstance(partial, Call)
        and partial.fn == "where"
        and is_number(partial.args[1], 1)
        and is_number(partial.args[2], 0)
    ):
        return where(partial.args[0], d, 0)
    if (
        isinstance(partial, Call)
        and partial.fn == "where"
        and is_number(partial.args[1], 0)
        and is_number(partial.args[2], 1)
    ):
        return where(partial.args[0], 0, d)
    return partial * d


def compile_array(e: Expr, names: tuple[str, ...]) -> Callable[..., Any]:
    """Return the array kernel of an expression: whole-array steps, each temporary freed at its last use.

    Comparisons inside arithmetic count as 0 and 1.
    """
    steps: list[tuple[str, tuple[int, ...]]] = []
    constants: list[tuple[int, Number]] = []
    slots: dict[int, int] = {}
    count = len(names)

    def visit(n: Expr) -> int:
        nonlocal count
        if isinstance(n, Var):
            return names.index(n.name)
        if id(n) in slots:
            return slots[id(n)]
        if isinstance(n, Call):
            ins = tuple(visit(a) for a in n.args)
            steps.append((n.fn, ins))
            slots[id(n)] = -len(steps)
            return -len(steps)
        assert isinstance(n, Const)
        constants.append((count, n.value))
        slots[id(n)] = count
        count += 1
        return slots[id(n)]

    result = visit(e)
    last = {i: k for k, (_, ins) in enumerate(steps) for i in ins}
    program = [
        (fn, ins, tuple(i for i in set(ins) if i < 0 and last[i] == k and i != result))
        for k, (fn, ins) in enumerate(steps)
    ]
    values = [v for _, v in constants]
    compiled: dict[int, list[Any]] = {}

    if len(program) == 1 and not constants and program[0][1] == tuple(range(len(names))):
        make = PRIMITIVES[program[0][0]].array
        functions: dict[Any, Callable[..., Any]] = {}

        def primitive(*arrays: Any) -> Any:
            xp: Any = np
            for a in arrays:
                if type(a) is not np.ndarray:
                    xp = namespace(*arrays)
                    break
            f = functions.get(xp)
            if f is None:
                f = functions[xp] = make(xp)
            y = quiet.run(f, *arrays)
            return y if type(y) is np.ndarray else xp.asarray(y)

        return primitive

    def kernel(*arrays: Any) -> Any:
        xp = namespace(*arrays)
        run = compiled.get(id(xp))
        if run is None:
            run = compiled[id(xp)] = [(PRIMITIVES[fn].array(xp), ins, free, fn) for fn, ins, free in program]
        y = quietly(compute, run, arrays)
        return y if type(y) is np.ndarray else xp.asarray(y)

    def compute(run: list[Any], arrays: tuple[Any, ...]) -> Any:
        at: list[Any] = [*arrays, *values]
        made: dict[int, Any] = {}
        float_dtype = next((a.dtype for a in arrays if getattr(getattr(a, "dtype", None), "kind", "") == "f"), None)
        for k, (f, ins, free, fn) in enumerate(run):
            y = f(*[at[i] if i >= 0 else made[i] for i in ins])
            if fn == "where" and float_dtype is not None and getattr(y, "dtype", float_dtype) != float_dtype:
                y = y.astype(float_dtype)
            made[-k - 1] = y
            for i in free:
                del made[i]
        return at[result] if result >= 0 else made[result]

    return kernel
