"""What a call of a compiled function hangs on beside the elements of Tensors: its signature.

Two calls of the same signature run the same graph. It holds what arguments are, modules' modes and what is frozen in
them, optimizers' settings that shape the graph, and the sizes of arguments.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..autograd.grad_mode import MODE
from ..model.model import Model
from ..nn.module import Module
from ..nn.module_hooks import GLOBAL, hook_numbers
from ..optim.optimizer import Optimizer
from ..tensor.tensor import Tensor

STATIC = (bool, int, float, complex, str, bytes, type(None), np.dtype, type, np.generic)
"""What is part of the graph: another value is another graph."""

_DEPTH = 4

_OPAQUE = ("numpy", "builtins", "onnxgrad.ops", "onnxgrad.runtime", "onnxgrad.importers")
"""Modules of classes whose attributes are of no concern."""


@dataclass
class Reached:
    """What a function can reach that has state.

    Attributes:
        modules, optimizers, tensors: each once.
        others: objects whose identity counts.
    """

    modules: list[Module] = field(default_factory=list)
    optimizers: list[Optimizer] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    def add(self, x: Any, depth: int = 0) -> None:
        """Add an object and what it refers to: containers, attributes, closures, globals that code names."""
        if isinstance(x, STATIC) or depth > _DEPTH or id(x) in self.seen or isinstance(x, types.ModuleType):
            return
        self.seen.add(id(x))
        if isinstance(x, Module):
            self.modules.append(x)
        elif isinstance(x, Optimizer):
            self.optimizers.append(x)
        elif isinstance(x, Tensor):
            self.tensors.append(x)
        elif isinstance(x, list | tuple | set | frozenset):
            for v in x:
                self.add(v, depth + 1)
        elif isinstance(x, dict):
            for v in x.values():
                self.add(v, depth + 1)
        elif isinstance(x, types.MethodType):
            self.add(x.__self__, depth)
            self.add(x.__func__, depth)
        elif isinstance(x, functools.partial):
            self.add((x.func, x.args, x.keywords), depth)
        elif isinstance(x, types.FunctionType):
            self._function(x, depth)
        elif hasattr(x, "__wrapped__"):
            self.add(x.__wrapped__, depth)
        elif not type(x).__module__.startswith(_OPAQUE) and hasattr(x, "__dict__"):
            for v in vars(x).values():
                self.add(v, depth + 1)

    def _function(self, f: types.FunctionType, depth: int) -> None:
        if f.__module__ is not None and f.__module__.partition(".")[0] == "onnxgrad":
            return
        for cell in f.__closure__ or ():
            try:
                self.add(cell.cell_contents, depth + 1)
            except ValueError:  # a cell that is filled later
                continue
        for name in _names(f.__code__):
            if name in f.__globals__:
                self.add(f.__globals__[name], depth + 1)
        self.add(f.__defaults__ or (), depth)

    def ids(self) -> set[int]:
        """Return the ids of all Tensors that it found."""
        inside = {id(t) for m in self.modules for t in (*m.parameters(), *m.buffers())}
        steered = {id(p) for o in self.optimizers for g in o.param_groups for p in g["params"]}
        return inside | steered | {id(t) for t in self.tensors}


@functools.lru_cache(maxsize=1024)
def _names(code: types.CodeType) -> tuple[str, ...]:
    """Return the names that code and the code inside it mention."""
    found = dict.fromkeys(code.co_names)
    for c in code.co_consts:
        if isinstance(c, types.CodeType):
            found.update(dict.fromkeys(_names(c)))
    return tuple(found)


def flatten(x: Any, leaves: list[Any]) -> Any:
    """Return a key of the structure of arguments, and add its Tensors and arrays to `leaves`."""
    if isinstance(x, Tensor):
        leaves.append(x)
        return ("t", str(x.dtype), x.ndim, x.requires_grad, x.grad is None, x._edge is None, type(x))
    if isinstance(x, np.ndarray) or (hasattr(x, "__cuda_array_interface__") and hasattr(x, "dtype")):
        leaves.append(x)
        return ("a", str(x.dtype), x.ndim)
    if isinstance(x, list | tuple):
        return (type(x), *(flatten(v, leaves) for v in x))
    if isinstance(x, dict):
        return (dict, *((k, flatten(v, leaves)) for k, v in x.items()))
    if isinstance(x, STATIC):
        return (type(x), repr(x) if isinstance(x, float) else x)
    return (type(x), id(x))


def unflatten(x: Any, leaves: Iterator[Any]) -> Any:
    """Return arguments with other leaves."""
    if isinstance(x, Tensor | np.ndarray) or (hasattr(x, "__cuda_array_interface__") and hasattr(x, "dtype")):
        return next(leaves)
    return rebuilt(x, lambda v: unflatten(v, leaves))


def rebuilt(x: Any, f: Callable[[Any], Any]) -> Any:
    """Return a container with every entry replaced; anything else is returned as it is."""
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*map(f, x))
    if isinstance(x, list | tuple):
        return type(x)(map(f, x))
    return {k: f(v) for k, v in x.items()} if isinstance(x, dict) else x


def context_key(reached: Reached) -> tuple[Any, ...]:
    """Return what the graph hangs on of modules, optimizers and Tensors around the function."""
    return (
        MODE.enabled,
        None if MODE.autocast is None else MODE.autocast.key,
        GLOBAL.numbers(),
        tuple(map(_module_key, reached.modules)),
        tuple(map(_optimizer_key, reached.optimizers)),
        tuple(map(_tensor_key, reached.tensors)),
    )


def _module_key(m: Module) -> Any:
    seen = (id(m), m.training, hook_numbers(m))
    if isinstance(m, Model):
        layers = tuple((layer.name, hook_numbers(layer)) for layer in m._hooked)
        return (*seen, id(m.graph), tuple(map(_tensor_key, m._state.values())), layers)
    if type(m).named_parameters is not Module.named_parameters:
        return (*seen, tuple(map(_tensor_key, (*m.parameters(), *m.buffers()))))
    own = [t for registry in (m._parameters, m._buffers) for t in registry.values() if t is not None]
    children = tuple(_module_key(c) for c in m._modules.values() if c is not None)
    return (*seen, tuple(map(_tensor_key, own)), children)


def _tensor_key(t: Tensor) -> Any:
    return (id(t), t.requires_grad, t.grad is None, t._array.dtype, t._array.shape)


def _optimizer_key(o: Optimizer) -> Any:
    groups = []
    for group in o.param_groups:
        flags = tuple((k, bool(v)) for k, v in group.items() if isinstance(v, bool | int | float) and k != "lr")
        ages: dict[Any, int] = {}
        params = tuple(
            (_tensor_key(p), ages.setdefault(o._age(o.state.get(p, {})), len(ages))) for p in group["params"]
        )
        groups.append((flags, params))
    return (id(o), tuple(groups))


def shapes_of(leaves: Sequence[Any]) -> tuple[tuple[int, ...], ...]:
    """Return the sizes of arguments."""
    return tuple(tuple(x.shape) for x in leaves)
