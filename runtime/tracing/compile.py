"""`compile`: a Python function over Tensors becomes one graph, traced once and run many times.

A whole training step may be such a function: forward, loss, backward and the optimizer's step are then one program,
with nothing between its kernels.
"""

from __future__ import annotations

import functools
import gc
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...ops.dims import Dim, Shape
from ...ops.errors import OnnxGradError, TraceError
from ..autograd.grad_mode import MODE
from ..graph.graph import Value
from ..model.model import Model
from ..tensor.tensor import Tensor, wrap
from .program import TracedProgram
from .signature import Reached, context_key, flatten, rebuilt, shapes_of, unflatten
from .trace import Trace

PROGRAMS, FAMILIES = 8, 64
"""How many programs, and signatures but for sizes, a compiled function keeps; what was used longest ago goes first."""


@dataclass(frozen=True)
class _Place:
    """Stands in the result for the Tensor of this number."""

    index: int


@dataclass(eq=False)
class _Family:
    """Calls that differ in sizes alone.

    Attributes:
        first: the sizes of the first.
        groups: axes (argument, axis) whose sizes vary, those that have always been equal together.
        fixed: why sizes have to be compiled in; empty where they need not.
    """

    first: tuple[tuple[int, ...], ...]
    groups: list[list[tuple[int, int]]] = field(default_factory=list)
    fixed: str = ""

    def pattern(self, shapes: tuple[tuple[int, ...], ...]) -> tuple[Shape, ...]:
        """Return the sizes to compile for: symbols where sizes have varied and are not 0 or 1."""
        if self.fixed:
            return shapes
        known = {axis for group in self.groups for axis in group}
        fresh = [
            (i, a)
            for i, shape in enumerate(shapes)
            for a, n in enumerate(shape)
            if n != self.first[i][a] and (i, a) not in known
        ]
        split: list[list[tuple[int, int]]] = []
        for group, before in [*((g, False) for g in self.groups), (fresh, True)]:
            parts: dict[Any, list[tuple[int, int]]] = {}
            for i, a in group:
                parts.setdefault((shapes[i][a], self.first[i][a] if before else 0), []).append((i, a))
            split += parts.values()
        self.groups = split
        symbols = {axis: f"n{i}_{a}" for group in split for i, a in group[:1] for axis in group}
        return tuple(
            tuple(Dim.symbol(symbols[i, a]) if (i, a) in symbols and n > 1 else n for a, n in enumerate(shape))
            for i, shape in enumerate(shapes)
        )


class Compiled:
    """A function that runs as a graph; `compile` makes it.

    Attributes:
        compilations: how many programs have been made.
    """

    def __init__(
        self, function: Callable[..., Any], *, keep_grads: bool = False, threads: int | None = None, exact: bool =
        False, memory_limit_bytes: int | None = None,
    ) -> None:  # fmt: skip
        """Keep a function; see `compile`."""
        self.function, self.keep_grads, self.threads, self.exact = function, keep_grads, threads, exact
        self.memory_limit_bytes = memory_limit_bytes
        self.compilations = 0
        self._families: OrderedDict[Any, _Family] = OrderedDict()
        self._programs: OrderedDict[Any, TracedProgram] = OrderedDict()
        self._known: set[int] = set()
        self._lock = threading.RLock()
        functools.update_wrapper(self, function, updated=())

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Return a compiled method, so that `@compile` works inside classes."""
        return self if instance is None else functools.partial(self, instance)

    def __getattr__(self, name: str) -> Any:
        """Find an attribute of the function or module itself."""
        if name == "function":
            raise AttributeError(name)
        return getattr(self.function, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run, compiling first where this signature is new."""
        if MODE.trace is not None:
            return self.function(*args, **kwargs)
        leaves: list[Any] = []
        structure = flatten((args, kwargs), leaves)
        program = self._program(structure, leaves, args, kwargs)
        tensors = program.run(leaves)

        def fill(x: Any) -> Any:
            return tensors[x.index] if isinstance(x, _Place) else rebuilt(x, fill)

        return fill(program.result)

    @property
    def programs(self) -> list[TracedProgram]:
        """The programs that are kept, the last one used last."""
        return list(self._programs.values())

    def program(self, *args: Any, **kwargs: Any) -> TracedProgram:
        """Return the program for these arguments, compiled now where it is new; nothing runs.

        Args:
            args: as in a call.
            kwargs: as in a call.
        """
        leaves: list[Any] = []
        return self._program(flatten((args, kwargs), leaves), leaves, args, kwargs)

    def _program(self, structure: Any, leaves: list[Any], args: Any, kwargs: Any) -> TracedProgram:
        reached = Reached()
        reached.add(self.function)
        reached.add([args, kwargs])
        mine = {id(x) for x in leaves}
        reached.tensors = [t for t in reached.tensors if id(t) not in mine]
        same = tuple(next(j for j, y in enumerate(leaves) if y is x) for x in leaves)
        context, shapes = context_key(reached), shapes_of(leaves)
        with self._lock:
            key = (structure, same, self._aliases(leaves), context)
            family = self._families.get(key)
            if family is None:
                self._known |= reached.ids() - mine
                self._known |= {id(t) for m in reached.modules for t in (*m.parameters(), *m.buffers())}
                key = (structure, same, self._aliases(leaves), context)
                family = self._families.get(key)
            if family is None:
                family = self._families[key] = _Family(shapes)
                while len(self._families) > FAMILIES:
                    self._families.popitem(last=False)
            self._families.move_to_end(key)
            pattern = family.pattern(shapes)
            found = self._programs.get((key, pattern))
            if found is None:
                found, pattern = self._compile(family, pattern, shapes, leaves, args, kwargs, reached)
                self._programs[key, pattern] = found
                while len(self._programs) > PROGRAMS:
                    self._programs.popitem(last=False)
            else:
                self._programs.move_to_end((key, pattern))
            return found

    def _aliases(self, leaves: list[Any]) -> tuple[int, ...]:
        """Return which arguments are Tensors that the function reaches by themselves too."""
        return tuple([id(x) if id(x) in self._known else 0 for x in leaves])

    def _compile(
        self, family: _Family, pattern: tuple[Shape, ...], shapes: tuple[tuple[int, ...], ...], leaves: list[Any],
        args: Any, kwargs: Any, reached: Reached,
    ) -> tuple[TracedProgram, tuple[Shape, ...]]:  # fmt: skip
        self.compilations += 1
        if pattern == shapes:
            return self._trace(shapes, leaves, args, kwargs, reached), shapes
        try:
            return self._trace(pattern, leaves, args, kwargs, reached), pattern
        except (OnnxGradError, TypeError, ValueError, AttributeError) as error:
            made = self._trace(shapes, leaves, args, kwargs, reached)
            family.fixed = str(error)
            warnings.warn(
                f"{self._name}: it cannot be compiled for all sizes at once, each new size is compiled anew: {error}",
                RuntimeWarning,
                stacklevel=5,
            )
            return made, shapes

    @property
    def _name(self) -> str:
        return getattr(self.function, "__qualname__", type(self.function).__name__)

    def _trace(
        self, shapes: Sequence[Shape], leaves: list[Any], args: Any, kwargs: Any, reached: Reached
    ) -> TracedProgram:
        trace = Trace()
        try:
            with trace.running():
                program = self._run_traced(trace, shapes, leaves, args, kwargs, reached)
        except (AttributeError, TypeError) as error:
            if "Value" not in str(error):
                raise
            raise TraceError(
                f"{self._name} works on the array of a Tensor by itself ({error}); inside a compiled function Tensors "
                "have none: use methods of Tensors, or leave this function uncompiled"
            ) from error
        self._check_left(trace)
        self._known |= {i for i, owned in trace.owned.items() if owned.place is None and owned.parent is None}
        return program

    def _run_traced(
        self, trace: Trace, shapes: Sequence[Shape], leaves: list[Any], args: Any, kwargs: Any, reached: Reached
    ) -> TracedProgram:
        given: dict[int, Tensor] = {}
        for i, (x, shape) in enumerate(zip(leaves, shapes, strict=True)):
            if id(x) not in given:
                given[id(x)] = x if isinstance(x, Tensor) else wrap(x)
                trace.argument(given[id(x)], shape, i)
        for module in reached.modules:
            for t in (*module.parameters(), *module.buffers()):
                trace.own(t)
        symbolic = iter([given[id(x)] for x in leaves])
        inner_args, inner_kwargs = unflatten((args, kwargs), symbolic)
        result = self.function(*inner_args, **inner_kwargs)
        outputs: list[Tensor] = []
        models = [m for m in reached.modules if isinstance(m, Model)]
        program = TracedProgram(
            trace,
            _collected(result, outputs),
            outputs,
            keep_grads=self.keep_grads,
            threads=self.threads or next((m.threads for m in models if m.threads), None),
            exact=self.exact or any(m.accuracy == "exact" for m in models),
            memory_limit_bytes=self.memory_limit_bytes,
            env={
                d.name: x.shape[a]
                for x, shape in zip(leaves, shapes, strict=True)
                for a, d in enumerate(shape)
                if isinstance(d, Dim) and d.name
            },
        )
        program.keep += [self.function, *reached.modules, *reached.optimizers, args, kwargs]
        return program

    def _check_left(self, trace: Trace) -> None:
        """Refuse that Tensors without elements stay behind.

        Raises:
            TraceError: if a Tensor made inside is kept outside.
        """
        left = [t for t in trace.survivors() if isinstance(t._array, Value)]
        if left:
            del left
            gc.collect()
            left = [t for t in trace.survivors() if isinstance(t._array, Value)]
        if left:
            raise TraceError(
                f"{self._name} keeps a Tensor of shape {list(left[0].shape)} that it computed, in an attribute, a list "
                "or a global: a compiled function leaves nothing behind but what it returns and what it changes in "
                "place. Return it, or copy_() it into a Tensor that is there before"
            )


def _collected(x: Any, tensors: list[Tensor]) -> Any:
    """Return a result with places for its Tensors, which are added to `tensors`."""
    if not isinstance(x, Tensor):
        return rebuilt(x, lambda v: _collected(v, tensors))
    tensors.append(x)
    return _Place(len(tensors) - 1)


def compile(
    f: Any = None,
    *,
    keep_grads: bool = False,
    threads: int | None = None,
    exact: bool = False,
    memory_limit_bytes: int | None = None,
) -> Any:
    """Return a function that computes what f does as one compiled graph; also a decorator, for modules too.

    f runs as Python once for each signature: kinds and shapes of its Tensors and arrays, the modes of modules and what
    is frozen in them, and everything else among its arguments, which counts by value (numbers, strings) or by identity.
    What it computes on Tensors becomes a graph; Python around that is not run again. Reading elements inside (`item()`,
    `if` on a Tensor) is an error. A size that varies from call to call becomes a symbol the second time, so a third
    costs nothing.

    What f changes in place is changed: parameters, buffers, gradients, optimizers' state. A learning rate and other
    numbers of an optimizer may change between calls. Dropout draws anew in each call, the same numbers as without
    compiling. NumPy arrays that f reaches otherwise than as arguments are constants.

    Where f runs backward itself, the Tensors that it returns are leaves: they hold no past to differentiate. Where it
    does not, they know theirs, and backward through them is compiled too; there are first derivatives only.

    Python sees a size that has become a symbol as unequal to every number: sizes that f branches on should not vary.

    Args:
        f: a function or a module.
        keep_grads: leave the gradients that an optimizer's step inside f has used in `.grad`, though f drops them at
            its start; they are None otherwise.
        threads: how many; the physical cores by default.
        exact: leave algorithms with larger rounding errors out.
        memory_limit_bytes: how much memory values between arguments and results may take. Where they take more, cheap
            ones (pointwise ops, normalisations) are computed again for backward instead of being kept.

    Raises:
        TraceError: at a call, if f does what a graph cannot hold.
    """
    if f is None:
        return functools.partial(
            compile, keep_grads=keep_grads, threads=threads, exact=exact, memory_limit_bytes=memory_limit_bytes
        )
    return Compiled(f, keep_grads=keep_grads, threads=threads, exact=exact, memory_limit_bytes=memory_limit_bytes)


__all__ = ["Compiled", "compile"]
