"""Activations as modules."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, ClassVar

from ....ops.errors import OpError, ShapeError
from .. import functional as F, init
from ..module import Module
from .dense import blank


class _Plain(Module):
    """A function of one Tensor, without settings."""

    function: ClassVar[Callable[..., Any]]

    def forward(self, input: Any) -> Any:
        """Apply the function."""
        return type(self).function(input)


class _InPlace(Module):
    """A function of one Tensor that takes `inplace`."""

    function: ClassVar[Callable[..., Any]]

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        """Apply the function."""
        return type(self).function(input, inplace=self.inplace)

    def extra_repr(self) -> str:
        """Return whether it works in place."""
        return "inplace=True" if self.inplace else ""


class _Alpha(Module):
    """A function of one Tensor and a scale of its negative side."""

    function: ClassVar[Callable[..., Any]]

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha, self.inplace = alpha, inplace

    def forward(self, input: Any) -> Any:
        """Apply the function."""
        return type(self).function(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"alpha={self.alpha}{_tail(self.inplace)}"


class _Lambd(Module):
    """A function of one Tensor and a bound."""

    function: ClassVar[Callable[..., Any]]

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Any) -> Any:
        """Apply the function."""
        return type(self).function(input, self.lambd)

    def extra_repr(self) -> str:
        """Return the bound."""
        return f"{self.lambd}"


class _Dim(Module):
    """A function of one Tensor along an axis."""

    function: ClassVar[Callable[..., Any]]

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Any) -> Any:
        """Apply the function."""
        return type(self).function(input, self.dim, _stacklevel=5)

    def extra_repr(self) -> str:
        """Return the axis."""
        return f"dim={self.dim}"


def _tail(inplace: bool) -> str:
    return ", inplace=True" if inplace else ""


class Threshold(Module):
    """x where it is above a threshold, else a value."""

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold, self.value, self.inplace = threshold, value, inplace

    def forward(self, input: Any) -> Any:
        """Apply it."""
        return F.threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"threshold={self.threshold}, value={self.value}{_tail(self.inplace)}"


class ReLU(_InPlace):
    """max(x, 0)."""

    function = staticmethod(F.relu)


class RReLU(Module):
    """x, or a multiple of it where it is negative: at random between two bounds while training, else their mean."""

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, inplace: bool = False) -> None:
        super().__init__()
        self.lower, self.upper, self.inplace = lower, upper, inplace

    def forward(self, input: Any) -> Any:
        """Apply it."""
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        """Return the bounds."""
        return f"lower={self.lower}, upper={self.upper}{_tail(self.inplace)}"


class Hardtanh(Module):
    """x kept between two bounds; `min_value` and `max_value` are names that PyTorch has given up."""

    def __init__(
        self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False, min_value: float | None = None,
        max_value: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        for name, value in (("min", min_value), ("max", max_value)):
            if value is not None:
                warnings.warn(
                    f"keyword argument `{name}_value` is deprecated and renamed to `{name}_val`",
                    FutureWarning,
                    stacklevel=2,
                )
        self.min_val = min_val if min_value is None else min_value
        self.max_val = max_val if max_value is None else max_value
        self.inplace = inplace
        if self.max_val <= self.min_val:
            raise OpError(f"max_val ({self.max_val}) must be greater than min_val ({self.min_val})")

    def forward(self, input: Any) -> Any:
        """Apply it."""
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        """Return the bounds."""
        return f"min_val={self.min_val}, max_val={self.max_val}{_tail(self.inplace)}"


class ReLU6(Hardtanh):
    """x kept between 0 and 6."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)

    def extra_repr(self) -> str:
        """Return whether it works in place."""
        return "inplace=True" if self.inplace else ""


class LeakyReLU(Module):
    """x, or a small multiple of it where it is negative."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope, self.inplace = negative_slope, inplace

    def forward(self, input: Any) -> Any:
        """Apply it."""
        return F.leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self) -> str:
        """Return the slope."""
        return f"negative_slope={self.negative_slope}{_tail(self.inplace)}"


class PReLU(Module):
    """x, or a learnt multiple of it where it is negative.

    Args:
        num_parameters: 1, or the number of channels.
        init: where the multiples start.
        device: where they lie.
        dtype: their element type.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters, self.init = num_parameters, init
        self.weight = blank((num_parameters,), dtype, device)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the multiples to where they start."""
        init.constant_(self.weight, self.init)

    def forward(self, input: Any) -> Any:
        """Apply it."""
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        """Return the number of multiples."""
        return f"num_parameters={self.num_parameters}"


class ELU(_Alpha):
    """x, or alpha (e^x - 1) where x is negative."""

    function = staticmethod(F.elu)


class CELU(_Alpha):
    """x, or alpha (e^(x / alpha) - 1) where x is negative."""

    function = staticmethod(F.celu)


class SELU(_InPlace):
    """ELU that keeps mean 0 and variance 1."""

    function = staticmethod(F.selu)


class GELU(Module):
    """x Phi(x), exact (`none`) or by `tanh`."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Any) -> Any:
        """Apply it."""
        return F.gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        """Return how it is computed."""
        return f"approximate={self.approximate!r}"


class SiLU(_InPlace):
    """x sigmoid(x)."""

    function = staticmethod(F.silu)


class Mish(_InPlace):
    """x tanh(softplus(x))."""

    function = staticmethod(F.mish)


class Sigmoid(_Plain):
    """1 / (1 + e^-x)."""

    function = staticmethod(F.sigmoid)


class LogSigmoid(_Plain):
    """The logarithm of sigmoid."""

    function = staticmethod(F.logsigmoid)


class Hardsigmoid(_InPlace):
    """x / 6 + 1 / 2, kept between 0 and 1."""

    function = staticmethod(F.hardsigmoid)

    def extra_repr(self) -> str:
        """Return nothing, as PyTorch does."""
        return ""


class Hardswish(_InPlace):
    """x hardsigmoid(x)."""

    function = staticmethod(F.hardswish)

    def extra_repr(self) -> str:
        """Return nothing, as PyTorch does."""
        return ""


class Hardshrink(_Lambd):
    """0 where |x| is not above a bound, else x."""

    function = staticmethod(F.hardshrink)


class Softshrink(_Lambd):
    """x moved towards 0 by a bound."""

    function = staticmethod(F.softshrink)


class Tanh(_Plain):
    """The hyperbolic tangent."""

    function = staticmethod(F.tanh)


class Tanhshrink(_Plain):
    """x - tanh(x)."""

    function = staticmethod(F.tanhshrink)


class Softplus(Module):
    """log(1 + e^(beta x)) / beta."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Any) -> Any:
        """Apply it."""
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"beta={self.beta}, threshold={self.threshold}"


class Softsign(_Plain):
    """x / (1 + |x|)."""

    function = staticmethod(F.softsign)


class Softmax(_Dim):
    """e^x over its sum along an axis."""

    function = staticmethod(F.softmax)


class Softmin(_Dim):
    """Softmax of -x along an axis."""

    function = staticmethod(F.softmin)


class LogSoftmax(_Dim):
    """The logarithm of softmax along an axis."""

    function = staticmethod(F.log_softmax)


class Softmax2d(Module):
    """Softmax over the channels of (N, C, H, W) or (C, H, W)."""

    def forward(self, input: Any) -> Any:
        """Apply it.

        Raises:
            ShapeError: if the input has another rank.
        """
        if input.ndim not in (3, 4):
            raise ShapeError(f"Softmax2d: expected input to be 3D or 4D, got {input.ndim}D instead")
        return F.softmax(input, -3)


class GLU(Module):
    """The first half along an axis, times sigmoid of the second."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Any) -> Any:
        """Apply it."""
        return F.glu(input, self.dim)

    def extra_repr(self) -> str:
        """Return the axis."""
        return f"dim={self.dim}"
