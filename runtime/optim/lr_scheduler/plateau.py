"""A schedule that waits for progress to stop."""

from __future__ import annotations

import math
import warnings
from typing import Any

from ....ops.errors import InputError, TrainingError
from ..optimizer import Optimizer
from ..settings import number
from .base import EPOCH_DEPRECATED, LRScheduler, put, wanted


class ReduceLROnPlateau(LRScheduler):
    """Multiply by `factor` where a measure has not improved for `patience` steps.

    Args:
        optimizer: whose groups it sets.
        mode: `min` or `max`, which is better.
        factor: what rates are multiplied by.
        patience: so many steps without improvement are let pass.
        threshold: what counts as improvement.
        threshold_mode: `rel` or `abs`.
        cooldown: steps after a change before counting again.
        min_lr: rates stay above; one number, or one a group.
        eps: smaller changes are not made.
    """

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10, threshold: float = 1e-4,
        threshold_mode: str = "rel", cooldown: int = 0, min_lr: Any = 0, eps: float = 1e-8,
    ) -> None:  # fmt: skip
        """Keep the settings; see the class."""
        if factor >= 1.0:
            raise InputError("Factor should be < 1.0.")
        if mode not in ("min", "max"):
            raise InputError(f"mode {mode} is unknown!")
        if threshold_mode not in ("rel", "abs"):
            raise InputError(f"threshold mode {threshold_mode} is unknown!")
        self.optimizer = wanted(optimizer)
        groups = len(optimizer.param_groups)
        several = isinstance(min_lr, list | tuple)
        if several and len(min_lr) != groups:
            raise InputError(f"expected {groups} min_lrs, got {len(min_lr)}")
        self.default_min_lr = None if several else min_lr
        self.min_lrs = list(min_lr) if several else [min_lr] * groups
        self.mode, self.factor, self.patience, self.cooldown = mode, factor, patience, cooldown
        self.threshold, self.threshold_mode, self.eps = threshold, threshold_mode, eps
        self.last_epoch = self.cooldown_counter = self.num_bad_epochs = 0
        self.best = self.mode_worse = math.inf if mode == "min" else -math.inf
        self._last_lr = self._rates()

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
        """Take a step, with the measure as it is now."""
        now = float(metrics)
        if epoch is not None:
            warnings.warn(EPOCH_DEPRECATED, UserWarning, stacklevel=2)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self._is_better(now, self.best):
            self.best, self.num_bad_epochs = now, 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce_lr()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._last_lr = self._rates()

    @property
    def in_cooldown(self) -> bool:
        """Whether steps are not counted, so soon after a change."""
        return self.cooldown_counter > 0

    def _reduce_lr(self) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.min_lrs):
            if self.default_min_lr is None:
                raise TrainingError(
                    f"The number of param groups in the `optimizer` ({len(groups)}) differs from when "
                    f"`ReduceLROnPlateau` was initialized ({len(self.min_lrs)}), usually due to a new param group "
                    "being added to the optimizer. Please modify the `min_lrs` field to match the length of the "
                    "`optimizer` param groups."
                )
            self.min_lrs = [self.default_min_lr] * len(groups)
        for group, lowest in zip(groups, self.min_lrs, strict=True):
            old = number(group["lr"])
            new = max(old * self.factor, lowest)
            if old - new > self.eps:
                put(group, "lr", new)

    def _is_better(self, a: float, best: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            return sign * a > sign * (best * (1.0 + sign * self.threshold))
        return sign * a > sign * best + self.threshold
