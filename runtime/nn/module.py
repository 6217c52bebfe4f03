"""Modules: functions with parameters, by PyTorch's names.

What a module holds by name is found in `runtime/nn/module_names.py` and set in `runtime/nn/module_attributes.py`; its
hooks are in `runtime/nn/module_hooks.py`, element types and devices in `runtime/nn/module_conversion.py`, saving and
loading in `runtime/nn/state_dict.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..autograd.grad_mode import MODE
from .module_attributes import FRESH, Attributes
from .module_conversion import Converted
from .module_hooks import GLOBAL, Hooked, hooked_call
from .parameter import Buffer, Parameter
from .state_dict import StateDict

__all__ = ["Buffer", "Module", "Parameter"]

Self = TypeVar("Self", bound="Module")

_FORWARD, _FORWARD_PRE, _BACKWARD, _BACKWARD_PRE = GLOBAL.around


class Module(Hooked, Converted, StateDict, Attributes):
    """A function with parameters, buffers and submodules.

    Subclasses assign them to attributes in `__init__`, after `super().__init__()`, and define `forward`.

    Attributes:
        training: whether it is in training mode.
        call_super_init: a subclass that has other base classes sets it to hand arguments of `__init__` on to those.
    """

    training: bool
    call_super_init: bool = False
    _compiled_call_impl: Callable[..., Any] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Start empty, in training mode."""
        if not self.call_super_init and kwargs:
            raise TypeError(
                f"{type(self).__name__}.__init__() got an unexpected keyword argument '{next(iter(kwargs))}'"
            )
        if not self.call_super_init and args:
            raise TypeError(
                f"{type(self).__name__}.__init__() takes 1 positional argument but {len(args) + 1} were given"
            )
        own = self.__dict__
        own["training"] = True
        for name, make in FRESH.items():
            own[name] = make()
        if self.call_super_init:
            super().__init__(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute; every subclass defines it."""
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute `forward`, between the hooks."""
        if self._compiled_call_impl is not None:
            return self._compiled_call_impl(*args, **kwargs)
        if (
            self._forward_hooks or self._forward_pre_hooks or self._backward_hooks or self._backward_pre_hooks
            or _FORWARD or _FORWARD_PRE or _BACKWARD or _BACKWARD_PRE
        ):  # fmt: skip
            return hooked_call(self, self.forward, args, kwargs)
        return self.forward(*args, **kwargs)

    def _call_impl(self, *args: Any, **kwargs: Any) -> Any:
        """Compute `forward` between the hooks, whether the module is compiled or not."""
        return hooked_call(self, self.forward, args, kwargs)

    def compile(self, **how: Any) -> None:
        """Run calls as one compiled graph from now on, hooks included; see `onnxgrad.compile` for the arguments."""
        from ..tracing.compile import compile

        self._compiled_call_impl = compile(self._call_impl, **how)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy takes over: everything but what was compiled."""
        return {k: v for k, v in self.__dict__.items() if k != "_compiled_call_impl"}

    def train(self: Self, mode: bool = True) -> Self:
        """Set training mode here and below, and return the module."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self: Self) -> Self:
        """Set evaluation mode here and below, and return the module."""
        return self.train(False)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Set whether the parameters' gradients are computed, and return the module."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the parameters' gradients, or make them zeros."""
        for p in self.parameters():
            if MODE.trace is not None:
                MODE.trace.own(p)
                MODE.trace.zeroed.add(id(p))
            if set_to_none:
                p.grad = None
            elif p.grad is not None:
                p.grad = p.grad.detach().zero_()

    def apply(self: Self, fn: Callable[[Module], Any]) -> Self:
        """Call a function with each module below and then this one, and return the module."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def extra_repr(self) -> str:
        """Return what the repr shows of the module's own settings."""
        return ""

    def _get_name(self) -> str:
        return self.__class__.__name__

    def __repr__(self) -> str:
        """Return the tree of modules, as PyTorch prints it."""
        shown = self.extra_repr()
        extra = shown.split("\n") if shown else []
        children = [f"({name}): {indented(repr(m))}" for name, m in self._modules.items()]
        if len(extra) == 1 and not children:
            return f"{self._get_name()}({extra[0]})"
        if not extra and not children:
            return f"{self._get_name()}()"
        return f"{self._get_name()}(\n  " + "\n  ".join(extra + children) + "\n)"


def indented(text: str) -> str:
    """Return text with its lines after the first indented by two."""
    return text.replace("\n", "\n  ")
