"""Activations as modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from ...module import Module, Parameter
from .. import functional as F


class _Activation(Module):
    """A function of one Tensor; subclasses name the function and, in order, its settings with their defaults."""

    function: ClassVar[Callable[..., Any]]
    settings: ClassVar[dict[str, Any]] = {}

    def __init__(self, *args: Any, inplace: bool = False, **kwargs: Any) -> None:
        super().__init__()
        if len(args) > len(self.settings):
            inplace, args = args[-1], args[:-1]  # PyTorch's last argument
        given = {**dict(zip(self.settings, args, strict=False)), **kwargs}
        if unknown := [k for k in given if k not in self.settings]:
            raise TypeError(f"{type(self).__name__}() has no argument {unknown}; it takes {list(self.settings)}")
        for name, default in self.settings.items():
            setattr(self, name, given.get(name, default))
        self.inplace = bool(inplace)

    def forward(self, input: Any) -> Any:
        """Apply the function."""
        return type(self).function(input, **{name: getattr(self, name) for name in self.settings})

    def extra_repr(self) -> str:
        """Return the settings that PyTorch shows."""
        shown = [f"{k}={v!r}" for k, v in ((k, getattr(self, k)) for k in self.settings)]
        return ", ".join(shown + (["inplace=True"] if self.inplace else []))


class ReLU(_Activation):
    """max(x, 0)."""

    function = staticmethod(F.relu)


class ReLU6(_Activation):
    """x kept between 0 and 6."""

    function = staticmethod(F.relu6)


class Hardtanh(_Activation):
    """x kept between two bounds."""

    function = staticmethod(F.hardtanh)
    settings: ClassVar[dict[str, Any]] = {"min_val": -1.0, "max_val": 1.0}


class LeakyReLU(_Activation):
    """x, or a small multiple of it where it is negative."""

    function = staticmethod(F.leaky_relu)
    settings: ClassVar[dict[str, Any]] = {"negative_slope": 0.01}


class ELU(_Activation):
    """x, or alpha (e^x - 1) where x is negative."""

    function = staticmethod(F.elu)
    settings: ClassVar[dict[str, Any]] = {"alpha": 1.0}


class CELU(_Activation):
    """x, or alpha (e^(x / alpha) - 1) where x is negative."""

    function = staticmethod(F.celu)
    settings: ClassVar[dict[str, Any]] = {"alpha": 1.0}


class SELU(_Activation):
    """ELU that keeps mean 0 and variance 1."""

    function = staticmethod(F.selu)


class GELU(_Activation):
    """x Phi(x)."""

    function = staticmethod(F.gelu)
    settings: ClassVar[dict[str, Any]] = {"approximate": "none"}


class SiLU(_Activation):
    """x sigmoid(x)."""

    function = staticmethod(F.silu)


class Mish(_Activation):
    """x tanh(softplus(x))."""

    function = staticmethod(F.mish)


class Sigmoid(_Activation):
    """1 / (1 + e^-x)."""

    function = staticmethod(F.sigmoid)


class LogSigmoid(_Activation):
    """The logarithm of sigmoid."""

    function = staticmethod(F.logsigmoid)


class Hardsigmoid(_Activation):
    """x / 6 + 1 / 2, kept between 0 and 1."""

    function = staticmethod(F.hardsigmoid)


class Hardswish(_Activation):
    """x hardsigmoid(x)."""

    function = staticmethod(F.hardswish)


class Tanh(_Activation):
    """The hyperbolic tangent."""

    function = staticmethod(F.tanh)


class Softplus(_Activation):
    """log(1 + e^(beta x)) / beta."""

    function = staticmethod(F.softplus)
    settings: ClassVar[dict[str, Any]] = {"beta": 1.0, "threshold": 20.0}


class Softsign(_Activation):
    """x / (1 + |x|)."""

    function = staticmethod(F.softsign)


class Softmax(_Activation):
    """e^x over its sum along an axis."""

    function = staticmethod(F.softmax)
    settings: ClassVar[dict[str, Any]] = {"dim": -1}


class LogSoftmax(_Activation):
    """The logarithm of softmax along an axis."""

    function = staticmethod(F.log_softmax)
    settings: ClassVar[dict[str, Any]] = {"dim": -1}


class GLU(_Activation):
    """The first half along an axis, times sigmoid of the second."""

    function = staticmethod(F.glu)
    settings: ClassVar[dict[str, Any]] = {"dim": -1}


class PReLU(Module):
    """x, or a learnt multiple of it where it is negative.

    Args:
        num_parameters: 1, or the number of channels.
        init: where the multiples start.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.weight = Parameter(np.full(num_parameters, init, np.float32))

    def forward(self, input: Any) -> Any:
        """Apply it."""
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        """Return the number of multiples."""
        return f"num_parameters={self.num_parameters}"
