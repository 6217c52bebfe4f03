"""Averages of a model's weights over training. Source: Izmailov et al. 2018; Polyak & Juditsky 1992 (exponential)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any, TypeAlias

import numpy as np

from ...ops.errors import InputError
from ..autograd.grad_mode import no_grad
from ..nn.module import Module
from ..tensor.tensor import Tensor
from .lr_scheduler.base import LRScheduler, one_a_group
from .optimizer import Optimizer

Averages: TypeAlias = Callable[[list[Tensor], list[Tensor], Any], None]
"""Moves averages in place towards the current values, given how many were averaged before."""


def _share(decay: float) -> float:
    if decay < 0.0 or decay > 1.0:
        raise InputError(f"Invalid decay value {decay} provided. Please provide a value in [0,1] range.")
    return 1 - decay


def get_ema_multi_avg_fn(decay: float = 0.999) -> Averages:
    """Return what moves a list of averages by 1 - decay of the way to the current values.

    Raises:
        InputError: if decay is not between 0 and 1.
    """
    share = _share(decay)

    @no_grad
    def ema_update(ema_param_list: list[Tensor], current_param_list: list[Tensor], _: Any) -> None:
        for average, now in zip(ema_param_list, current_param_list, strict=True):
            if average.is_floating_point():
                average.add_((now - average) * share)
            else:
                average.copy_(average * decay + now * share)

    return ema_update  # type: ignore[no-any-return]


def get_swa_multi_avg_fn() -> Averages:
    """Return what makes a list of averages those of one more set of values."""

    @no_grad
    def swa_update(averaged_param_list: list[Tensor], current_param_list: list[Tensor], num_averaged: Any) -> None:
        for average, now in zip(averaged_param_list, current_param_list, strict=True):
            if average.is_floating_point():
                average.add_((now - average) * (1 / (num_averaged + 1)))
            else:
                average.copy_(average + (now - average) / (num_averaged + 1))

    return swa_update  # type: ignore[no-any-return]


def get_ema_avg_fn(decay: float = 0.999) -> Callable[[Tensor, Tensor, Any], Tensor]:
    """Return what gives decay of an average and 1 - decay of the current value.

    Raises:
        InputError: if decay is not between 0 and 1.
    """
    share = _share(decay)

    @no_grad
    def ema_update(ema_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        return decay * ema_param + share * current_param

    return ema_update  # type: ignore[no-any-return]


def get_swa_avg_fn() -> Callable[[Tensor, Tensor, Any], Tensor]:
    """Return what gives the average of one more value."""

    @no_grad
    def swa_update(averaged_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        return averaged_param + (current_param - averaged_param) / (num_averaged + 1)  # type: ignore[no-any-return]

    return swa_update  # type: ignore[no-any-return]


class AveragedModel(Module):
    """A copy of a model whose weights are averages of those that `update_parameters` is shown.

    Args:
        model: what is copied.
        device: where the copy lies; the model's by default.
        avg_fn: gives a new average of (average, current value, how many before); equal weights by default.
        multi_avg_fn: the same in place, for lists.
        use_buffers: average buffers too; otherwise they are copied.
    """

    n_averaged: Tensor

    def __init__(
        self, model: Module, device: Any = None, avg_fn: Callable[[Tensor, Tensor, Any], Tensor] | None = None,
        multi_avg_fn: Averages | None = None, use_buffers: bool = False,
    ) -> None:  # fmt: skip
        """Copy the model; see the class for the arguments.

        Raises:
            AssertionError: if both functions are given.
        """
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = deepcopy(model)
        if device is not None:
            self.module = self.module.to(device=device)
        self.register_buffer("n_averaged", Tensor(np.zeros((), np.int64)).to(device=device))
        self.avg_fn, self.multi_avg_fn, self.use_buffers = avg_fn, multi_avg_fn, use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute with the averages."""
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Take a model's weights, as they are now, into the averages."""
        mine, theirs = (_averaged(m, self.use_buffers) for m in (self.module, model))
        averages = [p.detach() for p in mine]
        current = [q.detach().to(device=p.device) for p, q in zip(mine, theirs, strict=True)]
        with no_grad():
            if self.n_averaged.item() == 0:
                for p, q in zip(averages, current, strict=True):
                    p.copy_(q)
            elif self.multi_avg_fn is not None:
                self.multi_avg_fn(averages, current, self.n_averaged)
            else:
                average = self.avg_fn or get_swa_avg_fn()
                for p, q in zip(averages, current, strict=True):
                    p.copy_(average(p, q, self.n_averaged))
            if not self.use_buffers:
                for b, c in zip(self.module.buffers(), model.buffers(), strict=True):
                    b.detach().copy_(c.detach().to(device=b.device))
            self.n_averaged.add_(1)


def _averaged(model: Module, buffers: bool) -> list[Tensor]:
    return list(itertools.chain(model.parameters(), model.buffers()) if buffers else model.parameters())


def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Compute the running statistics of a model's batch norms anew, as plain averages over the batches.

    Args:
        loader: batches; of tuples and lists the first entry is the model's input.
        model: whose statistics they are.
        device: where inputs are moved.
    """
    momenta = {
        m: m.momentum for m in model.modules() if hasattr(m, "running_mean") and hasattr(m, "num_batches_tracked")
    }
    for norm in momenta:
        if norm.running_mean is not None:
            norm.running_mean.zero_()
            norm.running_var.fill_(1)
            norm.num_batches_tracked.zero_()
    if not momenta:
        return
    training = model.training
    model.train()
    try:
        for norm in momenta:
            norm.momentum = None
        with no_grad():
            for batch in loader:
                given = batch[0] if isinstance(batch, list | tuple) else batch
                model(given if device is None else given.to(device=device))
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        model.train(training)


def _linear(t: float) -> float:
    return t


def _cosine(t: float) -> float:
    return (1 - math.cos(math.pi * t)) / 2


class SWALR(LRScheduler):
    """Go from the rate as it is to a constant one.

    Args:
        optimizer: whose groups it sets.
        swa_lr: the constant; one number, or one a group.
        anneal_epochs: steps until it is reached.
        anneal_strategy: `cos` or `linear`.
        last_epoch: the steps that were taken before; -1 for none.
    """

    _unsaved = ("optimizer", "anneal_func")

    def __init__(
        self, optimizer: Optimizer, swa_lr: Any, anneal_epochs: int = 10, anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        """Keep the settings; see the class."""
        for rate, group in zip(one_a_group("swa_lr", optimizer, swa_lr), optimizer.param_groups, strict=True):
            group["swa_lr"] = rate
        if anneal_strategy not in ("cos", "linear"):
            raise InputError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}")
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise InputError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}")
        self._set_anneal_func(anneal_strategy)
        self.anneal_epochs = anneal_epochs
        super().__init__(optimizer, last_epoch)

    def _set_anneal_func(self, strategy: str) -> None:
        self._anneal_strategy = strategy
        self.anneal_func = _cosine if strategy == "cos" else _linear

    def get_lr(self) -> list[Any]:
        """Return the rate of each group."""
        self._check_within_step()
        step = max(1, self._step_count - 1) if self.anneal_epochs == 0 else self._step_count - 1
        before, now = (self.anneal_func(max(0.0, min(1.0, at / max(1, self.anneal_epochs)))) for at in (step - 1, step))
        rates = []
        for group in self.optimizer.param_groups:
            goal = group["swa_lr"]
            start = goal if before == 1 else (group["lr"] - before * goal) / (1 - before)
            rates.append(goal * now + start * (1 - now))
        return rates

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` returned."""
        super().load_state_dict(state_dict)
        self._set_anneal_func(self._anneal_strategy)


__all__ = [
    "SWALR",
    "AveragedModel",
    "get_ema_avg_fn",
    "get_ema_multi_avg_fn",
    "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
    "update_bn",
]
