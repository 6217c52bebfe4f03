"""Adam and AdamW. Source: Kingma & Ba 2015; Reddi et al. 2018 (amsgrad); Loshchilov & Hutter 2019 (decoupled decay)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from ...ops.errors import InputError
from ...ops.op import namespace
from ...ops.optimize import adam_update
from ...ops.types import Array
from .optimizer import Optimizer, checked


class Adam(Optimizer):
    """p -= lr m / (sqrt(v) + eps), with m and v the averages of the gradient and its square, free of their start at 0.

    Args:
        params: what is trained.
        lr: step size.
        betas: how much of the averages stays.
        eps: keeps the division finite.
        weight_decay: added to the gradient, times p; AdamW instead shrinks p itself.
        amsgrad: divide by the largest v so far.
        maximize: climb.
    """

    decoupled = False

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, amsgrad: bool = False, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        """Check and keep the settings; see the class."""
        checked(learning_rate=lr, epsilon=eps, weight_decay=weight_decay)
        for i, beta in enumerate(betas):
            if not 0 <= beta < 1:
                raise InputError(f"Invalid beta parameter at index {i}: {beta}")
        settings = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**settings, "amsgrad": amsgrad, "maximize": maximize})

    def _update(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        xp, s = namespace(p), self._scratch(p)
        if not state:
            state["step"] = 0
            state["exp_avg"], state["exp_avg_sq"] = xp.zeros_like(p), xp.zeros_like(p)
            if group["amsgrad"]:
                state["max_exp_avg_sq"] = xp.zeros_like(p)
        state["step"] += 1
        m, v, (b1, b2), lr = state["exp_avg"], state["exp_avg_sq"], group["betas"], group["lr"]
        if group["weight_decay"]:
            if self.decoupled:
                p *= 1 - lr * group["weight_decay"]
            else:
                decayed = self._scratch(p, 1)
                xp.multiply(p, group["weight_decay"], out=decayed)
                g = xp.add(decayed, g, out=decayed)
        xp.subtract(g, m, out=s)
        s *= 1 - b1
        m += s
        v *= b2
        xp.multiply(g, g, out=s)
        s *= 1 - b2
        v += s
        if group["amsgrad"]:
            v = xp.maximum(state["max_exp_avg_sq"], v, out=state["max_exp_avg_sq"])
        xp.sqrt(v, out=s)
        s /= math.sqrt(1 - b2 ** state["step"])
        s += group["eps"]
        xp.divide(m, s, out=s)
        s *= lr / (1 - b1 ** state["step"])
        xp.subtract(p, s, out=p)

    def _trace(
        self, p: Any, g: Any, state: Callable[[str], Any], group: dict[str, Any], numbers: Any
    ) -> tuple[Any, dict[str, Any]]:
        names = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])]
        mean, square, *largest = [state(name) for name in names]
        new = adam_update(
            p, g, mean, square, largest[0] if largest else None, numbers, decays=bool(group["weight_decay"]),
            decoupled=self.decoupled,
        )  # fmt: skip
        return new[0], dict(zip(names, new[1:], strict=True))

    def _numbers(self, state: dict[str, Any], group: dict[str, Any]) -> list[float]:
        step, (b1, b2), decay = state.get("step", 0) + 1, group["betas"], group["weight_decay"]
        return [
            1 - group["lr"] * decay if self.decoupled else decay, 1 - b1, b2, 1 - b2, math.sqrt(1 - b2**step),
            group["eps"], group["lr"] / (1 - b1**step),
        ]  # fmt: skip

    def _advance(self, state: dict[str, Any]) -> None:
        state["step"] = state.get("step", 0) + 1

    def _age(self, state: dict[str, Any]) -> Any:
        return state.get("step", 0)


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameters instead of joining the gradient."""

    decoupled = True

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        """Check and keep the settings; see `Adam`."""
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
