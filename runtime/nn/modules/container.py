"""Modules that hold modules."""

from __future__ import annotations

import itertools
import operator
from collections import OrderedDict
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, TypeVar

from ..module import Module, indented
from .parameter_container import ParameterDict, ParameterList, pairs

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]

Self = TypeVar("Self", bound="_Numbered")


class _Numbered(Module):
    """Modules in an order, named by their places."""

    _modules: Any

    def __len__(self) -> int:
        """Return the number of modules."""
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        """Yield the modules."""
        return iter(self._modules.values())

    def _key(self, index: Any) -> str:
        """Return the name of the module at a place.

        Raises:
            IndexError: if there is none.
        """
        place = operator.index(index)
        if not -len(self) <= place < len(self):
            raise IndexError(f"index {place} is out of range")
        return [*self._modules][place]  # type: ignore[no-any-return]

    def __setitem__(self, index: int, module: Module) -> None:
        """Replace the module at a place."""
        setattr(self, self._key(index), module)

    def __delitem__(self, index: Any) -> None:
        """Remove the modules at a place or of a slice; those behind move up."""
        for key in [*self._modules][index] if isinstance(index, slice) else [self._key(index)]:
            delattr(self, key)
        self._renumber(self._modules.values())

    def _renumber(self, modules: Iterable[Any]) -> None:
        self._modules = {str(i): m for i, m in enumerate([*modules])}

    def append(self: Self, module: Module) -> Self:
        """Add a module at the end, and return the container."""
        self.add_module(str(len(self)), module)
        return self

    def pop(self, key: Any) -> Any:
        """Remove the modules at a place or of a slice, and return them."""
        found = self[key]
        del self[key]
        return found

    def __getitem__(self, index: Any) -> Any:
        """Return a module by place, or a container of the modules of a slice."""
        raise NotImplementedError


class Sequential(_Numbered):
    """Modules that run one after the other.

    Args:
        args: the modules in order, or one dictionary of them.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            for name, module in args[0].items():
                self.add_module(name, module)
        else:
            for i, module in enumerate(args):
                self.add_module(str(i), module)

    def forward(self, input: Any) -> Any:
        """Run them all."""
        for module in self:
            input = module(input)
        return input

    def __getitem__(self, index: Any) -> Any:
        """Return a module by place, or a Sequential of the modules of a slice."""
        if isinstance(index, slice):
            return type(self)(OrderedDict([*self._modules.items()][index]))
        return self._modules[self._key(index)]

    def __add__(self, other: Sequential) -> Sequential:
        """Return the modules of both, in order."""
        return Sequential(*self, *_sequential(other))

    def __iadd__(self, other: Sequential) -> Sequential:
        """Add the modules of another at the end."""
        return self.extend([*_sequential(other)])

    def __mul__(self, other: int) -> Sequential:
        """Return the modules several times over; they are the same modules each time."""
        return Sequential(*[*self] * self._times(other))

    def __rmul__(self, other: int) -> Sequential:
        """Return the modules several times over."""
        return self * other

    def __imul__(self, other: int) -> Sequential:
        """Add the modules several times over."""
        return self.extend([*self] * (self._times(other) - 1))

    def _times(self, other: Any) -> int:
        if not isinstance(other, int):
            raise TypeError(f"unsupported operand type(s) for *: {type(self)} and {type(other)}")
        if other <= 0:
            raise ValueError(f"Non-positive multiplication factor {other} for {type(self)}")
        return other

    def insert(self, index: int, module: Module) -> Sequential:
        """Add a module before a place, and return the container."""
        if not isinstance(module, Module):
            raise AssertionError(f"module should be of type: {Module}")
        if not -len(self) <= index <= len(self):
            raise IndexError(f"Index out of range: {index}")
        held = [*self]
        held.insert(index, module)
        self._renumber(held)
        return self

    def extend(self, sequential: Iterable[Module]) -> Sequential:
        """Add modules at the end, and return the container."""
        for module in sequential:
            self.append(module)
        return self


def _sequential(other: Any) -> Sequential:
    if not isinstance(other, Sequential):
        raise ValueError(f"add operator supports only objects of Sequential class, but {type(other)} is given.")
    return other


class ModuleList(_Numbered):
    """A list of modules, which are registered.

    Args:
        modules: what it starts with.
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    def __getitem__(self, index: Any) -> Any:
        """Return a module by place, or a list of the modules of a slice."""
        if isinstance(index, slice):
            return type(self)([*self._modules.values()][index])
        return self._modules[self._key(index)]

    def __iadd__(self, modules: Iterable[Module]) -> ModuleList:
        """Add modules at the end."""
        return self.extend(modules)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        """Return the modules of both, in order."""
        return ModuleList(itertools.chain(self, other))

    def insert(self, index: int, module: Module) -> None:
        """Add a module before a place."""
        held = [*self]
        held.insert(index, module)
        self._renumber(held)

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        """Add modules at the end, and return the list."""
        if not isinstance(modules, Iterable):
            raise TypeError(f"ModuleList.extend should be called with an iterable, but got {type(modules).__name__}")
        for module in [*modules]:
            self.append(module)
        return self

    def __repr__(self) -> str:
        """Return the tree of modules; equal neighbours are written once."""
        if not len(self):
            return f"{self._get_name()}()"
        lines, start = [], 0
        for text, group in itertools.groupby(map(repr, self)):
            count = len([*group])
            places = f"({start})" if count == 1 else f"({start}-{start + count - 1})"
            lines.append(f"{places}: {'' if count == 1 else f'{count} x '}{indented(text)}")
            start += count
        return f"{self._get_name()}(\n  " + "\n  ".join(lines) + "\n)"


class ModuleDict(Module):
    """A dictionary of modules, which are registered.

    Args:
        modules: what it starts with: a mapping, or (name, module) pairs.
    """

    _modules: Any

    def __init__(self, modules: Any = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Any:
        """Return a module by name."""
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        """Add or replace a module."""
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        """Remove a module."""
        del self._modules[key]

    def __contains__(self, key: object) -> bool:
        """Return whether there is such a module."""
        return key in self._modules

    def __len__(self) -> int:
        """Return the number of modules."""
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._modules)

    def clear(self) -> None:
        """Remove all modules."""
        self._modules.clear()

    def pop(self, key: str) -> Any:
        """Remove a module, and return it."""
        return self._modules.pop(key)

    def keys(self) -> KeysView[str]:
        """Return the names."""
        return self._modules.keys()  # type: ignore[no-any-return]

    def items(self) -> ItemsView[str, Any]:
        """Return names and modules."""
        return self._modules.items()  # type: ignore[no-any-return]

    def values(self) -> ValuesView[Any]:
        """Return the modules."""
        return self._modules.values()  # type: ignore[no-any-return]

    def update(self, modules: Any) -> None:
        """Add or replace modules.

        Args:
            modules: a mapping, another ModuleDict, or (name, module) pairs.
        """
        for key, module in pairs("ModuleDict.update", "ModuleDict", modules):
            self[key] = module
