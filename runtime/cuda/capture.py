"""Runs of steps as CUDA graphs: recorded once, then replayed by a single call.

Array kernels stay between the graphs. A program runs plainly at first (`WARM_UPS` times), so that everything is loaded
and chosen before anything is recorded; what cannot be recorded goes on running plainly, and a warning says why.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .runner import Runner
from .steps import Step

WARM_UPS = 2
"""How many runs come before the one that is recorded."""


@dataclass(eq=False)
class Segment:
    """Neighbouring steps that can be recorded together, or one that cannot be.

    Attributes:
        begin, end: of its steps.
        capturable: whether they may be recorded.
        graph: what was recorded.
    """

    begin: int
    end: int
    capturable: bool
    graph: Any = None


def segments_of(steps: Sequence[Step]) -> list[Segment]:
    """Return steps in segments, as long as they can be."""
    found: list[Segment] = []
    for i, step in enumerate(steps):
        if found and found[-1].capturable and step.capturable:
            found[-1].end = i + 1
        else:
            found.append(Segment(i, i + 1, step.capturable))
    return found


class Capture:
    """The segments of one program, and what has been recorded of them."""

    def __init__(self, steps: Sequence[Step], runner: Runner, *, on: bool = True) -> None:
        """Begin with nothing recorded.

        Args:
            steps: of the program.
            runner: the device.
            on: whether to record at all.
        """
        self.segments, self.runner, self.on = segments_of(steps), runner, on
        self.runs = 0

    @property
    def graphs(self) -> int:
        """How many graphs there are."""
        return sum(s.graph is not None for s in self.segments)

    def forget(self) -> None:
        """Drop what was recorded: addresses have changed. It is recorded again in the next run."""
        for s in self.segments:
            s.graph = None

    def run(self, calls: Sequence[Callable[[], None]]) -> None:
        """Do every step, by graphs where there are any.

        Args:
            calls: what each step does.
        """
        recording = self.on and self.runs >= WARM_UPS
        self.runs += 1
        for s in self.segments:
            if recording and s.capturable and s.graph is None:
                self._record(s, calls)
            if s.graph is not None:
                self.runner.replay(s.graph)
                continue
            for call in calls[s.begin : s.end]:
                call()

    def _record(self, s: Segment, calls: Sequence[Callable[[], None]]) -> None:
        try:
            self.runner.begin_capture()
            for call in calls[s.begin : s.end]:
                call()
            s.graph = self.runner.end_capture()
        except Exception as error:  # a library or driver that refuses to be recorded still runs
            self.runner.abandon_capture()
            s.graph, s.capturable = None, False
            warnings.warn(
                f"steps {s.begin} to {s.end - 1} of a CUDA program cannot be recorded as a CUDA graph and run one by "
                f"one: {type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=5,
            )
