"""Adam and AdamW. Source: Kingma & Ba 2015; Reddi et al. 2018 (amsgrad); Loshchilov & Hutter 2019 (decoupled decay)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...ops.op import namespace
from ...ops.optimize import adam_update
from ...ops.types import Array
from ..tensor.tensor import wrap
from .optimizer import Optimizer
from .settings import checked, count, number, steps


class Adam(Optimizer):
    """p -= lr m / (sqrt(v) + eps), with m and v the averages of the gradient and its square, free of their start at 0.

    Args:
        params: what is trained.
        lr: step size.
        betas: how much of the averages stays.
        eps: keeps the division finite.
        weight_decay: added to the gradient, times p.
        amsgrad: divide by the largest v so far.
        foreach, fused: how PyTorch runs the same step; they change nothing here.
        maximize: climb.
        capturable, differentiable: not there.
        decoupled_weight_decay: shrink p itself instead of adding to the gradient.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, amsgrad: bool = False, *, foreach: bool | None = None, maximize: bool = False,
        capturable: bool = False, differentiable: bool = False, fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:  # fmt: skip
        """Check and keep the settings; see the class."""
        checked(lr, betas, epsilon=eps, weight_decay=weight_decay)
        settings = {
            "lr": lr, "betas": tuple(map(number, betas)), "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
            "maximize": maximize, "foreach": foreach, "capturable": capturable, "differentiable": differentiable,
            "fused": fused, "decoupled_weight_decay": decoupled_weight_decay,
        }  # fmt: skip
        super().__init__(params, settings)

    def _update(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        xp, s = namespace(p), self._scratch(p)
        if not state:
            state.update((name, count(value)) for name, value in self._counts(state, group).items())
            state["exp_avg"], state["exp_avg_sq"] = wrap(xp.zeros_like(p)), wrap(xp.zeros_like(p))
            if group["amsgrad"]:
                state["max_exp_avg_sq"] = wrap(xp.zeros_like(p))
        self._advance(state, group)
        step, (b1, b2), lr = steps(state), group["betas"], number(group["lr"])
        m, v = state["exp_avg"]._array, state["exp_avg_sq"]._array
        if group["weight_decay"]:
            if group["decoupled_weight_decay"]:
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
            largest = state["max_exp_avg_sq"]._array
            v = xp.maximum(largest, v, out=largest)
        xp.sqrt(v, out=s)
        s /= math.sqrt(1 - b2**step)
        s += group["eps"]
        xp.divide(m, s, out=s)
        s *= lr / (1 - b1**step)
        xp.subtract(p, s, out=p)

    def _trace(
        self, p: Any, g: Any, state: Callable[[str], Any], group: dict[str, Any], numbers: Any, skip: Any
    ) -> tuple[Any, dict[str, Any]]:
        names = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])]
        mean, square, *largest = [state(name) for name in names]
        new = adam_update(
            p, g, mean, square, largest[0] if largest else None, numbers, skip, decays=bool(group["weight_decay"]),
            decoupled=bool(group["decoupled_weight_decay"]),
        )  # fmt: skip
        return new[0], dict(zip(names, new[1:], strict=True))

    def _numbers(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> list[Any]:
        step, (b1, b2), decay, lr = steps(state) + 1, group["betas"], group["weight_decay"], number(group["lr"])
        return [
            1 - lr * decay if group["decoupled_weight_decay"] else decay, 1 - b1, b2, 1 - b2, (1 - b2**step) ** 0.5,
            group["eps"], lr / (1 - b1**step),
        ]  # fmt: skip

    def _counts(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, float]:
        return {"step": 0.0}

    def _counted(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Any]:
        return {"step": steps(state) + 1}


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameters instead of joining the gradient."""

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False, foreach: bool | None = None,
        capturable: bool = False, differentiable: bool = False, fused: bool | None = None,
    ) -> None:  # fmt: skip
        """Check and keep the settings; see `Adam`."""
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, foreach=foreach, capturable=capturable,
            differentiable=differentiable, fused=fused, decoupled_weight_decay=True,
        )  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state; the decay stays decoupled, as in states that do not say so."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True
