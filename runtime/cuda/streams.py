"""Streams and events by PyTorch's names: work of one stream runs in order, work of several side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .availability import cupy
from .memory import number_of


class Stream:
    """A queue of work for a device.

    Args:
        device: whose; the current one by default.
        priority: lower numbers go first, as far as the device can.
    """

    def __init__(self, device: Any = None, priority: int = 0, *, _made: Any = None) -> None:
        """Make a stream; see the class for the arguments."""
        self._number = number_of(device)
        if _made is None:
            library = cupy()
            with library.cuda.Device(self._number):
                _made = library.cuda.Stream(non_blocking=True, priority=priority)
        self._stream = _made

    @property
    def device(self) -> Any:
        """The device that it works for."""
        from ..tensor.device import device

        return device("cuda", self._number)

    @property
    def cuda_stream(self) -> int:
        """CUDA's handle."""
        return int(self._stream.ptr)

    def __cuda_stream__(self) -> tuple[int, int]:
        """Return the version of this protocol and CUDA's handle, for other libraries."""
        return 0, self.cuda_stream

    def query(self) -> bool:
        """Return whether all its work is done."""
        return bool(self._stream.done)

    def synchronize(self) -> None:
        """Wait until all its work is done."""
        self._stream.synchronize()

    def record_event(self, event: Event | None = None) -> Event:
        """Record an event behind the work that there is, and return it."""
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Let later work of this stream wait for an event."""
        if event._event is not None:
            self._stream.wait_event(event._event)

    def wait_stream(self, stream: Stream) -> None:
        """Let later work of this stream wait for the work that another has now."""
        self.wait_event(stream.record_event())

    def __eq__(self, other: object) -> bool:
        """Return whether both are the same queue."""
        return isinstance(other, Stream) and (other._number, other.cuda_stream) == (self._number, self.cuda_stream)

    def __hash__(self) -> int:
        """Return the handle's hash."""
        return hash((self._number, self.cuda_stream))

    def __repr__(self) -> str:
        """Return it with its device and handle."""
        return f"<onnxgrad.cuda.Stream device=cuda:{self._number} cuda_stream={self.cuda_stream:#x}>"


class Event:
    """A mark in a stream, which is reached when the work before it is done.

    Args:
        enable_timing: whether `elapsed_time` measures with it.
        blocking: whether a thread that waits for it sleeps instead of spinning.
        interprocess: taken and ignored.
    """

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        """Make an event; see the class for the arguments."""
        self._timing, self._blocking = enable_timing, blocking
        self._event: Any = None
        cupy()

    def record(self, stream: Stream | None = None) -> None:
        """Mark a place behind what a stream, the current one by default, has been given."""
        library = cupy()
        stream = stream or current_stream()
        with library.cuda.Device(stream._number):
            if self._event is None:
                self._event = library.cuda.Event(block=self._blocking, disable_timing=not self._timing)
            self._event.record(stream._stream)

    def wait(self, stream: Stream | None = None) -> None:
        """Let later work of a stream, the current one by default, wait for it."""
        (stream or current_stream()).wait_event(self)

    def query(self) -> bool:
        """Return whether it is reached; one that was never recorded is."""
        return self._event is None or bool(self._event.done)

    def synchronize(self) -> None:
        """Wait until it is reached."""
        if self._event is not None:
            self._event.synchronize()

    def elapsed_time(self, end_event: Event) -> float:
        """Return the milliseconds between this event and a later one.

        Raises:
            RuntimeError: unless both were made with `enable_timing` and recorded.
        """
        if not (self._timing and end_event._timing):
            raise RuntimeError("Both events must be created with argument 'enable_timing=True'.")
        if self._event is None or end_event._event is None:
            raise RuntimeError("Both events must be recorded before calculating elapsed time.")
        return float(cupy().cuda.get_elapsed_time(self._event, end_event._event))


class _Chosen(threading.local):
    """The streams that this thread has chosen, by device."""

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}


_chosen = _Chosen()


def default_stream(device: Any = None) -> Stream:
    """Return the stream that a device's work goes to where none is chosen."""
    return Stream(number_of(device), _made=cupy().cuda.Stream.null)


def current_stream(device: Any = None) -> Stream:
    """Return the stream that this thread's work for a device goes to."""
    number = number_of(device)
    library = cupy()
    with library.cuda.Device(number):
        found = library.cuda.get_current_stream()
    mine = _chosen.streams.get(number)
    return mine if mine is not None and mine.cuda_stream == found.ptr else Stream(number, _made=found)


def set_stream(stream: Stream | None) -> None:
    """Send this thread's work for the stream's device there from now on, and make that device the current one."""
    if stream is None:
        return
    library = cupy()
    library.cuda.Device(stream._number).use()
    stream._stream.use()
    _chosen.streams[stream._number] = stream


@contextmanager
def stream(stream: Stream | None) -> Iterator[None]:
    """Send this thread's work to a stream for the time of a `with` block; None changes nothing."""
    if stream is None:
        yield
        return
    library = cupy()
    here = library.cuda.runtime.getDevice()
    before = current_stream(stream._number)
    set_stream(stream)
    try:
        yield
    finally:
        set_stream(before)
        library.cuda.Device(here).use()


def is_current_stream_capturing() -> bool:
    """Return whether the current stream's work is being captured in a graph."""
    from .availability import is_available

    return is_available() and bool(current_stream()._stream.is_capturing())
