"""Bindings: pointwise operators.

Before opset 7 two operands met by `broadcast` and `axis`; before opset 6 nodes named the inputs that they
overwrite (`consumed_inputs`). Both end here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ....ops import layout, pointwise as pw
from ....ops.errors import UnsupportedAttributeError
from ....ops.types import TensorType, is_float
from ..node import NodeView
from ..registry import binds
from ..tensors import dtype_of

MICROSOFT = "com.microsoft"

UNARY: dict[str, tuple[Any, tuple[int, ...]]] = {
    "Abs": (pw.abs_, (1, 6, 13)),
    "Acos": (pw.acos, (7, 22)),
    "Acosh": (pw.acosh, (9, 22)),
    "Asin": (pw.asin, (7, 22)),
    "Asinh": (pw.asinh, (9, 22)),
    "Atan": (pw.atan, (7, 22)),
    "Atanh": (pw.atanh, (9, 22)),
    "BitwiseNot": (pw.bitwise_not, (18,)),
    "Ceil": (pw.ceil, (1, 6, 13)),
    "Cos": (pw.cos, (7, 22)),
    "Cosh": (pw.cosh, (9, 22)),
    "Erf": (pw.erf, (9, 13)),
    "Exp": (pw.exp, (1, 6, 13)),
    "Floor": (pw.floor, (1, 6, 13)),
    "IsNaN": (pw.isnan, (9, 13, 20)),
    "Log": (pw.log, (1, 6, 13)),
    "Mish": (pw.mish, (18, 22)),
    "Neg": (pw.neg, (1, 6, 13)),
    "Not": (pw.logical_not, (1,)),
    "Reciprocal": (pw.reciprocal, (1, 6, 13)),
    "Relu": (pw.relu, (1, 6, 13, 14)),
    "Round": (pw.round_, (11, 22)),
    "Sigmoid": (pw.sigmoid, (1, 6, 13)),
    "Sign": (pw.sign, (9, 13)),
    "Sin": (pw.sin, (7, 22)),
    "Sinh": (pw.sinh, (9, 22)),
    "Softplus": (pw.softplus, (1, 22)),
    "Softsign": (pw.softsign, (1, 22)),
    "Sqrt": (pw.sqrt, (1, 6, 13)),
    "Tan": (pw.tan, (7, 22)),
    "Tanh": (pw.tanh, (1, 6, 13)),
}

BINARY: dict[str, tuple[Any, tuple[int, ...]]] = {
    "Add": (pw.add, (1, 6, 7, 13, 14)),
    "And": (pw.logical_and, (1, 7)),
    "BitwiseAnd": (pw.bitwise_and, (18,)),
    "BitwiseOr": (pw.bitwise_or, (18,)),
    "BitwiseXor": (pw.bitwise_xor, (18,)),
    "Div": (pw.div, (1, 6, 7, 13, 14)),
    "Equal": (pw.equal, (1, 7, 11, 13, 19)),
    "Greater": (pw.greater, (1, 7, 9, 13)),
    "GreaterOrEqual": (pw.greater_equal, (12, 16)),
    "Less": (pw.less, (1, 7, 9, 13)),
    "LessOrEqual": (pw.less_equal, (12, 16)),
    "Mul": (pw.mul, (1, 6, 7, 13, 14)),
    "Or": (pw.logical_or, (1, 7)),
    "Sub": (pw.sub, (1, 6, 7, 13, 14)),
    "Xor": (pw.logical_xor, (1, 7)),
}

ALPHA: dict[str, tuple[Any, tuple[int, ...], float]] = {
    "Celu": (pw.celu, (12, 28), 1.0),
    "Elu": (pw.elu, (1, 6, 22), 1.0),
    "LeakyRelu": (pw.leaky_relu, (1, 6, 16), 0.01),
    "Swish": (pw.swish, (24,), 1.0),
    "ThresholdedRelu": (pw.thresholded_relu, (10, 22), 1.0),
}


def _unary(op: Any) -> Callable[..., Any]:
    def binding(node: NodeView, x: Any) -> Any:
        node.ignore("consumed_inputs")
        return op(x)

    return binding


def _binary(op: Any) -> Callable[..., Any]:
    def binding(node: NodeView, a: Any, b: Any) -> Any:
        return op(a, aligned(node, a, b))

    return binding


def _with_alpha(op: Any, default: float) -> Callable[..., Any]:
    def binding(node: NodeView, x: Any) -> Any:
        node.ignore("consumed_inputs")
        return op(x, node.attr("alpha", default))

    return binding


def aligned(node: NodeView, a: Any, b: Any) -> Any:
    """Return b so that it broadcasts as NumPy does: before opset 7, b's first axis meets a's `axis`."""
    if node.since_version >= 7:
        return b
    node.ignore("consumed_inputs")
    axis = node.attr("axis")
    if not node.attr("broadcast", 0) or axis is None or b.ndim == 0:
        return b
    after = a.ndim - axis % a.ndim - b.ndim
    return layout.reshape(b, shape=(*b.shape, *(1,) * after)) if after > 0 else b


for _name, (_op, _versions) in UNARY.items():
    binds(_name, *_versions)(_unary(_op))
for _name, (_op, _versions) in BINARY.items():
    binds(_name, *_versions)(_binary(_op))
for _name, (_op, _versions, _default) in ALPHA.items():
    binds(_name, *_versions)(_with_alpha(_op, _default))


@binds("Identity", 1, 13, 14, 16, 19, 21, 23, 24, 25)
def identity(node: NodeView, x: Any) -> Any:
    """Identity: of tensors, and of sequences and optionals, which need no op."""
    return layout.identity(x) if isinstance(x.type, TensorType) else x


@binds("Mod", 10, 13, 28)
def mod(node: NodeView, a: Any, b: Any) -> Any:
    return pw.fmod(a, b) if node.attr("fmod", 0) else pw.mod(a, b)


@binds("Pow", 1, 7, 12, 13, 15)
def pow_(node: NodeView, a: Any, b: Any) -> Any:
    """Pow: the result has the type of the base."""
    b = aligned(node, a, b)
    if a.dtype == b.dtype or (not is_float(a.dtype) and not is_float(b.dtype)):
        return _cast(pw.pow_(a, b), a.dtype)
    if is_float(a.dtype):
        return pw.pow_(a, _cast(b, a.dtype))
    return _cast(pw.pow_(_cast(a, b.dtype), b), a.dtype)


@binds("PRelu", 1, 6, 7, 9, 16)
def prelu(node: NodeView, x: Any, slope: Any) -> Any:
    """PRelu: before opset 7 a slope of several elements belongs to axis 1."""
    node.ignore("consumed_inputs")
    if node.since_version < 7 and slope.ndim == 1 and slope.shape[0] != 1:
        slope = layout.reshape(slope, shape=(slope.shape[0], *(1,) * (x.ndim - 2)))
    return pw.prelu(x, slope)


def _chain(node: NodeView, op: Any, xs: tuple[Any, ...]) -> Any:
    node.ignore("consumed_inputs")
    return layout.identity(xs[0]) if len(xs) == 1 else functools.reduce(op, xs)


@binds("Max", 1, 6, 8, 12, 13)
def max_(node: NodeView, *xs: Any) -> Any:
    return _chain(node, pw.maximum, xs)


@binds("Min", 1, 6, 8, 12, 13)
def min_(node: NodeView, *xs: Any) -> Any:
    return _chain(node, pw.minimum, xs)


@binds("Sum", 1, 6, 8, 13)
def sum_(node: NodeView, *xs: Any) -> Any:
    return _chain(node, pw.add, xs)


@binds("Mean", 1, 6, 8, 13)
def mean(node: NodeView, *xs: Any) -> Any:
    total = _chain(node, pw.add, xs)
    return total if len(xs) == 1 else pw.div(total, len(xs))


@binds("Where", 9, 16)
def where(node: NodeView, condition: Any, a: Any, b: Any) -> Any:
    return pw.where(condition, a, b)


@binds("Clip", 1, 6)
def clip_by_attributes(node: NodeView, x: Any) -> Any:
    node.ignore("consumed_inputs")
    low, high = node.attr("min"), node.attr("max")
    return _clip(x, low, high)


@binds("Clip", 11, 12, 13)
def clip(node: NodeView, x: Any, low: Any = None, high: Any = None) -> Any:
    return _clip(x, _scalar(low), _scalar(high))


def _scalar(v: Any) -> Any:
    """Return a constant of one element as a Python number, anything else as it is."""
    if v is None or not v.is_constant or v.ndim > 0:
        return v
    return v.array.astype(np.float64).item() if is_float(v.dtype) else v.array.item()


def _clip(x: Any, low: Any, high: Any) -> Any:
    if low is None and high is None:
        return layout.identity(x)
    if is_float(x.dtype):
        return pw.clip(x, -np.inf if low is None else low, np.inf if high is None else high)
    limits = np.iinfo(x.dtype)
    return pw.clip(x, int(limits.min) if low is None else low, int(limits.max) if high is None else high)


@binds("BitShift", 11, 28)
def bit_shift(node: NodeView, x: Any, by: Any) -> Any:
    direction = node.one_of("direction", "", ("LEFT", "RIGHT"))
    return pw.shift_left(x, by) if direction == "LEFT" else pw.shift_right(x, by)


@binds("IsInf", 10, 20)
def is_inf(node: NodeView, x: Any) -> Any:
    positive, negative = node.attr("detect_positive", 1), node.attr("detect_negative", 1)
    if positive and negative:
        return pw.equal(pw.abs_(x), np.inf)
    if not positive and not negative:
        return pw.less(x, x)
    return pw.equal(x, np.inf if positive else -np.inf)


@binds("HardSigmoid", 1, 6, 22)
def hard_sigmoid(node: NodeView, x: Any) -> Any:
    node.ignore("consumed_inputs")
    return pw.hard_sigmoid(x, node.attr("alpha", 0.2), node.attr("beta", 0.5))


@binds("HardSwish", 14, 22)
def hard_swish(node: NodeView, x: Any) -> Any:
    return pw.mul(x, pw.hard_sigmoid(x, 1 / 6, 0.5))


@binds("Selu", 1, 6, 22)
def selu(node: NodeView, x: Any) -> Any:
    node.ignore("consumed_inputs")
    old = node.since_version < 6
    alpha = node.attr("alpha", 1.6732 if old else 1.67326319217681884765625)
    gamma = node.attr("gamma", 1.0507 if old else 1.05070102214813232421875)
    return pw.mul(pw.elu(x, alpha), gamma)


@binds("Shrink", 9)
def shrink(node: NodeView, x: Any) -> Any:
    bias, threshold = node.attr("bias", 0.0), node.attr("lambd", 0.5)
    if is_float(x.dtype):
        return pw.shrink(x, bias, threshold)
    return _cast(pw.shrink(_cast(x, np.dtype(np.float64)), bias, threshold), x.dtype)


@binds("Gelu", 20)
def gelu(node: NodeView, x: Any) -> Any:
    return (pw.gelu_tanh if node.one_of("approximate", "none", ("none", "tanh")) == "tanh" else pw.gelu)(x)


@binds("Gelu", 1)
@binds("Gelu", 1, domain=MICROSOFT)
def gelu_exact(node: NodeView, x: Any) -> Any:
    """Gelu of com.microsoft; onnxruntime's optimizer also writes it into the standard domain."""
    return pw.gelu(x)


@binds("BiasGelu", 1, domain=MICROSOFT)
def bias_gelu(node: NodeView, x: Any, bias: Any) -> Any:
    return pw.gelu(pw.add(x, bias))


@binds("BiasSplitGelu", 1, domain=MICROSOFT)
def bias_split_gelu(node: NodeView, x: Any, bias: Any) -> Any:
    """BiasSplitGelu: the left half of x + bias, times the gelu of the right half."""
    half = x.shape[-1] // 2
    left, right = layout.split(pw.add(x, bias), axis=x.ndim - 1, sizes=(half, half))
    return pw.mul(left, pw.gelu(right))


@binds("FastGelu", 1, domain=MICROSOFT)
def fast_gelu(node: NodeView, x: Any, bias: Any = None) -> Any:
    return pw.gelu_tanh(x if bias is None else pw.add(x, bias))


@binds("QuickGelu", 1, domain=MICROSOFT)
def quick_gelu(node: NodeView, x: Any) -> Any:
    return pw.swish(x, node.attr("alpha", 1.702))


def _cast(x: Any, dtype: np.dtype[Any], saturate: bool = True) -> Any:
    if x.dtype == dtype:
        return x
    return pw.cast(x, dtype=str(dtype)) if saturate else pw.cast(x, dtype=str(dtype), saturate=False)


def _converted(node: NodeView, x: Any, dtype: np.dtype[Any]) -> Any:
    saturate = bool(node.attr("saturate", 1))
    rounding = node.one_of("round_mode", "up", ("up", "down", "nearest"))
    if dtype.name == "float8_e8m0fnu" and x.dtype != dtype:
        return pw.cast(x, dtype=str(dtype), saturate=saturate, rounding=rounding)
    return layout.identity(x) if x.dtype == dtype else _cast(x, dtype, saturate)


@binds("Cast", 1, 6, 9, 13, 19, 21, 23, 24, 25, 28)
def cast(node: NodeView, x: Any) -> Any:
    """Cast: version 1 names the type in words."""
    to = node.attr("to")
    if isinstance(to, str):
        import onnx

        if to.upper() not in onnx.TensorProto.DataType.keys():  # noqa: SIM118 - a protobuf enum is no dict
            raise UnsupportedAttributeError(f"{node}: to is {to!r}, wanted the name of an element type")
        to = onnx.TensorProto.DataType.Value(to.upper())
    return _converted(node, x, dtype_of(to))


@binds("CastLike", 15, 19, 21, 23, 24, 25)
def cast_like(node: NodeView, x: Any, like: Any) -> Any:
    return _converted(node, x, like.dtype)


@binds("BitCast", 26)
def bitcast(node: NodeView, x: Any) -> Any:
    return pw.bitcast(x, dtype=str(dtype_of(node.attr("to"))))
