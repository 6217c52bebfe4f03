"""Initialisation of parameters in place, drawn from the process's generator, by PyTorch's formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...ops.errors import OpError
from .. import random
from ..grad_mode import no_grad
from ..tensor import Tensor


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor that keeps variance through a nonlinearity.

    Raises:
        OpError: if its gain is not known.
    """
    match nonlinearity:
        case "linear" | "sigmoid" | "conv1d" | "conv2d" | "conv3d":
            return 1.0
        case "tanh":
            return 5.0 / 3
        case "relu":
            return math.sqrt(2.0)
        case "leaky_relu":
            return math.sqrt(2.0 / (1 + (0.01 if param is None else param) ** 2))
        case "selu":
            return 3.0 / 4
    raise OpError(f"Unsupported nonlinearity {nonlinearity}")


def fans(tensor: Tensor) -> tuple[int, int]:
    """Return how many inputs and outputs each unit of a weight has.

    Raises:
        OpError: of fewer than two axes.
    """
    if tensor.ndim < 2:
        raise OpError("Fan in and fan out can not be computed for tensor with fewer than 2 dimensions")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: random.Generator | None = None) -> Tensor:
    """Draw from [a, b)."""
    with no_grad():
        return tensor.copy_(random.uniform(tensor.array, a, b, generator))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: random.Generator | None = None) -> Tensor:
    """Draw from a normal distribution."""
    with no_grad():
        return tensor.copy_(random.normal(tensor.array, mean, std, generator))


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
    generator: random.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Draw from a normal distribution, again where a draw falls outside [a, b]."""
    drawn = random.normal(tensor.array, mean, std, generator)
    while (out := (drawn < a) | (drawn > b)).any():
        drawn[out] = random.normal(drawn[out], mean, std, generator)
    with no_grad():
        return tensor.copy_(drawn)


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


def eye_(tensor: Tensor) -> Tensor:
    """Set a matrix to ones on the diagonal and zeros elsewhere."""
    with no_grad():
        return tensor.copy_(np.eye(tensor.shape[0], tensor.shape[1]))


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: random.Generator | None = None) -> Tensor:
    """Draw uniformly with variance 2 gain^2 / (fan in + fan out). Source: Glorot & Bengio 2010."""
    bound = gain * math.sqrt(6.0 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: random.Generator | None = None) -> Tensor:
    """Draw normally with variance 2 gain^2 / (fan in + fan out). Source: Glorot & Bengio 2010."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(fans(tensor))), generator)


def _std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise OpError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    return calculate_gain(nonlinearity, a) / math.sqrt(fans(tensor)[mode == "fan_out"])


def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: random.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Draw uniformly with variance gain^2 / fan. Source: He et al. 2015."""
    bound = math.sqrt(3.0) * _std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: random.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Draw normally with variance gain^2 / fan. Source: He et al. 2015."""
    return normal_(tensor, 0.0, _std(tensor, a, mode, nonlinearity), generator)


def orthogonal_(tensor: Tensor, gain: float = 1, generator: random.Generator | None = None) -> Tensor:
    """Set the rows, or the columns where they are fewer, orthonormal. Source: Saxe et al. 2013."""
    rows = tensor.shape[0]
    flat: Any = random.normal(np.empty((rows, tensor.numel() // rows)), 0.0, 1.0, generator)
    q, r = np.linalg.qr(flat if flat.shape[0] >= flat.shape[1] else flat.T)
    q = q * np.sign(np.diag(r))
    q = q if flat.shape[0] >= flat.shape[1] else q.T
    with no_grad():
        return tensor.copy_((gain * q).reshape(tensor.shape))
