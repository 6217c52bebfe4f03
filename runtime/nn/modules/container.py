"""Modules that hold modules or parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...module import Module, Parameter


class Sequential(Module):
    """Modules that run one after the other.

    Args:
        modules: the modules in order, or one dictionary of them.
    """

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.add_module(name, module)
        else:
            for i, module in enumerate(modules):
                self.add_module(str(i), module)

    def forward(self, input: Any) -> Any:
        """Run them all."""
        for module in self._modules.values():
            assert module is not None
            input = module(input)
        return input

    def append(self, module: Module) -> Sequential:
        """Add a module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def __getitem__(self, index: Any) -> Any:
        """Return a module by place, or a Sequential of a slice."""
        items = list(self._modules.items())
        return Sequential(dict(items[index])) if isinstance(index, slice) else items[index][1]

    def __setitem__(self, index: int, module: Module) -> None:
        """Replace the module at a place."""
        self._modules[list(self._modules)[index]] = module

    def __len__(self) -> int:
        """Return the number of modules."""
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        """Yield the modules."""
        return iter(self._modules.values())


class ModuleList(Module):
    """A list of modules, which are registered."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def append(self, module: Module) -> ModuleList:
        """Add a module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        """Add modules at the end."""
        for module in modules:
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> None:
        """Add a module before a place."""
        items = list(self._modules.values())
        items.insert(index, module)
        self._modules.clear()
        self._modules.update({str(i): m for i, m in enumerate(items)})

    def __getitem__(self, index: Any) -> Any:
        """Return a module by place, or a list of a slice."""
        items: Any = list(self._modules.values())
        return ModuleList(items[index]) if isinstance(index, slice) else items[index]

    def __setitem__(self, index: int, module: Module) -> None:
        """Replace the module at a place."""
        self._modules[list(self._modules)[index]] = module

    def __len__(self) -> int:
        """Return the number of modules."""
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        """Yield the modules."""
        return iter(self._modules.values())


class ModuleDict(Module):
    """A dictionary of modules, which are registered."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        self.update(modules or {})

    def update(self, modules: Mapping[str, Module]) -> None:
        """Add modules by name."""
        for name, module in modules.items():
            self.add_module(name, module)

    def __getitem__(self, name: str) -> Any:
        """Return a module by name."""
        return self._modules[name]

    def __setitem__(self, name: str, module: Module) -> None:
        """Add or replace a module."""
        self.add_module(name, module)

    def __delitem__(self, name: str) -> None:
        """Remove a module."""
        del self._modules[name]

    def __contains__(self, name: str) -> bool:
        """Return whether there is such a module."""
        return name in self._modules

    def __len__(self) -> int:
        """Return the number of modules."""
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._modules)

    def keys(self) -> Iterable[str]:
        """Return the names."""
        return self._modules.keys()

    def values(self) -> Iterable[Any]:
        """Return the modules."""
        return self._modules.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """Return names and modules."""
        return self._modules.items()


class ParameterList(Module):
    """A list of parameters, which are registered."""

    def __init__(self, parameters: Iterable[Any] = ()) -> None:
        super().__init__()
        for p in parameters:
            self.append(p)

    def append(self, parameter: Any) -> ParameterList:
        """Add a parameter at the end."""
        p = parameter if isinstance(parameter, Parameter) else Parameter(parameter)
        self.register_parameter(str(len(self)), p)
        return self

    def __getitem__(self, index: int) -> Any:
        """Return a parameter by place."""
        return list(self._parameters.values())[index]

    def __len__(self) -> int:
        """Return the number of parameters."""
        return len(self._parameters)

    def __iter__(self) -> Iterator[Any]:
        """Yield the parameters."""
        return iter(self._parameters.values())


class ParameterDict(Module):
    """A dictionary of parameters, which are registered."""

    def __init__(self, parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        for name, p in (parameters or {}).items():
            self[name] = p

    def __getitem__(self, name: str) -> Any:
        """Return a parameter by name."""
        return self._parameters[name]

    def __setitem__(self, name: str, parameter: Any) -> None:
        """Add or replace a parameter."""
        p = parameter if isinstance(parameter, Parameter) else Parameter(parameter)
        self.register_parameter(name, p)

    def __contains__(self, name: str) -> bool:
        """Return whether there is such a parameter."""
        return name in self._parameters

    def __len__(self) -> int:
        """Return the number of parameters."""
        return len(self._parameters)

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._parameters)

    def items(self) -> Iterable[tuple[str, Any]]:
        """Return names and parameters."""
        return self._parameters.items()
