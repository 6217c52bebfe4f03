"""Where a profile looks: functions of this package are replaced by ones that report to a recorder, and put back.

While no profile is under way nothing is replaced, so that nothing costs anything.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...ops.kernels.cpu.target import available
from ...ops.op import Op
from ..autograd import record as recording, tape
from ..autograd.function import Function
from ..autograd.grad_mode import MODE
from ..autograd.node import Node
from ..compiled import choice as engine
from ..data.loader import DataLoader
from ..graph import execute as executing
from ..nn.module import Module
from ..optim.optimizer import Optimizer
from .flops import flops_of
from .recorder import Recorder

_ROOT = __name__.rpartition(".runtime.")[0]


class Watch:
    """The replacements of a profile; `install` and `remove` may be called again and again.

    Attributes:
        recorder: what they report to.
    """

    def __init__(self) -> None:
        """Replace nothing yet."""
        self.recorder: Recorder | None = None
        self._before: list[tuple[Any, str, Any]] = []
        self._known: list[tuple[Any, Any]] = []

    def install(self) -> None:
        """Replace the functions."""
        try:
            self._everywhere(recording.record, self._record)
            self._everywhere(tape._accumulate, self._accumulate)
            self._everywhere(executing.execute, self._execute)
            self._everywhere(engine.compile_program, self._compile)
            self._method(Op, "run", self._run)
            for kind in _family(Node):
                if "gradients" in kind.__dict__:
                    self._method(kind, "gradients", self._gradients)
            self._method(Module, "__call__", self._module)
            for kind in _family(Optimizer):
                for name in ("step", "zero_grad"):
                    if name in kind.__dict__:
                        self._method(kind, name, functools.partial(self._optimizer, name=name))
            self._method(DataLoader, "__iter__", self._batches)
            before = Function.__dict__["apply"]
            self._put(Function, "apply", classmethod(self._wrapped(before.__func__, self._function)))
            if available():
                from ..compiled.kept import KeptProgram
                from ..compiled.program import Program
                from ..compiled.shortcut import Shortcut

                self._method(Program, "_run", self._program)
                self._method(Shortcut, "run", self._shortcut)
                self._method(KeptProgram, "run", self._shortcut)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Put everything back."""
        while self._before:
            owner, name, before = self._before.pop()
            setattr(owner, name, before)
        while self._known:
            function, new = self._known.pop()
            _rebind(new, function)

    def _put(self, owner: Any, name: str, new: Any) -> None:
        self._before.append((owner, name, owner.__dict__[name]))
        setattr(owner, name, new)

    def _method(self, owner: type, name: str, report: Callable[..., Any]) -> None:
        self._put(owner, name, self._wrapped(owner.__dict__[name], report))

    def _everywhere(self, function: Callable[..., Any], report: Callable[..., Any]) -> None:
        """Replace a function in every module of this package that knows it by a name."""
        new = self._wrapped(function, report)
        self._known.append((function, new))
        _rebind(function, new)

    def _wrapped(self, function: Callable[..., Any], report: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that reports, unless a graph is being traced: there nothing is computed."""

        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            recorder = self.recorder
            if recorder is None or MODE.trace is not None:
                return function(*args, **kwargs)
            return report(recorder, function, *args, **kwargs)

        return watched

    # what each reports ---------------------------------------------------------------------------------------------

    def _record(self, recorder: Recorder, function: Any, op: Op, args: Sequence[Any], attrs: dict[str, Any]) -> Any:
        event = recorder.open(op.name, "op", args)
        try:
            result = function(op, args, attrs)
        finally:
            recorder.close(event)
        _count(recorder, event, op, args, result, attrs)
        return result

    def _run(self, recorder: Recorder, function: Any, op: Op, *args: Any, **attrs: Any) -> Any:
        """Report ops on arrays, which backward computes; those of `record` are reported there."""
        outside = recorder.innermost
        if outside is None or outside.scope == 0:
            return function(op, *args, **attrs)
        event = recorder.open(op.name, "op", args)
        try:
            result = function(op, *args, **attrs)
        finally:
            recorder.close(event)
        _count(recorder, event, op, args, result, attrs)
        return result

    def _gradients(self, recorder: Recorder, function: Any, node: Any, gs: Sequence[Any], *rest: Any) -> Any:
        outside = recorder.innermost
        if outside is not None and outside.extra.get("node") is node:
            return function(node, gs, *rest)
        event = recorder.open(node.name(), "backward", [g for g in gs if g is not None])
        event.extra["node"] = node
        try:
            found = function(node, gs, *rest)
        finally:
            recorder.close(event)
            del event.extra["node"]
        if not event.cpu_children:
            made = [g for _, g, _ in found if not any(g is other for other in gs)]
            if recorder.memory:
                event.own_memory = _new_bytes(made, gs)
            if recorder.flops and hasattr(node, "op"):
                event.own_flops = sum(flops_of(node.op, gs, [g], {}) for g in made if hasattr(g, "shape"))
        return found

    def _accumulate(self, recorder: Recorder, function: Any, leaf: Any, g: Any, *rest: Any) -> Any:
        event = recorder.open("AccumulateGrad", "backward", [g])
        before = leaf.grad
        try:
            result = function(leaf, g, *rest)
        finally:
            recorder.close(event)
        if recorder.memory and leaf.grad is not before and not event.cpu_children:
            event.own_memory = _new_bytes([leaf.grad], [g])
        return result

    def _function(self, recorder: Recorder, function: Any, kind: type, *args: Any) -> Any:
        event = recorder.open(kind.__name__, "op", args)
        try:
            return function(kind, *args)
        finally:
            recorder.close(event)

    def _module(self, recorder: Recorder, function: Any, module: Any, *args: Any, **kwargs: Any) -> Any:
        if not recorder.modules:
            return function(module, *args, **kwargs)
        path = _path(recorder, module)
        event = recorder.open(f"nn.Module: {path}", "module", args)
        event.module_hierarchy = path
        event.extra["module"] = module
        try:
            return function(module, *args, **kwargs)
        finally:
            recorder.close(event)
            del event.extra["module"]

    def _optimizer(
        self, recorder: Recorder, function: Any, optimizer: Any, *args: Any, name: str, **kwargs: Any
    ) -> Any:
        title = f"Optimizer.{name}#{type(optimizer).__name__}.{name}"
        if recorder.innermost is not None and recorder.innermost.name == title:  # a subclass calls its base
            return function(optimizer, *args, **kwargs)
        event = recorder.open(title, "optimizer")
        try:
            return function(optimizer, *args, **kwargs)
        finally:
            recorder.close(event)

    def _batches(self, recorder: Recorder, function: Any, loader: Any) -> Iterator[Any]:
        return self._each(function(loader), f"enumerate(DataLoader)#{type(loader).__name__}.__next__")

    def _each(self, batches: Iterator[Any], name: str) -> Iterator[Any]:
        while True:
            recorder = self.recorder
            event = None if recorder is None else recorder.open(name, "data")
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                if recorder is not None and event is not None:
                    recorder.close(event)
            yield batch

    def _program(self, recorder: Recorder, function: Any, program: Any, frame: Any, feeds: Any, *rest: Any) -> Any:
        """Report the stages of a compiled program; of one that stands for a single op, only that op."""
        outside = recorder.innermost
        watch, *others = rest
        if watch is not None or (outside is not None and outside.kind == "op"):
            return function(program, frame, feeds, *rest)
        names = [_stage(stage) for stage in program.compiler.stages]
        env = frame.bound.env

        def seen(number: int, seconds: float) -> None:
            name, node = names[number]
            event = recorder.add(name, "stage", seconds)
            if node:
                event.extra["node"] = node
            if recorder.flops:
                event.own_flops = _stage_flops(program.compiler.stages[number], env)

        event = recorder.open(f"Program: {program.graph.name}", "program", feeds)
        try:
            results = function(program, frame, feeds, seen, *others)
        finally:
            recorder.close(event)
        if recorder.memory:
            event.own_memory = _new_bytes([*results[0], *results[1].values()], feeds)
        return results

    def _compile(self, recorder: Recorder, function: Any, graph: Any, **how: Any) -> Any:
        event = recorder.open(f"Compile: {graph.name}", "compile")
        try:
            return function(graph, **how)
        finally:
            recorder.close(event)

    def _shortcut(self, recorder: Recorder, function: Any, shortcut: Any, *feeds: Any) -> None:
        """Take the long way: there the stages are seen."""

    def _execute(self, recorder: Recorder, function: Any, plan: Any, feeds: Sequence[Any], **how: Any) -> Any:
        """Report the steps of a plan that runs on array kernels; interpreted ones are ops of their own."""
        outside = recorder.innermost
        compiling = outside is not None and outside.kind == "compile"
        if compiling or how.get("interpret") or how.get("watch") is not None:
            return function(plan, feeds, **how)
        import time

        event = recorder.open("Plan", "program", feeds)
        last = [time.perf_counter()]

        def seen(value: Any, result: Any) -> None:
            if value.index + 1 == len(value.node.outputs):
                now = time.perf_counter()
                step = recorder.add(value.node.op.name, "stage", now - last[0])
                if value.node.name:
                    step.extra["node"] = value.node.name
                if recorder.memory:
                    step.own_memory = _new_bytes([result], ())
                last[0] = time.perf_counter()

        try:
            return function(plan, feeds, **{**how, "watch": seen})
        finally:
            recorder.close(event)


def _rebind(old: Any, new: Any) -> None:
    """Put one function in the place of another in every module of this package, those imported meanwhile too."""
    for name, module in list(sys.modules.items()):
        if module is not None and name.startswith(f"{_ROOT}."):
            for key, value in list(vars(module).items()):
                if value is old:
                    setattr(module, key, new)


def _count(recorder: Recorder, event: Any, op: Op, args: Sequence[Any], result: Any, attrs: dict[str, Any]) -> None:
    """Note what an op made, unless the ops in it have noted it."""
    if event.cpu_children or not (recorder.memory or recorder.flops):
        return
    results = result if isinstance(result, tuple | list) else [result]
    if recorder.memory:
        event.own_memory = _new_bytes(results, args)
    if recorder.flops:
        event.own_flops = flops_of(op, args, results, attrs)


def _new_bytes(results: Sequence[Any], args: Sequence[Any]) -> int:
    """Return the bytes that results take, without those that are views of an argument."""
    owned = set()
    for a in args:
        array = getattr(a, "_array", a)
        owned |= {id(array), id(getattr(array, "base", None))}
    owned.discard(id(None))
    total = 0
    for r in results:
        array = getattr(r, "_array", r)
        base = getattr(array, "base", None)
        if hasattr(array, "nbytes") and id(array) not in owned and (base is None or id(base) not in owned):
            total += array.nbytes
    return total


def _family(kind: type[Any]) -> list[type[Any]]:
    """Return a class and all that derive from it, each once."""
    found: dict[type[Any], None] = {kind: None}
    for below in kind.__subclasses__():
        found.update(dict.fromkeys(_family(below)))
    return list(found)


def _path(recorder: Recorder, module: Any) -> str:
    """Return where a module is in the one that calls it, and its class: `features.0 (Conv2d)`."""
    kind = type(module).__name__
    outer = recorder.innermost
    while outer is not None and "module" not in outer.extra:
        outer = outer.cpu_parent
    if outer is None:
        return kind
    parent = outer.extra["module"]
    names = recorder.paths.get(id(parent))
    if names is None or id(module) not in names:
        names = recorder.paths[id(parent)] = {id(m): name for name, m in parent.named_modules() if name}
    name = names.get(id(module))
    if name is None:
        return kind
    before = outer.module_hierarchy.rpartition(" (")[0]
    return f"{before}.{name} ({kind})" if before else f"{name} ({kind})"


def _stage(stage: Any) -> tuple[str, str]:
    """Return what a stage of a program is called, and the node that it is about."""
    if stage.host is not None:
        node = stage.host.node
        return f"{node.op.name} (array)", str(node.name or "")
    node = stage.calls[-1].node
    return " | ".join(dict.fromkeys(call.kernel.name for call in stage.calls)), "" if node is None else str(node.name)


def _stage_flops(stage: Any, env: dict[str, int]) -> int:
    from ...ops import dims

    return sum(int(dims.evaluate(call.kernel.flops, env)) for call in stage.calls)
