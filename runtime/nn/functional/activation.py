"""Activations."""

from __future__ import annotations

from typing import Any

from ....ops import layout, normalize as norm_ops, pointwise as pw


def relu(input: Any, inplace: bool = False) -> Any:
    """Return max(x, 0). `inplace` is accepted, and a new Tensor returned all the same."""
    return pw.relu(input)


def relu6(input: Any, inplace: bool = False) -> Any:
    """Return x kept between 0 and 6."""
    return pw.clip(input, 0.0, 6.0)


def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
    """Return x kept between two bounds."""
    return pw.clip(input, float(min_val), float(max_val))


def leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Any:
    """Return x, or slope * x where x < 0."""
    return pw.leaky_relu(input, float(negative_slope))


def prelu(input: Any, weight: Any) -> Any:
    """Return x, or weight * x where x < 0; one weight, or one a channel."""
    if weight.shape[0] > 1 and input.ndim > 1:
        weight = layout.reshape(weight, shape=(-1, *(1,) * (input.ndim - 2)))
    return pw.prelu(input, weight)


def elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """Return x, or alpha (e^x - 1) where x < 0."""
    return pw.elu(input, float(alpha))


def celu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """Return x, or alpha (e^(x / alpha) - 1) where x < 0."""
    return pw.celu(input, float(alpha))


def selu(input: Any, inplace: bool = False) -> Any:
    """Return elu with the scale and alpha that keep mean 0 and variance 1. Source: Klambauer et al. 2017."""
    return pw.mul(pw.elu(input, 1.6732632423543772), 1.0507009873554805)


def gelu(input: Any, approximate: str = "none") -> Any:
    """Return x Phi(x), exact, or by `tanh`."""
    return pw.gelu_tanh(input) if approximate == "tanh" else pw.gelu(input)


def silu(input: Any, inplace: bool = False) -> Any:
    """Return x sigmoid(x)."""
    return pw.mul(input, pw.sigmoid(input))


def mish(input: Any, inplace: bool = False) -> Any:
    """Return x tanh(softplus(x))."""
    return pw.mish(input)


def sigmoid(input: Any) -> Any:
    """Return 1 / (1 + e^-x)."""
    return pw.sigmoid(input)


def logsigmoid(input: Any) -> Any:
    """Return the logarithm of sigmoid, without overflow."""
    return pw.neg(pw.softplus(pw.neg(input)))


def hardsigmoid(input: Any, inplace: bool = False) -> Any:
    """Return x / 6 + 1 / 2, kept between 0 and 1."""
    return pw.hard_sigmoid(input, 1 / 6, 0.5)


def hardswish(input: Any, inplace: bool = False) -> Any:
    """Return x hardsigmoid(x)."""
    return pw.mul(input, pw.hard_sigmoid(input, 1 / 6, 0.5))


def tanh(input: Any) -> Any:
    """Return the hyperbolic tangent."""
    return pw.tanh(input)


def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """Return log(1 + e^(beta x)) / beta; x itself where beta x is above the threshold."""
    if beta == 1.0:
        smooth = pw.softplus(input)
        scaled = input
    else:
        scaled = pw.mul(input, float(beta))
        smooth = pw.mul(pw.softplus(scaled), 1 / beta)
    return pw.where(pw.greater(scaled, float(threshold)), input, smooth)


def softsign(input: Any) -> Any:
    """Return x / (1 + |x|)."""
    return pw.softsign(input)


def softmax(input: Any, dim: int = -1, dtype: Any = None) -> Any:
    """Return e^x over its sum along an axis."""
    return norm_ops.softmax(input if dtype is None else pw.cast(input, dtype=str(dtype)), axis=dim)


def softmin(input: Any, dim: int = -1) -> Any:
    """Return softmax of -x along an axis."""
    return norm_ops.softmax(pw.neg(input), axis=dim)


def log_softmax(input: Any, dim: int = -1, dtype: Any = None) -> Any:
    """Return the logarithm of softmax along an axis."""
    return norm_ops.log_softmax(input if dtype is None else pw.cast(input, dtype=str(dtype)), axis=dim)


def glu(input: Any, dim: int = -1) -> Any:
    """Return the first half along an axis, times sigmoid of the second."""
    axis = dim % input.ndim
    half = input.shape[axis] // 2
    a, b = layout.split(input, axis=axis, sizes=(half, half))
    return pw.mul(a, pw.sigmoid(b))
