"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ...ops.errors import InputError
from ...ops.op import namespace
from ...ops.optimize import sgd_update
from ...ops.types import Array
from .optimizer import Optimizer, checked


class SGD(Optimizer):
    """p -= lr (momentum-averaged gradient).

    Args:
        params: what is trained.
        lr: step size.
        momentum: how much of the last average stays.
        dampening: how much of the gradient stays out of it.
        weight_decay: added to the gradient, times p.
        nesterov: look one step ahead. Source: Sutskever et al. 2013.
        maximize: climb.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        """Check and keep the settings; see the class."""
        checked(learning_rate=lr, momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise InputError("Nesterov momentum requires a momentum and zero dampening")
        settings = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, {**settings, "nesterov": nesterov, "maximize": maximize})

    def _update(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        xp, s = namespace(p), self._scratch(p)
        if group["weight_decay"]:
            decayed = self._scratch(p, 1)
            xp.multiply(p, group["weight_decay"], out=decayed)
            g = xp.add(decayed, g, out=decayed)
        momentum = group["momentum"]
        if momentum:
            buffer = state.get("momentum_buffer")
            if buffer is None:
                buffer = state["momentum_buffer"] = g.copy()
            else:
                buffer *= momentum
                buffer += xp.multiply(g, 1 - group["dampening"], out=s)
            if group["nesterov"]:
                xp.multiply(buffer, momentum, out=s)
                g = xp.add(g, s, out=s)
            else:
                g = buffer
        xp.multiply(g, group["lr"], out=s)
        xp.subtract(p, s, out=p)

    def _trace(
        self, p: Any, g: Any, state: Callable[[str], Any], group: dict[str, Any], numbers: Any
    ) -> tuple[Any, dict[str, Any]]:
        buffer = state("momentum_buffer") if group["momentum"] else None
        new = sgd_update(p, g, buffer, numbers, decays=bool(group["weight_decay"]), nesterov=bool(group["nesterov"]))
        return new[0], {} if buffer is None else {"momentum_buffer": new[1]}

    def _numbers(self, state: dict[str, Any], group: dict[str, Any]) -> list[float]:
        keep = 1 - group["dampening"] if "momentum_buffer" in state else 1.0
        return [group["lr"], group["weight_decay"], group["momentum"], keep]

    def _age(self, state: dict[str, Any]) -> Any:
        return "momentum_buffer" in state
