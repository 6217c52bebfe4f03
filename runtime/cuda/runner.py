"""What a program needs of a device. `CupyRunner` is a GPU; the tests have one in the memory of the host."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...ops.kernels.array.transfer import is_pinned, pinned
from ...ops.kernels.cuda.kernel import Grid, Kernel, LibraryCall, Parameter, Prepared
from ...ops.kernels.cuda.operand import Operand
from ...ops.types import Array
from ..autograd.saved import Late

STATIC_SHARED = 48 << 10
"""Bytes of dynamic shared memory that a kernel gets without being asked for."""

SMALL = 64 << 10
"""Up to so many bytes the driver takes a copy of what is uploaded before the call returns."""

DEVICE_TO_HOST = 2
"""The direction of a copy, as the driver numbers them."""

_C: dict[str, Any] = {
    "pointer": ctypes.c_uint64,
    "i32": ctypes.c_int32,
    "i64": ctypes.c_int64,
    "f32": ctypes.c_float,
    "f64": ctypes.c_double,
}


class Block(Protocol):
    """A piece of the device's memory, there as long as somebody holds it."""

    @property
    def address(self) -> int:
        """Of its first byte."""

    @property
    def nbytes(self) -> int:
        """Its size."""


class Mirror(Protocol):
    """Memory of the host that a small block is copied to while the host goes on."""

    @property
    def words(self) -> Array:
        """What has arrived, as numbers of 32 bits; 0 at first."""

    def send(self) -> None:
        """Copy the block as it is behind everything that was asked before."""

    def wait(self) -> None:
        """Wait until everything has arrived that was sent."""


class Packed:
    """The arguments of a launch as the driver wants them.

    Attributes:
        cells: one an argument, in order; the driver reads them while it launches.
        address: of the table of pointers to them.
    """

    def __init__(self, parameters: Sequence[Parameter], values: Sequence[int | float]) -> None:
        """Pack one value a parameter."""
        self.cells = [_C[kind](value) for kind, value in zip(parameters, values, strict=True)]
        self._table = (ctypes.c_void_p * max(len(self.cells), 1))(*(ctypes.addressof(c) for c in self.cells))
        self.address = ctypes.addressof(self._table)

    @property
    def values(self) -> tuple[int | float, ...]:
        """Addresses and numbers, in order."""
        return tuple(c.value for c in self.cells)


class Runner(Protocol):
    """A device. Everything it is asked to do happens in order; only `download` and `synchronize` wait."""

    @property
    def name(self) -> str:
        """What it is, for people."""

    @property
    def index(self) -> int:
        """The device's number."""

    @property
    def stream(self) -> int:
        """The handle of the stream that work goes to."""

    def running(self) -> contextlib.AbstractContextManager[None]:
        """Enter a run: what the caller asked of the device before happens before, what it asks later, afterwards."""

    def allocate(self, nbytes: int) -> Block:
        """Return memory, aligned to 256 bytes; what is in it is undefined."""

    def borrow(self, array: Array) -> Block:
        """Return the memory of an array that lies on the device."""

    def view(self, block: Block, operand: Operand, nbytes: int = 0) -> Array:
        """Return a tensor in a block, which begins `nbytes` behind the block's begin, as an array of the device."""

    def lies(self, array: Any) -> bool:
        """Whether something is an array on this device."""

    def array(self, array: Array) -> Array:
        """Return an array on the device; itself where it lies there."""

    def copy(self, array: Array) -> Array:
        """Return a row-major array on the device that nobody else has."""

    def write(self, view: Array, array: Array) -> None:
        """Write an array, of the host or of the device, to a view of the same shape and element type."""

    def download(self, view: Array) -> Array:
        """Return a NumPy array of a view's elements, once they are computed."""

    def mirror(self, block: Block) -> Mirror:
        """Return page-locked memory that a block can be copied to."""

    def load(self, kernel: Kernel) -> Any:
        """Return a kernel's function, compiled where it is new.

        Raises:
            KernelError: if it does not compile.
        """

    def launch(
        self, function: Any, grid: Grid, block: Grid, arguments: Packed, shared_bytes: int, stream: int | None = None
    ) -> None:
        """Launch a function that `load` returned, on a stream by its handle; on the runner's own by default."""

    def prepare(self, call: LibraryCall) -> Prepared:
        """Return what runs a library's call, the same for equal descriptions.

        Raises:
            KernelError: if the library cannot compute it.
        """

    def begin_capture(self) -> None:
        """Begin to record what follows instead of doing it."""

    def end_capture(self) -> Any:
        """Return what was recorded, ready to be replayed."""

    def abandon_capture(self) -> None:
        """Forget what was recorded after an error; nothing where no recording is under way."""

    def replay(self, graph: Any) -> None:
        """Do what was recorded."""

    def synchronize(self) -> None:
        """Wait until everything that was asked is done."""


@dataclass(frozen=True)
class _Memory:
    """Memory of CuPy's, which it holds: no array of it, whose references are counted (`tensor.exposed`)."""

    pointer: Any
    nbytes: int

    @property
    def address(self) -> int:
        return int(self.pointer.ptr)


class _Pinned:
    """Page-locked memory that a block of a device is copied to."""

    def __init__(self, cupy: Any, stream: Any, block: Block) -> None:
        self._runtime, self._stream, self._block = cupy.cuda.runtime, stream, block
        self._sent = cupy.cuda.Event(disable_timing=True)
        self.words = pinned((block.nbytes // 4,), np.dtype(np.int32))
        self.words[...] = 0

    def send(self) -> None:
        """Copy the block on the stream."""
        self._runtime.memcpyAsync(
            self.words.ctypes.data, self._block.address, self._block.nbytes, DEVICE_TO_HOST, self._stream.ptr
        )
        self._sent.record(self._stream)

    def wait(self) -> None:
        """Wait until the last copy is done."""
        self._sent.synchronize()


class CupyRunner:
    """A CUDA device, by CuPy: its arrays, pools, streams and graphs."""

    def __init__(self, index: int = 0) -> None:
        """Take a device.

        Args:
            index: its number.
        """
        import cupy

        from ...ops.kernels.cuda import nvrtc

        self._cupy, self.index = cupy, index
        self._device = cupy.cuda.Device(index)
        with self._device:
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self._begun = cupy.cuda.Event(disable_timing=True)
            self._done = cupy.cuda.Event(disable_timing=True)
        self._lock = threading.RLock()
        self._functions: dict[str, Any] = {}
        self._shared: dict[int, int] = {}
        self._prepared: weakref.WeakValueDictionary[Any, Prepared] = weakref.WeakValueDictionary()
        properties = cupy.cuda.runtime.getDeviceProperties(index)
        self.name = str(properties["name"].decode())
        self._architecture = nvrtc.architecture((int(properties["major"]), int(properties["minor"])))

    @property
    def stream(self) -> int:
        """The handle of the stream that work goes to."""
        return int(self._stream.ptr)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Enter a run, on a stream of its own that waits for the caller's and is waited for by it."""
        with self._lock, self._device:
            outside = self._cupy.cuda.get_current_stream()
            self._begun.record(outside)
            self._stream.wait_event(self._begun)
            try:
                with self._stream:
                    yield
            except Exception as error:
                found = error if Late.guard is None else Late.guard.explained(error, "a program", ())
                if found is error:
                    raise
                raise found from (None if isinstance(error, MemoryError) else error)
            finally:
                self._done.record(self._stream)
                outside.wait_event(self._done)

    def allocate(self, nbytes: int) -> Block:
        """Return memory of CuPy's pool, whose pieces are multiples of 512 bytes."""
        with self._device, self._stream:
            return _Memory(self._cupy.cuda.alloc(max(nbytes, 1)), nbytes)

    def borrow(self, array: Array) -> Block:
        """Return the memory of a CuPy array."""
        return _Memory(array.data, int(array.nbytes))

    def view(self, block: Block, operand: Operand, nbytes: int = 0) -> Array:
        """Return a tensor in a block as a CuPy array, which keeps the block alive."""
        cupy, item = self._cupy, operand.dtype.itemsize
        memory = cupy.cuda.UnownedMemory(block.address, max(block.nbytes, 1), block, self.index)
        place = cupy.cuda.MemoryPointer(memory, nbytes + operand.offset * item)
        return cupy.ndarray(operand.shape, operand.dtype, place, tuple(s * item for s in operand.strides))

    def lies(self, array: Any) -> bool:
        """Whether something is a CuPy array on this device."""
        return isinstance(array, self._cupy.ndarray) and array.device.id == self.index

    def array(self, array: Array) -> Array:
        """Return an array on the device; itself where it lies there."""
        if self.lies(array):
            return array
        with self._device:
            return self._cupy.asarray(array, blocking=is_pinned(array))

    def copy(self, array: Array) -> Array:
        """Return a row-major CuPy array that nobody else has."""
        made = self._cupy.empty(array.shape, array.dtype)
        self.write(made, array)
        return made

    def write(self, view: Array, array: Array) -> None:
        """Write an array to a view: bytes where both lie alike, elements else."""
        cupy = self._cupy
        if not isinstance(array, cupy.ndarray):
            host = np.ascontiguousarray(array).reshape(view.shape)
            if view.flags.c_contiguous and host.nbytes <= SMALL and not is_pinned(host):
                view.set(host)
                return
            # By pinned memory, so that the host goes on; what is pinned already may be changed as soon as it does.
            array = cupy.asarray(host, blocking=is_pinned(host))
        if view.flags.c_contiguous and array.flags.c_contiguous and view.dtype == array.dtype and view.size:
            view.data.copy_from_device_async(array.data, view.nbytes)
        elif view.size:
            cupy.copyto(view, array.reshape(view.shape), casting="no")

    def download(self, view: Array) -> Array:
        """Return a NumPy array of a view's elements."""
        found: Array = self._cupy.asnumpy(view)
        return found

    def mirror(self, block: Block) -> Mirror:
        """Return page-locked memory of CuPy's pool."""
        with self._device:
            return _Pinned(self._cupy, self._stream, block)

    def load(self, kernel: Kernel) -> Any:
        """Return a kernel's function, from the cubin of its text."""
        found = self._functions.get(kernel.key)
        if found is None:
            from ...ops.kernels.cuda import cubins

            with self._device:
                module = self._cupy.cuda.function.Module()
                module.load(cubins.load(kernel, self._architecture).code)
                found = self._functions[kernel.key] = module.get_function(kernel.name)
        return found

    def launch(
        self, function: Any, grid: Grid, block: Grid, arguments: Packed, shared_bytes: int, stream: int | None = None
    ) -> None:
        """Launch a function through the driver, as one call."""
        driver = self._cupy.cuda.driver
        if shared_bytes > self._shared.get(function.ptr, STATIC_SHARED):
            driver.funcSetAttribute(function.ptr, 8, shared_bytes)  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self._shared[function.ptr] = shared_bytes
        handle = self._stream.ptr if stream is None else stream
        driver.launchKernel(function.ptr, *grid, *block, shared_bytes, handle, arguments.address, 0)

    def prepare(self, call: LibraryCall) -> Prepared:
        """Return what runs a library's call on this device."""
        found = self._prepared.get(call.description)
        if found is None:
            with self._device, self._stream:
                found = self._prepared[call.description] = call.description.prepare()
        return found

    def begin_capture(self) -> None:
        """Begin to record what goes to the stream."""
        self._stream.begin_capture()

    def end_capture(self) -> Any:
        """Return what was recorded as a CUDA graph that lies on the device."""
        graph = self._stream.end_capture()
        graph.upload(self._stream)
        return graph

    def abandon_capture(self) -> None:
        """End a recording that failed; the stream is usable again."""
        with contextlib.suppress(Exception):  # whatever broke the recording has been reported
            self._stream.end_capture()

    def replay(self, graph: Any) -> None:
        """Launch a CUDA graph."""
        graph.launch(self._stream)

    def synchronize(self) -> None:
        """Wait for the stream."""
        self._stream.synchronize()
