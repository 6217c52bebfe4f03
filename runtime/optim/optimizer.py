"""What all optimizers share: parameter groups, state, hooks, and in-place steps.

A step writes into the parameters' own arrays and counts as a change of them. State is what PyTorch keeps, by its names,
as Tensors, so that state dicts of either fit the other.
"""

from __future__ import annotations

import copy
import functools
import itertools
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ...ops.errors import InputError, TraceError, TrainingError
from ...ops.op import namespace
from ...ops.places import HOST, place_of
from ...ops.types import Array
from ..autograd.grad_mode import MODE, enable_grad
from ..autograd.hooks import RemovableHandle
from ..cuda.guard import placed
from ..tensor.device import to_device
from ..tensor.tensor import Tensor, wrap
from .settings import COUNTS, age, recount


def _hooked(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return a step that runs the hooks around it and notes that it was called."""

    @functools.wraps(step)
    def run(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        for hook in list(self._optimizer_step_pre_hooks.values()):
            changed = hook(self, args, kwargs)
            if changed is not None:
                if not isinstance(changed, tuple) or len(changed) != 2:
                    raise TrainingError(
                        f"{step.__qualname__} must return None or a tuple of (new_args, new_kwargs), but got {changed}."
                    )
                args, kwargs = changed
        self._opt_called = True
        out = step(self, *args, **kwargs)
        for hook in list(self._optimizer_step_post_hooks.values()):
            hook(self, args, kwargs)
        return out

    run.notes_call = True  # type: ignore[attr-defined]
    return run


class Optimizer:
    """Updates parameters by their gradients; subclasses define `_update`, or `step` itself as in PyTorch.

    Args:
        params: Tensors, (name, Tensor) pairs, or dictionaries with `params` and settings of their own.
        defaults: the settings of groups that have none.

    Raises:
        InputError: if there are no parameters, or one comes twice.
        TypeError: if something is no Tensor.
    """

    _opt_called = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let hooks run around a step that the subclass defines."""
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:
            cls.step = _hooked(cls.__dict__["step"])  # type: ignore[method-assign]

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        """Group the parameters; see the class for the arguments."""
        self.defaults = defaults
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        self._room: dict[tuple[Any, int, str], Array] = {}
        self._optimizer_step_pre_hooks: OrderedDict[int, Any] = OrderedDict()
        self._optimizer_step_post_hooks: OrderedDict[int, Any] = OrderedDict()
        self._optimizer_state_dict_pre_hooks: OrderedDict[int, Any] = OrderedDict()
        self._optimizer_state_dict_post_hooks: OrderedDict[int, Any] = OrderedDict()
        self._optimizer_load_state_dict_pre_hooks: OrderedDict[int, Any] = OrderedDict()
        self._optimizer_load_state_dict_post_hooks: OrderedDict[int, Any] = OrderedDict()
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, but got "
                f"{type(params).__name__}"
            )
        groups = list(params)
        if not groups:
            raise InputError("optimizer got an empty parameter list")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own.

        Raises:
            InputError: if one is in another group already or was computed, only some have names, or a setting asks for
                what is not there.
            TypeError: if one is no Tensor.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        group, given = param_group, param_group["params"]
        if isinstance(given, set):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the ordering of tensors in sets "
                "will change between runs. Please use a list instead."
            )
        entries = [given] if isinstance(given, Tensor) else list(given)
        names = [e[0] for e in entries if isinstance(e, tuple)]
        params = group["params"] = [e[1] if isinstance(e, tuple) else e for e in entries]
        if names:
            if len(names) != len(params):
                raise InputError("all optimizer params should be with/without names. Some param names are missing")
            group["param_names"] = names
        for name, value in self.defaults.items():
            group.setdefault(name, value)
        _check_group(group)
        if len({id(p) for p in params}) != len(params):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters; in future, this will cause an error",
                stacklevel=3,
            )
        for other in self.param_groups:
            if ("param_names" in group) != ("param_names" in other):
                raise InputError(
                    "all optimizer param groups should be with/without names. cannot add param group "
                    f"{'with' if 'param_names' in group else 'without'} names to the optimizer"
                )
        here = {id(p) for g in self.param_groups for p in g["params"]}
        if any(id(p) in here for p in params):
            raise InputError("some parameters appear in more than one parameter group")
        self.param_groups.append(group)

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
                    plain = MODE.trace is None and not p.grad.requires_grad
                    p.grad = (p.grad if plain else p.grad.detach()).zero_()

    @_hooked
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
            MODE.trace.steps.take(self)
            return loss
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                gradient = p.grad._array
                if group.get("maximize"):
                    gradient = -gradient
                state = self.state.get(p, {})
                with np.errstate(all="ignore"), placed(p._array, "a step of the optimizer"):
                    self._update(p._array, gradient, state, group)
                if state:
                    self.state[p] = state
                p._bump()
        return loss

    def _update(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Change p in place by its gradient g, which stays as it is."""
        raise NotImplementedError(f"{type(self).__name__} defines neither step nor _update")

    def _trace(
        self, p: Any, g: Any, state: Callable[[str], Any], group: dict[str, Any], numbers: Any, skip: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Return the new parameter and the new state as graph values; for compiled steps.

        Args:
            p: the parameter.
            g: its gradient.
            state: returns a piece of state by its name.
            group: the settings; of floats only whether they are 0 may be read.
            numbers: the vector that `_numbers` gives at each step.
            skip: one float32; where it is not 0 nothing changes. None where every step is taken.

        Raises:
            TraceError: if the optimizer has no compiled step.
        """
        raise TraceError(
            f"{type(self).__name__} has no compiled step; call optimizer.step() outside the compiled function"
        )

    def _numbers(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> list[Any]:
        """Return what the coming step's formula reads of settings and of what counts steps.

        Either may hold expressions in the place of numbers (see `formulas`): numbers are then compared by `chosen` and
        `larger`, and only of what is a bool or None may the formulas hang on.
        """
        return []

    def _counts(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, float]:
        """Return what counts steps, as it is before the first that is counted."""
        return {}

    def _counted(self, state: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Any]:
        """Return what counts steps as it is behind the coming one; of expressions as for `_numbers`."""
        return {}

    def _advance(self, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Count a step in the state."""
        for name, value in self._counted(state, group).items():
            recount(state, name, value)

    def _stepped(self, p: Tensor, group: dict[str, Any]) -> None:
        """Count a step of a parameter that a compiled function has taken."""
        state = self.state.get(p, {})
        self._advance(state, group)
        if state:
            self.state[p] = state

    def _age(self, state: dict[str, Any]) -> Any:
        """Return what parameters of a group have to share so that their numbers are the same; nothing is waited for."""
        return tuple((name, age(state[name])) for name in COUNTS if name in state)

    def _initial(self, p: Array, name: str, group: dict[str, Any]) -> Array:
        """Return a piece of state as it is before the first step."""
        with placed(p):
            return namespace(p).zeros_like(p)

    def _held(self, p: Tensor, name: str) -> Array:
        """Return the array of a piece of state, made where there is none yet."""
        state = self.state[p]
        if state.get(name) is None:
            group = next(g for g in self.param_groups if any(q is p for q in g["params"]))
            state[name] = wrap(self._initial(p._array, name, group))
        return state[name]._array

    def _hold(self, p: Tensor, name: str, array: Array) -> None:
        """Put an array into the state."""
        self.state[p][name] = wrap(array)

    def _scratch(self, like: Array, slot: int = 0) -> Array:
        """Return an array like this one that is free until the next parameter."""
        key = (like.dtype, slot, HOST if type(like) is np.ndarray else place_of(like))
        room = self._room.get(key)
        if room is None or room.size < like.size:
            with placed(like):
                room = self._room[key] = namespace(like).empty(like.size, like.dtype)
        return room[: like.size].reshape(like.shape)

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call hook(optimizer, args, kwargs) before each step; it may return other arguments for it."""
        return _registered(self._optimizer_step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call hook(optimizer, args, kwargs) after each step."""
        return _registered(self._optimizer_step_post_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call hook(optimizer) before each `state_dict`."""
        return _registered(self._optimizer_state_dict_pre_hooks, hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call hook(optimizer, state_dict) after each `state_dict`; it may return another one."""
        return _registered(self._optimizer_state_dict_post_hooks, hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call hook(optimizer, state_dict) before each `load_state_dict`; it may return another one."""
        return _registered(self._optimizer_load_state_dict_pre_hooks, hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call hook(optimizer) after each `load_state_dict`."""
        return _registered(self._optimizer_load_state_dict_post_hooks, hook, prepend)

    def state_dict(self) -> dict[str, Any]:
        """Return state and settings, parameters by their number; the Tensors share memory with the optimizer."""
        for hook in list(self._optimizer_state_dict_pre_hooks.values()):
            hook(self)
        numbers: dict[int, int] = {}
        for p in itertools.chain.from_iterable(g["params"] for g in self.param_groups):
            numbers.setdefault(id(p), len(numbers))
        made: dict[str, Any] = {
            "state": {numbers.get(id(p), p): s for p, s in self.state.items()},
            "param_groups": [
                {**{k: v for k, v in g.items() if k != "params"}, "params": [numbers[id(p)] for p in g["params"]]}
                for g in self.param_groups
            ],
        }
        for hook in list(self._optimizer_state_dict_post_hooks.values()):
            changed = hook(self, made)
            made = made if changed is None else changed
        return made

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` returned, or PyTorch's; its Tensors may be arrays.

        Raises:
            InputError: if groups or their sizes differ.
        """
        state_dict = dict(state_dict)
        for hook in list(self._optimizer_load_state_dict_pre_hooks.values()):
            changed = hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        saved, own = state_dict["param_groups"], self.param_groups
        if len(saved) != len(own):
            raise InputError("loaded state dict has a different number of parameter groups")
        if any(len(a["params"]) != len(b["params"]) for a, b in zip(saved, own, strict=True)):
            raise InputError(
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's group"
            )
        params = {
            number: p
            for a, b in zip(saved, own, strict=True)
            for number, p in zip(a["params"], b["params"], strict=True)
        }
        state: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
        for number, pieces in state_dict["state"].items():
            p = params.get(number)
            if p is None:
                state[number] = copy.deepcopy(pieces)
            else:
                state[p] = {name: _taken(v, p, name) for name, v in pieces.items()}
        self.state = state
        for mine, theirs in zip(own, saved, strict=True):
            settings = {k: copy.deepcopy(v) for k, v in theirs.items() if k != "params"}
            kept = {"params": mine["params"], **({"param_names": mine["param_names"]} if "param_names" in mine else {})}
            mine.clear()
            mine.update({**self.defaults, **kept, **settings})
        for hook in list(self._optimizer_load_state_dict_post_hooks.values()):
            hook(self)

    def __repr__(self) -> str:
        """Return the groups' settings, as PyTorch prints them."""
        text = f"{type(self).__name__} ("
        for i, group in enumerate(self.param_groups):
            settings = "".join(f"    {k}: {group[k]}\n" for k in sorted(group) if k != "params")
            text += f"\nParameter Group {i}\n{settings}"
        return text + ")"


def _registered(hooks: OrderedDict[int, Any], hook: Callable[..., Any], first: bool = False) -> RemovableHandle:
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    if first:
        hooks.move_to_end(handle.id, last=False)
    return handle


def _check_group(group: dict[str, Any]) -> None:
    for p in group["params"]:
        if not isinstance(p, Tensor):
            raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {type(p).__name__}")
        if not p.is_leaf and not p.retains_grad:
            raise InputError("can't optimize a non-leaf Tensor")
    if group.get("differentiable"):
        raise InputError("differentiable=True: steps of optimizers are not recorded, so nothing can be differentiated")
    if group.get("capturable"):
        raise InputError("capturable=True: steps are not captured in CUDA graphs; compile the step with og.compile")
    if group.get("fused") and group.get("foreach"):
        raise TrainingError("`fused` and `foreach` cannot be `True` together.")


def _taken(v: Any, p: Tensor, name: str) -> Any:
    """Return a copy of a piece of state, its arrays of the parameter's element type and on its device."""
    if isinstance(v, dict):
        return {k: _taken(w, p, k) for k, w in v.items()}
    if isinstance(v, list | tuple):
        return type(v)(_taken(w, p, "") for w in v)
    if not isinstance(v, Tensor) and not hasattr(v, "dtype"):
        return copy.deepcopy(v)
    array = v._array if isinstance(v, Tensor) else np.asarray(v) if isinstance(v, np.generic) else v
    if name in COUNTS:
        host = np.asarray(to_device(array, HOST))
        return wrap(host.copy() if name == "step" else host.astype(p.dtype))
    return wrap(to_device(array.astype(p.dtype), p.device))
