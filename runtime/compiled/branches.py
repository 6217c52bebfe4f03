"""The programs of a graph for the ways that its conditions can go, where small inputs and sizes alone decide them.

The conditions are asked before a run, once for each combination of values, so that what runs has only the branches
that are taken: one program without a step of Python for the `If`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops import dims
from ...ops.control import truth
from ...ops.dims import symbols_in
from ...ops.errors import OnnxGradError
from ...ops.types import Array, TensorType
from ..graph.execute import execute, plan_of
from ..graph.graph import Graph
from ..passes.decisions import SMALL, Decisions, find_decisions
from ..passes.specialize import specialize
from .binding import bind_shape

if TYPE_CHECKING:
    from .program import Program

PROGRAMS = 4
"""How many ways a graph has programs for, the first that come; the others run with their `If`s as steps of Python."""

ANSWERS = 256
"""How many combinations of values are remembered with what they decide."""


class Branches:
    """Programs by the way that conditions go. A branch may have conditions of its own, which are asked next."""

    def __init__(self, first: Fork, make: Callable[[Graph], Program]) -> None:
        """Begin without programs.

        Args:
            first: the conditions that are asked first.
            make: compiles a graph.
        """
        self.first, self.make, self.room = first, make, PROGRAMS
        self._lock = threading.Lock()

    def program(self, feeds: Sequence[Any], *, make: bool = True) -> tuple[Program | None, set[int]]:
        """Return the program for what these feeds decide, and the places of those that were asked.

        Args:
            feeds: what a run brings.
            make: compile it where it is not there yet and there is room.
        """
        way: Fork | Program | None = self.first
        asked: set[int] = set()
        while isinstance(way, Fork):
            asked.update(way.decisions.values)
            taken = way.decide(feeds)
            if taken is None or (taken not in way.ways and not (make and self._grow(way, taken))):
                return None, asked
            way = way.ways[taken]
        return way, asked

    def programs(self) -> Iterator[tuple[str, Program]]:
        """Yield the programs that there are, each with the way that it is for."""
        yield from self.first.programs("")

    def _grow(self, fork: Fork, taken: tuple[bool, ...]) -> bool:
        """Add what comes after a decision; whether it is there."""
        with self._lock:
            if taken not in fork.ways and self.room > 0:
                try:
                    graph = specialize(fork.graph, taken=dict(zip(fork.decisions.nodes, taken, strict=True)))
                    way: Fork | Program | None = find_fork(graph)
                    if way is None:
                        self.room -= 1
                        way = self.make(graph)
                except OnnxGradError:
                    way = None  # running it says where and why
                fork.ways[taken] = way
        return taken in fork.ways


class Fork:
    """A graph whose ways part, and what comes after each."""

    def __init__(self, graph: Graph, decisions: Decisions) -> None:
        """Begin without ways."""
        self.graph, self.decisions = graph, decisions
        self.ways: dict[tuple[bool, ...], Fork | Program | None] = {}
        self._answers: dict[Any, tuple[bool, ...]] = {}
        symbols = {s for t in decisions.told for s in symbols_in(t.contents)}
        self._sized = [
            (i, v)
            for i, v in enumerate(_fed(graph))
            if isinstance(v.type, TensorType) and not symbols.isdisjoint(symbols_in(v.type.known_shape))
        ]

    def decide(self, feeds: Sequence[Any]) -> tuple[bool, ...] | None:
        """Return what the conditions are; None where they cannot be asked, which running the graph explains."""
        values = [feeds[i] for i in self.decisions.values]
        if any(type(a) is not np.ndarray or a.size > SMALL for a in values):
            return None
        key = (*[a.tobytes() for a in values], *[feeds[i].shape for i, _ in self._sized])
        answer = self._answers.get(key)
        if answer is None:
            answer = self._asked(values, feeds)
            if answer is not None:
                if len(self._answers) >= ANSWERS:
                    self._answers.clear()
                self._answers[key] = answer
        return answer

    def _asked(self, values: list[Array], feeds: Sequence[Any]) -> tuple[bool, ...] | None:
        d = self.decisions
        env: dict[str, int] = {}
        try:
            for i, v in self._sized:
                bind_shape(v, feeds[i], env)
            told = [
                np.array([dims.evaluate(c, env) for c in t.contents or ()], t.dtype).reshape(dims.bind(t.shape, env))
                for t in d.told
            ]
            outs, _ = execute(plan_of(d.graph), [*values, *told])
            return tuple(map(truth, outs))
        except (OnnxGradError, ValueError, TypeError, IndexError, ArithmeticError):
            return None

    def programs(self, before: str) -> Iterator[tuple[str, Program]]:
        """Yield the programs behind it, each with the way to it."""
        for taken, way in list(self.ways.items()):
            names = [v.name for v in self.decisions.graph.outputs]
            here = before + ", ".join(f"{n} is {t}" for n, t in zip(names, taken, strict=True))
            if isinstance(way, Fork):
                yield from way.programs(f"{here}, ")
            elif way is not None:
                yield here, way


def find_fork(graph: Graph) -> Fork | None:
    """Return where the ways of a graph part, or None where nothing is known before it runs."""
    decisions = find_decisions(graph, _fed(graph))
    return None if decisions is None else Fork(graph, decisions)


def _fed(graph: Graph) -> list[Any]:
    return [*graph.inputs, *graph.keys, *(inner for _, inner in graph.captures)]
