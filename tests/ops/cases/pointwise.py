"""Pointwise ops: the rows of the op table. The references are definitions, one number at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from onnxgrad.ops import pointwise as pw

from ..case import OpCase, rand


def each(f: Callable[..., Any], kind: Any = float) -> Callable[..., np.ndarray]:
    """Return f applied to one number at a time, broadcasting."""

    def apply(*xs: Any) -> np.ndarray:
        at = np.broadcast(*xs)
        return np.array([f(*v) for v in at], kind).reshape(at.shape)

    return apply


def phi(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


def zeta(s: int, x: float) -> float:
    """Return the Hurwitz zeta function by its sum, whose rest an integral stands for."""
    n = 2000
    rest = sum((x + n) ** (1 - s - k) * c for k, c in ((0, 1 / (s - 1)), (1, 0.5), (2, s / 12)))
    return math.fsum((x + k) ** -s for k in range(n)) + rest


def gelu_tanh(x: float) -> float:
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def truncated(a: int, b: int) -> int:
    return int(a / b)


def mid(x: np.ndarray) -> np.ndarray:
    """Return x moved away from the integers and their halves, where steps and kinks are."""
    return np.round(x * 4) / 4 + 0.11


UNARY: list[tuple[Any, Callable[..., Any], float, float]] = [
    (pw.neg, lambda v: -v, -2, 2),
    (pw.exp, math.exp, -2, 2),
    (pw.log, math.log, 0.2, 3),
    (pw.sqrt, math.sqrt, 0.2, 3),
    (pw.reciprocal, lambda v: 1 / v, 0.4, 3),
    (pw.sin, math.sin, -3, 3),
    (pw.cos, math.cos, -3, 3),
    (pw.tan, math.tan, -1.2, 1.2),
    (pw.asin, math.asin, -0.9, 0.9),
    (pw.acos, math.acos, -0.9, 0.9),
    (pw.atan, math.atan, -3, 3),
    (pw.sinh, math.sinh, -2, 2),
    (pw.cosh, math.cosh, -2, 2),
    (pw.asinh, math.asinh, -3, 3),
    (pw.acosh, math.acosh, 1.2, 3),
    (pw.atanh, math.atanh, -0.9, 0.9),
    (pw.erf, math.erf, -3, 3),
    (pw.log2, math.log2, 0.2, 3),
    (pw.log10, math.log10, 0.2, 3),
    (pw.log1p, math.log1p, -0.5, 3),
    (pw.exp2, lambda v: 2.0**v, -2, 2),
    (pw.expm1, math.expm1, -2, 2),
    (pw.erfc, math.erfc, -3, 3),
    (pw.lgamma, math.lgamma, 0.3, 3),
    (pw.tanh, math.tanh, -3, 3),
    (pw.sigmoid, sigmoid, -4, 4),
    (pw.softplus, softplus, -4, 4),
    (pw.gelu, lambda v: v * phi(v), -4, 4),
    (pw.gelu_tanh, gelu_tanh, -4, 4),
    (pw.mish, lambda v: v * math.tanh(softplus(v)), -4, 4),
]

STEPS: list[tuple[Any, Callable[..., Any]]] = [
    (pw.abs_, abs),
    (pw.relu, lambda v: max(v, 0.0)),
    (pw.relu6, lambda v: min(max(v, 0.0), 6.0)),
    (pw.softsign, lambda v: v / (1 + abs(v))),
    (pw.sign, lambda v: math.copysign(1, v)),
    (pw.floor, math.floor),
    (pw.ceil, math.ceil),
    (pw.round_, round),
    (pw.trunc, math.trunc),
]

SHAPED: list[tuple[Any, Callable[..., Any], tuple[Any, ...]]] = [
    (pw.prelu, lambda v, s: v if v >= 0 else s * v, (rand(4, 1, seed=5),)),
    (pw.leaky_relu, lambda v, s: v if v >= 0 else s * v, (0.1,)),
    (pw.elu, lambda v, s: v if v > 0 else s * (math.exp(v) - 1), (1.5,)),
    (pw.celu, lambda v, s: v if v > 0 else s * (math.exp(v / s) - 1), (0.7,)),
    (pw.swish, lambda v, s: v * sigmoid(s * v), (1.702,)),
    (pw.thresholded_relu, lambda v, s: v if v > s else 0.0, (0.8,)),
    (pw.shrink, lambda v, b, t: v + b if v < -t else v - b if v > t else 0.0, (0.3, 0.5)),
    (pw.hard_sigmoid, lambda v, s, t: min(1.0, max(0.0, s * v + t)), (0.4, 0.5)),
    (pw.clip, lambda v, lo, hi: min(hi, max(lo, v)), (-1.0, 1.0)),
    (pw.clip, lambda v, lo, hi: min(hi, max(lo, v)), (np.array(-0.7), np.full((1, 5), 1.2))),
    (pw.clip, lambda v, lo, hi: min(hi, max(lo, v)), (np.array(0.9), np.array(-0.4))),
]

A, B, ROW = rand(3, 4), rand(3, 4, seed=1), rand(4, seed=2)
POSITIVE = rand(3, 1, seed=3, low=0.3)
INTS = np.array([[-7, 7, 5], [-5, 9, 4]])
DIVISORS = np.array([2, -2, 3])
BYTES = np.array([1, 2, 200, 255], np.uint8)
SHIFTS = np.array([[0], [1], [7], [9]], np.uint8)
BOOLS = np.array([[True, False], [False, True]])

BINARY: list[tuple[Any, Callable[..., Any], Any, Any]] = [
    (pw.add, lambda a, b: a + b, A, ROW),
    (pw.sub, lambda a, b: a - b, A, ROW),
    (pw.sub, lambda a, b: a - b, 1.5, A),
    (pw.mul, lambda a, b: a * b, ROW, A),
    (pw.mul, lambda a, b: a * b, A, 0.5),
    (pw.div, lambda a, b: a / b, A, POSITIVE),
    (pw.mod, lambda a, b: a % b, A, -POSITIVE),
    (pw.fmod, math.fmod, A, POSITIVE),
    (pw.pow_, lambda a, b: a**b, POSITIVE, A),
    (pw.pow_, lambda a, b: a**b, A, 3.0),
    (pw.pow_, lambda a, b: a**b, np.array([0.0, 2.0]), 2.0),
    (pw.atan2, math.atan2, A, ROW),
    (pw.hypot, math.hypot, A, ROW),
    (pw.copysign, math.copysign, A, ROW),
    (pw.logaddexp, lambda a, b: math.log(math.exp(a) + math.exp(b)), A, ROW),
    (pw.logaddexp2, lambda a, b: math.log2(2**a + 2**b), A, ROW),
    (pw.polygamma, lambda n, x: zeta(3, x) * -2, 2, POSITIVE),
    (pw.maximum, max, A, ROW),
    (pw.minimum, min, A, 0.25),
    (pw.where, lambda c, a, b: a if c else b, A > 0, (ROW, B)),
]

WHOLE: list[tuple[Any, Callable[..., Any], Any, Any, Any]] = [
    (pw.div, truncated, INTS, DIVISORS, np.int64),
    (pw.mod, lambda a, b: a % b, INTS, DIVISORS, np.int64),
    (pw.fmod, lambda a, b: a - b * truncated(a, b), INTS, DIVISORS, np.int64),
    (pw.pow_, lambda a, b: int(a ** float(b)), INTS, DIVISORS, np.int64),
    (pw.less, lambda a, b: a < b, INTS, DIVISORS, bool),
    (pw.less_equal, lambda a, b: a <= b, INTS, 5, bool),
    (pw.greater, lambda a, b: a > b, A, ROW, bool),
    (pw.greater_equal, lambda a, b: a >= b, A, A[:1], bool),
    (pw.equal, lambda a, b: a == b, INTS, np.array([[7], [9]]), bool),
    (pw.logical_and, lambda a, b: a and b, BOOLS, BOOLS[0], bool),
    (pw.logical_or, lambda a, b: a or b, BOOLS, BOOLS[0], bool),
    (pw.logical_xor, lambda a, b: a != b, BOOLS, BOOLS[0], bool),
    (pw.bitwise_and, lambda a, b: int(a) & int(b), INTS, DIVISORS, np.int64),
    (pw.bitwise_or, lambda a, b: int(a) | int(b), INTS, DIVISORS, np.int64),
    (pw.bitwise_xor, lambda a, b: int(a) ^ int(b), INTS, DIVISORS, np.int64),
    (pw.shift_left, lambda a, b: (int(a) << int(b)) % 256, BYTES, SHIFTS, np.uint8),
    (pw.shift_right, lambda a, b: int(a) >> int(b), BYTES, SHIFTS, np.uint8),
]


def both(*xs: Any) -> tuple[Any, ...]:
    return tuple(v for x in xs for v in (x if isinstance(x, tuple) else (x,)))


CASES = [
    *[OpCase(o, (rand(3, 4, low=lo, high=hi),), each(f), tol=1e-14) for o, f, lo, hi in UNARY],
    *[OpCase(o, (mid(rand(3, 4, low=-3, high=3)),), each(f)) for o, f in STEPS],
    *[OpCase(o, (mid(rand(2, 4, 5)), *more), each(f), name=f"{o.name}-{i}") for i, (o, f, more) in enumerate(SHAPED)],
    *[OpCase(o, both(a, b), each(f), name=f"{o.name}-{i}") for i, (o, f, a, b) in enumerate(BINARY)],
    *[OpCase(o, (a, b), each(f, kind), order=0, name=f"{o.name}-whole") for o, f, a, b, kind in WHOLE],
    OpCase(pw.relu, (np.array([-2, 0, 3]),), each(lambda v: max(v, 0), int), order=0),
    OpCase(pw.abs_, (np.array([-2, 0, 3]),), each(abs, int), order=0),
    OpCase(pw.sign, (np.array([-2, 0, 3]),), each(lambda v: int(v > 0) - int(v < 0), int), order=0),
    OpCase(pw.clip, (np.array([-9, 0, 9]), -3, 5), each(lambda v, lo, hi: min(hi, max(lo, v)), int), order=0),
    OpCase(pw.logical_not, (BOOLS,), each(lambda v: not v, bool), order=0),
    OpCase(pw.bitwise_not, (INTS,), each(lambda v: -v - 1, int), order=0),
    OpCase(pw.signbit, (np.array([1, -0.0, -np.inf]),), each(lambda v: math.copysign(1, v) < 0, bool), order=0),
    OpCase(
        pw.erfinv, (np.array([math.erf(v) for v in (-1.2, -0.1, 0.3, 2.0)]),), lambda x: np.array([-1.2, -0.1, 0.3, 2])
    ),
    OpCase(pw.isnan, (np.array([1, np.nan, np.inf]),), each(math.isnan, bool), order=0),
    OpCase(pw.add, (np.array(1.5), np.array(2.0)), each(lambda a, b: a + b), name="add-scalars"),
    OpCase(pw.cast, (A,), lambda v: v, {"dtype": "float64"}, name="cast-same"),
    OpCase(pw.cast, (A * 9,), each(math.trunc, np.int32), {"dtype": "int32"}, order=0, name="cast-truncates"),
    OpCase(pw.cast, (A * 9,), each(bool, bool), {"dtype": "bool"}, order=0, name="cast-bool"),
    OpCase(
        pw.bitcast,
        (A,),
        lambda v: np.frombuffer(v.tobytes(), np.int64).reshape(v.shape),
        {"dtype": "int64"},
        order=0,
    ),
    OpCase(pw.cast, (INTS,), each(str, object), {"dtype": "object"}, order=0, name="cast-string"),
]
