"""Initialisation of parameters in place, drawn from the process's generator, by PyTorch's formulas."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from ...ops.errors import OpError, ShapeError
from ..autograd.grad_mode import no_grad
from ..tensor import random
from ..tensor.tensor import Tensor

_LINEAR = (
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "sigmoid",
)  # fmt: skip


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor that keeps variance through a nonlinearity.

    Args:
        nonlinearity: `relu`, `tanh` ...
        param: the negative slope of `leaky_relu`, 0.01 by default.

    Raises:
        OpError: if its gain is not known, or the slope is no number.
    """
    if nonlinearity in _LINEAR:
        return 1
    match nonlinearity:
        case "tanh":
            return 5.0 / 3
        case "relu":
            return math.sqrt(2.0)
        case "leaky_relu":
            slope = 0.01 if param is None else param
            if isinstance(slope, bool) or not isinstance(slope, int | float):
                raise OpError(f"negative_slope {param} not a valid number")
            return math.sqrt(2.0 / (1 + slope**2))
        case "selu":
            return 3.0 / 4
    raise OpError(f"Unsupported nonlinearity {nonlinearity}")


def fans(tensor: Tensor) -> tuple[int, int]:
    """Return how many inputs and outputs each unit of a weight has.

    Raises:
        ShapeError: of fewer than two axes.
    """
    if tensor.ndim < 2:
        raise ShapeError("Fan in and fan out can not be computed for tensor with fewer than 2 dimensions")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


_calculate_fan_in_and_fan_out = fans


def _put(tensor: Tensor, array: Any) -> Tensor:
    with no_grad():
        return tensor.copy_(array)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: random.Generator | None = None) -> Tensor:
    """Draw from [a, b)."""
    return _put(tensor, random.uniform(tensor.array, a, b, generator))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: random.Generator | None = None) -> Tensor:
    """Draw from a normal distribution."""
    return _put(tensor, random.normal(tensor.array, mean, std, generator))


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
    generator: random.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Draw from a normal distribution, again where a draw falls outside [a, b].

    Where most would, uniform draws from [a, b] are kept with the probability that the density asks for.
    """
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(
            "mean is more than 2 std from [a, b] in nn.init.trunc_normal_. The distribution of values may be "
            "incorrect.",
            UserWarning,
            stacklevel=2,
        )
    inside = (math.erf((b - mean) / std / math.sqrt(2)) - math.erf((a - mean) / std / math.sqrt(2))) / 2
    peak = ((min(max(mean, a), b) - mean) / std) ** 2
    drawn = np.empty(tensor.shape, tensor.dtype if tensor.dtype.itemsize > 2 else np.float32)
    again = np.ones(tensor.shape, bool)
    while again.any():
        left = drawn[again]
        if inside > 0.3:
            new = random.normal(left, mean, std, generator)
            wrong = (new < a) | (new > b)
        else:
            new = random.uniform(left, a, b, generator)
            density = np.exp((peak - ((new - mean) / std) ** 2) / 2)
            wrong = random.uniform(left, 0.0, 1.0, generator) > density
        drawn[again] = new
        again[again] = wrong
    return _put(tensor, drawn)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Set every element."""
    with no_grad():
        return tensor.fill_(val)


def zeros_(tensor: Tensor) -> Tensor:
    """Set every element to 0."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Set every element to 1."""
    return constant_(tensor, 1.0)


def _matrix(tensor: Tensor) -> tuple[int, int]:
    if tensor.ndim != 2:
        raise ShapeError("Only tensors with 2 dimensions are supported")
    return tensor.shape[0], tensor.shape[1]


def eye_(tensor: Tensor) -> Tensor:
    """Set a matrix to ones on the diagonal and zeros elsewhere.

    Raises:
        ShapeError: if it is no matrix.
    """
    return _put(tensor, np.eye(*_matrix(tensor), dtype=tensor.dtype))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Set a convolution's weight so that it hands on as many channels as it can, as they are.

    Args:
        tensor: (out, in, *field), of 3 to 5 axes.
        groups: the same for each group of output channels.

    Raises:
        ShapeError: if the weight is no such, or groups do not divide it.
    """
    if tensor.ndim not in (3, 4, 5):
        raise ShapeError("Only tensors with 3, 4, or 5 dimensions are supported")
    if tensor.shape[0] % groups:
        raise ShapeError("dim 0 must be divisible by groups")
    array = np.zeros(tensor.shape, tensor.dtype)
    out = tensor.shape[0] // groups
    middle = tuple(n // 2 for n in tensor.shape[2:])
    for group in range(groups):
        for channel in range(min(out, tensor.shape[1])):
            array[(group * out + channel, channel, *middle)] = 1
    return _put(tensor, array)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: random.Generator | None = None) -> Tensor:
    """Draw uniformly with variance 2 gain^2 / (fan in + fan out). Source: Glorot & Bengio 2010."""
    bound = gain * math.sqrt(6.0 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: random.Generator | None = None) -> Tensor:
    """Draw normally with variance 2 gain^2 / (fan in + fan out). Source: Glorot & Bengio 2010."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(fans(tensor))), generator)


def _std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float | None:
    """Return the standard deviation that keeps variance; None where there is nothing to draw."""
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", UserWarning, stacklevel=3)
        return None
    if mode.lower() not in ("fan_in", "fan_out"):
        raise OpError(f"Mode {mode.lower()} not supported, please use one of ['fan_in', 'fan_out']")
    return calculate_gain(nonlinearity, a) / math.sqrt(fans(tensor)[mode.lower() == "fan_out"])


def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: random.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Draw uniformly with variance gain^2 / fan. Source: He et al. 2015."""
    std = _std(tensor, a, mode, nonlinearity)
    return tensor if std is None else uniform_(tensor, -math.sqrt(3.0) * std, math.sqrt(3.0) * std, generator)


def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: random.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Draw normally with variance gain^2 / fan. Source: He et al. 2015."""
    std = _std(tensor, a, mode, nonlinearity)
    return tensor if std is None else normal_(tensor, 0.0, std, generator)


def orthogonal_(tensor: Tensor, gain: float = 1, generator: random.Generator | None = None) -> Tensor:
    """Set the rows, or the columns where they are fewer, orthonormal, times gain. Source: Saxe et al. 2013.

    Raises:
        ShapeError: of fewer than two axes.
    """
    if tensor.ndim < 2:
        raise ShapeError("Only tensors with 2 or more dimensions are supported")
    if not tensor.numel():
        return tensor
    rows = tensor.shape[0]
    flat: Any = random.normal(np.empty((rows, tensor.numel() // rows)), 0.0, 1.0, generator)
    wide = flat.shape[0] < flat.shape[1]
    q, r = np.linalg.qr(flat.T if wide else flat)
    q = q * np.sign(np.diag(r))
    return _put(tensor, (gain * (q.T if wide else q)).reshape(tensor.shape).astype(tensor.dtype))


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: random.Generator | None = None) -> Tensor:
    """Draw a matrix normally, with this share of each column 0. Source: Martens 2010.

    Raises:
        ShapeError: if it is no matrix.
    """
    rows, columns = _matrix(tensor)
    drawn: Any = random.normal(np.empty((rows, columns)), 0.0, std, generator)
    for column in range(columns):
        drawn[random.permutation(rows, generator)[: math.ceil(sparsity * rows)], column] = 0
    return _put(tensor, drawn.astype(tensor.dtype))
