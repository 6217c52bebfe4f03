"""The steps that optimizers take inside a trace: what they read and replace beside parameters and gradients.

Settings may change from run to run, so each run brings vectors of numbers. Where every step is taken, Python makes them
of settings and counted steps. Where a flag on the device may skip a step, only the device knows how many were taken: it
counts them, and makes the numbers itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ...ops import pointwise as pw
from ...ops.errors import TraceError
from ...ops.optimize import step_numbers
from ...ops.places import place_of
from ...ops.types import Array, TensorType
from ..graph.graph import Value
from ..optim.formulas import Formulas
from ..optim.settings import number
from ..tensor.device import to_device
from ..tensor.tensor import Tensor, wrap

if TYPE_CHECKING:
    from ..optim.optimizer import Optimizer
    from .trace import Trace


@dataclass(eq=False)
class Slot:
    """A piece of an optimizer's state: its value before, and after, the step."""

    optimizer: Optimizer
    parameter: Tensor
    name: str
    value: Value
    after: Value

    def array(self, device: str) -> Array:
        """Return what it holds."""
        return self.optimizer._held(self.parameter, self.name)


@dataclass(eq=False)
class Count:
    """A number by which the state of several parameters counts steps: its value before, and after, the step."""

    optimizer: Optimizer
    group: int
    parameters: list[Tensor]
    name: str
    value: Value
    after: Value

    @property
    def tensor(self) -> Tensor:
        """The Tensor of the first parameter's state."""
        found: Tensor = self.optimizer.state[self.parameters[0]][self.name]
        return found

    def array(self, device: str) -> Array:
        """Return the one array that all of them count by, made where there are several or it lies elsewhere."""
        states, dtype = [self.optimizer.state[p] for p in self.parameters], self.value.dtype
        held = states[0].get(self.name)
        array = held._array if isinstance(held, Tensor) else None
        one = all(getattr(s.get(self.name), "_array", None) is array for s in states)
        if array is not None and one and array.dtype == dtype and place_of(array) == device:
            return array
        group = self.optimizer.param_groups[self.group]
        start = self.optimizer._counts(states[0], group)[self.name] if held is None else number(held)
        array = to_device(np.asarray(start, dtype), device)
        for state in states:
            if isinstance(state.get(self.name), Tensor):
                state[self.name]._array = array
            else:
                state[self.name] = wrap(array)
        return array


@dataclass(eq=False)
class Numbers:
    """A vector that Python makes before each run: of an optimizer's settings and counts, or of its settings alone.

    Attributes:
        read: what updates read: the vector itself, or what the graph makes of it.
        formulas: what the graph computes; None where Python does.
    """

    value: Value
    optimizer: Optimizer
    group: int
    parameter: Tensor
    read: Value
    formulas: Formulas | None = None

    def array(self, device: str) -> Array:
        """Return the vector, on the host."""
        group = self.optimizer.param_groups[self.group]
        if self.formulas is not None:
            return self.formulas.values(group)
        state = self.optimizer.state.get(self.parameter, {})
        return np.array(self.optimizer._numbers(state, group), self.parameter._array.dtype)


Key: TypeAlias = tuple[int, int, int]


class OptimizerSteps:
    """The steps of one trace.

    Attributes:
        slots: the state that they replace.
        taken: (optimizer, group, parameter) of each update.
        skips: by the id of an optimizer one float32, not 0 in runs that leave its step out.
    """

    def __init__(self, trace: Trace) -> None:
        """Begin with none."""
        self.trace = trace
        self.slots: list[Slot] = []
        self.taken: list[tuple[Optimizer, int, Tensor]] = []
        self.skips: dict[int, Tensor] = {}
        self._numbers: dict[Key, Numbers] = {}
        self._counts: dict[Key, list[Count]] = {}

    @property
    def replaced(self) -> Iterator[Slot | Count]:
        """What a run writes anew."""
        yield from self.slots
        for counts in self._counts.values():
            yield from counts

    @property
    def brought(self) -> Iterator[Slot | Count | Numbers]:
        """What a run brings."""
        yield from self.replaced
        yield from self._numbers.values()

    @property
    def counted_by_python(self) -> list[tuple[Optimizer, int, Tensor]]:
        """The updates that Python counts behind a run, as none is skipped."""
        return [step for step in self.taken if id(step[0]) not in self.skips]

    def take(self, optimizer: Optimizer) -> None:
        """Update every parameter that has a gradient, but for runs in which the optimizer's flag is set.

        Raises:
            TraceError: if it has stepped before.
        """
        trace, flag, skip = self.trace, self.skips.get(id(optimizer)), None
        if flag is not None:
            trace.own(flag)
            skip = flag._array
        for i, group in enumerate(optimizer.param_groups):
            for p in group["params"]:
                if p.grad is None:
                    continue
                trace.own(p)
                trace.own(p.grad)
                g: Any = p.grad._array
                if group.get("maximize"):
                    g = pw.neg(g)
                read = self._read(optimizer, i, p, skip)
                new, state = optimizer._trace(p._array, g, self._slot(optimizer, p), group, read, skip)
                trace.assign(p, new)
                p._bump()
                for slot in self.slots[len(self.slots) - len(state) :]:
                    slot.after = state[slot.name]
                self.taken.append((optimizer, i, p))

    def _slot(self, optimizer: Optimizer, p: Tensor) -> Callable[[str], Value]:
        graph = self.trace.graph

        def slot(name: str) -> Value:
            if any(s.parameter is p and s.name == name and s.optimizer is optimizer for s in self.slots):
                raise TraceError("an optimizer steps twice inside one compiled function; compile one step")
            value = graph.add_state(f"{name}.{len(graph.state)}", TensorType(p._array.dtype, tuple(p._array.shape)))
            self.slots.append(Slot(optimizer, p, name, value, value))
            return value

        return slot

    def _read(self, optimizer: Optimizer, group: int, p: Tensor, skip: Any) -> Value:
        """Return the numbers that the update of a parameter reads."""
        state = optimizer.state.get(p, {})
        key = (id(optimizer), group, hash((str(p.dtype), optimizer._age(state))))
        found = self._numbers.get(key)
        if found is None:
            found = self._numbers[key] = self._vector(optimizer, group, p, skip)
        if found.formulas is not None:
            for count in self._counting(optimizer, group, p, found.formulas):
                count.parameters.append(p)
        return found.read

    def _vector(self, optimizer: Optimizer, group: int, p: Tensor, skip: Any) -> Numbers:
        settings, state = optimizer.param_groups[group], optimizer.state.get(p, {})
        graph, name = self.trace.graph, f"numbers{len(self._numbers)}"
        formulas = None if skip is None else Formulas.of(optimizer, state, settings)
        if formulas is None or not (formulas.counts and formulas.numbers):
            value = graph.input(name, TensorType(p.dtype, (len(optimizer._numbers(state, settings)),)))
            return Numbers(value, optimizer, group, p, value)
        value = graph.input(name, TensorType(np.dtype(np.float64), (formulas.size,)))
        counts = self._counting(optimizer, group, p, formulas)
        read, *behind = step_numbers(
            value, skip, [c.value for c in counts], numbers=formulas.numbers, counted=formulas.counted,
            dtype=str(p.dtype),
        )  # fmt: skip
        for count, after in zip(counts, behind, strict=True):
            count.after = after if count.after is count.value else count.after
        return Numbers(value, optimizer, group, p, read, formulas)

    def _counting(self, optimizer: Optimizer, group: int, p: Tensor, formulas: Formulas) -> list[Count]:
        """Return what counts the steps of a parameter, and of others of its group that have taken the same ones."""
        state, graph = optimizer.state.get(p, {}), self.trace.graph
        key = (id(optimizer), group, hash(optimizer._age(state)))
        if key not in self._counts:
            self._counts[key] = []
            for name in formulas.counts:
                held = state.get(name)
                dtype = np.dtype(held.dtype if isinstance(held, Tensor) else Tensor.default_dtype)
                value = graph.add_state(f"{name}.{len(graph.state)}", TensorType(dtype, ()))
                self._counts[key].append(Count(optimizer, group, [], name, value, value))
        return self._counts[key]
