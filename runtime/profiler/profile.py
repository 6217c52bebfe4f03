"""`profile` and `record_function`, by PyTorch's names."""

from __future__ import annotations

import functools
import json
import os
import threading
import warnings
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from ...ops.errors import InputError, ProfilerError
from .events import EventList, FunctionEvent, FunctionEventAvg
from .recorder import Recorder
from .schedule import ProfilerAction, ProfilerActivity, always, supported_activities
from .trace_file import write_trace
from .watching import Watch

P = ParamSpec("P")
R = TypeVar("R")

_RECORDING = (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)


class _Running:
    """The profile that is under way, in all threads: at most one."""

    lock = threading.Lock()
    profile: profile | None = None


class profile:  # noqa: N801 - PyTorch's name
    """A context manager that records what is computed: ops, backward, modules, optimizers, data, compiled stages.

    All threads are watched. Outside of it nothing is, and nothing costs anything.

    Args:
        activities: what is measured; CPU, and CUDA where there is a device, by default. With CUDA each event waits for
            the device, so that its time is that of its kernels too.
        schedule: what to do in each step, see `schedule`; `step()` begins the next. All is recorded by default.
        on_trace_ready: called with the profile when a cycle of the schedule, or the profile, is finished.
        record_shapes: keep the shapes of arguments.
        profile_memory: count the bytes of results.
        with_stack: keep the lines of callers.
        with_flops: count floating-point operations: of convolutions, products of matrices, attention, pointwise ops,
            reductions.
        with_modules: record calls of modules, and which module each event happened in.
        acc_events: keep the events of all cycles, not of the last alone.

    Raises:
        InputError: if nothing is to be measured.

    Attributes:
        step_num: which step it is.
    """

    def __init__(
        self, *, activities: Iterable[ProfilerActivity] | None = None,
        schedule: Callable[[int], ProfilerAction] | None = None, on_trace_ready: Callable[[profile], Any] | None = None,
        record_shapes: bool = False, profile_memory: bool = False, with_stack: bool = False, with_flops: bool = False,
        with_modules: bool = False, acc_events: bool = False,
    ) -> None:  # fmt: skip
        """Keep the settings; see the class."""
        chosen = supported_activities() if activities is None else set(activities)
        if not chosen:
            raise InputError("No valid profiler activities found")
        if ProfilerActivity.CUDA in chosen and ProfilerActivity.CUDA not in supported_activities():
            warnings.warn("CUDA is not available, disabling CUDA profiling", UserWarning, stacklevel=2)
            chosen = {ProfilerActivity.CPU}
        self.activities = chosen
        self.schedule, self.record_steps = schedule or always, schedule is not None
        self.on_trace_ready, self.acc_events = on_trace_ready, acc_events
        self.record_shapes, self.profile_memory, self.with_stack = record_shapes, profile_memory, with_stack
        self.with_flops, self.with_modules = with_flops, with_modules
        self.step_num = 0
        self.current_action = self.schedule(0)
        self._watch = Watch()
        self._events: list[FunctionEvent] = []
        self._threads: dict[int, str] = {}
        self._metadata: dict[str, Any] = {}
        self._step: FunctionEvent | None = None
        self._started = False

    def __enter__(self) -> profile:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, whatever happened."""
        self.stop()

    def start(self) -> None:
        """Begin.

        Raises:
            ProfilerError: if a profile is under way.
        """
        with _Running.lock:
            if _Running.profile is not None:
                raise ProfilerError(
                    "Profiler is already enabled: profiles cannot be in each other, nor beside each other"
                )
            _Running.profile = self
        self._started = True
        try:
            self._change(ProfilerAction.NONE, self.current_action)
            self._begin_step()
        except BaseException:
            self._end()
            raise

    def stop(self) -> None:
        """End; does nothing where it has ended already."""
        if not self._started:
            return
        try:
            self._end_step()
            self._change(self.current_action, None)
        finally:
            self._end()

    def _end(self) -> None:
        self._watch.remove()
        self._watch.recorder, self._step, self._started = None, None, False
        with _Running.lock:
            _Running.profile = None

    def step(self) -> None:
        """Say that the next step begins.

        Raises:
            ProfilerError: outside of the `with` block.
        """
        if not self._started:
            raise ProfilerError("step() is for the inside of the profile's with block")
        self._end_step()
        before, self.step_num = self.current_action, self.step_num + 1
        self.current_action = self.schedule(self.step_num)
        self._change(before, self.current_action)
        self._begin_step()

    def _begin_step(self) -> None:
        recorder = self._watch.recorder
        if self.record_steps and recorder is not None:
            self._step = recorder.open(f"ProfilerStep#{self.step_num}", "annotation")

    def _end_step(self) -> None:
        if self._step is not None and self._watch.recorder is not None:
            self._watch.recorder.close(self._step)
        self._step = None

    def _change(self, before: ProfilerAction, now: ProfilerAction | None) -> None:
        """Go from what was done to what is to be done; None ends."""
        finished = before is ProfilerAction.RECORD_AND_SAVE or (before is ProfilerAction.RECORD and now is None)
        broken = before is ProfilerAction.RECORD and now in (ProfilerAction.NONE, ProfilerAction.WARMUP)
        if broken or (before is ProfilerAction.WARMUP and now is ProfilerAction.NONE):
            assert now is not None
            warnings.warn(f"Incorrect schedule: {before.name} followed by {now.name}", UserWarning, stacklevel=4)
        if finished or broken:
            self._collect()
        if now is None or now is ProfilerAction.NONE:
            self._watch.remove()
            self._watch.recorder = None
        elif finished or broken or (before is not now and not (before in _RECORDING and now in _RECORDING)):
            if before is ProfilerAction.NONE:
                self._watch.install()
            self._watch.recorder = self._recorder()
        if finished and self.on_trace_ready is not None:
            recorder, self._watch.recorder = self._watch.recorder, None
            try:
                self.on_trace_ready(self)
            finally:
                self._watch.recorder = recorder

    def _recorder(self) -> Recorder:
        wait = None
        if ProfilerActivity.CUDA in self.activities:
            import cupy

            wait = cupy.cuda.Device().synchronize
        return Recorder(
            shapes=self.record_shapes, memory=self.profile_memory, stacks=self.with_stack, flops=self.with_flops,
            modules=self.with_modules, wait=wait,
        )  # fmt: skip

    def _collect(self) -> None:
        recorder = self._watch.recorder
        assert recorder is not None
        found = recorder.finish()
        self._events = [*self._events, *found] if self.acc_events else found
        self._threads = {**self._threads, **recorder.threads} if self.acc_events else recorder.threads

    # reading -----------------------------------------------------------------------------------------------------

    def events(self) -> EventList[FunctionEvent]:
        """Return the events, in the order of their beginning."""
        return EventList(self._events, profile_memory=self.profile_memory, with_flops=self.with_flops)

    def key_averages(
        self, group_by_input_shape: bool = False, group_by_stack_n: int = 0
    ) -> EventList[FunctionEventAvg]:
        """Return the events of each name together.

        Args:
            group_by_input_shape: events with other shapes apart; needs `record_shapes`.
            group_by_stack_n: events with other callers apart: how many lines; needs `with_stack`.
        """
        return self.events().key_averages(group_by_input_shape, group_by_stack_n)

    def total_average(self) -> FunctionEventAvg:
        """Return all events together."""
        return self.events().total_average()

    def export_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Write the events for chrome://tracing, Perfetto or TensorBoard, compressed where the name ends in `.gz`."""
        write_trace(path, self._events, self._threads, self._metadata)

    def export_stacks(self, path: str | os.PathLike[str], metric: str = "self_cpu_time_total") -> None:
        """Write callers and times for flame graph tools; needs `with_stack`."""
        self.events().export_stacks(path, metric)

    def add_metadata(self, key: str, value: str) -> None:
        """Add text to the trace file."""
        self._metadata[key] = value

    def add_metadata_json(self, key: str, value: str) -> None:
        """Add a JSON value, given as text, to the trace file."""
        self._metadata[key] = json.loads(value)


class record_function:  # noqa: N801 - PyTorch's name
    """A context manager and a decorator that is an event of its own in a profile; without one it does nothing.

    Args:
        name: of the event.
        args: text that a trace file shows beside it.
    """

    def __init__(self, name: str, args: str | None = None) -> None:
        """Keep the name."""
        self.name, self.args = name, args
        self._open: list[tuple[Recorder, FunctionEvent] | None] = []

    def __enter__(self) -> record_function:
        """Begin the event."""
        running = _Running.profile
        recorder = running._watch.recorder if running is not None else None
        if recorder is None:
            self._open.append(None)
            return self
        event = recorder.open(self.name, "annotation")
        if self.args is not None:
            event.extra["args"] = self.args
        self._open.append((recorder, event))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the event."""
        opened = self._open.pop()
        if opened is not None:
            opened[0].close(opened[1])

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function."""

        @functools.wraps(function)
        def recorded(*args: P.args, **kwargs: P.kwargs) -> R:
            with record_function(self.name, self.args):
                return function(*args, **kwargs)

        return recorded
