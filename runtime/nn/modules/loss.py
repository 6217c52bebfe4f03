"""Losses as modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from ...module import Module
from .. import functional as F


class _Loss(Module):
    """A function of input and target; `reduction` is `mean`, `sum` or `none`.

    Subclasses name the function and their settings with defaults, in PyTorch's order.
    """

    function: ClassVar[Callable[..., Any]]
    settings: ClassVar[dict[str, Any]] = {}
    buffers_first: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *args: Any, reduction: str = "mean", **kwargs: Any) -> None:
        super().__init__()
        self.reduction = reduction
        given = {**dict(zip((*self.buffers_first, *self.settings), args, strict=False)), **kwargs}
        known = {**dict.fromkeys(self.buffers_first), **self.settings}
        if unknown := [k for k in given if k not in known]:
            raise TypeError(f"{type(self).__name__}() has no argument {unknown}; it takes {[*known, 'reduction']}")
        for name in self.buffers_first:
            self.register_buffer(name, given.get(name))
        for name, default in self.settings.items():
            setattr(self, name, given.get(name, default))

    def forward(self, input: Any, target: Any) -> Any:
        """Compute the loss."""
        names = (*self.buffers_first, *self.settings)
        return type(self).function(input, target, reduction=self.reduction, **{n: getattr(self, n) for n in names})


class CrossEntropyLoss(_Loss):
    """Cross entropy of scores against class indices or probabilities; see `functional.cross_entropy`."""

    function = staticmethod(F.cross_entropy)
    buffers_first = ("weight",)
    settings: ClassVar[dict[str, Any]] = {"ignore_index": -100, "label_smoothing": 0.0}


class NLLLoss(_Loss):
    """Minus the log-probability of each target class."""

    function = staticmethod(F.nll_loss)
    buffers_first = ("weight",)
    settings: ClassVar[dict[str, Any]] = {"ignore_index": -100}


class MSELoss(_Loss):
    """The squared difference."""

    function = staticmethod(F.mse_loss)


class L1Loss(_Loss):
    """The absolute difference."""

    function = staticmethod(F.l1_loss)


class SmoothL1Loss(_Loss):
    """Squared near 0, absolute beyond beta."""

    function = staticmethod(F.smooth_l1_loss)
    settings: ClassVar[dict[str, Any]] = {"beta": 1.0}


class HuberLoss(_Loss):
    """Squared near 0, delta times absolute beyond delta."""

    function = staticmethod(F.huber_loss)
    settings: ClassVar[dict[str, Any]] = {"delta": 1.0}


class BCELoss(_Loss):
    """Binary cross entropy of probabilities."""

    function = staticmethod(F.binary_cross_entropy)
    buffers_first = ("weight",)


class BCEWithLogitsLoss(_Loss):
    """Binary cross entropy of scores."""

    function = staticmethod(F.binary_cross_entropy_with_logits)
    buffers_first = ("weight", "pos_weight")


class KLDivLoss(_Loss):
    """Divergence of log-probabilities from a target; `batchmean` is the mathematical one."""

    function = staticmethod(F.kl_div)
    settings: ClassVar[dict[str, Any]] = {"log_target": False}
