"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...ops.errors import InputError
from ...ops.op import namespace
from ...ops.optimize import sgd_update
from ...ops.types import Array
from ..tensor.tensor import wrap
from .formulas import chosen
from .optimizer import Optimizer
from .settings import checked, number, steps


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
        foreach, fused: how PyTorch runs the same step; they change nothing here.
        differentiable: not there.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-3, momentum: float = 0, dampening: float = 0, weight_decay: float = 0,
        nesterov: bool = False, *, maximize: bool = False, foreach: bool | None = None, differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:  # fmt: skip
        """Check and keep the settings; see the class."""
        checked(lr, momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise InputError("Nesterov momentum requires a momentum and zero dampening")
        settings = {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov,
            "maximize": maximize, "foreach": foreach, "differentiable": differentiable, "fused": fused,
        }  # fmt: skip
        super().__init__(params, settings)

    def _update(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        xp, s = namespace(p), self._scratch(p)
        if group["weight_decay"]:
            decayed = self._scratch(p, 1)
            xp.multiply(p, group["weight_decay"], out=decayed)
            g = xp.add(decayed, g, out=decayed)
        momentum = group["momentum"]
        if momentum:
            if state.get("momentum_buffer") is None or steps(state, 1) == 0:
                buffer = g.copy()
                state["momentum_buffer"] = wrap(buffer)
            else:
                buffer = state["momentum_buffer"]._array
                buffer *= momentum
                buffer += xp.multiply(g, 1 - group["dampening"], out=s)
            if group["nesterov"]:
                xp.multiply(buffer, momentum, out=s)
                g = xp.add(g, s, out=s)
            else:
                g = buffer
        xp.multiply(g, number(group["lr"]), out=s)
        xp.subtract(p, s, out=p)

    def _trace(
        self, p: Any, g: Any, state: Callable[[str], Any], group: dict[str, Any], numbers: Any, skip: Any
    ) -> tuple[Any, dict[str, Any]]:
        buffer = state("momentum_buffer") if group["momentum"] else None
        new = sgd_update(
            p, g, buffer, numbers, skip, decays=bool(group["weight_decay"]), nesterov=bool(group["nesterov"])
        )  # fmt: skip
        return new[0], {} if buffer is None else {"momentum_buffer": new[1]}

    def _numbers(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> list[Any]:
        keep = 1 - group["dampening"]
        if "step" in state:
            keep = chosen(steps(state) < 1, 1.0, keep)
        elif state.get("momentum_buffer") is None:
            keep = 1.0
        return [number(group["lr"]), group["weight_decay"], group["momentum"], keep]

    def _counts(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, float]:
        """Return whether there has been a first step, where that makes a difference and only a device may know."""
        if not (group["momentum"] and group["dampening"]):
            return {}
        return {"step": 0.0 if state.get("momentum_buffer") is None else 1.0}

    def _counted(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Any]:
        return {"step": steps(state) + 1} if "step" in state else {}

    def _age(self, state: dict[str, Any]) -> Any:
        return state.get("momentum_buffer") is not None, super()._age(state)
