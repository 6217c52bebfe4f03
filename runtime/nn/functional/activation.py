"""Activations. `inplace` puts the result in the place of the input, and returns that."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ....ops import create, layout, normalize as norm_ops, pointwise as pw, rank
from ....ops.errors import OpError, ShapeError
from ....ops.random import random_uniform
from ...autograd.node_names import labelled
from ...tensor.methods.axes import place
from ...tensor.random import next_key
from .inplace import changed, in_place
from .spatial import beside


def relu(input: Any, inplace: bool = False) -> Any:
    """Return max(x, 0)."""
    if inplace:
        return changed(relu, input)
    return pw.relu(input)


def relu6(input: Any, inplace: bool = False) -> Any:
    """Return x kept between 0 and 6."""
    if inplace:
        return changed(relu6, input)
    return pw.relu6(input)


def threshold(input: Any, threshold: float, value: float, inplace: bool = False) -> Any:
    """Return x where it is above the threshold, else the value."""
    bound, rest = float(threshold), float(value)
    if inplace:
        return changed(lambda x: pw.where(pw.less_equal(x, bound), rest, x), input)
    return pw.where(pw.less_equal(input, bound), rest, input)


def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
    """Return x kept between two bounds, at which its derivative is 0.

    Raises:
        OpError: if the bounds cross.
    """
    if inplace:
        return changed(hardtanh, input, min_val, max_val)
    low, high = float(min_val), float(max_val)
    if low > high:
        raise OpError("min_val cannot be greater than max_val")
    return pw.where(pw.less_equal(input, low), low, pw.where(pw.less_equal(high, input), high, input))


def leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Any:
    """Return x, or slope * x where x < 0."""
    if inplace:
        return changed(leaky_relu, input, negative_slope)
    return pw.leaky_relu(input, float(negative_slope))


def prelu(input: Any, weight: Any) -> Any:
    """Return x, or weight * x where x < 0; one weight, or one a channel (axis 1).

    Raises:
        ShapeError: if there are neither one weight nor one a channel.
    """
    count = weight.shape[0] if weight.ndim else 1
    if weight.ndim > 1:
        raise ShapeError(
            f"prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = {weight.ndim}, "
            f"weight.shape = {list(weight.shape)}"
        )
    if isinstance(count, int) and count != 1:
        if input.ndim == 0:
            raise ShapeError("Not allow zero-dim input tensor.")
        channels = input.shape[1] if input.ndim > 1 else 1
        if isinstance(channels, int) and count != channels:
            raise ShapeError(
                "Mismatch of parameter numbers and input channel size. Found parameter numbers = "
                f"{count} and channel size = {channels}."
            )
        weight = layout.reshape(weight, shape=(-1, *(1,) * (input.ndim - 2)))
    elif weight.ndim and input.ndim == 0:
        weight = layout.squeeze(weight, axes=(0,))
    return pw.prelu(input, weight)


def rrelu(input: Any, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False) -> Any:
    """Return x, or a multiple of it where x < 0: between two bounds at random while training, else their mean.

    Raises:
        OpError: if the bounds cross.
    Source: Xu et al. 2015, "Empirical Evaluation of Rectified Activations in Convolutional Network".
    """
    if inplace:
        return changed(rrelu, input, lower, upper, training)
    if lower > upper:
        raise OpError("Lower bound should be less than or equal to the upper bound")
    if not training:
        return pw.leaky_relu(input, (lower + upper) / 2)
    slope = random_uniform(
        next_key(), create.shape_of(input), low=float(lower), high=float(upper), dtype=str(input.dtype)
    )
    return pw.prelu(input, beside(input, slope))


def elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """Return x, or alpha (e^x - 1) where x < 0."""
    if inplace:
        return changed(elu, input, alpha)
    return pw.elu(input, float(alpha))


def celu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """Return x, or alpha (e^(x / alpha) - 1) where x < 0.

    Raises:
        OpError: if alpha is 0.
    """
    if inplace:
        return changed(celu, input, alpha)
    if alpha == 0:
        raise OpError("ZeroDivisionError: alpha cannot be 0 for CELU")
    return pw.celu(input, float(alpha))


def selu(input: Any, inplace: bool = False) -> Any:
    """Return elu with the scale and alpha that keep mean 0 and variance 1. Source: Klambauer et al. 2017."""
    if inplace:
        return changed(selu, input)
    return pw.mul(pw.elu(input, 1.6732632423543772), 1.0507009873554805)


def gelu(input: Any, approximate: str = "none") -> Any:
    """Return x Phi(x), exact, or by `tanh`.

    Raises:
        OpError: if it is approximated otherwise.
    """
    if approximate not in ("none", "tanh"):
        raise OpError("approximate argument must be either none or tanh.")
    return pw.gelu_tanh(input) if approximate == "tanh" else pw.gelu(input)


def silu(input: Any, inplace: bool = False) -> Any:
    """Return x sigmoid(x)."""
    if inplace:
        return changed(silu, input)
    return labelled(pw.mul(input, pw.sigmoid(input)), "Silu")


def mish(input: Any, inplace: bool = False) -> Any:
    """Return x tanh(softplus(x))."""
    if inplace:
        return changed(mish, input)
    return pw.mish(input)


def sigmoid(input: Any) -> Any:
    """Return 1 / (1 + e^-x)."""
    return pw.sigmoid(input)


def logsigmoid(input: Any) -> Any:
    """Return the logarithm of sigmoid, without overflow."""
    return pw.neg(pw.softplus(pw.neg(input)))


def hardsigmoid(input: Any, inplace: bool = False) -> Any:
    """Return x / 6 + 1 / 2, kept between 0 and 1."""
    if inplace:
        return changed(hardsigmoid, input)
    return pw.hard_sigmoid(input, 1 / 6, 0.5)


def hardswish(input: Any, inplace: bool = False) -> Any:
    """Return x hardsigmoid(x)."""
    if inplace:
        return changed(hardswish, input)
    return labelled(pw.mul(input, pw.hard_sigmoid(input, 1 / 6, 0.5)), "Hardswish")


def hardshrink(input: Any, lambd: float = 0.5) -> Any:
    """Return 0 where |x| is not above a bound, else x."""
    return pw.where(pw.less_equal(pw.abs_(input), float(lambd)), 0.0, input)


def softshrink(input: Any, lambd: float = 0.5) -> Any:
    """Return x moved towards 0 by a bound, 0 where |x| is not above it.

    Raises:
        OpError: if the bound is negative.
    """
    if lambd < 0:
        raise OpError(f"lambda must be in range [0, 3.40282e+38] for input dtype Float, but found {lambd:g}")
    return pw.sub(input, pw.clip(input, -float(lambd), float(lambd)))


def tanh(input: Any) -> Any:
    """Return the hyperbolic tangent."""
    return pw.tanh(input)


def tanhshrink(input: Any) -> Any:
    """Return x - tanh(x)."""
    return pw.sub(input, pw.tanh(input))


def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """Return log(1 + e^(beta x)) / beta; x itself where beta x is above the threshold."""
    if beta == 1.0:
        smooth = pw.softplus(input)
        scaled = input
    else:
        scaled = pw.mul(input, float(beta))
        smooth = pw.div(pw.softplus(scaled), float(beta))
    return labelled(pw.where(pw.greater(scaled, float(threshold)), input, smooth), "Softplus")


def softsign(input: Any) -> Any:
    """Return x / (1 + |x|)."""
    return pw.softsign(input)


def softmax(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    """Return e^x over its sum along an axis."""
    axis = _implied("softmax", input.ndim, _stacklevel) if dim is None else place(dim, input.ndim)
    return norm_ops.softmax(_as(input, dtype), axis=axis)


def softmin(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    """Return softmax of -x along an axis."""
    axis = _implied("softmin", input.ndim, _stacklevel) if dim is None else place(dim, input.ndim)
    return norm_ops.softmax(_as(pw.neg(input), dtype), axis=axis)


def log_softmax(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    """Return the logarithm of softmax along an axis."""
    axis = _implied("log_softmax", input.ndim, _stacklevel) if dim is None else place(dim, input.ndim)
    return norm_ops.log_softmax(_as(input, dtype), axis=axis)


def gumbel_softmax(logits: Any, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Any:
    """Return softmax of (scores + Gumbel noise) / tau along an axis: a smooth draw of a class.

    Args:
        logits: the scores.
        tau: the temperature.
        hard: whether to return a draw of 0 and 1, with the gradient of the smooth one.
        eps: has no effect.
        dim: the axis.

    Source: Jang et al. 2017; Maddison et al. 2017.
    """
    if eps != 1e-10:
        warnings.warn("`eps` parameter is deprecated and has no effect.", stacklevel=2)
    precision = "float64" if logits.dtype == np.dtype(np.float64) else "float32"
    # From 2^-26 on both logarithms are finite: the largest draw is 1 - 2^-24.
    draws = random_uniform(next_key(), create.shape_of(logits), low=2.0**-26, high=1.0, dtype=precision)
    noise = _as(pw.neg(pw.log(pw.neg(pw.log(beside(logits, draws))))), logits.dtype)
    soft = norm_ops.softmax(pw.div(pw.add(logits, noise), float(tau)), axis=dim)
    if not hard:
        return soft
    fixed = soft.detach() if hasattr(soft, "detach") else soft
    return pw.add(pw.sub(rank.hardmax(fixed, axis=dim), fixed), soft)


def glu(input: Any, dim: int = -1) -> Any:
    """Return the first half along an axis, times sigmoid of the second.

    Raises:
        ShapeError: if the axis has no halves.
    """
    if input.ndim == 0:
        raise ShapeError("glu does not support scalars because halving size must be even")
    axis = dim % input.ndim
    size = input.shape[axis]
    if isinstance(size, int) and size % 2:
        raise ShapeError(f"Halving dimension must be even, but dimension {axis} is size {size}")
    a, b = layout.split(input, axis=axis, sizes=(size // 2, size // 2))
    return pw.mul(a, pw.sigmoid(b))


def _implied(name: str, ndim: int, stacklevel: int) -> int:
    """Return the axis that PyTorch takes where none is given."""
    warnings.warn(
        f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X as an argument.",
        stacklevel=stacklevel,
    )
    return 0 if ndim in (0, 1, 3) else 1


def _as(x: Any, dtype: Any) -> Any:
    return x if dtype is None else pw.cast(x, dtype=str(dtype))


relu_ = in_place(relu)
threshold_ = in_place(threshold)
hardtanh_ = in_place(hardtanh)
leaky_relu_ = in_place(leaky_relu)
rrelu_ = in_place(rrelu)
elu_ = in_place(elu)
celu_ = in_place(celu)
selu_ = in_place(selu)
