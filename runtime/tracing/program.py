"""What a trace becomes: a graph that runs, and what is done with its results.

The graph is made once; each run feeds the arrays that Tensors and optimizers hold then, and writes the new ones where
the old ones lie.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ...ops.places import HOST, place_of
from ...ops.types import Array
from ..autograd.grad_mode import MODE
from ..graph.graph import Value
from ..passes.rewriting import Pass
from ..tensor.random import Generator
from ..tensor.tensor import Tensor
from .engine import PASSES, Engine
from .gradient import TracedGradient
from .optimizer_steps import Count, Numbers, Slot
from .trace import Owned, Trace, on_host


@dataclass(frozen=True, eq=False)
class GradientOf:
    """The gradient that a Tensor has when the function is called."""

    target: Target


Target: TypeAlias = "Tensor | int | GradientOf"
"""A Tensor that the function reaches, the number of an argument, or the gradient of one of these."""


def _target(owned: Owned) -> Target:
    if owned.parent is not None:
        return GradientOf(_target(owned.parent))
    return owned.tensor if owned.place is None else owned.place


def _find(target: Target | Count, leaves: Sequence[Any]) -> Any:
    if isinstance(target, Count):
        return target.tensor
    if isinstance(target, GradientOf):
        return _find(target.target, leaves).grad
    return target if isinstance(target, Tensor) else leaves[target]


@dataclass(eq=False)
class Update:
    """An output that becomes what a Tensor, or a piece of an optimizer's state, holds.

    Attributes:
        target: what changes.
        feed: which feed holds the old array, None where nothing reads it.
        in_place: whether the run may write over it.
    """

    target: Target | Slot | Count
    output: int
    feed: int | None = None
    in_place: bool = False


class TracedProgram:
    """A function as a graph: what it is fed, what it returns, what it changes.

    Attributes:
        graph: what the function computes, before the passes.
        engine: runs the graph.
        updates: what it changes.
        keep: what the function reaches, so that ids stay valid.
    """

    def __init__(
        self, trace: Trace, result: Any, outputs: Sequence[Any], *, keep_grads: bool, threads: int | None, exact: bool,
        passes: Sequence[Pass] = PASSES, memory_limit_bytes: int | None = None, env: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        """Make a finished trace ready, while it still runs.

        Args:
            trace: the trace.
            result: what the function returned.
            outputs: the Tensors in it.
            keep_grads: keep gradients that an optimizer of the same function has used.
            threads: how many.
            exact: without algorithms of larger rounding errors.
            passes: for the graph.
            memory_limit_bytes: how much intermediate values may take.
            env: the sizes to reckon with.
        """
        self.result, self.graph = result, trace.graph
        self._gradient = self._backward = None
        past = any(t.requires_grad and t._edge is not None for t in outputs)
        if past and MODE.enabled and not trace.differentiated and not trace.steps.taken:
            self._gradient = TracedGradient(trace, outputs)
        self.keep: list[Any] = []
        self._returned: list[Tensor | int] = []
        self._outputs: list[Value] = []
        for t in outputs:
            owned = trace.owned.get(id(t))
            if owned is not None and owned.place is None:
                self._returned.append(t)
            else:
                self._returned.append(self._output(t._array))
        updates, sources = self._changes(trace)
        self._saved = self._saves()
        self._grads = self._gradients(trace, keep_grads)
        trace.graph.outputs = self._outputs
        values = [*trace.graph.inputs]
        device = trace.device
        reached = {id(o.value): t for o in trace.owned.values() if isinstance(t := _target(o), Tensor)}
        self.engine = Engine(
            trace.graph, threads=threads, exact=exact, passes=passes, memory_limit_bytes=memory_limit_bytes, env=env,
            device=device, weights={n: reached[id(v)] for n, v in trace.graph.state.items() if id(v) in reached},
        )  # fmt: skip
        names = {v.name for v in self.engine.graph.state.values()}
        kept = [v for v in trace.graph.state.values() if v.name in names]
        places = {id(v): i for i, v in enumerate([*values, *kept])}
        self._sources = [sources[id(v)] for v in (*values, *kept)]
        self.updates = [Update(target, output, places.get(id(old))) for target, output, old in updates]
        for u in self.updates:
            u.in_place = u.feed is not None and self.engine.in_place(u.output, u.feed)
        self.engine.pause_before([u.output for u in self.updates if u.in_place])
        if self._gradient is not None:
            self._saved = [("feed", places[id(v)]) if kind == "value" else (kind, v) for kind, v in self._saved]
            self._targets = [_target(o) for o in self._gradient.owned]
            self._gradient.owned = []
            self._backward = Engine(self._gradient.graph, threads=threads, exact=exact, passes=passes, device=device)
        self._stepped = trace.steps.counted_by_python
        self.keep += [p for _, _, p in trace.steps.taken]

    def _saves(self) -> list[tuple[str, Any]]:
        """Return where what backward reads comes from: an output, or a feed whose Tensor's version backward checks."""
        if self._gradient is None:
            return []
        checked = {id(o.value) for o in self._gradient.owned}
        return [("value", v) if id(v) in checked else ("output", self._output(v)) for v in self._gradient.saved]

    @property
    def results(self) -> list[int]:
        """The outputs of the graph that are returned; others are written to what changes, or saved for backward."""
        return [r for r in self._returned if not isinstance(r, Tensor)]

    def _output(self, array: Any) -> int:
        if not isinstance(array, Value):
            array = self.graph.constant(on_host(array))
        self._outputs.append(array)
        return len(self._outputs) - 1

    def _changes(self, trace: Trace) -> tuple[list[tuple[Any, int, Value]], dict[int, Callable[[Sequence[Any]], Any]]]:
        """Return what is changed (by which output, and its value before), and where each entry comes from."""
        updates: list[tuple[Any, int, Value]] = []
        sources: dict[int, Callable[[Sequence[Any]], Any]] = {}
        for owned in trace.owned.values():
            target = _target(owned)
            sources.setdefault(id(owned.value), _held(target))
            if owned.tensor._array is not owned.value:
                updates.append((target, self._output(owned.tensor._array), owned.value))
            if owned.place is None and owned.parent is None:
                self.keep.append(owned.tensor)
        for piece in trace.steps.brought:
            sources[id(piece.value)] = _brought(piece, trace.device)
        for state in trace.steps.replaced:
            updates.append((state, self._output(state.after), state.value))
        for value, generator in trace.keys:
            sources[id(value)] = _fresh_key(generator)
        return updates, sources

    def _gradients(self, trace: Trace, keep: bool) -> list[tuple[Target, int | None]]:
        """Return the gradients that the function leaves: of what, and which output; None where it leaves none."""
        used = {id(p) for _, _, p in trace.steps.taken} & trace.zeroed
        found: list[tuple[Target, int | None]] = []
        for owned in list(trace.owned.values()):
            t, target = owned.tensor, _target(owned)
            if t.grad is owned.grad and not (t.grad is None and id(t) in trace.zeroed):
                continue
            if t.grad is None or (id(t) in used and not keep):
                found.append((target, None))
            else:
                found.append((target, self._output(t.grad._array)))
        return found

    def run(self, leaves: Sequence[Any]) -> list[Any]:
        """Run on the arguments that are arrays or Tensors, and return the Tensors of the result."""
        feeds = [source(leaves) for source in self._sources]
        into = {}
        for u in self.updates:
            if u.in_place:
                array = feeds[u.feed]  # type: ignore[index]
                if _may_be_overwritten(array):
                    into[u.output] = array
        results = self.engine.run(feeds, into)
        for u in self.updates:
            _put(u.target, leaves, None if u.output in into else results[u.output])
        for optimizer, group, p in self._stepped:
            optimizer._stepped(p, optimizer.param_groups[group])
        for of, output in self._grads:
            tensor = _find(of, leaves)
            if isinstance(tensor, Tensor):
                tensor.grad = None if output is None else Tensor(_own(results[output]))
        returned = [r if isinstance(r, Tensor) else Tensor(_own(results[r])) for r in self._returned]
        if self._gradient is not None and self._backward is not None:
            saved = [feeds[where] if kind == "feed" else _own(results[where]) for kind, where in self._saved]
            backward = self._backward

            def gradients(given: Sequence[Array]) -> Sequence[Any]:
                return backward.run(given, {})

            self._gradient.tie(returned, [_find(t, leaves) for t in self._targets], saved, gradients)
        return returned


def _may_be_overwritten(array: Any) -> bool:
    """Whether a program may write its results over an array."""
    if type(array) is not np.ndarray:
        return place_of(array) != HOST and bool(array.flags.c_contiguous)
    return bool(array.flags.c_contiguous and array.flags.aligned and array.flags.writeable)


def _own(array: Any) -> Array:
    """Return an array that nobody else has; those of a device are nobody else's."""
    if place_of(array) != HOST:
        return array
    array = np.asarray(array)
    return array if array.flags.owndata and array.flags.writeable else array.copy()


def _held(target: Target) -> Callable[[Sequence[Any]], Any]:
    if isinstance(target, Tensor):
        return lambda _: target._array

    def get(leaves: Sequence[Any]) -> Any:
        found = _find(target, leaves)
        return getattr(found, "_array", found)

    return get


def _brought(piece: Slot | Count | Numbers, device: str) -> Callable[[Sequence[Any]], Any]:
    return lambda _: piece.array(device)


def _fresh_key(generator: Generator) -> Callable[[Sequence[Any]], Any]:
    return lambda _: generator.next_key()


def _put(target: Target | Slot | Count, leaves: Sequence[Any], new: Array | None) -> None:
    """Write a new array over the old one, where it fits; None where it lies there already."""
    if isinstance(target, Slot):
        if new is not None:
            target.optimizer._hold(target.parameter, target.name, _own(new))
        return
    holder = _find(target, leaves)
    array = getattr(holder, "_array", holder)
    if new is not None:
        if place_of(array) == HOST:
            new = on_host(new)
        if array.shape == new.shape and array.dtype == new.dtype and (place_of(array) != HOST or array.flags.writeable):
            array[...] = new
        elif isinstance(holder, Tensor):
            holder._array = _own(new)
        else:
            raise ValueError(f"a compiled function changes an argument of shape {array.shape} to shape {new.shape}")
    if isinstance(holder, Tensor):
        holder._bump()
