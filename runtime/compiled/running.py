"""Runs of a program whose sizes are bound: their tables and memory, the native stages, the steps between them."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ...ops.errors import AssumptionError
from ...ops.kernels.cpu.spmd import aligned, pool
from ...ops.types import Array
from ..tensor.exposed import any_exposed
from ..tensor.tensor import changes
from .binding import Bound, Frame, address
from .weights import Slots

WAKING_S = 12e-6
"""Where more threads save less than this, which is about what waking and awaiting them costs, one runs alone."""


class Running:
    """What programs have in common when they run.

    Attributes:
        threads: how many a run may use.
        weights: the arrays that it reads beside its feeds.
        length: how many stages it has.
        segments: (begin, end, None) of stages that are native, (i, i + 1, step) of a step of Python.
        results: where each output, then each update, is: (`output`, its number), (`slot`, its number), or (`constant`,
            the array, of which each run gives a copy).
        output_count: how many of them are outputs.
        updates: the names of the others.
        slot_count: how many arrays Python holds; the feeds are first.
        tensor_feeds: the numbers of the feeds that kernels may read.
        flags: what the words say that kernels set.
        guard: see `Program`.
    """

    weights: Slots
    length: int
    segments: list[tuple[int, int, Any]]
    results: list[tuple[str, Any]]
    output_count: int
    updates: Sequence[str]
    slot_count: int
    tensor_feeds: list[int]
    flags: list[str]

    def __init__(self, threads: int, guard: Any = None) -> None:
        """Start without any memory."""
        self.threads, self.guard = threads, guard
        self._since = -1
        self._arenas: list[Array] = []
        self._lock = threading.Lock()

    def threads_for(self, bound: Bound) -> int:
        """Return how many threads a run of these sizes takes."""
        return 1 if bound.saved < WAKING_S else self.threads

    def bound_for(self, feeds: Sequence[Any]) -> Bound | None:
        """Return the tables for the shapes of feeds that this program has run, None where another did."""
        raise NotImplementedError

    def chosen(self, feeds: Sequence[Any]) -> tuple[Running | None, Collection[int]]:
        """Return the program that runs feeds like these, and the places of those whose elements have chosen it."""
        return self, ()

    def _every_bound(self) -> Sequence[Bound]:
        """Return the tables for all shapes."""
        raise NotImplementedError

    def refresh(self, tensors: Mapping[str, Any] | None, code: Mapping[str, int]) -> None:
        """Compute again what depends on weights that have changed since the last run."""
        if self.weights.slots and (tensors is not None or not self.weights.generation):
            since = changes[0]
            if since != self._since or any_exposed(self.weights.owners) or not self.weights.generation:
                with self._lock:
                    self.weights.refresh(tensors or {}, code, self.threads)
                self._since = since

    # memory ------------------------------------------------------------------------------------------------------

    def frame(self, bound: Bound) -> Frame:
        """Return tables that no other run uses, pointing into an arena that no other run uses."""
        with self._lock:
            frame = bound.frames.pop() if bound.frames else None
        if frame is None:
            words, entries = bound.words.copy(), bound.entries.copy()
            entries[:, 1] = words.ctypes.data + 8 * bound.starts
            program = np.array([bound.stages.ctypes.data, entries.ctypes.data], np.int64)
            flags = np.zeros(max(len(self.flags), 1), np.int64)
            frame = Frame(bound, words, entries, program, flags, int(program.ctypes.data))
            for i, array in enumerate(bound.told):
                if ("told", i) in bound.patches:
                    bound.patches["told", i].write(words, array.ctypes.data)
            for i in range(len(self.flags)):
                if ("flag", i) in bound.patches:
                    bound.patches["flag", i].write(words, flags.ctypes.data + 8 * i)
        self._give_arena(frame)
        if frame.generation != self.weights.generation:
            for s in self.weights.slots:
                if ("weight", id(s)) in bound.patches:
                    bound.patches["weight", id(s)].write(frame.words, s.address)
            frame.generation = self.weights.generation
        return frame

    def _guarded(self, frame: Frame) -> None:
        """Give each buffer of the arena memory of its own."""
        raise NotImplementedError

    def _give_arena(self, frame: Frame) -> None:
        bound = frame.bound
        if self.guard is not None:
            if frame.arena is None:
                frame.arena = np.zeros(1, np.uint8)
                self._guarded(frame)
            return
        with self._lock:
            arena = None
            for i, candidate in enumerate(self._arenas):
                if candidate.size >= bound.arena and (frame.arena is None or candidate is frame.arena):
                    arena = self._arenas.pop(i)
                    break
            else:
                fitting = [i for i, a in enumerate(self._arenas) if a.size >= bound.arena]
                if fitting:
                    arena = self._arenas.pop(fitting[0])
                elif self._arenas:
                    self._forget(self._arenas.pop())
        if arena is None:
            arena = aligned(max(bound.arena, 64))
        if arena is not frame.arena:
            frame.arena, frame.views = arena, {}
            if ("arena", 0) in bound.patches:
                bound.patches["arena", 0].write(frame.words, arena.ctypes.data)

    def _forget(self, arena: Array) -> None:
        """Let an arena that has become too small go, also from the frames that point into it."""
        for bound in self._every_bound():
            for frame in bound.frames:
                if frame.arena is arena:
                    frame.arena, frame.views = None, {}

    def give_back(self, frame: Frame) -> None:
        """Let others use a frame and its arena."""
        with self._lock:
            frame.bound.frames.append(frame)
            if self.guard is None and frame.arena is not None:
                self._arenas.append(frame.arena)

    # a run -------------------------------------------------------------------------------------------------------

    def _late(self, bound: Bound, feeds: Sequence[Any], outer: Mapping[str, int]) -> dict[str, int]:
        """Return the symbols that steps of Python may ask for."""
        raise NotImplementedError

    def _host(self, step: Any, frame: Frame, slots: list[Any], env: dict[str, int], outputs: list[Any]) -> None:
        """Run a step of Python."""
        raise NotImplementedError

    def execute(
        self, frame: Frame, feeds: list[Any], watch: Any, into: Mapping[int, Array], outer: Mapping[str, int]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Run once; see `Program.run`."""
        bound, words = frame.bound, frame.words
        patches = bound.patches
        for i in self.tensor_feeds:
            patch = patches.get(("feed", i))
            if patch is not None:
                words[patch.words] = patch.offsets + address(feeds[i])
        outputs: list[Any] = []
        for i, (shape, dtype) in enumerate(bound.outputs):
            out = None if dtype is None else into[i] if i in into else np.empty(shape, dtype)
            outputs.append(out)
            patch = patches.get(("output", i))
            if patch is not None and out is not None:
                words[patch.words] = patch.offsets + address(out)
        if self.flags:
            frame.flags[:] = 0
        slots: list[Any] = feeds + [None] * (self.slot_count - len(feeds))
        threads = self.threads_for(bound)
        place, scratch, together = frame.address, bound.scratch, pool()
        env: dict[str, int] | None = None
        for begin, end, host in self.segments:
            if host is None:
                if watch is None:
                    together.run(place, begin, end, scratch, threads)
                    if into and self.flags and frame.flags.any():
                        break  # before what is to stay is overwritten
                else:
                    for stage in range(begin, end):
                        t = time.perf_counter()
                        together.run(place, stage, stage + 1, scratch, threads)
                        watch(stage, time.perf_counter() - t)
            else:
                if env is None:
                    env = self._late(bound, feeds, outer)
                t = time.perf_counter()
                self._host(host, frame, slots, env, outputs)
                if watch is not None:
                    watch(begin, time.perf_counter() - t)
        if self.flags and frame.flags.any():
            raise AssumptionError(self.flags[int(np.flatnonzero(frame.flags)[0])])
        found = [
            out if kind == "output" else slots[what] if kind == "slot" else np.array(what)
            for (kind, what), out in zip(self.results, outputs, strict=True)
        ]
        return found[: self.output_count], dict(zip(self.updates, found[self.output_count :], strict=True))
