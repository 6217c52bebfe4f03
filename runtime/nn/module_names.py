"""What a module holds, by name: submodules, parameters, buffers.

A subclass may override `named_parameters`, `named_buffers` and `named_children`; everything else follows them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..tensor.tensor import Tensor

if TYPE_CHECKING:
    from .module import Module


class Named:
    """The part of a module that finds what is in it."""

    _parameters: dict[str, Any]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the direct submodules by name, each once."""
        seen: set[Module] = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """Yield the direct submodules, each once."""
        return (module for _, module in self.named_children())

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """Yield this module and all below it by dotted name.

        Args:
            memo: modules that are left out, and where those that were yielded are added.
            prefix: stands before all names.
            remove_duplicate: yield a module that has several names once.
        """
        me: Any = self
        memo = set() if memo is None else memo
        if me in memo:
            return
        if remove_duplicate:
            memo.add(me)
        yield prefix, me
        for name, child in self._every_child():
            yield from child.named_modules(memo, joined(prefix, name), remove_duplicate)

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """Yield this module and all below it."""
        return (module for _, module in self.named_modules(remove_duplicate=remove_duplicate))

    def _registries(self) -> list[dict[str, Any]]:
        """Return the dictionaries that hold the module's own parameters and buffers."""
        return [self._parameters, self._buffers]

    def _every_child(self) -> Iterator[tuple[str, Module]]:
        """Yield the direct submodules under all their names."""
        if type(self).named_children is not Named.named_children:
            return self.named_children()
        return ((name, m) for name, m in self._modules.items() if m is not None)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the parameters by dotted name.

        Args:
            prefix: stands before all names.
            recurse: yield those of submodules too.
            remove_duplicate: yield a parameter that has several names once.
        """
        return self._named("_parameters", "named_parameters", prefix, recurse, remove_duplicate)

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the buffers by dotted name; see `named_parameters`."""
        return self._named("_buffers", "named_buffers", prefix, recurse, remove_duplicate)

    def _named(self, registry: str, method: str, prefix: str, recurse: bool, once: bool) -> Iterator[tuple[str, Any]]:
        def every() -> Iterator[tuple[str, Any]]:
            for name, t in self.__dict__[registry].items():
                if t is not None:
                    yield joined(prefix, name), t
            if recurse:
                for name, child in self.named_children() if once else self._every_child():
                    yield from getattr(child, method)(joined(prefix, name), True, once)

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
        """Return the module of a dotted name; this one for an empty name.

        Raises:
            AttributeError: if there is none.
        """
        me: Any = self
        if not target:
            return me  # type: ignore[no-any-return]
        name, _, rest = target.partition(".")
        if not hasattr(me, name):
            raise AttributeError(f"{me._get_name()} has no attribute `{name}`")
        child = getattr(me, name)
        if not isinstance(child, Named):
            raise AttributeError(f"`{name}` is not an nn.Module")
        return child.get_submodule(rest)

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Put a module in the place of the one of a dotted name.

        Args:
            target: the name.
            module: what takes the place.
            strict: raise where there is none yet, instead of adding it.

        Raises:
            ValueError: for an empty name, or for what is no module.
            AttributeError: if the place is not in a module, or holds something else than a module.
        """
        if target == "":
            raise ValueError("Cannot set the submodule without a target name!")
        if not isinstance(module, Named):
            raise ValueError(f"`module` is not an nn.Module, found {type(module)}")
        parent_name, _, name = target.rpartition(".")
        parent: Any = self.get_submodule(parent_name)
        if strict and not hasattr(parent, name):
            raise AttributeError(f"{parent._get_name()} has no attribute `{name}`")
        if hasattr(parent, name) and not isinstance(getattr(parent, name), Named):
            raise AttributeError(f"`{name}` is not an nn.Module")
        setattr(parent, name, module)

    def get_parameter(self, target: str) -> Tensor:
        """Return the parameter of a dotted name.

        Raises:
            AttributeError: if there is none.
        """
        return self._get("named_parameters", target, "_parameters", "is not an nn.Parameter")

    def get_buffer(self, target: str) -> Tensor:
        """Return the buffer of a dotted name.

        Raises:
            AttributeError: if there is none.
        """
        return self._get("named_buffers", target, "_buffers", "is not a buffer")

    def _get(self, method: str, target: str, registry: str, objection: str) -> Tensor:
        for name, t in getattr(self, method)(remove_duplicate=False):
            if name == target:
                return t  # type: ignore[no-any-return]
        path, _, name = target.rpartition(".")
        module: Any = self.get_submodule(path)
        if not hasattr(module, name):
            raise AttributeError(f"{module._get_name()} has no attribute `{name}`")
        raise AttributeError(f"`{name}` {objection}")


def joined(prefix: str, name: str) -> str:
    """Return a dotted name."""
    return f"{prefix}.{name}" if prefix else name
