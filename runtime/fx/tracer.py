"""Tracing a module into a graph of Python calls.

While a trace runs, calls of modules, parameters of modules, and the public functions of this package record themselves
where a traced value is among their arguments, in the thread that traces. Everything is put back when it ends.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...ops.errors import TraceError
from ..model.model import Model
from ..nn.module import Module
from ..tensor.tensor import Tensor
from .graph import Graph
from .graph_module import GraphModule
from .node import map_aggregate
from .proxy import Proxy

_WRAPPED: list[tuple[dict[str, Any], str]] = []
"""Functions that users want recorded rather than traced into: a namespace and a name in it."""


class _Current(threading.local):
    tracer: Tracer | None = None


_current = _Current()
_PACKAGE = __name__.split(".")[0]
_OPERATORS = [f"__{n}__" for n in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")]
_OPERATORS += [f"__{n}__" for n in ("lt", "le", "gt", "ge", "eq", "ne")]


class Tracer:
    """Makes a graph of a module; subclasses decide what is a leaf.

    Args:
        param_shapes_constant: not supported; sizes are read when the graph runs.
    """

    def __init__(self, param_shapes_constant: bool = False) -> None:
        """Start with nothing traced; see the class for the arguments."""
        if param_shapes_constant:
            raise TraceError("param_shapes_constant=True: sizes of parameters are read when the graph runs; pass False")
        self.root: Module = Module()
        self.graph = Graph()

    def is_leaf_module(self, m: Module, module_qualified_name: str) -> bool:
        """Return whether a module becomes one node: this package's own are, containers apart."""
        return type(m).__module__.split(".")[0] == _PACKAGE and type(m).__name__ != "Sequential"

    def trace(self, root: Module | Callable[..., Any], concrete_args: dict[str, Any] | None = None) -> Graph:
        """Return the graph of a module's `forward`, or of a function.

        Args:
            root: what is traced.
            concrete_args: values for arguments that are not to be inputs.

        Raises:
            TraceError: where Python would have to know what only running brings.
        """
        if isinstance(root, Module):
            self.root, fn = root, type(root).forward
        else:
            self.root, fn = Module(), root
        self.graph = Graph(self.root)
        self._paths = {id(m): name for name, m in self.root.named_modules()}
        self._parameters = {id(p): n for n, p in (*self.root.named_parameters(), *self.root.named_buffers())}
        own = list(inspect.signature(fn).parameters.values())[1 if isinstance(root, Module) else 0 :]
        args, kwargs = self._arguments(own, concrete_args or {})
        if _current.tracer is not None:
            raise TraceError("a symbolic trace is under way in this thread already")
        with self._recording(fn):
            result = fn(*((self.root, *args) if isinstance(root, Module) else args), **kwargs)
            self.graph.output(self.create_arg(result))
        return self.graph

    def _arguments(
        self, parameters: Sequence[inspect.Parameter], concrete: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for p in parameters:
            if p.name in concrete:
                value: Any = concrete[p.name]
            elif p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                raise TraceError(f"symbolic_trace: forward takes {p}; name its arguments, or give concrete_args")
            else:
                value = self.placeholder(p.name, p.default)
            if p.kind is p.KEYWORD_ONLY:
                kwargs[p.name] = value
            else:
                args.append(value)
        return args, kwargs

    def placeholder(self, name: str, default: Any = inspect.Parameter.empty) -> Proxy:
        """Return what stands for an argument."""
        given = () if default is inspect.Parameter.empty else (default,)
        return self.create_proxy("placeholder", name, given, {})

    def path_of_module(self, mod: Module) -> str:
        """Return the dotted name of a submodule.

        Raises:
            TraceError: if it is not below the root.
        """
        path = self._paths.get(id(mod))
        if path is None:
            raise TraceError(
                f"{type(mod).__name__} is not installed as a submodule of {type(self.root).__name__}: assign it to an "
                "attribute of a module"
            )
        return path

    def call_module(self, m: Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call of a leaf module, or go on inside."""
        path = self.path_of_module(m)
        if self.is_leaf_module(m, path):
            return self.create_proxy("call_module", path, args, kwargs)
        return forward(*args, **kwargs)

    def create_proxy(self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Proxy:
        """Add a node, and return what stands for its result."""
        made = self.graph.create_node(kind, target, self.create_arg(args), self.create_arg(kwargs))
        return Proxy(made, self)

    def create_arg(self, a: Any) -> Any:
        """Return arguments as nodes hold them; Tensors become attributes of the module."""

        def one(x: Any) -> Any:
            if isinstance(x, Proxy):
                return x.node
            if isinstance(x, Tensor):
                name = self._parameters.get(id(x))
                if name is None:
                    name = self._constant(x)
                return self.graph.get_attr(name)
            return x

        return map_aggregate(a, one)

    def _constant(self, t: Tensor) -> str:
        count = 0
        while hasattr(self.root, f"_tensor_constant{count}"):
            count += 1
        name = f"_tensor_constant{count}"
        self.root.register_buffer(name, t, persistent=True)
        self._parameters[id(t)] = name
        return name

    @contextmanager
    def _recording(self, fn: Callable[..., Any]) -> Iterator[None]:
        places = list(_places(getattr(inspect.unwrap(fn), "__globals__", {})))
        before = [(namespace, name, namespace[name]) for namespace, name in places]
        call = Module.__call__
        operators = {name: getattr(Tensor, name) for name in _OPERATORS}
        _current.tracer = self
        try:
            for namespace, name, function in before:
                namespace[name] = _recorded(function)
            for name, method in operators.items():
                setattr(Tensor, name, _deferring(method))
            Module.__call__ = _called(call)  # type: ignore[method-assign]
            yield
        finally:
            for name, method in operators.items():
                setattr(Tensor, name, method)
            Module.__call__ = call  # type: ignore[method-assign]
            for namespace, name, function in before:
                namespace[name] = function
            _current.tracer = None


def symbolic_trace(
    root: Module | Callable[..., Any], concrete_args: dict[str, Any] | None = None
) -> GraphModule:  # fmt: skip
    """Return a module that computes what another one, or a function, computes, as a graph that can be changed.

    Args:
        root: what is traced; its parameters and submodules are shared. The nodes of an imported model are its layers.
        concrete_args: values for arguments that are not to be inputs.

    Raises:
        TraceError: where Python would have to know what only running brings.
    """
    if isinstance(root, Model):
        if concrete_args:
            raise TraceError("symbolic_trace: an imported model has no concrete_args; its inputs are Tensors")
        from .imported import graph_module_of

        return graph_module_of(root)
    tracer = Tracer()
    graph = tracer.trace(root, concrete_args)
    name = type(root).__name__ if isinstance(root, Module) else root.__name__
    return GraphModule(tracer.root, graph, name)


def wrap(fn_or_name: str | Callable[..., Any]) -> str | Callable[..., Any]:
    """Have a function of the calling file recorded as one node rather than traced into.

    Args:
        fn_or_name: the function, as a decorator, or its name.
    """
    name = fn_or_name if isinstance(fn_or_name, str) else fn_or_name.__name__
    frame = sys._getframe(1)
    _WRAPPED.append((frame.f_globals, name))
    return fn_or_name


def _places(namespace: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield where functions that record themselves are named: the public modules, `math`, and the traced file."""
    import importlib

    face = importlib.import_module(_PACKAGE)
    functional = importlib.import_module(f"{_PACKAGE}.nn.functional")
    homes = face._HOME.items()
    public = [n for n, home in homes if home.startswith("runtime.") and inspect.isfunction(getattr(face, n))]
    known = {id(getattr(face, n)) for n in public} | {id(getattr(functional, n)) for n in functional.__all__}
    yield from ((vars(face), name) for name in public)
    yield from ((vars(functional), name) for name in functional.__all__)
    if namespace not in (vars(face), vars(functional)):
        for name, value in list(namespace.items()):
            if id(value) in known or (inspect.isbuiltin(value) and value.__module__ == "math"):
                yield namespace, name
    for name, value in vars(math).items():
        if inspect.isbuiltin(value):
            yield vars(math), name
    seen = set()
    for place, name in _WRAPPED:
        if (id(place), name) not in seen and name in place:
            seen.add((id(place), name))
            yield place, name


def _recorded(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        tracer = _current.tracer
        if tracer is not None and _has_proxy((args, kwargs)):
            return tracer.create_proxy("call_function", function, args, kwargs)
        return function(*args, **kwargs)

    return call


def _deferring(method: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return an operator of Tensors that leaves traced values to theirs."""

    @functools.wraps(method)
    def operator(self: Any, other: Any) -> Any:
        return NotImplemented if isinstance(other, Proxy) else method(self, other)

    return operator


def _called(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def module_call(self: Module, *args: Any, **kwargs: Any) -> Any:
        tracer = _current.tracer
        if tracer is None:
            return call(self, *args, **kwargs)
        return tracer.call_module(self, lambda *a, **k: call(self, *a, **k), args, kwargs)

    return module_call


def _has_proxy(a: Any) -> bool:
    found = False

    def look(x: Any) -> Any:
        nonlocal found
        found = found or isinstance(x, Proxy)
        return x

    map_aggregate(a, look)
    return found
