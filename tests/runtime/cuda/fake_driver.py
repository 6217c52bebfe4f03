"""A driver that is not there: two devices with a little memory, streams, events and errors, as CuPy shows them.

It stands behind the arrays of `tests/ops/device_arrays.py`: their memory is counted, and refused where it is full. All
ops run their array kernels, unless there is a runner (`eager_runner.py`).
"""

from __future__ import annotations

import contextlib
import os
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest

from onnxgrad.ops.places import several
from onnxgrad.runtime.autograd.saved import Late
from onnxgrad.runtime.cuda import availability, choice
from onnxgrad.runtime.cuda.checks import PENDING
from onnxgrad.runtime.cuda.memory import Peaks

from ...ops import device_arrays
from ...ops.device_arrays import SYNCS, Device, ndarray

UNIT = 512
"""What the pool rounds sizes up to."""


class OutOfMemoryError(MemoryError):
    __module__ = "cupy.cuda.memory"

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        self._size, self._total, self._limit = size, total, limit
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes).")


class CUDARuntimeError(RuntimeError):
    __module__ = "cupy_backends.cuda.api.runtime"


class PinnedMemoryPointer(bytearray):
    """Memory of the host; a real one shows a buffer too."""


class Pool:
    """The memory of all devices."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.used, self.total, self.limit = ([0] * Device.count for _ in range(3))

    def malloc(self, size: int) -> tuple[int, int]:
        size = -(-size // UNIT) * UNIT
        d = Device.current
        if self.total[d] - self.used[d] < size:
            most = self.limit[d] or self.driver.memory
            if self.used[d] + size > most:
                raise OutOfMemoryError(size, self.total[d], self.limit[d])
            self.total[d] = self.used[d] + size
        self.used[d] += size
        return d, size

    def free(self, device: int, size: int) -> None:
        self.used[device] -= size

    def used_bytes(self) -> int:
        return self.used[Device.current]

    def total_bytes(self) -> int:
        return self.total[Device.current]

    def free_all_blocks(self) -> None:
        self.total[Device.current] = self.used[Device.current]

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        self.limit[Device.current] = size or 0

    def get_limit(self) -> int:
        return self.limit[Device.current]


class Stream:
    """A queue, whose work is done as soon as it is given."""

    null: Stream
    handles = 0

    def __init__(self, null: bool = False, non_blocking: bool = False, priority: int = 0) -> None:
        Stream.handles += 16
        self.ptr, self.device_id = 0 if null else Stream.handles, Device.current
        self.waited: list[Event] = []

    done = True

    def use(self) -> None:
        driver().streams[Device.current] = self

    def synchronize(self) -> None:
        SYNCS["stream"] += 1
        driver().report()

    def wait_event(self, event: Event) -> None:
        self.waited.append(event)

    def is_capturing(self) -> bool:
        return False


class Event:
    """A mark."""

    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        self.at: Stream | None = None

    done = True

    def record(self, stream: Stream | None = None) -> None:
        self.at = stream

    def synchronize(self) -> None:
        SYNCS["event"] += 1


class Driver:
    """The state of the devices.

    Attributes:
        memory: the bytes of each device.
        pending: an error of work that was given before, which shows where somebody waits.
        streams: the current one of each device.
    """

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.pending: Exception | None = None
        self.pool = Pool(self)
        self.streams: dict[int, Stream] = {}
        self.allocator: Callable[[int], Any] = self.pool.malloc

    def report(self) -> None:
        if self.pending is not None:
            raise self.pending

    def synchronize(self) -> None:
        SYNCS["device"] += 1
        self.report()

    def allocate(self, array: ndarray) -> None:
        device, size = self.allocator(array.nbytes)
        weakref.finalize(array, self.pool.free, device, size)

    def properties(self, number: int) -> dict[str, Any]:
        return {
            "name": b"Pretended 9000", "major": 9, "minor": 0, "totalGlobalMem": self.memory, "warpSize": 32,
            "multiProcessorCount": 132, "maxThreadsPerMultiProcessor": 2048, "sharedMemPerBlock": 49152,
        }  # fmt: skip

    def cuda(self) -> types.SimpleNamespace:
        """Return what stands for `cupy.cuda`."""
        runtime = types.SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            getDeviceCount=lambda: Device.count,
            getDevice=lambda: Device.current,
            getDeviceProperties=self.properties,
            memGetInfo=lambda: (self.memory - self.pool.total_bytes(), self.memory),
            deviceSynchronize=self.synchronize,
            deviceCanAccessPeer=lambda a, b: 0,
            runtimeGetVersion=lambda: 13020,
        )
        return types.SimpleNamespace(
            Device=Device,
            Event=Event,
            Stream=Stream,
            alloc_pinned_memory=PinnedMemoryPointer,
            get_allocator=lambda: self.allocator,
            get_current_stream=lambda: self.streams.get(Device.current, Stream.null),
            get_elapsed_time=lambda a, b: 0.5,
            runtime=runtime,
            set_allocator=lambda f: setattr(self, "allocator", f),
        )


_driver: list[Driver] = []


def driver() -> Driver:
    return _driver[-1]


@contextlib.contextmanager
def driving(memory: int = 1 << 20, runner: Any = None) -> Iterator[Driver]:
    """Pretend that there are two devices with so much memory, and what runs kernels, for the time of a `with` block."""
    made = Driver(memory)
    _driver.append(made)
    Stream.null = Stream(null=True)
    mode = {choice.VARIABLE: "off" if runner is None else ""}
    runners = mock.patch.object(choice, "runner_of", lambda index: runner)
    with device_arrays.installed() as library, mock.patch.dict(os.environ, mode), runners:
        before = dict(vars(library))
        library.cuda = made.cuda()
        library.get_default_memory_pool = lambda: made.pool
        library.get_default_pinned_memory_pool = lambda: types.SimpleNamespace(free_all_blocks=lambda: None)
        device_arrays.allocated.append(made.allocate)
        _forget()
        try:
            yield made
        finally:
            device_arrays.allocated.remove(made.allocate)
            library.cuda = before["cuda"]
            del library.get_default_memory_pool, library.get_default_pinned_memory_pool
            _driver.pop()
            _forget()


@pytest.fixture
def two_devices() -> Iterator[Driver]:
    """Two devices that are not there, of 1 MiB each."""
    with driving() as made:
        yield made


def _forget() -> None:
    availability.look.cache_clear()
    Late.guard = None
    several.devices = False
    PENDING.clear()
    Peaks._most.clear()
    Peaks.allocated.clear()
    Peaks.reserved.clear()
    Peaks._watched = None
