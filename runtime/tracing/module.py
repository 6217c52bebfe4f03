"""A module as one graph: what it computes on inputs of these types, its weights as state under their own names.

This is what leaves the house as a file. Nothing but the results counts: a module that changes itself while it runs, or
draws random numbers, is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...ops.dims import Dim, Shape
from ...ops.errors import OnnxGradError, SaveError
from ...ops.places import to_numpy
from ...ops.types import Array
from ..autograd.grad_mode import no_grad
from ..graph.graph import Graph, Value
from ..nn.module import Module
from ..passes.drop_dead import drop_dead
from ..passes.fold_constants import fold_constants
from ..passes.merge_equal import merge_equal
from ..passes.rewriting import Pass, run_passes
from ..tensor.tensor import Tensor, wrap
from .signature import flatten, unflatten
from .trace import Trace

PASSES: Sequence[Pass] = (fold_constants, drop_dead, merge_equal, drop_dead)


@dataclass(frozen=True)
class Scope:
    """The module that was running when a node was added; the source of that node.

    Attributes:
        path: its dotted name; empty for the outermost.
        kind: its class.
    """

    path: str
    kind: str

    def __str__(self) -> str:
        """Return it as messages name it."""
        return f"{self.path or 'the module itself'} ({self.kind})"


@dataclass(eq=False)
class TracedModule:
    """A module as a graph.

    Attributes:
        graph: its inputs in the order of the example's Tensors, its state by the module's names.
        arrays: the state's arrays.
        kinds: of each name in the state, `parameter`, `buffer` or `constant`.
        result: for each output its place in the result: keys and numbers from the outside in.
    """

    graph: Graph
    arrays: dict[str, Array]
    kinds: dict[str, str]
    result: list[tuple[str, ...]] = field(default_factory=list)


def leaves_of(args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """Return the Tensors and arrays among the arguments, in order."""
    leaves: list[Any] = []
    flatten((tuple(args), kwargs), leaves)
    return leaves


def trace_module(
    module: Module, args: Sequence[Any], kwargs: dict[str, Any], names: Sequence[str], shapes: Sequence[Shape]
) -> TracedModule:
    """Run a module on symbols in the place of its inputs.

    Args:
        module: what to run.
        args: example arguments; what is no Tensor or array is part of the graph.
        kwargs: the same by name.
        names: of the Tensors and arrays among them, in order.
        shapes: theirs, with symbols for the sizes that stay open.

    Raises:
        SaveError: if the module does what a graph cannot hold, with where it does so.
    """
    try:
        return _traced(module, args, kwargs, names, shapes)
    except SaveError as error:
        open_sizes = sorted({str(d) for shape in shapes for d in shape if isinstance(d, Dim)})
        if not open_sizes or not isinstance(error.__cause__, Exception):
            raise
        try:
            _traced(module, args, kwargs, names, [tuple(x.shape) for x in leaves_of(args, kwargs)])
        except SaveError:
            raise error from error.__cause__
        raise SaveError(
            f"{error}\nWith the sizes of the example it can be exported: {', '.join(open_sizes)} cannot stay open there"
        ) from error.__cause__


class _Scoped:
    """Notes in the graph which module is running.

    Attributes:
        failed: the innermost module that an error came out of.
    """

    def __init__(self, module: Module, graph: Graph) -> None:
        self.module, self.graph = module, graph
        self.failed: Scope | None = None

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Put a note around the `forward` of every module below."""
        before: list[tuple[Module, Any]] = []
        try:
            for path, m in self.module.named_modules():
                before.append((m, vars(m).get("forward")))
                object.__setattr__(m, "forward", self._noted(m.forward, Scope(path, type(m).__name__)))
            yield
        finally:
            for m, own in before:
                object.__delattr__(m, "forward") if own is None else object.__setattr__(m, "forward", own)

    def _noted(self, forward: Any, scope: Scope) -> Any:
        @functools.wraps(forward)
        def noted(*args: Any, **kwargs: Any) -> Any:
            before, self.graph.source = self.graph.source, scope
            try:
                return forward(*args, **kwargs)
            except Exception:
                self.failed = self.failed or scope
                raise
            finally:
                self.graph.source = before

        return noted


def _traced(
    module: Module, args: Sequence[Any], kwargs: dict[str, Any], names: Sequence[str], shapes: Sequence[Shape]
) -> TracedModule:
    trace = Trace(whole=True)
    trace.graph.name = type(module).__name__
    scoped = _Scoped(module, trace.graph)
    kind = type(module).__name__
    inputs = [wrap(_array(x)[...]) for x in leaves_of(args, kwargs)]
    try:
        with trace.running(), no_grad():
            for i, (x, name, shape) in enumerate(zip(inputs, names, shapes, strict=True)):
                trace.argument(x, shape, i)
                trace.graph.inputs[i].name = name
            for t in (*module.parameters(), *module.buffers()):
                trace.own(t)
            inner_args, inner_kwargs = unflatten((tuple(args), kwargs), iter(inputs))
            with scoped.noting():
                result = module(*inner_args, **inner_kwargs)
            return _finished(trace, module, result)
    except SaveError:
        raise
    except (OnnxGradError, TypeError, ValueError, AttributeError, IndexError, NotImplementedError) as error:
        where = "" if scoped.failed is None or not scoped.failed.path else f" in {scoped.failed}"
        raise SaveError(f"{kind} cannot be exported{where}: {error}") from error


def _array(x: Any) -> Array:
    return np.asarray(to_numpy(getattr(x, "_array", x)))


def _finished(trace: Trace, module: Module, result: Any) -> TracedModule:
    graph, kind = trace.graph, type(module).__name__
    known = _names(module)
    drawing = {v for v, _ in trace.keys}
    if drawing:
        where = next((n.source for n in graph.nodes if drawing.intersection(n.inputs())), None)
        raise SaveError(f"{kind} cannot be exported: {where} draws random numbers; call eval() on the module first")
    state: dict[str, Value] = {}
    made = TracedModule(graph, {}, {})
    for owned in trace.owned.values():
        if owned.place is not None:
            continue
        name, role = known.get(id(owned.tensor), (f"constant.{len(state)}", "constant"))
        if owned.tensor._array is not owned.value:
            raise SaveError(
                f"{kind} cannot be exported: running it changes {name!r}, and a file has no state that changes; call "
                "eval() on the module first"
            )
        if owned.parent is not None or any(v is owned.value for v in state.values()):
            continue
        state[name] = owned.value
        owned.value.name = name
        made.kinds[name] = role
        made.arrays[name] = owned.array
    graph.state = state
    for path, x in _outputs(result, ()):
        array = x._array
        graph.outputs.append(array if isinstance(array, Value) else graph.constant(np.asarray(array)))
        made.result.append(path)
    if not graph.outputs:
        raise SaveError(f"{kind} cannot be exported: it returns no Tensor")
    made.graph = run_passes(graph, PASSES).graph
    return made


def _names(module: Module) -> dict[int, tuple[str, str]]:
    """Return the name, and the role, of each Tensor that a module holds, by id."""
    found: dict[int, tuple[str, str]] = {}
    for name, t in module.named_parameters():
        found.setdefault(id(t), (name, "parameter"))
    for name, t in module.named_buffers():
        found.setdefault(id(t), (name, "buffer"))
    for path, m in module.named_modules():
        for name, t in vars(m).items():
            if isinstance(t, Tensor):
                found.setdefault(id(t), (f"{path}.{name}" if path else name, "constant"))
    return found


def _outputs(x: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Yield the Tensors of a result with their places; None is left out.

    Raises:
        SaveError: if it holds anything else.
    """
    if isinstance(x, Tensor):
        yield path, x
    elif isinstance(x, dict):
        for k, v in x.items():
            yield from _outputs(v, (*path, str(k)))
    elif isinstance(x, tuple) and hasattr(x, "_fields"):
        for k, v in zip(x._fields, x, strict=True):
            yield from _outputs(v, (*path, k))
    elif isinstance(x, list | tuple):
        for i, v in enumerate(x):
            yield from _outputs(v, (*path, str(i)))
    elif x is not None:
        raise SaveError(f"a result of type {type(x).__name__} cannot be exported: a graph returns Tensors")


__all__ = ["Scope", "TracedModule", "leaves_of", "trace_module"]
