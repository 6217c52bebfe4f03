"""Gradients kept within the range of float16: the loss is scaled before backward, gradients are scaled back after it.

Scale, growth count, factors and the flag of each check are Tensors of one element, which live where the loss does: one
number is read an eager step, not one a parameter. In a compiled function nothing is read: the program checks, changes
nothing where a gradient was not finite, and counts the steps that it takes.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ops import pointwise as pw
from ...ops.errors import InputError, TraceError, TrainingError
from ...ops.op import namespace
from ...ops.optimize import gradient_norm
from ...ops.types import Array
from ..autograd.grad_mode import MODE, no_grad
from ..graph.graph import Value
from ..optim.optimizer import Optimizer
from ..tensor.device import device as _device, device_of, to_device
from ..tensor.tensor import Tensor, wrap

READY, UNSCALED, STEPPED = "ready", "unscaled", "stepped"


@dataclass
class _Progress:
    """Where an optimizer is between two updates of the scale, and the flag of its last check.

    Attributes:
        optimizer: keeps it until the update that its check is for.
    """

    found: Tensor
    stage: str = READY
    checked: bool = False
    optimizer: Optimizer | None = None

    def begin(self) -> None:
        """Be ready for another step."""
        self.stage, self.checked, self.optimizer = READY, False, None


class GradScaler:
    """Scales losses so that float16 gradients do not vanish, and skips steps whose gradients overflowed.

    ```
    scaler = og.amp.GradScaler()
    with og.amp.autocast("float16"):
        loss = criterion(model(x), y)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    ```

    The scale grows by `growth_factor` after `growth_interval` steps in a row whose gradients were finite, and shrinks
    by `backoff_factor` after one whose were not. In a compiled function scale, backward, step and update belong
    together.

    Args:
        device: taken for PyTorch's sake; the scale lives where the losses do.
        init_scale: the first scale.
        growth_factor: above 1.
        backoff_factor: below 1.
        growth_interval: how many steps.
        enabled: False to do nothing: `scale` returns what it is given and `step` steps.

    Raises:
        InputError: if a factor is on the wrong side of 1.
    """

    def __init__(
        self, device: Any = "cuda", init_scale: float = 2.0**16, growth_factor: float = 2.0,
        backoff_factor: float = 0.5, growth_interval: int = 2000, enabled: bool = True,
    ) -> None:  # fmt: skip
        """Keep the settings; see the class."""
        if enabled and growth_factor <= 1:
            raise InputError("The growth factor must be > 1.0.")
        if enabled and backoff_factor >= 1:
            raise InputError("The backoff factor must be < 1.0.")
        _device(str(device))
        self._enabled = bool(enabled)
        self._scale = wrap(np.asarray(init_scale, np.float32))
        self._growth_tracker = wrap(np.asarray(0, np.int32))
        self._growth, self._backoff = wrap(np.zeros((), np.float32)), wrap(np.zeros((), np.float32))
        self._interval = wrap(np.zeros((), np.int32))
        self.set_growth_factor(growth_factor)
        self.set_backoff_factor(backoff_factor)
        self.set_growth_interval(growth_interval)
        self._progress: weakref.WeakKeyDictionary[Optimizer, _Progress] = weakref.WeakKeyDictionary()

    def scale(self, outputs: Any) -> Any:
        """Return losses times the scale: a Tensor, or a list or tuple of such.

        Raises:
            InputError: for something else.
        """
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            self._follow(outputs._array)
            return outputs * self._scale
        if isinstance(outputs, list | tuple):
            return type(outputs)(self.scale(v) for v in outputs)
        raise InputError(f"outputs must be a Tensor or an iterable of Tensors, found {type(outputs).__name__}")

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients of an optimizer's parameters by the scale, and note whether all are finite.

        For what reads gradients before `step`, such as clipping; `step` does it by itself else.

        Raises:
            TrainingError: a second time since the last `update`, or after `step`.
            InputError: if gradients are float16: parameters have to be float32.
        """
        if not self._enabled:
            return
        progress = self._of(optimizer)
        if MODE.trace is not None:
            self._follow(progress.found._array)
        progress.optimizer = optimizer
        if progress.stage == UNSCALED:
            raise TrainingError("unscale_() has already been called on this optimizer since the last update().")
        if progress.stage == STEPPED:
            raise TrainingError("unscale_() is being called after step().")
        gradients = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        if any(g.dtype == np.float16 for g in gradients):
            raise InputError("Attempting to unscale FP16 gradients.")
        if gradients:
            if MODE.trace is not None:
                self._unscale_traced(gradients, progress)
            else:
                self._unscale(gradients, progress)
            progress.checked = True
        progress.stage = UNSCALED

    def _unscale(self, gradients: Sequence[Tensor], progress: _Progress) -> None:
        self._follow(gradients[0]._array)
        xp = namespace(gradients[0]._array)
        found: Array = xp.zeros((), bool)
        inverse = 1 / self._scale._array
        with np.errstate(all="ignore"):
            for g in gradients:
                array = g._array
                found = xp.logical_or(found, xp.logical_not(xp.isfinite(array).all()))
                xp.multiply(array, inverse.astype(array.dtype), out=array)
                g._bump()
        progress.found._array = xp.asarray(found).astype(np.float32)

    def _unscale_traced(self, gradients: Sequence[Tensor], progress: _Progress) -> None:
        trace: Any = MODE.trace
        for t in (self._scale, progress.found, *gradients):
            trace.own(t)
        inverse = pw.reciprocal(self._scale._array)
        _, found = gradient_norm([g._array for g in gradients], [], p=2.0)
        for g in gradients:
            value: Any = g._array
            trace.assign(g, pw.mul(value, pw.cast(inverse, dtype=str(value.dtype))))
            g._bump()
        trace.assign(progress.found, found)

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """Let an optimizer step, unless a gradient was not finite; return what its `step` returns.

        Args:
            optimizer: whose gradients were computed from a scaled loss.
            args: for its `step`.
            kwargs: for its `step`; no closure.

        Raises:
            TrainingError: with a closure, a second time since the last `update`, or without any gradient.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs or args:
            raise TrainingError("Closure use is not currently supported if GradScaler is enabled.")
        progress = self._of(optimizer)
        if progress.stage == STEPPED:
            raise TrainingError("step() has already been called since the last update().")
        if progress.stage == READY:
            self.unscale_(optimizer)
        if not progress.checked:
            raise TrainingError("No inf checks were recorded for this optimizer.")
        progress.stage = STEPPED
        progress.optimizer = optimizer
        if MODE.trace is not None:
            if type(optimizer).step is not Optimizer.step:
                raise TraceError(
                    f"{type(optimizer).__name__} has a step of its own: call scaler.step() outside of what is compiled"
                )
            MODE.trace.steps.skips[id(optimizer)] = progress.found
            return optimizer.step(**kwargs)
        return None if progress.found.item() else optimizer.step(**kwargs)

    def update(self, new_scale: Any = None) -> None:
        """Adapt the scale to what the checks since the last update found.

        Args:
            new_scale: set the scale to this instead, a number or a Tensor of one element.

        Raises:
            TrainingError: if there was no check.
            InputError: if the new scale is something else.
        """
        if not self._enabled:
            return
        if new_scale is not None:
            self._set(new_scale)
        else:
            flags = [p.found for p in self._progress.values() if p.checked]
            if not flags:
                raise TrainingError(
                    "No inf checks were recorded prior to update. (What is compiled holds scale, step and update, or "
                    "none of them.)"
                )
            if MODE.trace is not None:
                self._update_traced(flags)
            else:
                self._update(flags)
        for progress in self._progress.values():
            progress.begin()

    def _update(self, flags: Sequence[Tensor]) -> None:
        self._scale._array, self._growth_tracker._array = self._adapted([f._array for f in flags])

    def _update_traced(self, flags: Sequence[Tensor]) -> None:
        trace: Any = MODE.trace
        for t in (*self._state, *flags):
            trace.own(t)
        new = self._adapted([f._array for f in flags])
        for t, value in zip((self._scale, self._growth_tracker), new, strict=True):
            trace.assign(t, value)
            t._bump()

    @property
    def _state(self) -> tuple[Tensor, ...]:
        return self._scale, self._growth_tracker, self._growth, self._backoff, self._interval

    def _adapted(self, flags: Sequence[Any]) -> tuple[Any, Any]:
        """Return the scale and the growth count after checks; of arrays, or of values of a trace."""
        scale, tracker, growth, backoff, interval = (t._array for t in self._state)
        found = pw.greater(functools.reduce(pw.add, flags), 0.0)
        count = pw.add(tracker, 1)
        full, grown = pw.equal(count, interval), pw.mul(scale, growth)
        fits = pw.logical_and(full, pw.less(grown, float("inf")))
        return (
            pw.where(found, pw.mul(scale, backoff), pw.where(fits, grown, scale)),
            pw.where(pw.logical_or(found, full), pw.sub(tracker, tracker), count),
        )

    def _set(self, new_scale: Any) -> None:
        if isinstance(new_scale, Tensor):
            if new_scale.numel() != 1 or new_scale.requires_grad:
                raise InputError("new_scale should be a float or a 1-element Tensor with requires_grad=False.")
            with no_grad():
                self._scale.copy_(new_scale.reshape(()))
        else:
            self._scale.fill_(float(new_scale))

    def _of(self, optimizer: Optimizer) -> _Progress:
        found = self._progress.get(optimizer)
        if found is None:
            where = MODE.trace.device if MODE.trace is not None else device_of(self._scale._array)
            found = self._progress[optimizer] = _Progress(wrap(to_device(np.zeros((), np.float32), where)))
        if MODE.trace is not None and self._forget not in MODE.trace.undo:
            MODE.trace.undo.append(self._forget)
        return found

    def _forget(self) -> None:
        """Begin anew behind a trace, which has computed nothing."""
        for progress in self._progress.values():
            progress.begin()

    def _follow(self, array: Array) -> None:
        """Move the state to where an array lies, or what is traced."""
        if isinstance(self._scale._array, Value):
            return
        where = MODE.trace.device if MODE.trace is not None else device_of(array)
        if device_of(self._scale._array) != where:
            for t in (*self._state, *(p.found for p in self._progress.values())):
                t._array = to_device(t._array, where)

    def get_scale(self) -> float:
        """Return the scale, 1 where it is not enabled; this reads it from the device."""
        return float(self._scale.item()) if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        """Return the growth factor."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Set the growth factor."""
        self._growth_factor = float(new_factor)
        self._growth.fill_(self._growth_factor)

    def get_backoff_factor(self) -> float:
        """Return the backoff factor."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set the backoff factor."""
        self._backoff_factor = float(new_factor)
        self._backoff.fill_(self._backoff_factor)

    def get_growth_interval(self) -> int:
        """Return the growth interval."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Set the growth interval."""
        self._growth_interval = int(new_interval)
        self._interval.fill_(self._growth_interval)

    def _get_growth_tracker(self) -> int:
        """Return how many steps in a row were finite; this reads it from the device."""
        return int(self._growth_tracker.item()) if self._enabled else 0

    def is_enabled(self) -> bool:
        """Return whether it does anything."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """Return the scale, the settings and the growth count as numbers; nothing where it is not enabled."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(), "growth_factor": self._growth_factor, "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval, "_growth_tracker": self._get_growth_tracker(),
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` returned, or PyTorch's.

        Raises:
            InputError: if it is empty.
        """
        if not self._enabled:
            return
        if not state_dict:
            raise InputError(
                "The source state dict is empty, possibly because it was saved from a disabled instance of GradScaler."
            )
        self._scale.fill_(float(state_dict["scale"]))
        self._growth_tracker.fill_(int(state_dict["_growth_tracker"]))
        self.set_growth_factor(state_dict["growth_factor"])
        self.set_backoff_factor(state_dict["backoff_factor"])
        self.set_growth_interval(state_dict["growth_interval"])

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy takes over.

        Raises:
            TrainingError: between `scale` and `update`.
        """
        if any(p.stage != READY for p in self._progress.values()):
            raise TrainingError(
                "A GradScaler instance may only be pickled at the beginning of an iteration, or at the end after "
                "scaler.update()."
            )
        return {k: v for k, v in self.__dict__.items() if k != "_progress"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Go on from what `__getstate__` returned."""
        self.__dict__.update(state, _progress=weakref.WeakKeyDictionary())
