"""Schedules of the learning rate, by PyTorch's formulas: `step()` once an epoch (OneCycleLR: once a batch)."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Any

from ...ops.errors import InputError
from .optimizer import Optimizer


class LRScheduler:
    """Sets each group's `lr` from the number of steps; subclasses define `get_lr`.

    Args:
        optimizer: whose groups it sets.
        last_epoch: the steps that were taken before; -1 for none.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        """Keep the starting rates and take the first step."""
        self.optimizer, self.last_epoch = optimizer, last_epoch
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.step()

    def get_lr(self) -> list[float]:
        """Return the rate of each group at `last_epoch`."""
        raise NotImplementedError

    def step(self) -> None:
        """Take a step."""
        self.last_epoch += 1
        self._set(self.get_lr())

    def _set(self, rates: Sequence[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = lr
        self._last_lr = list(rates)

    def get_last_lr(self) -> list[float]:
        """Return the rate of each group."""
        return self._last_lr

    @property
    def _rates(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def _scaled(self, factor: float) -> list[float]:
        return [lr * factor for lr in self._rates]

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on."""
        return {k: v for k, v in self.__dict__.items() if k != "optimizer" and not callable(v)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` returned."""
        self.__dict__.update(state_dict)


class LambdaLR(LRScheduler):
    """The starting rate times a function of the number of steps; one function, or one a group."""

    def __init__(self, optimizer: Optimizer, lr_lambda: Any, last_epoch: int = -1) -> None:
        """Keep the functions."""
        groups = len(optimizer.param_groups)
        self._functions = lr_lambda if isinstance(lr_lambda, list | tuple) else [lr_lambda] * groups
        if len(self._functions) != groups:
            raise InputError(f"Expected {groups} lr_lambdas, but got {len(self._functions)}")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rate of each group."""
        return [lr * f(self.last_epoch) for f, lr in zip(self._functions, self.base_lrs, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on; the functions are the new scheduler's own."""
        return {k: v for k, v in super().state_dict().items() if k != "_functions"}


class StepLR(LRScheduler):
    """Multiply by gamma every `step_size` steps."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        """Keep the settings."""
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rate of each group."""
        due = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return self._scaled(self.gamma) if due else self._rates


class MultiStepLR(LRScheduler):
    """Multiply by gamma at each milestone."""

    def __init__(
        self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        """Keep the settings."""
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rate of each group."""
        at = self.milestones
        return self._scaled(
            self.gamma ** (bisect.bisect(at, self.last_epoch) - bisect.bisect_left(at, self.last_epoch))
        )


class ExponentialLR(LRScheduler):
    """Multiply by gamma every step."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        """Keep the settings."""
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rate of each group."""
        return self._scaled(self.gamma) if self.last_epoch > 0 else self._rates


class LinearLR(LRScheduler):
    """Go from one factor to another in a straight line, then stay."""

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        """Keep the settings."""
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rate of each group."""
        if self.last_epoch == 0:
            return self._scaled(self.start_factor)
        if self.last_epoch > self.total_iters:
            return self._rates
        rise = self.end_factor - self.start_factor
        return self._scaled(1 + rise / (self.total_iters * self.start_factor + (self.last_epoch - 1) * rise))


class CosineAnnealingLR(LRScheduler):
    """Half a cosine down to `eta_min` in `T_max` steps, and back. Source: Loshchilov & Hutter 2017."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        """Keep the settings."""
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rate of each group."""
        n, T, low = self.last_epoch, self.T_max, self.eta_min
        if n == 0:
            return self._rates
        if (n - 1 - T) % (2 * T) == 0:
            return [
                lr + (base - low) * (1 - math.cos(math.pi / T)) / 2
                for lr, base in zip(self._rates, self.base_lrs, strict=True)
            ]
        ratio = (1 + math.cos(math.pi * n / T)) / (1 + math.cos(math.pi * (n - 1) / T))
        return [ratio * (lr - low) + low for lr in self._rates]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half cosines that start anew, each `T_mult` times as long as the last. Source: Loshchilov & Hutter 2017."""

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        """Keep the settings."""
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rate of each group."""
        at, length = self.last_epoch, self.T_0
        while at >= length:
            at, length = at - length, length * self.T_mult
        share = (1 + math.cos(math.pi * at / length)) / 2
        return [self.eta_min + (base - self.eta_min) * share for base in self.base_lrs]


class OneCycleLR(LRScheduler):
    """Up to `max_lr` and down to almost nothing in `total_steps`, with momentum the other way.

    Source: Smith & Topin 2019.

    Args:
        optimizer: whose groups it sets.
        max_lr: the peak; one number, or one a group.
        total_steps: steps in all; or give `epochs` and `steps_per_epoch`.
        epochs: see `total_steps`.
        steps_per_epoch: see `total_steps`.
        pct_start: share of the steps that go up.
        anneal_strategy: `cos` or `linear`.
        cycle_momentum: whether momentum (or the first beta) moves too.
        base_momentum: its lowest.
        max_momentum: its highest.
        div_factor: the start is max_lr / div_factor.
        final_div_factor: the end is the start / final_div_factor.
        last_epoch: the steps that were taken before.
    """

    def __init__(
        self, optimizer: Optimizer, max_lr: Any, total_steps: int | None = None, epochs: int | None = None,
        steps_per_epoch: int | None = None, pct_start: float = 0.3, anneal_strategy: str = "cos",
        cycle_momentum: bool = True, base_momentum: float = 0.85, max_momentum: float = 0.95, div_factor: float = 25.0,
        final_div_factor: float = 1e4, last_epoch: int = -1,
    ) -> None:  # fmt: skip
        """Keep the settings; see the class."""
        if total_steps is None and (epochs is None or steps_per_epoch is None):
            raise InputError("You must define either total_steps OR (epochs AND steps_per_epoch)")
        if anneal_strategy not in ("cos", "linear"):
            raise InputError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}")
        self.total_steps = total_steps if total_steps is not None else (epochs or 0) * (steps_per_epoch or 0)
        self.pct_start, self.anneal_strategy, self.cycle_momentum = pct_start, anneal_strategy, cycle_momentum
        groups = optimizer.param_groups
        peaks = max_lr if isinstance(max_lr, list | tuple) else [max_lr] * len(groups)
        for group, peak in zip(groups, peaks, strict=True):
            group["initial_lr"], group["max_lr"] = peak / div_factor, peak
            group["min_lr"] = peak / div_factor / final_div_factor
            if cycle_momentum:
                group["base_momentum"], group["max_momentum"] = base_momentum, max_momentum
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rate of each group, and set its momentum."""
        n, up = self.last_epoch, float(self.pct_start * self.total_steps) - 1
        if n > self.total_steps:
            raise InputError(f"Tried to step {n} times. The specified number of total steps is {self.total_steps}")
        rates = []
        for group in self.optimizer.param_groups:
            low, high, end = group["initial_lr"], group["max_lr"], group["min_lr"]
            if n <= up:
                rates.append(self._between(low, high, n / up))
            else:
                rates.append(self._between(high, end, (n - up) / (self.total_steps - 1 - up)))
            if self.cycle_momentum:
                a, b = group["max_momentum"], group["base_momentum"]
                m = (
                    self._between(a, b, n / up)
                    if n <= up
                    else self._between(b, a, (n - up) / (self.total_steps - 1 - up))
                )
                if "betas" in group:
                    group["betas"] = (m, *group["betas"][1:])
                else:
                    group["momentum"] = m
        return rates

    def _between(self, start: float, end: float, share: float) -> float:
        if self.anneal_strategy == "linear":
            return (end - start) * share + start
        return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


class ReduceLROnPlateau:
    """Multiply by `factor` when a measure has not got better for `patience` steps: `step(measure)`.

    Args:
        optimizer: whose groups it sets.
        mode: `min` or `max`: what is better.
        factor: what the rate is multiplied by.
        patience: so many steps without improvement are let pass.
        threshold: what counts as improvement.
        threshold_mode: `rel` or `abs`.
        cooldown: steps after a change before counting again.
        min_lr: rates stay above.
        eps: smaller changes are not made.
    """

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10, threshold: float = 1e-4,
        threshold_mode: str = "rel", cooldown: int = 0, min_lr: float = 0, eps: float = 1e-8,
    ) -> None:  # fmt: skip
        """Keep the settings; see the class."""
        if factor >= 1.0:
            raise InputError("Factor should be < 1.0.")
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise InputError(f"mode {mode} or threshold_mode {threshold_mode} is unknown")
        self.optimizer, self.mode, self.factor, self.patience = optimizer, mode, factor, patience
        self.threshold, self.threshold_mode, self.cooldown = threshold, threshold_mode, cooldown
        self.min_lr, self.eps = min_lr, eps
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0

    def step(self, metrics: Any) -> None:
        """Take a step, with the measure as it is now."""
        now = float(metrics)
        self.last_epoch += 1
        if self._better(now):
            self.best, self.num_bad_epochs = now, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group in self.optimizer.param_groups:
                new = max(group["lr"] * self.factor, self.min_lr)
                if group["lr"] - new > self.eps:
                    group["lr"] = new
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _better(self, now: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            return sign * now > sign * self.best * (1 + sign * self.threshold)
        return sign * now > sign * self.best + self.threshold

    def get_last_lr(self) -> list[float]:
        """Return the rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on."""
        return {k: v for k, v in self.__dict__.items() if k != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` returned."""
        self.__dict__.update(state_dict)


__all__ = [
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "ReduceLROnPlateau",
    "StepLR",
]
