"""Optimizers that give each element a rate of its own, by the squares or signs of its gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...ops import pointwise as pw
from ...ops.errors import InputError
from ...ops.types import Array
from ..tensor.tensor import wrap
from .elementwise import Elementwise, Stepped, blended, decay_number, decayed, filled, mean_square
from .formulas import larger, rounded
from .settings import checked, count, number, steps


class RMSprop(Elementwise):
    """p -= lr g / (sqrt(v) + eps), with v the average square. Source: Hinton 2012, lecture 6e; Graves 2013 (centered).

    Args:
        params: what is trained.
        lr: step size.
        alpha: how much of the average stays.
        eps: keeps the division finite.
        weight_decay: added to the gradient, times p.
        momentum: how much of the last step stays.
        centered: divide by the standard deviation instead.
        foreach: how PyTorch runs the same step; it changes nothing here.
        maximize: climb.
        capturable, differentiable: not there.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0,
        momentum: float = 0, centered: bool = False, capturable: bool = False, foreach: bool | None = None,
        maximize: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        """Check and keep the settings; see the class."""
        checked(lr, epsilon=eps, momentum=momentum, weight_decay=weight_decay, alpha=alpha)
        settings = {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
            "weight_decay": weight_decay, "capturable": capturable, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, settings)

    def _names(self, group: dict[str, Any]) -> tuple[str, ...]:
        held = (("momentum_buffer", group["momentum"]), ("grad_avg", group["centered"]))
        return ("square_avg", *(name for name, there in held if there))

    def _numbers(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> list[Any]:
        alpha = group["alpha"]
        return [decay_number(group), alpha, 1 - alpha, group["eps"], group["momentum"], number(group["lr"])]

    def _step(self, p: Any, g: Any, s: Sequence[Any], n: Sequence[Any], group: dict[str, Any]) -> Stepped:
        decay, keep, grow, eps, momentum, lr = n
        p, g = decayed(p, g, decay, group)
        square = mean_square(s[0], g, keep, grow)
        spread, kept = square, [square]
        if group["centered"]:
            mean = blended(s[-1], g, grow)
            spread = pw.sub(square, pw.mul(mean, mean))
        step = pw.div(g, pw.add(pw.sqrt(spread), eps))
        if group["momentum"]:
            step = pw.add(pw.mul(s[1], momentum), step)
            kept.append(step)
        if group["centered"]:
            kept.append(mean)
        return pw.sub(p, pw.mul(step, lr)), *kept


class Adagrad(Elementwise):
    """p -= lr g / (sqrt(the sum of all squares) + eps). Source: Duchi et al. 2011.

    Args:
        params: what is trained.
        lr: step size.
        lr_decay: how fast the step size falls.
        weight_decay: added to the gradient, times p.
        initial_accumulator_value: where the sum starts.
        eps: keeps the division finite.
        foreach, fused: how PyTorch runs the same step; they change nothing here.
        maximize: climb.
        differentiable: not there.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
        initial_accumulator_value: float = 0, eps: float = 1e-10, foreach: bool | None = None, *,
        maximize: bool = False, differentiable: bool = False, fused: bool | None = None,
    ) -> None:  # fmt: skip
        """Check and keep the settings; see the class."""
        checked(
            lr, lr_decay=lr_decay, weight_decay=weight_decay, initial_accumulator_value=initial_accumulator_value,
            epsilon=eps,
        )  # fmt: skip
        settings = {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "fused": fused,
        }  # fmt: skip
        super().__init__(params, settings)
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = {"step": count(0), "sum": wrap(self._initial(p._array, "sum", group))}

    def _initial(self, p: Array, name: str, group: dict[str, Any]) -> Array:
        return filled(p, self.defaults["initial_accumulator_value"])

    def _names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("sum",)

    def _numbers(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> list[Any]:
        return [decay_number(group), group["eps"], number(group["lr"]) / (1 + steps(state) * group["lr_decay"])]

    def _step(self, p: Any, g: Any, s: Sequence[Any], n: Sequence[Any], group: dict[str, Any]) -> Stepped:
        decay, eps, rate = n
        p, g = decayed(p, g, decay, group)
        total = pw.add(s[0], pw.mul(g, g))
        return pw.sub(p, pw.mul(pw.div(g, pw.add(pw.sqrt(total), eps)), rate)), total


class Adadelta(Elementwise):
    """Steps as large as recent steps, relative to recent gradients. Source: Zeiler 2012.

    Args:
        params: what is trained.
        lr: factor of the step.
        rho: how much of the averages stays.
        eps: keeps the division finite.
        weight_decay: added to the gradient, times p.
        foreach: how PyTorch runs the same step; it changes nothing here.
        capturable, differentiable: not there.
        maximize: climb.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0,
        foreach: bool | None = None, *, capturable: bool = False, maximize: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        """Check and keep the settings; see the class."""
        checked(lr, epsilon=eps, weight_decay=weight_decay)
        if not 0 <= rho <= 1:
            raise InputError(f"Invalid rho value: {rho}")
        settings = {
            "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "capturable": capturable, "foreach": foreach, "differentiable": differentiable,
        }  # fmt: skip
        super().__init__(params, settings)

    def _names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return "square_avg", "acc_delta"

    def _numbers(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> list[Any]:
        return [decay_number(group), group["rho"], 1 - group["rho"], group["eps"], number(group["lr"])]

    def _step(self, p: Any, g: Any, s: Sequence[Any], n: Sequence[Any], group: dict[str, Any]) -> Stepped:
        decay, keep, grow, eps, lr = n
        p, g = decayed(p, g, decay, group)
        square = mean_square(s[0], g, keep, grow)
        step = pw.mul(pw.div(pw.sqrt(pw.add(s[1], eps)), pw.sqrt(pw.add(square, eps))), g)
        return pw.sub(p, pw.mul(step, lr)), square, mean_square(s[1], step, keep, grow)


class Rprop(Elementwise):
    """Steps of sizes that grow while the gradient keeps its sign and shrink when it turns. Source: Riedmiller 1993.

    Args:
        params: what is trained.
        lr: the first step's size.
        etas: factors of the size when the sign turns and when it stays.
        step_sizes: the smallest and the largest.
        capturable, differentiable: not there.
        foreach: how PyTorch runs the same step; it changes nothing here.
        maximize: climb.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-2, etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50), *, capturable: bool = False, foreach: bool | None = None,
        maximize: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        """Check and keep the settings; see the class."""
        checked(lr)
        if not 0 < etas[0] < 1 < etas[1]:
            raise InputError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        settings = {
            "lr": lr, "etas": etas, "step_sizes": step_sizes, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, settings)

    def _initial(self, p: Array, name: str, group: dict[str, Any]) -> Array:
        return filled(p, number(group["lr"]) if name == "step_size" else 0)

    def _names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return "prev", "step_size"

    def _numbers(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> list[Any]:
        return [*group["etas"], *group["step_sizes"]]

    def _step(self, p: Any, g: Any, s: Sequence[Any], n: Sequence[Any], group: dict[str, Any]) -> Stepped:
        shrink, grow, smallest, largest = n
        agreed = pw.mul(g, s[0])
        stays, turned = pw.greater(agreed, 0.0), pw.less(agreed, 0.0)
        size = pw.where(stays, pw.mul(s[1], grow), pw.where(turned, pw.mul(s[1], shrink), s[1]))
        size = pw.minimum(pw.maximum(size, smallest), largest)
        g = pw.where(turned, 0.0, g)
        return pw.sub(p, pw.mul(pw.sign(g), size)), g, size

    def _age(self, state: dict[str, Any]) -> Any:
        return None


class ASGD(Elementwise):
    """Gradient descent that keeps the average of the parameters beside them. Source: Polyak & Juditsky 1992.

    Args:
        params: what is trained.
        lr: step size.
        lambd: how fast parameters shrink and the step size falls.
        alpha: the power of that fall.
        t0: the step at which averaging starts.
        weight_decay: added to the gradient, times p.
        foreach: how PyTorch runs the same step; it changes nothing here.
        maximize: climb.
        differentiable, capturable: not there.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1e-2, lambd: float = 1e-4, alpha: float = 0.75, t0: float = 1e6,
        weight_decay: float = 0, foreach: bool | None = None, maximize: bool = False, differentiable: bool = False,
        capturable: bool = False,
    ) -> None:  # fmt: skip
        """Check and keep the settings; see the class."""
        checked(lr, weight_decay=weight_decay)
        settings = {
            "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable,
        }  # fmt: skip
        super().__init__(params, settings)

    def _names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("ax",)

    def _numbers(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> list[Any]:
        eta = number(state["eta"] if "eta" in state else group["lr"])
        return [decay_number(group), 1 - group["lambd"] * eta, eta, number(state.get("mu", 1.0))]

    def _step(self, p: Any, g: Any, s: Sequence[Any], n: Sequence[Any], group: dict[str, Any]) -> Stepped:
        decay, shrink, eta, share = n
        p, g = decayed(p, g, decay, group)
        p = pw.sub(pw.mul(p, shrink), pw.mul(g, eta))
        return p, blended(s[0], p, share)

    def _counts(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, float]:
        return {"step": 0.0, "eta": number(group["lr"]), "mu": 1.0}

    def _counted(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Any]:
        step, lr = steps(state) + 1, number(group["lr"])
        eta = lr / (1 + group["lambd"] * lr * step) ** group["alpha"]
        return {"step": step, "eta": rounded(eta), "mu": rounded(1 / larger(1, step - group["t0"]))}
