"""The device's kernels for ops that are called one at a time: a program of one op, kept for each signature.

Nothing is recorded and nothing fixed: arrays are read where they lie, results are new arrays of CuPy's pool, row-major,
and what a program needs meanwhile is one more. All is asked of the caller's stream, in whose order the pool hands out
memory that has been let go. What has no kernel stays with the array kernels.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ...ops.errors import DeviceError, KernelError, OnnxGradError
from ...ops.kernels.cuda.kernel import Launch, LibraryCall
from ...ops.layout import transpose
from ...ops.op import Kernel, Op
from ...ops.types import Array, TensorType
from ..graph.graph import Graph
from ..tensor.backends import cuda as settings
from ..tracing.collection import uncollected
from . import choice
from .arena import ALIGNMENT, Placed, Storage, place_in_arena
from .compiler import Compiler, why_not
from .eager_checks import EagerChecks
from .printing import kernel_name
from .runner import Packed, Runner
from .steps import Step
from .weights import Slot, WeightStore

SIGNATURES = 1024
"""How many signatures of an op are remembered; the one that was used longest ago goes first."""

FEW = 16
"""Integers of the host up to this number (keys of random draws are such) are brought to the device."""

Work: TypeAlias = Callable[[Sequence[int], int], None]
"""A step: `work(bases, stream)`, with the addresses of all that a run uses and the handle of its stream."""


@dataclass(frozen=True)
class EagerDevice:
    """A device and what its eager ops share.

    Attributes:
        cupy: the module.
        runner: compiles for the device, and launches.
        checks: what kernels find wrong with their arguments.
    """

    cupy: Any
    runner: Runner
    checks: EagerChecks


class LibraryError(DeviceError):
    """A library fails to run what it had planned."""


class _Results(Compiler):
    """Compiles a graph whose results are to lie row-major."""

    def _results(self) -> None:
        self.outputs = [self.read(v, "plain", None) for v in self.graph.outputs]


def dense_order(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> tuple[int, ...] | None:
    """Return the order of axes in which an array lies row-major without gaps, None where there is none.

    Args:
        shape: its sizes.
        strides: in bytes.
        itemsize: bytes of an element.
    """
    axes = range(len(shape))
    for order in (axes, sorted(axes, key=lambda i: -strides[i] if shape[i] != 1 else 0)):
        step = itemsize
        for axis in reversed(order):
            if shape[axis] != 1:
                if strides[axis] != step:
                    break
                step *= shape[axis]
        else:
            return tuple(order)
    return None


class _Places:
    """Where the storages of one op lie, as numbers of addresses that each run lists anew.

    They are those of the arrays that it is given, of its results, of the arena, and of what stays.

    Attributes:
        arena_bytes: what the op needs meanwhile.
        staying: addresses that are the same in each run.
        constants: what of that is the op's own.
    """

    def __init__(self, op: str, compiler: Compiler, checks: EagerChecks) -> None:
        """Let each result lie in memory of its own, outside of the arena.

        Raises:
            KernelError: if one is a part of other memory.
        """
        self.op, self.checks = op, checks
        self.staying: list[int] = []
        self.constants: list[Slot] = []
        results = [ref.storage for ref in compiler.outputs]
        for ref, s in zip(compiler.outputs, results, strict=True):
            whole = ref.operand.offset == 0 and s.nbytes == ref.operand.nbytes
            if s.kind != "arena" or not whole or sum(s is other for other in results) > 1:
                raise KernelError("a result is a part of other memory")
        self._known = {id(s): i for i, s in enumerate((*compiler.feeds, *results))}
        self._arena = len(self._known)
        self.arena_bytes = place_in_arena([s for s in compiler.storages if id(s) not in self._known])

    def of(self, ref: Placed) -> tuple[int, int]:
        """Return which address a tensor lies at, and how many bytes behind it."""
        base, nbytes = self.storage(ref.storage)
        return base, nbytes + ref.operand.offset * ref.operand.dtype.itemsize

    def storage(self, s: Storage | None) -> tuple[int, int]:
        """Return the same of a storage; the arena for none."""
        if s is None or (s.kind == "arena" and id(s) not in self._known):
            return self._arena, 0 if s is None else max(s.offset, 0)
        if id(s) not in self._known:
            self.staying.append(self._stays(s))
            self._known[id(s)] = self._arena + len(self.staying)
        return self._known[id(s)], 0

    def _stays(self, s: Storage) -> int:
        """Return the address of a flag, or of a constant."""
        if s.kind == "flag":
            said = s.message.removeprefix(f"{self.op}: ").replace(f": {self.op}: ", ": ", 1)
            return self.checks.address(said)
        if s.slot is None or s.slot.block is None:
            raise KernelError(f"it reads a {s.kind}, which one call has not")
        self.constants.append(s.slot)
        return s.slot.block.address


class OpProgram:
    """One op for arrays of certain types, sizes and strides.

    Attributes:
        kernels: what it launches and calls, in order.
        proven: whether it has run.
        constants: what it reads beside its arguments, on the device.
    """

    def __init__(
        self, op: Op, args: Sequence[Any], attrs: dict[str, Any], device: EagerDevice, *, tf32: bool = False
    ) -> None:  # fmt: skip
        """Compile it.

        Args:
            op: what it computes.
            args: the arguments of one call: CuPy arrays, numbers, None.
            attrs: the op's attributes.
            device: that the arrays lie on.
            tf32: whether products of float32 may round their operands to TF32.

        Raises:
            KernelError: if some part of it has no kernel.
        """
        self.op, self.device, self.proven = op, device, False
        self._given: list[tuple[bool, tuple[int, ...] | None]] = []
        graph = Graph(op.name)
        with graph.building():
            made = op(*[self._input(graph, a) if type(a) is device.cupy.ndarray else a for a in args], **attrs)
        graph.outputs = list(made) if isinstance(made, tuple) else [made]
        reason = why_not(graph)
        if reason or any(0 in v.shape for v in (*graph.inputs, *graph.outputs)):
            raise KernelError(reason or "there are no elements")
        self._results = [(tuple(int(n) for n in v.shape), v.dtype) for v in graph.outputs]
        runner, store = device.runner, WeightStore(device.runner)
        compiler = _Results(graph, store, tf32=tf32).compile()
        if compiler.refused:
            raise KernelError("; ".join(compiler.refused))
        places = _Places(op.name, compiler, device.checks)
        with runner.running():
            store.refresh({})
        self._works = [self._bound(step, places) for step in compiler.steps]
        self._arena_bytes, self._staying, self.constants = places.arena_bytes, places.staying, places.constants
        if self.constants:
            runner.synchronize()
        self._checked = bool(compiler.flags)
        self.kernels = tuple(kernel_name(step) for step in compiler.steps)
        self._lock = threading.Lock()

    def _input(self, graph: Graph, a: Array) -> Any:
        """Add an input for an array as it lies, and return the argument that it is."""
        order = dense_order(a.shape, a.strides, a.itemsize)
        if order is None or order == tuple(range(a.ndim)):
            self._given.append((order is not None, None))
            return graph.input("", TensorType(a.dtype, a.shape))
        self._given.append((True, order))
        x = graph.input("", TensorType(a.dtype, tuple(a.shape[i] for i in order)))
        return transpose(x, perm=tuple(order.index(i) for i in range(a.ndim)))

    def _bound(self, step: Step, places: _Places) -> Work:
        """Return what does a step for any addresses."""
        work, runner = step.work, self.device.runner
        if isinstance(work, Launch):
            values = [0 if isinstance(a, Placed) else a for a in work.arguments]
            packed = Packed(work.kernel.parameters, values)  # type: ignore[arg-type]
            cells = [
                (cell, *places.of(a))
                for cell, a in zip(packed.cells, work.arguments, strict=True)
                if isinstance(a, Placed)
            ]
            function, grid, block, shared_bytes = runner.load(work.kernel), work.grid, work.block, work.shared_bytes

            def launch(bases: Sequence[int], stream: int) -> None:
                for cell, base, nbytes in cells:
                    cell.value = bases[base] + nbytes
                runner.launch(function, grid, block, packed, shared_bytes, stream)

            return launch
        if isinstance(work, LibraryCall) and step.prepared is not None:
            pointers = [places.of(a) for a in work.arguments if isinstance(a, Placed)]
            scratch, offset = places.storage(step.workspace)
            prepared, what = step.prepared, f"{self.op.name}: {work.description.library}"

            def call(bases: Sequence[int], stream: int) -> None:
                addresses = tuple([bases[base] + nbytes for base, nbytes in pointers])
                try:
                    prepared.run(addresses, bases[scratch] + offset, stream)
                except Exception as error:  # a library's own error types
                    raise LibraryError(f"{what} failed: {error}") from error

            return call
        raise KernelError(f"{kernel_name(step)} has no kernel")

    def run(self, given: Sequence[Array]) -> Any:
        """Compute on the device that the arrays lie on, on the current stream.

        Args:
            given: the arrays among the arguments.

        Raises:
            LibraryError: if a library fails.
            OpError: in the mode `launch`, if kernels find something wrong with the arguments.
        """
        cupy = self.device.cupy
        array, held = cupy.ndarray, []
        for a, (in_place, order) in zip(given, self._given, strict=True):
            if not in_place or a.data.ptr % ALIGNMENT:
                source = a if order is None else a.transpose(order)
                a = array(source.shape, source.dtype)
                a[...] = source
            held.append(a)
        results = [array(shape, dtype) for shape, dtype in self._results]
        bases = [a.data.ptr for a in (*held, *results)]
        arena = array((self._arena_bytes,), np.uint8) if self._arena_bytes else None
        bases.append(0 if arena is None else arena.data.ptr)
        bases.extend(self._staying)
        stream = int(cupy.cuda.get_current_stream().ptr)
        with self._lock:
            for work in self._works:
                work(bases, stream)
        if self._checked:
            self.device.checks.note()
        return tuple(results) if self.op.several else results[0]


class EagerDevices:
    """The devices of one CuPy.

    Attributes:
        cupy: the module.
    """

    def __init__(self, cupy: Any) -> None:
        """Begin without any."""
        self.cupy = cupy
        self._devices: dict[int, EagerDevice] = {}
        self._lock = threading.Lock()

    def at(self, index: int) -> EagerDevice:
        """Return a device by its number."""
        with self._lock:
            if index not in self._devices:
                runner = choice.runner_of(index)
                self._devices[index] = EagerDevice(self.cupy, runner, EagerChecks(runner, self.cupy))
            return self._devices[index]


class DeviceKernel:
    """The kernel of an op on CuPy's arrays."""

    def __init__(self, op: Op, slow: Kernel, devices: EagerDevices) -> None:
        """Make it.

        Args:
            op: which.
            slow: its array kernel, for what no kernel of the device computes.
            devices: that there are.
        """
        self.op, self.slow, self.devices = op, slow, devices
        self.cupy, self.array = devices.cupy, devices.cupy.ndarray
        self._programs: OrderedDict[Any, OpProgram | str] = OrderedDict()
        self._lock = threading.Lock()
        self._compiling = threading.Lock()

    @property
    def programs(self) -> list[OpProgram]:
        """The programs that there are, the one that was used last at the end."""
        return [p for p in list(self._programs.values()) if not isinstance(p, str)]

    @property
    def refused(self) -> list[str]:
        """Why signatures that came run the array kernel."""
        return [p for p in list(self._programs.values()) if isinstance(p, str)]

    def __call__(self, *args: Any, **attrs: Any) -> Any:
        """Compute."""
        device = -1
        given: list[Any] = []
        key: list[Any] = [bool(settings.matmul.allow_tf32)]
        for a in args:
            kind = type(a)
            if kind is self.array:
                given.append(a)
                key.append((a.dtype, a.shape, a.strides))
                if device == -1:
                    device = a.data.device_id
                elif device != a.data.device_id:
                    return self.slow(*args, **attrs)
            elif a is None or kind is bool or kind is int or kind is float:
                key.append((kind, a))
            elif kind is np.ndarray and a.size <= FEW and a.dtype.kind in "iub":
                return self(*(self.cupy.asarray(v) if v is a else v for v in args), **attrs)
            else:
                return self.slow(*args, **attrs)
        signature = (device, *key, *attrs.items())
        with self._lock:
            found = self._programs.get(signature)
            if found is not None:
                self._programs.move_to_end(signature)
        if found is None:
            found = self._made(signature, device, args, attrs)
        if isinstance(found, str):
            return self.slow(*args, **attrs)
        if found.proven:
            return found.run(given)
        try:
            result = found.run(given)
        except LibraryError as error:
            warnings.warn(f"{error}; it runs its array kernel", RuntimeWarning, stacklevel=2)
            self._keep(signature, str(error))
            return self.slow(*args, **attrs)
        found.proven = True
        return result

    def _made(self, signature: Any, device: int, args: Sequence[Any], attrs: dict[str, Any]) -> OpProgram | str:
        """Return a signature's program, or why there is none; each is compiled once, whichever thread comes first."""
        with self._compiling:
            found = self._programs.get(signature)
            if found is None:
                found = self._compiled(device, args, attrs, tf32=signature[1])
                self._keep(signature, found)
            return found

    def _compiled(self, device: int, args: Sequence[Any], attrs: dict[str, Any], *, tf32: bool) -> OpProgram | str:
        if os.environ.get(choice.VARIABLE) == "off":
            return f"{choice.VARIABLE} is off"
        try:
            with uncollected():
                return OpProgram(self.op, args, attrs, self.devices.at(device), tf32=tf32)
        except DeviceError:
            raise
        except OnnxGradError as error:
            return f"{type(error).__name__}: {error}"

    def _keep(self, signature: Any, found: OpProgram | str) -> None:
        with self._lock:
            self._programs[signature] = found
            self._programs.move_to_end(signature)
            gone = [self._programs.popitem(last=False)[1] for _ in range(len(self._programs) - SIGNATURES)]
        if any(not isinstance(p, str) and p.constants for p in gone):
            self.cupy.cuda.runtime.deviceSynchronize()  # other streams may still read the constants
