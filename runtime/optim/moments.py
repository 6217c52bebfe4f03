"""Relatives of Adam: steps from running averages of the gradient and of its size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...ops import pointwise as pw
from ...ops.expr import Expr
from ..tensor.tensor import Tensor
from .elementwise import Elementwise, Stepped, blended, decay_number, decayed, mean_square
from .formulas import chosen
from .settings import checked, count, number, steps


class NAdam(Elementwise):
    """Adam with Nesterov's look ahead, its momentum growing with the number of steps. Source: Dozat 2016.

    Args:
        params: what is trained.
        lr: step size.
        betas: how much of the averages stays.
        eps: keeps the division finite.
        weight_decay: added to the gradient, times p.
        momentum_decay: how fast the momentum grows.
        decoupled_weight_decay: shrink p itself instead of adding to the gradient.
        foreach: how PyTorch runs the same step; it changes nothing here.
        maximize: climb.
        capturable, differentiable: not there.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, momentum_decay: float = 4e-3, decoupled_weight_decay: bool = False, *,
        foreach: bool | None = None, maximize: bool = False, capturable: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        """Check and keep the settings; see the class."""
        checked(lr, betas, epsilon=eps, weight_decay=weight_decay, momentum_decay=momentum_decay)
        settings = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize, "foreach": foreach,
            "capturable": capturable, "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, settings)

    def _names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return "exp_avg", "exp_avg_sq"

    def _momentum(self, group: Mapping[str, Any], step: Any) -> Any:
        return group["betas"][0] * (1 - 0.5 * 0.96 ** (step * group["momentum_decay"]))

    def _product(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> Any:
        """Return the product of all momenta, the coming step's included; a number in the type that it is held in."""
        found, momentum = state.get("mu_product", 1.0), self._momentum(group, steps(state) + 1)
        if isinstance(found, Expr):
            return found * momentum
        return ((found if isinstance(found, Tensor) else count(found))._array * momentum).item()

    def _numbers(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> list[Any]:
        step, (b1, b2), lr = steps(state) + 1, group["betas"], number(group["lr"])
        mu, after, product = self._momentum(group, step), self._momentum(group, step + 1), self._product(state, group)
        return [
            decay_number(group), 1 - b1, b2, 1 - b2, 1 - b2**step, group["eps"], lr * (1 - mu) / (1 - product),
            lr * after / (1 - product * after),
        ]  # fmt: skip

    def _step(self, p: Any, g: Any, s: Sequence[Any], n: Sequence[Any], group: dict[str, Any]) -> Stepped:
        decay, grow_mean, keep, grow, bias, eps, rate, ahead = n
        p, g = decayed(p, g, decay, group)
        mean, square = blended(s[0], g, grow_mean), mean_square(s[1], g, keep, grow)
        below = pw.add(pw.sqrt(pw.div(square, bias)), eps)
        p = pw.sub(pw.sub(p, pw.mul(pw.div(g, below), rate)), pw.mul(pw.div(mean, below), ahead))
        return p, mean, square

    def _counts(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, float]:
        return {"step": 0.0, "mu_product": 1.0}

    def _counted(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Any]:
        return {"step": steps(state) + 1, "mu_product": self._product(state, group)}


class RAdam(Elementwise):
    """Adam that divides only once the average square is certain enough. Source: Liu et al. 2020.

    Args:
        params: what is trained.
        lr: step size.
        betas: how much of the averages stays.
        eps: keeps the division finite.
        weight_decay: added to the gradient, times p.
        decoupled_weight_decay: shrink p itself instead of adding to the gradient.
        foreach: how PyTorch runs the same step; it changes nothing here.
        maximize: climb.
        capturable, differentiable: not there.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, decoupled_weight_decay: bool = False, *, foreach: bool | None = None,
        maximize: bool = False, capturable: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        """Check and keep the settings; see the class."""
        checked(lr, betas, epsilon=eps, weight_decay=weight_decay)
        settings = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "foreach": foreach, "capturable": capturable, "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, settings)

    def _names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return "exp_avg", "exp_avg_sq"

    def _numbers(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> list[Any]:
        step, (b1, b2), lr = steps(state) + 1, group["betas"], number(group["lr"])
        bias = 1 - b2**step
        longest = 2 / (1 - b2) - 1
        length = longest - 2 * step * b2**step / bias
        above, below = (length - 4) * (length - 2) * longest, (longest - 4) * (longest - 2) * length
        trusted = chosen(length > 5, (bias * above / chosen(length > 5, below, 1.0)) ** 0.5, 0.0)
        return [decay_number(group), 1 - b1, b2, 1 - b2, group["eps"], lr / (1 - b1**step), trusted]

    def _step(self, p: Any, g: Any, s: Sequence[Any], n: Sequence[Any], group: dict[str, Any]) -> Stepped:
        decay, grow_mean, keep, grow, eps, rate, trusted = n
        p, g = decayed(p, g, decay, group)
        mean, square = blended(s[0], g, grow_mean), mean_square(s[1], g, keep, grow)
        moved = pw.mul(mean, rate)
        scaled = pw.mul(pw.div(moved, pw.add(pw.sqrt(square), eps)), trusted)
        return pw.sub(p, pw.where(pw.greater(trusted, 0.0), scaled, moved)), mean, square


class Adamax(Elementwise):
    """Adam that divides by the largest recent gradient. Source: Kingma & Ba 2015, section 7.1.

    Args:
        params: what is trained.
        lr: step size.
        betas: how much of the average, and of the largest, stays.
        eps: added to the gradient's size.
        weight_decay: added to the gradient, times p.
        foreach: how PyTorch runs the same step; it changes nothing here.
        maximize: climb.
        differentiable, capturable: not there.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, foreach: bool | None = None, *, maximize: bool = False, differentiable: bool = False,
        capturable: bool = False,
    ) -> None:  # fmt: skip
        """Check and keep the settings; see the class."""
        checked(lr, betas, epsilon=eps, weight_decay=weight_decay)
        settings = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, settings)

    def _names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return "exp_avg", "exp_inf"

    def _numbers(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> list[Any]:
        b1, b2 = group["betas"]
        rate = number(group["lr"]) / (1 - b1 ** (steps(state) + 1))
        return [decay_number(group), 1 - b1, b2, group["eps"], rate]

    def _step(self, p: Any, g: Any, s: Sequence[Any], n: Sequence[Any], group: dict[str, Any]) -> Stepped:
        decay, grow, keep, eps, rate = n
        p, g = decayed(p, g, decay, group)
        mean = blended(s[0], g, grow)
        largest = pw.maximum(pw.mul(s[1], keep), pw.add(pw.abs_(g), eps))
        return pw.sub(p, pw.mul(pw.div(mean, largest), rate)), mean, largest


class Lion(Elementwise):
    """p -= lr sign(b1 m + (1 - b1) g), then m = b2 m + (1 - b2) g; p shrinks by lr weight_decay first.

    Source: Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2.

    Args:
        params: what is trained.
        lr: step size; a third to a tenth of AdamW's.
        betas: how much of the average takes part in the step, and how much of it stays.
        weight_decay: how fast p shrinks, times lr; three to ten times AdamW's.
        maximize: climb.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0,
        *, maximize: bool = False,
    ) -> None:  # fmt: skip
        """Check and keep the settings; see the class."""
        checked(lr, betas, weight_decay=weight_decay)
        settings = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, settings)

    def _names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("exp_avg",)

    def _numbers(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> list[Any]:
        lr, (b1, b2) = number(group["lr"]), group["betas"]
        return [1 - lr * group["weight_decay"], b1, 1 - b1, b2, 1 - b2, lr]

    def _step(self, p: Any, g: Any, s: Sequence[Any], n: Sequence[Any], group: dict[str, Any]) -> Stepped:
        decay, keep, grow, stays, joins, lr = n
        if group["weight_decay"]:
            p = pw.mul(p, decay)
        direction = pw.sign(pw.add(pw.mul(s[0], keep), pw.mul(g, grow)))
        return pw.sub(p, pw.mul(direction, lr)), pw.add(pw.mul(s[0], stays), pw.mul(g, joins))

    def _counts(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, float]:
        """Return nothing: Lion counts no steps."""
        return {}

    def _counted(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Any]:
        """Return nothing: Lion counts no steps."""
        return {}
