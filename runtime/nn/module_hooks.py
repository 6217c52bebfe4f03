"""Hooks of modules: functions that are called around forward and backward, of one module or of all.

A call of a hooked module is a `Passage`: it goes in through the pre-hooks and comes out through the hooks. Gradients at
the module's inputs and outputs are those that pass two nodes of the tape that change nothing
(`runtime/nn/backward_hooks.py`). A compiled function calls forward hooks while it is traced.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ...ops.errors import ModuleError
from ..autograd.grad_mode import MODE
from ..autograd.hooks import Hooks, RemovableHandle
from .backward_hooks import Boundary


@dataclass(frozen=True)
class GlobalHooks:
    """The hooks of all modules, and those that are called where something is registered."""

    forward_pre: Hooks = field(default_factory=Hooks)
    forward: Hooks = field(default_factory=Hooks)
    with_kwargs: Hooks = field(default_factory=Hooks)
    always: Hooks = field(default_factory=Hooks)
    backward_pre: Hooks = field(default_factory=Hooks)
    backward: Hooks = field(default_factory=Hooks)
    buffers: Hooks = field(default_factory=Hooks)
    modules: Hooks = field(default_factory=Hooks)
    parameters: Hooks = field(default_factory=Hooks)

    @property
    def around(self) -> tuple[Hooks, Hooks, Hooks, Hooks]:
        """The hooks that are called around forward and backward."""
        return self.forward, self.forward_pre, self.backward, self.backward_pre

    def any(self) -> bool:
        """Whether calls of all modules have hooks."""
        return any(self.around)

    def numbers(self) -> tuple[int, ...]:
        """Return the numbers of the hooks that are called around forward and backward."""
        return tuple(n for hooks in self.around for n in hooks)


GLOBAL = GlobalHooks()


def keep(
    hooks: Hooks, hook: Callable[..., Any], marks: dict[str, tuple[Hooks, bool]], prepend: bool
) -> RemovableHandle:
    """Add a hook and its marks; return its handle."""
    handle = RemovableHandle(hooks, extra_dict=[m for m, _ in marks.values()])
    hooks[handle.id] = hook
    for mark, on in marks.values():
        if on:
            mark[handle.id] = True
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    return handle


class Hooked:
    """The part of a module that has hooks."""

    _forward_hooks: Hooks
    _forward_hooks_with_kwargs: Hooks
    _forward_hooks_always_called: Hooks
    _forward_pre_hooks: Hooks
    _forward_pre_hooks_with_kwargs: Hooks
    _backward_hooks: Hooks
    _backward_pre_hooks: Hooks

    def _keep_hook(
        self, hooks: Hooks, hook: Callable[..., Any], prepend: bool = False, **marks: Any
    ) -> RemovableHandle:
        return keep(hooks, hook, marks, prepend)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call a hook before `forward`; what it returns other than None replaces the inputs.

        Args:
            hook: called with (module, args); with_kwargs, with (module, args, kwargs), and it returns such a pair.
            prepend: call it before the other hooks of this module.
            with_kwargs: hand it the keyword arguments too.

        Returns:
            What removes it.
        """
        return self._keep_hook(
            self._forward_pre_hooks, hook, prepend, with_kwargs=(self._forward_pre_hooks_with_kwargs, with_kwargs)
        )

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Call a hook after `forward`; what it returns other than None replaces the output.

        Args:
            hook: called with (module, args, output); with_kwargs, with (module, args, kwargs, output).
            prepend: call it before the other hooks of this module.
            with_kwargs: hand it the keyword arguments too.
            always_call: call it where `forward` or another hook raises too; the output is None then.

        Returns:
            What removes it.
        """
        return self._keep_hook(
            self._forward_hooks,
            hook,
            prepend,
            with_kwargs=(self._forward_hooks_with_kwargs, with_kwargs),
            always=(self._forward_hooks_always_called, always_call),
        )

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call a hook when the gradients of the module's outputs are known, before those of its inputs are computed.

        Args:
            hook: called with (module, grad_output); what it returns other than None replaces grad_output, a tuple with
                one gradient an output.
            prepend: call it before the other hooks of this module.

        Returns:
            What removes it.
        """
        return self._keep_hook(self._backward_pre_hooks, hook, prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call a hook when the gradients of the module's positional inputs are known.

        Where no input requires gradients it is called as soon as those of the outputs are known. Inputs and outputs
        must not be changed in place.

        Args:
            hook: called with (module, grad_input, grad_output), tuples with None for what is no Tensor; what it returns
                other than None replaces grad_input.
            prepend: call it before the other hooks of this module.

        Returns:
            What removes it.
        """
        return self._keep_hook(self._backward_hooks, hook, prepend)

    def register_backward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Register a full backward hook: this is another name of `register_full_backward_hook`.

        PyTorch's old hook of this name sees the gradients of the module's last operation only, and is deprecated.
        """
        return self.register_full_backward_hook(hook)


def hooked_call(module: Any, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a module's forward between its hooks."""
    passage = Passage(module, args, kwargs)
    try:
        passage.enter()
        return passage.leave(forward(*passage.args, **passage.kwargs))
    except Exception:
        if MODE.trace is None:
            passage.fail()
        raise


class Passage:
    """One call of a hooked module.

    Attributes:
        args, kwargs: the inputs, as the pre-hooks leave them.
    """

    def __init__(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.module, self.args, self.kwargs = module, args, kwargs
        self._result: Any = None
        self._called: set[int] = set()
        self._boundary: Boundary | None = None

    def enter(self) -> None:
        """Call the pre-hooks and put the node of the backward hooks behind the inputs."""
        m = self.module
        for number, hook in [*GLOBAL.forward_pre.items(), *m._forward_pre_hooks.items()]:
            if number in m._forward_pre_hooks_with_kwargs:
                self._take_both(hook, hook(m, self.args, self.kwargs))
            else:
                self._take_args(hook, hook(m, self.args))
        pre = [*GLOBAL.backward_pre.values(), *m._backward_pre_hooks.values()]
        full = [*GLOBAL.backward.values(), *m._backward_hooks.values()]
        if pre or full:
            self._boundary = Boundary(m, full, pre)
            self.args = self._boundary.enter(self.args)

    def _take_both(self, hook: Callable[..., Any], given: Any) -> None:
        """Take over the arguments that a pre-hook returned."""
        if given is None:
            return
        if not isinstance(given, tuple) or len(given) != 2:
            raise ModuleError(
                f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {given}. It is "
                f"{named(hook)} of {type(self.module).__name__}"
            )
        self._take_args(hook, given[0])
        self.kwargs = given[1]

    def _take_args(self, hook: Callable[..., Any], given: Any) -> None:
        """Take over the positional arguments that a pre-hook returned."""
        if given is not None:
            self.args = given if isinstance(given, tuple) else (given,)

    def _take_result(self, hook: Callable[..., Any], given: Any) -> None:
        """Take over the output that a hook returned."""
        if given is not None:
            self._result = given

    def leave(self, result: Any) -> Any:
        """Call the hooks and put the node of the backward hooks behind the output, which is returned."""
        self._result = result
        for number, hook, with_kwargs, always in self._hooks():
            if always:
                self._called.add(number)
            self._call(hook, with_kwargs)
        if self._boundary is not None:
            self._result = self._boundary.leave(self._result)
        return self._result

    def fail(self) -> None:
        """Call the hooks that are called even where something has been raised."""
        for number, hook, with_kwargs, always in self._hooks():
            if not always or number in self._called:
                continue
            try:
                self._call(hook, with_kwargs)
            except Exception as error:
                kind = "global module" if number in GLOBAL.forward else "module"
                warnings.warn(
                    f"{kind} forward hook with ``always_call=True`` raised an exception that was silenced as another "
                    f"error was raised in forward: {error}",
                    stacklevel=4,
                )

    def _hooks(self) -> Iterator[tuple[int, Callable[..., Any], bool, bool]]:
        """Yield number and function of each forward hook, and whether it takes keywords and is always called."""
        m = self.module
        for number, hook in [*GLOBAL.forward.items()]:
            yield number, hook, number in GLOBAL.with_kwargs, number in GLOBAL.always
        for number, hook in [*m._forward_hooks.items()]:
            yield number, hook, number in m._forward_hooks_with_kwargs, number in m._forward_hooks_always_called

    def _call(self, hook: Callable[..., Any], with_kwargs: bool) -> None:
        kwargs = (self.kwargs,) if with_kwargs else ()
        self._take_result(hook, hook(self.module, self.args, *kwargs, self._result))


def hook_numbers(module: Any) -> tuple[int, ...]:
    """Return the numbers of the hooks that are called around a module's forward and backward."""
    return (
        *module._forward_pre_hooks, *module._forward_hooks, *module._backward_pre_hooks, *module._backward_hooks
    )  # fmt: skip


def named(hook: Any) -> str:
    """Return what a hook is called in messages."""
    return f"hook {getattr(hook, '__qualname__', type(hook).__name__)}"


def register_module_forward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call hook(module, args) before every module's forward, before the module's own hooks; it may replace the args."""
    return keep(GLOBAL.forward_pre, hook, {}, False)


def register_module_forward_hook(
    hook: Callable[..., Any], *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """Call a hook after every module's forward, before the module's own hooks; see `Module.register_forward_hook`."""
    marks = {"with_kwargs": (GLOBAL.with_kwargs, with_kwargs), "always": (GLOBAL.always, always_call)}
    return keep(GLOBAL.forward, hook, marks, False)


def register_module_full_backward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call hook(module, grad_output) in every module's backward; see `Module.register_full_backward_pre_hook`."""
    return keep(GLOBAL.backward_pre, hook, {}, False)


def register_module_full_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call a hook in every module's backward; see `Module.register_full_backward_hook`."""
    return keep(GLOBAL.backward, hook, {}, False)


def register_module_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Register a full backward hook of all modules: another name of `register_module_full_backward_hook`."""
    return register_module_full_backward_hook(hook)


def register_module_buffer_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call hook(module, name, buffer) whenever a buffer is registered; it may replace the buffer."""
    return keep(GLOBAL.buffers, hook, {}, False)


def register_module_module_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call hook(module, name, submodule) whenever a submodule is registered; it may replace the submodule."""
    return keep(GLOBAL.modules, hook, {}, False)


def register_module_parameter_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call hook(module, name, parameter) whenever a parameter is registered; it may replace the parameter."""
    return keep(GLOBAL.parameters, hook, {}, False)
