"""Attributes of modules: assigning a Parameter, a Buffer or a Module to one registers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..autograd.hooks import Hooks
from ..tensor.tensor import Tensor
from .module_hooks import GLOBAL
from .module_names import Named
from .parameter import Buffer, Parameter

if TYPE_CHECKING:
    from .module import Module

FRESH: dict[str, Callable[[], Any]] = {
    "_parameters": dict,
    "_buffers": dict,
    "_modules": dict,
    "_non_persistent_buffers_set": set,
    "_forward_hooks": Hooks,
    "_forward_hooks_with_kwargs": Hooks,
    "_forward_hooks_always_called": Hooks,
    "_forward_pre_hooks": Hooks,
    "_forward_pre_hooks_with_kwargs": Hooks,
    "_backward_hooks": Hooks,
    "_backward_pre_hooks": Hooks,
    "_state_dict_hooks": Hooks,
    "_state_dict_pre_hooks": Hooks,
    "_load_state_dict_pre_hooks": Hooks,
    "_load_state_dict_post_hooks": Hooks,
}
"""What a module has from the start."""


class Attributes(Named):
    """The part of a module that registers."""

    _non_persistent_buffers_set: set[str]

    def __setattr__(self, name: str, value: Any) -> None:
        """Register parameters, modules and buffers; set anything else."""
        own = self.__dict__
        parameters = own.get("_parameters")
        if isinstance(value, Parameter):
            if parameters is None:
                raise AttributeError("cannot assign parameters before Module.__init__() call")
            self._forget(name, parameters)
            self.register_parameter(name, value)
        elif parameters is not None and name in parameters:
            if value is not None:
                raise TypeError(
                    f"cannot assign '{typename(value)}' as parameter '{name}' (torch.nn.Parameter or None expected)"
                )
            self.register_parameter(name, value)
        elif isinstance(value, Attributes) or name in own.get("_modules", ()):
            self._set_module(name, value)
        elif isinstance(value, Buffer) or name in own.get("_buffers", ()):
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(
                    f"cannot assign '{typename(value)}' as buffer '{name}' (torch.nn.Buffer, torch.Tensor or None "
                    "expected)"
                )
            persistent = getattr(value, "persistent", name not in own.get("_non_persistent_buffers_set", ()))
            self.register_buffer(name, value, persistent)
        else:
            object.__setattr__(self, name, value)

    def _set_module(self, name: str, module: Any) -> None:
        modules = self.__dict__.get("_modules")
        if modules is None:
            raise AttributeError("cannot assign module before Module.__init__() call")
        if isinstance(module, Attributes):
            self._forget(name, modules)
        elif module is not None:
            raise TypeError(
                f"cannot assign '{typename(module)}' as child module '{name}' (torch.nn.Module or None expected)"
            )
        modules[name] = _registered(GLOBAL.modules, self, name, module)

    def __getattr__(self, name: str) -> Any:
        """Find a parameter, buffer or submodule."""
        for registry in ("_parameters", "_buffers", "_modules"):
            found = self.__dict__.get(registry)
            if found is not None and name in found:
                return found[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __delattr__(self, name: str) -> None:
        """Remove what is registered by this name, or an attribute."""
        for registry in (self._parameters, self._buffers, self._modules):
            if name in registry:
                del registry[name]
                self._non_persistent_buffers_set.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        """Return the attributes, those that are registered too, but for the numbers of containers."""
        names = {*object.__dir__(self), *self._parameters, *self._buffers, *self._modules}
        return sorted(n for n in names if not n[0].isdigit())

    def _forget(self, name: str, but: Any) -> None:
        """Remove what has this name, except from one registry, where a new value takes the old one's place."""
        self._non_persistent_buffers_set.discard(name)
        for registry in (self._parameters, self._buffers, self._modules, self.__dict__):
            if registry is not but:
                registry.pop(name, None)

    def _check_name(self, name: Any, kind: str, registry: str) -> None:
        if registry not in self.__dict__:
            raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {typename(name)}")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain "."' + (f", got: {name}" if kind == "module" else ""))
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')
        if hasattr(self, name) and name not in self.__dict__[registry]:
            raise KeyError(f"attribute '{name}' already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter; None keeps the name for an optional one.

        Raises:
            KeyError: if the name cannot be one, or is taken.
            TypeError: if it is no Parameter.
            ValueError: if it was computed from other Tensors.
        """
        self._check_name(name, "parameter", "_parameters")
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{typename(param)}' object to parameter '{name}' (torch.nn.Parameter or None required)"
            )
        if param is not None and not param.is_leaf:
            raise ValueError(
                f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must be created explicitly. To "
                f"express '{name}' as a function of another Tensor, compute the value in the forward() method."
            )
        self._parameters[name] = None if param is None else _registered(GLOBAL.parameters, self, name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a Tensor that is state but not trained; one that is not persistent is left out of the state dict.

        Raises:
            KeyError: if the name cannot be one, or is taken.
            TypeError: if it is no Tensor.
        """
        self._check_name(name, "buffer", "_buffers")
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{typename(tensor)}' object to buffer '{name}' (torch Tensor or None required)"
            )
        self._buffers[name] = _registered(GLOBAL.buffers, self, name, tensor)
        transient = self._non_persistent_buffers_set
        (transient.discard if persistent else transient.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a submodule.

        Raises:
            KeyError: if the name cannot be one, or is taken.
            TypeError: if it is no Module.
        """
        if module is not None and not isinstance(module, Attributes):
            raise TypeError(f"{typename(module)} is not a Module subclass")
        self._check_name(name, "module", "_modules")
        self._modules[name] = _registered(GLOBAL.modules, self, name, module)

    def register_module(self, name: str, module: Module | None) -> None:
        """Add a submodule: another name of `add_module`."""
        self.add_module(name, module)


def _registered(hooks: Hooks, module: Attributes, name: str, value: Any) -> Any:
    """Return what is registered, after the hooks that see it."""
    for hook in hooks.values():
        given = hook(module, name, value)
        value = value if given is None else given
    return value


_TENSORS = {
    "float32": "FloatTensor", "float64": "DoubleTensor", "float16": "HalfTensor", "bfloat16": "BFloat16Tensor",
    "uint8": "ByteTensor", "int8": "CharTensor", "int16": "ShortTensor", "int32": "IntTensor", "int64": "LongTensor",
    "bool": "BoolTensor",
}  # fmt: skip


def typename(value: Any) -> str:
    """Return the name of a value's type as PyTorch's messages have it."""
    if isinstance(value, Tensor):
        return f"torch.{_TENSORS.get(str(value.dtype), 'Tensor')}"
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
