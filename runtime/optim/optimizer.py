"""What all optimizers share: parameter groups, state, and in-place steps.

A step writes into the parameters' own arrays and counts as a change of them; beside its state it needs scratch memory
of the size of the largest parameter only.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ...ops.errors import AutogradError, InputError, TraceError
from ...ops.op import namespace
from ...ops.types import Array
from ..grad_mode import MODE, enable_grad
from ..tensor import Tensor


class Optimizer:
    """Updates parameters by their gradients; subclasses define `_update`.

    Args:
        params: Tensors, (name, Tensor) pairs, or dictionaries with `params` and settings of their own.
        defaults: the settings of groups that have none.

    Raises:
        InputError: if there are no parameters, or one comes twice.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        """Group the parameters; see the class for the arguments."""
        self.defaults = defaults
        self.state: dict[Tensor, dict[str, Any]] = {}
        self.param_groups: list[dict[str, Any]] = []
        self._room: dict[tuple[Any, int], Array] = {}
        if isinstance(params, Tensor):
            raise InputError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, found a Tensor"
            )
        groups = list(params)
        if not groups:
            raise InputError("optimizer got an empty parameter list")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(dict(group))

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add parameters with settings of their own.

        Raises:
            InputError: if one is there already or is no Tensor.
            AutogradError: if one was computed.
        """
        given = group["params"]
        items = [given] if isinstance(given, Tensor) else list(given)
        if items and isinstance(items[0], tuple):
            group["param_names"] = [name for name, _ in items]
            items = [p for _, p in items]
        here = {id(p) for g in self.param_groups for p in g["params"]}
        for p in items:
            if not isinstance(p, Tensor):
                raise InputError(f"optimizer can only optimize Tensors, but one of the params is {type(p).__name__}")
            if not p.is_leaf:
                raise AutogradError("can't optimize a non-leaf Tensor")
            if id(p) in here:
                raise InputError("some parameters appear in more than one parameter group")
            here.add(id(p))
        self.param_groups.append({**self.defaults, **group, "params": items})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or make them zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                if MODE.trace is not None:
                    MODE.trace.own(p)
                    MODE.trace.zeroed.add(id(p))
                if set_to_none:
                    p.grad = None
                elif p.grad is not None:
                    p.grad = p.grad.detach().zero_()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: computes the loss and its gradients again; what it returns is returned.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        if MODE.trace is not None:
            MODE.trace.step(self)
            return loss
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                gradient = p.grad._array
                if group.get("maximize"):
                    gradient = -gradient
                with np.errstate(all="ignore"):
                    self._update(p._array, gradient, self.state.setdefault(p, {}), group)
                p._bump()
        return loss

    def _update(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Change p in place by its gradient g, which stays as it is."""
        raise NotImplementedError

    def _trace(
        self, p: Any, g: Any, state: Callable[[str], Any], group: dict[str, Any], numbers: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Return the new parameter and the new state as graph values; for compiled steps.

        Args:
            p: the parameter.
            g: its gradient.
            state: returns a piece of state by its name.
            group: the settings; of floats only whether they are 0 may be read.
            numbers: the vector that `_numbers` gives at each step.

        Raises:
            TraceError: if the optimizer has no compiled step.
        """
        raise TraceError(
            f"{type(self).__name__} has no compiled step; call optimizer.step() outside the compiled function"
        )

    def _numbers(self, state: dict[str, Any], group: dict[str, Any]) -> list[float]:
        """Return what the coming step's formula reads of settings and state."""
        return []

    def _advance(self, state: dict[str, Any]) -> None:
        """Count a step in the state."""

    def _age(self, state: dict[str, Any]) -> Any:
        """Return what parameters of a group have to share so that their numbers are the same."""
        return None

    def _scratch(self, like: Array, slot: int = 0) -> Array:
        """Return an array like this one that is free until the next parameter."""
        key = (like.dtype, slot)
        room = self._room.get(key)
        if room is None or room.size < like.size or type(room) is not type(like):
            room = self._room[key] = namespace(like).empty(like.size, like.dtype)
        return room[: like.size].reshape(like.shape)

    def state_dict(self) -> dict[str, Any]:
        """Return state and settings, parameters by their number."""
        numbers = {id(p): i for i, p in enumerate(p for g in self.param_groups for p in g["params"])}
        return {
            "state": {numbers[id(p)]: {k: _shown(v) for k, v in s.items()} for p, s in self.state.items()},
            "param_groups": [{**g, "params": [numbers[id(p)] for p in g["params"]]} for g in self.param_groups],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` returned.

        Raises:
            InputError: if groups or their sizes differ.
        """
        saved, own = state_dict["param_groups"], self.param_groups
        if len(saved) != len(own):
            raise InputError("loaded state dict has a different number of parameter groups")
        if any(len(a["params"]) != len(b["params"]) for a, b in zip(saved, own, strict=True)):
            raise InputError(
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's group"
            )
        params = [p for g in own for p in g["params"]]
        order = [i for g in saved for i in g["params"]]
        self.state = {}
        for number, p in zip(order, params, strict=True):
            if number in state_dict["state"]:
                self.state[p] = {k: _taken(v, p) for k, v in state_dict["state"][number].items()}
        for mine, theirs in zip(own, saved, strict=True):
            mine.update({k: copy.deepcopy(v) for k, v in theirs.items() if k != "params"})

    def __repr__(self) -> str:
        """Return the groups' settings, as PyTorch prints them."""
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {k}: {group[k]}" for k in sorted(group) if k != "params"]
        return "\n".join([*lines, ")"])


def _shown(v: Any) -> Any:
    return Tensor(v) if hasattr(v, "dtype") else v


def _taken(v: Any, p: Tensor) -> Any:
    """Return a copy of a piece of state as an array on the parameter's device."""
    if not isinstance(v, Tensor) and not hasattr(v, "dtype"):
        return v
    from ..device import to_device

    array = v._array if isinstance(v, Tensor) else v
    if not array.ndim and array.size == 1 and p.ndim:
        return array.item()
    return to_device(array.astype(p.dtype), p.device)


def checked(**settings: float) -> None:
    """Refuse negative settings.

    Raises:
        InputError: naming the first.
    """
    for name, value in settings.items():
        if value < 0:
            raise InputError(f"Invalid {name} value: {value}")
