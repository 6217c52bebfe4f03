"""State dicts: what a module holds, by name, taken out of it and put back.

Loading reads the whole dictionary first. Where something is missing, unexpected or of another shape, nothing has been
changed, unless a hook that runs after loading may still forgive it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ...ops.errors import StateDictError
from ..autograd.grad_mode import no_grad
from ..autograd.hooks import Hooks, RemovableHandle
from ..tensor.device import to_device
from ..tensor.tensor import Tensor
from .module_names import Named
from .parameter import Parameter

EXTRA = "_extra_state"


class IncompatibleKeys(NamedTuple):
    """What a state dict and a module do not share."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        """Return it, or that all keys matched."""
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


class State(OrderedDict[str, Any]):
    """A state dict; `_metadata` holds the version of each module by its name."""

    _metadata: OrderedDict[str, dict[str, Any]]

    def __repr__(self) -> str:
        """Return it as PyTorch prints it."""
        return repr(OrderedDict(self))


class Errors(list[str]):
    """What is wrong with a state dict, and the changes to make if nothing is."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[Callable[[], None]] = []


class StateDict(Named):
    """The part of a module that is saved and loaded."""

    _version: int = 1
    _non_persistent_buffers_set: set[str]
    _state_dict_hooks: Hooks
    _state_dict_pre_hooks: Hooks
    _load_state_dict_pre_hooks: Hooks
    _load_state_dict_post_hooks: Hooks

    def get_extra_state(self) -> Any:
        """Return what the state dict is to hold beside Tensors; a subclass that has some overrides it.

        Raises:
            NotImplementedError: if it does not.
        """
        raise NotImplementedError(f"{type(self).__name__} has no extra state: it does not override get_extra_state()")

    def set_extra_state(self, state: Any) -> None:
        """Take over what `get_extra_state` returned.

        Raises:
            NotImplementedError: if a subclass does not override it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no extra state: it does not override set_extra_state()")

    def _own_state(self) -> dict[str, Tensor]:
        """Return the module's own parameters and persistent buffers."""
        found = dict(self.named_parameters(recurse=False, remove_duplicate=False))
        for name, b in self.named_buffers(recurse=False, remove_duplicate=False):
            if name not in self._non_persistent_buffers_set:
                found[name] = b
        return found

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Add the module's own state, without that of submodules."""
        for name, t in self._own_state().items():
            destination[prefix + name] = t if keep_vars else t.detach()
        if type(self).get_extra_state is not StateDict.get_extra_state:
            destination[prefix + EXTRA] = self.get_extra_state()

    def state_dict(self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """Return parameters, persistent buffers and extra state by name; Tensors share memory with the module.

        Args:
            destination: a dictionary to add to.
            prefix: stands before all names.
            keep_vars: hand out the Tensors themselves instead of detached ones.

        Raises:
            StateDictError: if a hook of `register_state_dict_post_hook` returns something.
        """
        if destination is None:
            destination = State()
            destination._metadata = OrderedDict()
        facts: dict[str, Any] = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = facts
        for hook in self._state_dict_pre_hooks.values():
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in self._state_dict_hooks.values():
            returned = hook(self, destination, prefix, facts)
            if getattr(hook, "_from_public_api", False):
                if returned is not None:
                    raise StateDictError("state_dict post-hook must return None")
            elif returned is not None:
                destination = returned
        return destination

    def register_state_dict_pre_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Call hook(module, prefix, keep_vars) before the state dict is made."""
        return _kept(self._state_dict_pre_hooks, hook)

    def register_state_dict_post_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Call hook(module, state_dict, prefix, local_metadata) afterwards; it may change the dictionary in place."""
        hook._from_public_api = True  # type: ignore[attr-defined]
        return _kept(self._state_dict_hooks, hook)

    def _register_state_dict_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call hook(module, state_dict, prefix, local_metadata) afterwards; what it returns replaces the dictionary."""
        if getattr(hook, "_from_public_api", False):
            raise StateDictError(
                "Cannot register the same function as the state dict post hook that was previously registered via "
                "register_state_dict_post_hook"
            )
        return _kept(self._state_dict_hooks, hook)

    def _register_load_state_dict_pre_hook(
        self, hook: Callable[..., None], with_module: bool = False
    ) -> RemovableHandle:
        return _kept(self._load_state_dict_pre_hooks, _WithModule(hook, self) if with_module else hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Call a hook before the module's own state is loaded.

        Args:
            hook: called with (module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
                error_msgs); it may change all of these in place.
        """
        return self._register_load_state_dict_pre_hook(hook, with_module=True)

    def register_load_state_dict_post_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Call hook(module, incompatible_keys) after loading; it may change the lists of keys in place."""
        return _kept(self._load_state_dict_post_hooks, hook)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        """Load the module's own state, without that of submodules; a subclass may change what is loaded.

        Args:
            state_dict: what is loaded; under this prefix it may be changed.
            prefix: stands before this module's names.
            local_metadata: what was saved about this module.
            strict: whether to note keys that are missing or unexpected.
            missing_keys: where they are added.
            unexpected_keys: where they are added.
            error_msgs: where errors are added.
        """
        for hook in self._load_state_dict_pre_hooks.values():
            hook(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        own = self._own_state()
        assign = local_metadata.get("assign_to_params_buffers", False)
        changes = error_msgs.changes if isinstance(error_msgs, Errors) else []
        for name, t in own.items():
            key = prefix + name
            if key not in state_dict:
                if strict:
                    missing_keys.append(key)
                continue
            self._plan_change(name, key, t, state_dict[key], assign, error_msgs, changes)
        extra = prefix + EXTRA
        if type(self).set_extra_state is not StateDict.set_extra_state:
            if extra in state_dict:
                state = state_dict[extra]
                changes.append(lambda: self.set_extra_state(state))
            elif strict:
                missing_keys.append(extra)
        elif strict and extra in state_dict:
            unexpected_keys.append(extra)
        if strict:
            for key in state_dict:
                name = key.removeprefix(prefix)
                if not key.startswith(prefix) or key == extra or name in own:
                    continue
                first, _, rest = name.partition(".")
                if not rest or first not in self._modules:
                    unexpected_keys.append(key)
        if not isinstance(error_msgs, Errors):
            _make(changes)

    def _plan_change(
        self, name: str, key: str, t: Tensor, given: Any, assign: bool, error_msgs: list[str],
        changes: list[Callable[[], None]],
    ) -> None:  # fmt: skip
        """Note how one Tensor changes, or why it cannot."""
        if not isinstance(given, Tensor) and not hasattr(given, "__array__"):
            error_msgs.append(
                f'While copying the parameter named "{key}", expected torch.Tensor or Tensor-like object from '
                f"checkpoint but received {type(given)}"
            )
            return
        array = given._array if isinstance(given, Tensor) else np.asarray(given)
        if not t.shape and array.shape == (1,):
            given, array = given[0], array[0]
        if tuple(array.shape) != tuple(t.shape):
            error_msgs.append(
                f"size mismatch for {key}: copying a param with shape {_size(array.shape)} from checkpoint, the shape "
                f"in current model is {_size(t.shape)}."
            )
        elif not assign:
            changes.append(lambda: _copy(t, array))
        elif name in self._parameters or name in self._buffers:
            changes.append(lambda: setattr(self, name, _assigned(t, given)))
        else:
            changes.append(lambda: setattr(t, "data", array))

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy values by name into parameters and buffers.

        Args:
            state_dict: Tensors or arrays by name.
            strict: demand that the names are the same.
            assign: put the given Tensors in the place of the module's own instead of copying their elements.

        Raises:
            StateDictError: naming the keys that are missing, unexpected (both if strict) or of another shape. Nothing
                has been changed then, unless there are hooks that run after loading.
            TypeError: if it is no dictionary.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        metadata = getattr(state_dict, "_metadata", None)
        keys, errors = IncompatibleKeys([], []), Errors()
        post: list[tuple[Any, Callable[..., Any]]] = []

        def load(module: StateDict, state: dict[str, Any], prefix: str) -> None:
            facts = {} if metadata is None else dict(metadata.get(prefix[:-1], {}))
            if assign:
                facts["assign_to_params_buffers"] = True
            module._load_from_state_dict(state, prefix, facts, True, *keys, errors)
            for name, child in module._modules.items():
                if child is not None:
                    inner = f"{prefix}{name}."
                    load(child, {k: v for k, v in state.items() if k.startswith(inner)}, inner)
            post.extend((module, hook) for hook in module._load_state_dict_post_hooks.values())

        given = State(state_dict)
        if metadata is not None:
            given._metadata = metadata
        load(self, given, "")
        if not post:
            self._refuse(keys, errors, strict)
        if not errors:
            _make(errors.changes)
        for module, hook in post:
            if hook(module, keys) is not None:
                raise AssertionError(
                    "Hooks registered with ``register_load_state_dict_post_hook`` are not expected to return new "
                    "values, if incompatible_keys need to be modified, it should be done inplace."
                )
        self._refuse(keys, errors, strict)
        return keys

    def _refuse(self, keys: IncompatibleKeys, errors: list[str], strict: bool) -> None:
        wrong = list(errors)
        if strict and keys.unexpected_keys:
            wrong.insert(0, f"Unexpected key(s) in state_dict: {_quoted(keys.unexpected_keys)}. ")
        if strict and keys.missing_keys:
            wrong.insert(0, f"Missing key(s) in state_dict: {_quoted(keys.missing_keys)}. ")
        if wrong:
            lines = "\n\t".join(wrong)
            raise StateDictError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t{lines}")


class _WithModule:
    """A hook that is given its module first."""

    def __init__(self, hook: Callable[..., Any], module: Any) -> None:
        self.hook, self.module = hook, module

    def __call__(self, *args: Any) -> Any:
        """Call the hook."""
        return self.hook(self.module, *args)


def _kept(hooks: Hooks, hook: Callable[..., Any]) -> RemovableHandle:
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    return handle


def _make(changes: list[Callable[[], None]]) -> None:
    with no_grad():
        for change in changes:
            change()


def _copy(t: Tensor, array: Any) -> None:
    t.copy_(to_device(array, t.device))


def _assigned(t: Tensor, given: Any) -> Tensor:
    """Return what takes the place of a module's Tensor."""
    if not isinstance(t, Parameter):
        return given if isinstance(given, Tensor) else Tensor(given)
    if isinstance(given, Parameter):
        given.requires_grad = t.requires_grad
        return given
    return Parameter(given, t.requires_grad)


def _size(shape: Any) -> str:
    return f"torch.Size({list(shape)})"


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{n}"' for n in names)
