"""What stands round each op on a device.

The device of its arguments is the current one while it runs; arguments on several devices, a full memory and errors of
the device become errors that name the op. CUDA runs behind the host's back, so an error shows in a later op: with
`launch` (`CUDA_LAUNCH_BLOCKING=1`) the host waits after every op, and the error names the one that made it.
"""

from __future__ import annotations

import contextlib
import os
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ...ops.errors import DeviceError
from ...ops.op import Op
from ...ops.places import HOST, arrays_in, disagreement, place_of, several
from ...ops.transfer import transfer
from ...ops.types import is_float
from ..autograd.saved import Late
from .checks import PENDING, settle

MODES = ("default", "warn", "error", "launch")
"""What happens where the host waits for the device: nothing, a warning, an error; or it waits after every op."""

STICKY = ("cudaErrorIllegalAddress", "cudaErrorLaunchFailure", "cudaErrorAssert", "cudaErrorECCUncorrectable")
"""Errors after which the process cannot use the device any more."""

_LAUNCHING = "CUDA_LAUNCH_BLOCKING"


class Guard:
    """Runs ops on the devices of one CuPy.

    Attributes:
        cupy: the module.
        many: whether there are several devices.
        mode: one of `MODES`.
    """

    def __init__(self, cupy: Any) -> None:
        """Guard the arrays of a CuPy."""
        self.cupy, self.array = cupy, cupy.ndarray
        self.many = cupy.cuda.runtime.getDeviceCount() > 1
        self.mode = "launch" if os.environ.get(_LAUNCHING, "0") not in ("", "0") else "default"

    def run(self, op: Op, kernel: Callable[..., Any], arrays: Sequence[Any], attrs: dict[str, Any]) -> Any:
        """Compute an op of Tensors on their arrays.

        Raises:
            DeviceError: if they lie on several devices, and as `at`.
        """
        there = host = None
        for a in arrays:
            kind = type(a)
            if kind is np.ndarray:
                host = a
            elif kind is self.array:
                if there is None:
                    there = a
                elif there.data.device_id != a.data.device_id:
                    raise self._several(op.name, arrays)
            elif kind is list:
                for v in a:
                    if type(v) is np.ndarray:
                        host = v
                    elif type(v) is self.array:
                        if there is not None and there.data.device_id != v.data.device_id:
                            raise self._several(op.name, arrays)
                        there = v
        if there is None:
            return kernel(*arrays, **attrs)
        if host is not None and any(type(a) is np.ndarray and is_float(a.dtype) for a in arrays_in(arrays)):
            raise self._several(op.name, arrays)
        with self.at(there.data.device_id, op.name, arrays):
            return kernel(*arrays, **attrs)

    def numbers_beside(self, args: Sequence[Any]) -> Sequence[Any]:
        """Return the arguments of a pointwise op, the host's of rank 0 copied to the device of the others."""
        arrays = [getattr(a, "_array", a) for a in args]
        there = next((a for a in arrays if type(a) is self.array), None)
        if there is None or not any(type(a) is np.ndarray and a.ndim == 0 for a in arrays):
            return args
        place = place_of(there)
        return tuple(
            transfer(a, device=place, source=HOST) if type(array) is np.ndarray and array.ndim == 0 else a
            for a, array in zip(args, arrays, strict=True)
        )

    def _several(self, name: str, arrays: Sequence[Any]) -> DeviceError:
        found = disagreement(name, arrays)
        assert found is not None
        return found

    @contextlib.contextmanager
    def at(self, device: int, name: str, arrays: Sequence[Any] = ()) -> Iterator[None]:
        """Compute on a device; what goes wrong there is said of this name.

        Raises:
            OutOfMemoryError: saying what takes the memory.
            DeviceError: for any other error of the device, and where `arrays` lie on several.
        """
        try:
            if self.many and self.cupy.cuda.runtime.getDevice() != device:
                with self.cupy.cuda.Device(device):
                    yield
            else:
                yield
            self.waited()
        except Exception as error:
            with self.cupy.cuda.Device(device):
                found = self.explained(error, name, arrays)
            if found is error:
                raise
            raise found from (None if isinstance(error, MemoryError) else error)

    def waited(self) -> None:
        """Wait for the device where every op is waited for."""
        if self.mode == "launch":
            self.cupy.cuda.get_current_stream().synchronize()

    def explained(self, error: Exception, name: str, arrays: Sequence[Any]) -> Exception:
        """Return what an error of a device means, said of a name; other errors as they are."""
        if isinstance(error, MemoryError) and _of_cupy(error):
            traceback.clear_frames(error.__traceback__)  # what the kernel had made so far is memory
            from .holders import out_of_memory

            return out_of_memory(self.cupy, name, error)
        if isinstance(error, (TypeError, ValueError, AttributeError)):
            return disagreement(name, arrays) or error
        if isinstance(error, RuntimeError) and _of_cupy(error):
            return DeviceError(self._failed(name, error))
        return error

    def _failed(self, name: str, error: Exception) -> str:
        what = f"{name}: {error}"
        if self.mode != "launch":
            what += (
                f"; an op before it may have made this error: with {_LAUNCHING}=1 in the environment, or "
                "cuda.set_sync_debug_mode('launch'), it is reported by the op that makes it"
            )
        if any(s in str(error) for s in STICKY):
            what += "; the process cannot use the device any more"
        return what

    def gradients(self, node: Any, gs: Sequence[Any], recorded: bool, needed: Any) -> Any:
        """Return the gradients that a node of the tape hands on, computed where they arrive."""
        for g in gs:
            array = getattr(g, "_array", g)
            if type(array) is self.array:
                with self.at(array.data.device_id, node.name()):
                    return node.gradients(gs, recorded, needed)
        return node.gradients(gs, recorded, needed)

    def change(self, name: str, f: Callable[..., Any], array: Any, *others: Any, **more: Any) -> Any:
        """Call a function that reads or changes a part of an array; what it is given is brought to where that lies."""
        return self.update(name, f, array, *(self.beside(array, v) for v in others), **more)

    def update(self, name: str, f: Callable[..., Any], array: Any, *others: Any, **more: Any) -> Any:
        """Call a function that changes an array in place by others of the same device; numbers are brought there.

        Raises:
            DeviceError: if they lie on several devices, and as `at`.
        """
        others = tuple(self.beside(array, v) if getattr(v, "ndim", 1) == 0 else v for v in others)
        if type(array) is not self.array:
            if any(type(v) is self.array for v in others):
                raise self._several(name, (array, *others))
            return f(array, *others, **more)
        with self.at(array.data.device_id, name, (array, *others)):
            return f(array, *others, **more)

    def beside(self, array: Any, value: Any) -> Any:
        """Return a value with its arrays where another array lies."""
        if isinstance(value, tuple):
            return tuple(self.beside(array, v) for v in value)
        if type(value) is np.ndarray:
            if type(array) is not self.array or value.dtype.kind == "O":
                return value
            with array.device:
                return self.cupy.asarray(value)
        if type(value) is not self.array or place_of(value) == place_of(array):
            return value
        if type(array) is not self.array:
            self.reads(value, "copying to the CPU")
            with value.device:
                return value.get()
        with array.device:
            return value.copy()

    def where(self, arrays: Sequence[Any], name: str) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the device of the first array that lies on one is the current one."""
        there = next((a for a in arrays_in(arrays) if type(a) is self.array), None)
        return contextlib.nullcontext() if there is None else self.at(there.data.device_id, name)

    def reads(self, array: Any, what: str) -> None:
        """Note that the host waits for an array, which the mode may forbid; wait for what programs check, too.

        Raises:
            DeviceError: in the mode `error`.
            OnnxGradError: if a program that ran on that device met bad input.
        """
        if self.mode in ("warn", "error") and place_of(array) != HOST:
            text = f"{what} makes the host wait for the device"
            if self.mode == "error":
                raise DeviceError(f"{text} (cuda.set_sync_debug_mode('error'))")
            warnings.warn(text, UserWarning, stacklevel=4)
        if PENDING and type(array) is self.array:
            settle(array.data.device_id)


_ANYWHERE = contextlib.nullcontext()


def placed(array: Any, what: str = "a new array") -> contextlib.AbstractContextManager[None]:
    """Return a context in which the device of an array is the current one: where new arrays and copies go."""
    return _ANYWHERE if Late.guard is None else Late.guard.where((array,), what)


def _of_cupy(error: BaseException) -> bool:
    return type(error).__module__.partition("_")[0].partition(".")[0] == "cupy"


def begin(cupy: Any) -> None:
    """Guard all ops from now on; what was set before stays."""
    if Late.guard is None or Late.guard.cupy is not cupy:
        from .eager_calls import accelerate
        from .memory import Peaks

        Late.guard = Guard(cupy)
        several.devices = Late.guard.many
        Peaks.watch(cupy)
        accelerate(cupy)


def get_sync_debug_mode() -> int:
    """Return the number of the mode that `set_sync_debug_mode` set."""
    return MODES.index("default" if Late.guard is None else Late.guard.mode)


def set_sync_debug_mode(debug_mode: int | str) -> None:
    """Set what happens where the host waits for the device.

    Args:
        debug_mode: `default` (0) waits, `warn` (1) and `error` (2) say so where `item()`, `cpu()` and the like read a
            Tensor; `launch` (3) waits after every op, so that an error of the device names the op that made it.

    Raises:
        DeviceError: for another mode, and where there is no CUDA.
    """
    from .availability import cupy

    if debug_mode not in MODES and debug_mode not in range(len(MODES)):
        raise DeviceError(f"invalid value of debug_mode, expected one of {', '.join(MODES)}, found {debug_mode!r}")
    mode = debug_mode if isinstance(debug_mode, str) else MODES[debug_mode]
    if mode == "default" and Late.guard is None:
        return
    cupy()
    Late.guard.mode = mode
