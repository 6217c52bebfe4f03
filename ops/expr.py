"""Scalar expressions: the one line that a pointwise op is.

From an expression come the array kernel, the derivative and, node by node, the ONNX nodes to export; the
compiled engines read the same tree. Expressions are built with Python operators over `Var`s and the functions
below, and are immutable; what each primitive computes, and its derivatives, stand in `primitives.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Number: TypeAlias = float | int | bool
Operand: TypeAlias = "Expr | Number"


@dataclass(frozen=True, eq=False)
class Expr:
    """A node of an expression."""

    def __add__(self, o: Operand) -> Expr:
        """Sum."""
        return _call("add", self, o)

    def __radd__(self, o: Operand) -> Expr:
        """Sum."""
        return _call("add", o, self)

    def __sub__(self, o: Operand) -> Expr:
        """Difference."""
        return _call("sub", self, o)

    def __rsub__(self, o: Operand) -> Expr:
        """Difference."""
        return _call("sub", o, self)

    def __mul__(self, o: Operand) -> Expr:
        """Product."""
        return _call("mul", self, o)

    def __rmul__(self, o: Operand) -> Expr:
        """Product."""
        return _call("mul", o, self)

    def __truediv__(self, o: Operand) -> Expr:
        """Quotient."""
        return _call("div", self, o)

    def __rtruediv__(self, o: Operand) -> Expr:
        """Quotient."""
        return _call("div", o, self)

    def __pow__(self, o: Operand) -> Expr:
        """Power."""
        return _call("pow", self, o)

    def __rpow__(self, o: Operand) -> Expr:
        """Power."""
        return _call("pow", o, self)

    def __neg__(self) -> Expr:
        """Negative."""
        return _call("neg", self)

    def __lt__(self, o: Operand) -> Expr:
        """1 where smaller."""
        return _call("less", self, o)

    def __gt__(self, o: Operand) -> Expr:
        """1 where larger."""
        return _call("less", o, self)

    def __le__(self, o: Operand) -> Expr:
        """1 where at most."""
        return _call("less_equal", self, o)

    def __ge__(self, o: Operand) -> Expr:
        """1 where at least."""
        return _call("less_equal", o, self)


@dataclass(frozen=True, eq=False)
class Var(Expr):
    """An input of the op."""

    name: str


@dataclass(frozen=True, eq=False)
class Const(Expr):
    """A number."""

    value: Number


@dataclass(frozen=True, eq=False)
class Call(Expr):
    """A primitive applied to expressions."""

    fn: str
    args: tuple[Expr, ...]


def wrap(x: Operand) -> Expr:
    """Return a number as a constant expression, an expression as it is."""
    return x if isinstance(x, Expr) else Const(x)


def is_number(x: Expr, value: Number) -> bool:
    """Return whether an expression is this constant."""
    return isinstance(x, Const) and x.value == value


def _call(fn: str, *operands: Operand) -> Expr:
    args = tuple(wrap(a) for a in operands)
    match fn:
        case "add" if is_number(args[0], 0):
            return args[1]
        case "add" | "sub" if is_number(args[1], 0):
            return args[0]
        case "mul" if is_number(args[0], 1):
            return args[1]
        case "mul" | "div" if is_number(args[1], 1):
            return args[0]
        case "mul" if is_number(args[0], 0) or is_number(args[1], 0):
            return Const(0)
        case "neg" if isinstance(args[0], Const):
            return Const(-args[0].value)
    return Call(fn, args)


def exp(x: Operand) -> Expr:
    """e to the x."""
    return _call("exp", x)


def log(x: Operand) -> Expr:
    """Natural logarithm."""
    return _call("log", x)


def log1p(x: Operand) -> Expr:
    """Natural logarithm of 1 + x."""
    return _call("log1p", x)


def sqrt(x: Operand) -> Expr:
    """Square root."""
    return _call("sqrt", x)


def sin(x: Operand) -> Expr:
    """Sine."""
    return _call("sin", x)


def cos(x: Operand) -> Expr:
    """Cosine."""
    return _call("cos", x)


def tanh(x: Operand) -> Expr:
    """Hyperbolic tangent."""
    return _call("tanh", x)


def sigmoid(x: Operand) -> Expr:
    """1 / (1 + e^-x)."""
    return _call("sigmoid", x)


def softplus(x: Operand) -> Expr:
    """log(1 + e^x)."""
    return _call("softplus", x)


def erf(x: Operand) -> Expr:
    """Error function."""
    return _call("erf", x)


def abs_(x: Operand) -> Expr:
    """Absolute value; derivative sign(x), 0 at 0."""
    return _call("abs", x)


def sign(x: Operand) -> Expr:
    """-1, 0 or 1."""
    return _call("sign", x)


def pow_(x: Operand, y: Operand) -> Expr:
    """x to the y."""
    return _call("pow", x, y)


def maximum(x: Operand, y: Operand) -> Expr:
    """The larger; a tie shares the gradient evenly."""
    return _call("max", x, y)


def minimum(x: Operand, y: Operand) -> Expr:
    """The smaller; a tie shares the gradient evenly."""
    return _call("min", x, y)


def where(condition: Operand, x: Operand, y: Operand) -> Expr:
    """The second where the condition holds, else the third."""
    return _call("where", condition, x, y)


def equal(x: Operand, y: Operand) -> Expr:
    """1 where equal."""
    return _call("equal", x, y)


def call(fn: str, *args: Operand) -> Expr:
    """Apply a primitive by its name."""
    return _call(fn, *args)


def substitute(e: Expr, values: dict[str, Expr]) -> Expr:
    """Return the expression with variables replaced by expressions."""
    done: dict[int, Expr] = {}

    def visit(n: Expr) -> Expr:
        if isinstance(n, Var):
            return values.get(n.name, n)
        if not isinstance(n, Call):
            return n
        if id(n) not in done:
            done[id(n)] = _call(n.fn, *(visit(a) for a in n.args))
        return done[id(n)]

    return visit(e)


def variables(e: Expr) -> set[str]:
    """Return the names of the variables that an expression reads."""
    found: set[str] = set()
    seen: set[int] = set()
    waiting = [e]
    while waiting:
        n = waiting.pop()
        if id(n) in seen:
            continue
        seen.add(id(n))
        if isinstance(n, Var):
            found.add(n.name)
        elif isinstance(n, Call):
            waiting.extend(n.args)
    return found
