"""Schedules that go up and down again, with momentum the other way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ....ops.errors import InputError
from ..optimizer import Optimizer
from .base import LRScheduler, function_state, momentum_key, one_a_group, put, put_momentum, wanted


class CyclicLR(LRScheduler):
    """Up from `base_lr` to `max_lr` and down, again and again. Source: Smith 2017.

    Args:
        optimizer: whose groups it sets.
        base_lr: the lowest; one number, or one a group.
        max_lr: the highest; one number, or one a group.
        step_size_up: steps up.
        step_size_down: steps down; as many by default.
        mode: `triangular`, `triangular2` (half as high each cycle) or `exp_range` (gamma^steps as high).
        gamma: see `mode`.
        scale_fn: factor of the height, instead of a mode.
        scale_mode: whether it is given the `cycle` or the `iterations`.
        cycle_momentum: whether momentum (or the first beta) moves too.
        base_momentum: its lowest.
        max_momentum: its highest.
        last_epoch: the steps that were taken before; -1 for none.
    """

    def __init__(
        self, optimizer: Optimizer, base_lr: Any, max_lr: Any, step_size_up: int = 2000,
        step_size_down: int | None = None, mode: str = "triangular", gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None, scale_mode: str = "cycle", cycle_momentum: bool = True,
        base_momentum: Any = 0.8, max_momentum: Any = 0.9, last_epoch: int = -1,
    ) -> None:  # fmt: skip
        """Keep the settings; see the class."""
        self.optimizer = wanted(optimizer)
        base_lrs = one_a_group("base_lr", optimizer, base_lr)
        if last_epoch == -1:
            for lr, group in zip(base_lrs, optimizer.param_groups, strict=True):
                put(group, "lr", lr)
        self.max_lrs = one_a_group("max_lr", optimizer, max_lr)
        up = float(step_size_up)
        self.total_size = up + (up if step_size_down is None else float(step_size_down))
        self.step_ratio = up / self.total_size
        if mode not in ("triangular", "triangular2", "exp_range") and scale_fn is None:
            raise InputError("mode is invalid and scale_fn is None")
        self.mode, self.gamma, self._scale_fn_custom, self.scale_mode = mode, gamma, scale_fn, scale_mode
        if scale_fn is None:
            self.scale_mode = "iterations" if mode == "exp_range" else "cycle"
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.use_beta1 = momentum_key(optimizer)
            self.base_momentums = one_a_group("base_momentum", optimizer, base_momentum)
            self.max_momentums = one_a_group("max_momentum", optimizer, max_momentum)
            if last_epoch == -1:
                _start_momentum(optimizer, self.base_momentums, self.max_momentums, self.use_beta1)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = base_lrs

    def scale_fn(self, x: float) -> float:
        """Return the factor of the height."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        match self.mode:
            case "triangular":
                return 1.0
            case "triangular2":
                return float(1 / 2.0 ** (x - 1))
        return float(self.gamma**x)

    def get_lr(self) -> list[Any]:
        """Return the rate of each group, and set its momentum."""
        self._check_within_step()
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        height = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        height *= self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            spans = zip(self.optimizer.param_groups, self.base_momentums, self.max_momentums, strict=True)
            for group, low, high in spans:
                put_momentum(group, high - (high - low) * height, self.use_beta1)
        return [low + (high - low) * height for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on: of a callable object its attributes, of a function nothing."""
        f = self._scale_fn_custom
        return {**super().state_dict(), "_scale_fn_custom": None if f is None else function_state(f)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` returned."""
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "_scale_fn_custom"})
        state = state_dict["_scale_fn_custom"]
        if state is not None and self._scale_fn_custom is not None:
            self._scale_fn_custom.__dict__.update(state)


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
        three_phase: go down to the start first, as fast as up, and then to the end.
        last_epoch: the steps that were taken before; -1 for none.
    """

    def __init__(
        self, optimizer: Optimizer, max_lr: Any, total_steps: int | None = None, epochs: int | None = None,
        steps_per_epoch: int | None = None, pct_start: float = 0.3, anneal_strategy: str = "cos",
        cycle_momentum: bool = True, base_momentum: Any = 0.85, max_momentum: Any = 0.95, div_factor: float = 25.0,
        final_div_factor: float = 1e4, three_phase: bool = False, last_epoch: int = -1,
    ) -> None:  # fmt: skip
        """Keep the settings; see the class."""
        self.optimizer = wanted(optimizer)
        self.total_steps = _total(total_steps, epochs, steps_per_epoch)
        if pct_start < 0 or pct_start > 1 or not isinstance(pct_start, float):
            raise InputError(f"Expected float between 0 and 1 pct_start, but got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise InputError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}")
        self._anneal_func_type = anneal_strategy
        self._schedule_phases = _phases(self.total_steps, pct_start, three_phase)
        peaks = one_a_group("max_lr", optimizer, max_lr)
        if last_epoch == -1:
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["initial_lr"], group["max_lr"] = peak / div_factor, peak
                group["min_lr"] = group["initial_lr"] / final_div_factor
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.use_beta1 = momentum_key(optimizer)
            lowest = one_a_group("base_momentum", optimizer, base_momentum)
            highest = one_a_group("max_momentum", optimizer, max_momentum)
            if last_epoch == -1:
                _start_momentum(optimizer, lowest, highest, self.use_beta1)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        """Return the rate of each group, and set its momentum.

        Raises:
            InputError: after the last step.
        """
        self._check_within_step()
        n = self.last_epoch
        if n > self.total_steps:
            raise InputError(f"Tried to step {n} times. The specified number of total steps is {self.total_steps}")
        begin = 0.0
        for phase in self._schedule_phases:
            end = phase["end_step"]
            if n <= end or phase is self._schedule_phases[-1]:
                break
            begin = end
        share = (n - begin) / (end - begin)
        rates = []
        for group in self.optimizer.param_groups:
            rates.append(self._between(group[phase["start_lr"]], group[phase["end_lr"]], share))
            if self.cycle_momentum:
                a, b = group[phase["start_momentum"]], group[phase["end_momentum"]]
                put_momentum(group, self._between(a, b, share), self.use_beta1)
        return rates

    def _between(self, start: Any, end: Any, share: float) -> Any:
        if self._anneal_func_type == "linear":
            return (end - start) * share + start
        return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)


def _start_momentum(optimizer: Optimizer, lowest: list[Any], highest: list[Any], use_beta1: bool) -> None:
    for group, low, high in zip(optimizer.param_groups, lowest, highest, strict=True):
        put_momentum(group, high, use_beta1)
        group["max_momentum"], group["base_momentum"] = high, low


def _total(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    if total_steps is not None:
        return _positive("total_steps", total_steps)
    if epochs is None or steps_per_epoch is None:
        raise InputError("You must define either total_steps OR (epochs AND steps_per_epoch)")
    return _positive("epochs", epochs) * _positive("steps_per_epoch", steps_per_epoch)


def _positive(name: str, value: int) -> int:
    if not isinstance(value, int) or value <= 0:
        raise InputError(f"Expected positive integer {name}, but got {value}")
    return value


def _phases(steps: int, share: float, three: bool) -> list[dict[str, Any]]:
    """Return where each phase ends, and between which settings of a group it goes."""
    first = float(share * steps) - 1
    ends = [first, float(2 * share * steps) - 2, steps - 1] if three else [first, steps - 1]
    rates = ["initial_lr", "max_lr", *(["initial_lr"] if three else []), "min_lr"]
    momenta = ["max_momentum", "base_momentum", "max_momentum", *(["max_momentum"] if three else [])]
    return [
        {
            "end_step": end, "start_lr": rates[i], "end_lr": rates[i + 1], "start_momentum": momenta[i],
            "end_momentum": momenta[i + 1],
        }
        for i, end in enumerate(ends)
    ]  # fmt: skip
