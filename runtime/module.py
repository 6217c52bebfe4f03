"""Modules: functions with parameters, by PyTorch's names.

What a subclass may override, and everything else follows: `named_parameters`, `named_buffers`, `named_children`. Names
of parameters may contain dots and slashes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from ..ops.types import is_float
from .device import to_device
from .grad_mode import MODE
from .state_dict import IncompatibleKeys, load_into
from .tensor import Tensor

Self = TypeVar("Self", bound="Module")


class Parameter(Tensor):
    """A Tensor that a module trains; assigning one to an attribute of a module registers it."""

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        """Wrap an array or Tensor, sharing its memory."""
        super().__init__(data, requires_grad)

    def __repr__(self) -> str:
        """Return it as PyTorch prints it."""
        return f"Parameter containing:\n{super().__repr__()}"


class Module:
    """A function with parameters, buffers and submodules.

    Subclasses assign them to attributes in `__init__`, after `super().__init__()`, and define `forward`.
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _transient: set[str]

    def __init__(self) -> None:
        """Start empty, in training mode."""
        put = object.__setattr__
        put(self, "training", True)
        put(self, "_parameters", {})
        put(self, "_buffers", {})
        put(self, "_modules", {})
        put(self, "_transient", set())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute; every subclass defines it."""
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute `forward`."""
        return self.forward(*args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        """Register parameters, modules and new values of buffers; set anything else."""
        registries = self.__dict__.get("_parameters"), self.__dict__.get("_modules"), self.__dict__.get("_buffers")
        parameters, modules, buffers = registries
        if isinstance(value, Parameter | Module) and (parameters is None or modules is None):
            raise AttributeError(f"cannot assign {type(value).__name__.lower()}s before Module.__init__() call")
        if isinstance(value, Parameter):
            self._forget(name, self._parameters)
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self._forget(name, self._modules)
            self.register_module(name, value)
        elif parameters is not None and name in parameters:
            if value is not None:
                raise TypeError(
                    f"cannot assign '{type(value).__name__}' as parameter '{name}' (Parameter or None expected)"
                )
            parameters[name] = None
        elif modules is not None and name in modules:
            if value is not None:
                raise TypeError(
                    f"cannot assign '{type(value).__name__}' as child module '{name}' (Module or None expected)"
                )
            modules[name] = None
        elif buffers is not None and name in buffers:
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(f"cannot assign '{type(value).__name__}' as buffer '{name}' (Tensor or None expected)")
            buffers[name] = value
        else:
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        """Find a parameter, buffer or submodule."""
        for registry in ("_parameters", "_buffers", "_modules"):
            found = self.__dict__.get(registry)
            if found is not None and name in found:
                return found[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __delattr__(self, name: str) -> None:
        """Remove an attribute, or what is registered by that name."""
        if not self._forget(name):
            object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        """Return the attributes, those that are registered too."""
        return sorted({*object.__dir__(self), *self._parameters, *self._buffers, *self._modules})

    def _forget(self, name: str, but: Any = None) -> bool:
        """Remove what has this name, except from one registry, where a new value takes the old one's place."""
        self._transient.discard(name)
        found = False
        for registry in (self._parameters, self._buffers, self._modules, self.__dict__):
            if registry is not but and name in registry:
                del registry[name]
                found = True
        return found

    def _free(self, name: str, kind: str) -> None:
        if not isinstance(name, str) or not name:
            raise KeyError(f'{kind} name can\'t be empty string ""')
        if hasattr(self, name) and not any(
            name in r for r in (self._parameters, self._buffers, self._modules)
        ):  # a method or attribute
            raise KeyError(f"attribute '{name}' already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter; None keeps the name for an optional one."""
        self._free(name, "parameter")
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a Tensor that is state but not trained; one that is not persistent is left out of the state dict."""
        self._free(name, "buffer")
        self._buffers[name] = tensor
        (self._transient.discard if persistent else self._transient.add)(name)

    def register_module(self, name: str, module: Module | None) -> None:
        """Add a submodule."""
        self._free(name, "module")
        self._modules[name] = module

    add_module = register_module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the direct submodules by name."""
        seen: set[Module] = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """Yield the direct submodules."""
        return (module for _, module in self.named_children())

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """Yield this module and all below it by dotted name."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(memo, _joined(prefix, name), remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it."""
        return (module for _, module in self.named_modules())

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the parameters by dotted name, each once."""
        return self._named("_parameters", "named_parameters", prefix, recurse, remove_duplicate)

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the buffers by dotted name, each once."""
        return self._named("_buffers", "named_buffers", prefix, recurse, remove_duplicate)

    def _named(self, registry: str, method: str, prefix: str, recurse: bool, once: bool) -> Iterator[tuple[str, Any]]:
        def every() -> Iterator[tuple[str, Any]]:
            for name, t in self.__dict__[registry].items():
                if t is not None:
                    yield _joined(prefix, name), t
            if recurse:
                for name, child in self.named_children():
                    yield from getattr(child, method)(_joined(prefix, name), True, once)

        seen: set[int] = set()
        for name, t in every():
            if not once or id(t) not in seen:
                seen.add(id(t))
                yield name, t

    def parameters(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield the parameters, each once."""
        return (p for _, p in self.named_parameters(recurse=recurse))

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield the buffers, each once."""
        return (b for _, b in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """Return the module of a dotted name.

        Raises:
            AttributeError: if there is none.
        """
        for name, module in self.named_modules(remove_duplicate=False):
            if name == target:
                return module
        raise AttributeError(f"{type(self).__name__} has no submodule `{target}`")

    def get_parameter(self, target: str) -> Tensor:
        """Return the parameter of a dotted name.

        Raises:
            AttributeError: if there is none.
        """
        for name, p in self.named_parameters(remove_duplicate=False):
            if name == target:
                return p
        raise AttributeError(f"{type(self).__name__} has no parameter `{target}`")

    def get_buffer(self, target: str) -> Tensor:
        """Return the buffer of a dotted name.

        Raises:
            AttributeError: if there is none.
        """
        for name, b in self.named_buffers(remove_duplicate=False):
            if name == target:
                return b
        raise AttributeError(f"{type(self).__name__} has no buffer `{target}`")

    def train(self: Self, mode: bool = True) -> Self:
        """Set training mode here and below, and return the module."""
        for module in self.modules():
            module.training = mode
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

    def apply(self: Self, f: Callable[[Module], Any]) -> Self:
        """Call a function with each module below and then this one, and return the module."""
        for child in self.children():
            child.apply(f)
        f(self)
        return self

    def _replace_arrays(self: Self, f: Callable[[Any], Any]) -> Self:
        """Put f(array) in the place of each parameter's, gradient's and buffer's array."""
        for t in (*self.parameters(), *self.buffers()):
            array = f(t._array)
            if array is not t._array:
                t.data = array
            if t.grad is not None:
                t.grad = Tensor(f(t.grad._array))
        return self

    def to(self: Self, *targets: Any, dtype: Any = None, device: Any = None) -> Self:
        """Move parameters and buffers to a device, their floats to an element type, and return the module."""
        for target in targets:
            if isinstance(target, Tensor):
                dtype, device = target.dtype, target.device
            elif isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda"):
                device = target
            elif target is not None:
                dtype = target
        wanted = None if dtype is None else np.dtype(dtype)
        if wanted is not None and not is_float(wanted):
            raise TypeError(f"Module.to only accepts floating point dtypes, but got desired dtype={wanted}")

        def convert(array: Any) -> Any:
            array = array if device is None else to_device(array, str(device))
            return array if wanted is None or not is_float(array.dtype) else array.astype(wanted, copy=False)

        return self._replace_arrays(convert)

    def cpu(self: Self) -> Self:
        """Move it to the CPU."""
        return self.to(device="cpu")

    def cuda(self: Self, index: int = 0) -> Self:
        """Move it to a CUDA device."""
        return self.to(device=f"cuda:{index}")

    def half(self: Self) -> Self:
        """Convert floats to float16."""
        return self.to(dtype="float16")

    def bfloat16(self: Self) -> Self:
        """Convert floats to bfloat16."""
        return self.to(dtype="bfloat16")

    def double(self: Self) -> Self:
        """Convert floats to float64."""
        return self.to(dtype="float64")

    def _state_items(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Yield what the state dict holds: of each module its parameters, then its buffers, then its submodules'."""
        yield from self.named_parameters(prefix, recurse=False, remove_duplicate=False)
        transient = {_joined(prefix, name) for name in self._transient}
        buffers = self.named_buffers(prefix, recurse=False, remove_duplicate=False)
        yield from ((name, b) for name, b in buffers if name not in transient)
        for name, child in self._modules.items():
            if child is not None:
                yield from child._state_items(_joined(prefix, name))

    def state_dict(self, *, prefix: str = "", keep_vars: bool = False) -> dict[str, Tensor]:
        """Return parameters and persistent buffers by name; they share memory with the module."""
        return {prefix + name: t if keep_vars else t.detach() for name, t in self._state_items()}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy values by name into parameters and buffers.

        Args:
            state_dict: Tensors or arrays by name.
            strict: demand that the names are the same.
            assign: take over the given arrays instead of copying them.

        Raises:
            StateDictError: naming the keys that are missing, unexpected (both if strict) or of another shape. Nothing
                has been changed then.
        """
        return load_into(dict(self._state_items()), type(self).__name__, state_dict, strict, assign)

    def extra_repr(self) -> str:
        """Return what the repr shows of the module's own settings."""
        return ""

    def _get_name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        """Return the tree of modules, as PyTorch prints it."""
        extra = self.extra_repr().split("\n") if self.extra_repr() else []
        children = [f"({name}): " + repr(m).replace("\n", "\n  ") for name, m in self._modules.items()]
        if len(extra) == 1 and not children:
            return f"{self._get_name()}({extra[0]})"
        if not extra and not children:
            return f"{self._get_name()}()"
        return f"{self._get_name()}(\n  " + "\n  ".join(extra + children) + "\n)"


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
