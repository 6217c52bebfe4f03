"""The recorder: opens and closes events, one stack of open ones a thread."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from .events import FunctionEvent

_PACKAGE = __name__.partition(".")[0] + "."


class _Stack(threading.local):
    def __init__(self) -> None:
        self.open: list[FunctionEvent] = []


class Recorder:
    """Collects the events of a profile.

    Attributes:
        events: those that have ended, in the order of their beginning after `sorted`.
        shapes, memory, stacks, flops, modules: what is recorded of each.
        threads: names of the threads that were seen, by their number.
    """

    def __init__(
        self, *, shapes: bool, memory: bool, stacks: bool, flops: bool, modules: bool, wait: Callable[[], Any] | None
    ) -> None:
        """Start with no events.

        Args:
            shapes: of arguments.
            memory: bytes that results take.
            stacks: lines of callers.
            flops: floating-point operations.
            modules: calls of modules.
            wait: waits for a device before an event ends; None where nothing is to be waited for.
        """
        self.shapes, self.memory, self.stacks, self.flops, self.modules = shapes, memory, stacks, flops, modules
        self.events: list[FunctionEvent] = []
        self.threads: dict[int, str] = {}
        self.paths: dict[int, dict[int, str]] = {}
        self._wait, self._stack, self._numbers = wait, _Stack(), itertools.count(1)

    @property
    def innermost(self) -> FunctionEvent | None:
        """The event of this thread that is open and was opened last."""
        return self._stack.open[-1] if self._stack.open else None

    def open(self, name: str, kind: str, args: Sequence[Any] = ()) -> FunctionEvent:
        """Begin an event, inside the one that is open in this thread."""
        opened = self._stack.open
        thread = threading.get_native_id()
        if thread not in self.threads:
            self.threads[thread] = threading.current_thread().name
        event = FunctionEvent(next(self._numbers), name, kind, thread, 0.0)
        if opened:
            event.cpu_parent = parent = opened[-1]
            event.scope = max(event.scope, parent.scope)
            event.module_hierarchy = parent.module_hierarchy
        if self.shapes and args:
            event.input_shapes = [[int(n) for n in a.shape] if hasattr(a, "shape") else [] for a in args]
        if self.stacks:
            event.stack = callers()
        opened.append(event)
        event.time_range.start = time.perf_counter_ns() / 1e3
        return event

    def close(self, event: FunctionEvent) -> None:
        """End an event, and those in it that were left open."""
        if self._wait is not None:
            self._wait()
        event.time_range.end = time.perf_counter_ns() / 1e3
        opened = self._stack.open
        if event not in opened:
            return
        while opened:
            last = opened.pop()
            if last is not event:
                last.time_range.end = event.time_range.end
            if last.cpu_parent is not None:
                last.cpu_parent.cpu_children.append(last)
            self.events.append(last)
            if last is event:
                return

    def add(self, name: str, kind: str, seconds: float) -> FunctionEvent:
        """Add an event that has just ended, inside the one that is open."""
        event = self.open(name, kind)
        self.close(event)
        event.time_range.start = event.time_range.end - seconds * 1e6
        if event.cpu_parent is not None:
            event.time_range.start = max(event.time_range.start, event.cpu_parent.time_range.start)
        return event

    def finish(self) -> list[FunctionEvent]:
        """Return all events in the order of their beginning; open ones of this thread end now."""
        if self._stack.open:
            self.close(self._stack.open[0])
        self.events.sort(key=lambda e: (e.time_range.start, e.id))
        return self.events


def callers() -> list[str]:
    """Return the lines that led here, innermost first, without those of this package."""
    found: list[str] = []
    frame = sys._getframe(1)
    while frame is not None:
        if not frame.f_globals.get("__name__", "").startswith(_PACKAGE):
            code = frame.f_code
            found.append(f"{code.co_filename}({frame.f_lineno}): {code.co_name}")
        frame = frame.f_back  # type: ignore[assignment]
    return found
