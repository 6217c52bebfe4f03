"""A `Runner` in the host's memory: kernels run on the CPU, what is recorded is done when replayed, all is checked.

`verify` checks a program as it stands; `run_checked` runs it step by step on poisoned memory.
"""

from __future__ import annotations

import contextlib
import ctypes
from dataclasses import dataclass, field, replace

import numpy as np

from onnxgrad.ops.kernels.cuda.kernel import GRID_LIMIT, Launch, LibraryCall, Prepared
from onnxgrad.runtime.cuda.arena import ALIGNMENT, span

from ...ops.kernels.cuda import host
from ...ops.kernels.cuda.references import REFERENCES

GUARD = 4096
POISON = 0xFF
WORKSPACE_BYTES = 1 << 12


class CaptureError(Exception):
    """Something that a CUDA graph cannot hold was asked for while one was recorded."""


@dataclass(eq=False)
class HostBlock:
    """A piece of memory, between guards that nobody may write to."""

    buffer: np.ndarray
    start: int
    nbytes: int

    @property
    def address(self):
        return self.buffer.ctypes.data + self.start

    @property
    def bytes(self):
        return self.buffer[self.start : self.start + self.nbytes]

    def check(self):
        guards = np.concatenate([self.buffer[: self.start], self.buffer[self.start + self.nbytes :]])
        assert (guards == POISON).all(), "a guard beside a block was written to"


@dataclass(eq=False)
class Borrowed:
    """The memory of an array."""

    array: np.ndarray

    @property
    def address(self):
        return self.array.ctypes.data

    @property
    def nbytes(self):
        return self.array.nbytes

    @property
    def bytes(self):
        return self.array.reshape(-1).view(np.uint8)

    def check(self):
        pass


@dataclass(eq=False)
class HostMirror:
    """What arrives of a block when it is waited for, or at once."""

    runner: HostRunner
    block: HostBlock
    sent: np.ndarray | None = None

    def __post_init__(self):
        self.words = np.zeros(self.block.nbytes // 4, np.int32)

    def send(self):
        self.runner._outside_capture("send")
        self.sent = self.block.bytes.view(np.int32).copy()
        if not self.runner.late:
            self.arrive()

    def arrive(self):
        if self.sent is not None:
            self.words[:] = self.sent

    def wait(self):
        self.runner._outside_capture("wait")
        self.arrive()


@dataclass(eq=False)
class HostRunner:
    """Runs programs on the host.

    Attributes:
        log: what was asked, in order.
        late: whether what is sent to the host arrives only where it is waited for.
        refuses: names of kernels, or libraries, that fail when they are recorded.
        recording: what has been recorded so far; None outside.
    """

    log: list = field(default_factory=list)
    refuses: set = field(default_factory=set)
    recording: list | None = None
    blocks: list = field(default_factory=list)
    loaded: dict = field(default_factory=dict)
    prepared: dict = field(default_factory=dict)
    late: bool = False
    inside: bool = False
    name = "host"
    index = 0
    stream = 7

    @contextlib.contextmanager
    def running(self):
        assert not self.inside
        self.inside = True
        try:
            yield
        finally:
            self.inside = False
            assert self.recording is None

    def _outside_capture(self, what):
        self.log.append(what)
        if self.recording is not None:
            raise CaptureError(f"{what} while a graph is recorded")

    def _do(self, action):
        if self.recording is None:
            action()
        else:
            self.recording.append(action)

    def allocate(self, nbytes):
        self._outside_capture("allocate")
        buffer = np.full(nbytes + 2 * GUARD + ALIGNMENT, POISON, np.uint8)
        start = GUARD + -(buffer.ctypes.data + GUARD) % ALIGNMENT
        self.blocks.append(HostBlock(buffer, start, nbytes))
        return self.blocks[-1]

    def borrow(self, array):
        return Borrowed(array)

    def view(self, block, operand, nbytes=0):
        item = operand.dtype.itemsize
        low, high = span(operand)
        assert nbytes + low * item >= 0 and nbytes + high * item <= block.nbytes, (
            f"{operand} at byte {nbytes} of {block.nbytes}"
        )
        if 0 in operand.shape:
            return np.empty(operand.shape, operand.dtype)
        first = nbytes + operand.offset * item
        flat = block.bytes[first : first + (block.nbytes - first) // item * item].view(operand.dtype)
        return np.lib.stride_tricks.as_strided(flat, operand.shape, [s * item for s in operand.strides])

    def lies(self, array):
        return isinstance(array, np.ndarray)

    def array(self, array):
        self._outside_capture("array")
        return np.asarray(array)

    def copy(self, array):
        self._outside_capture("copy")
        return np.array(array, order="C")

    def write(self, view, array):
        assert view.shape == array.shape and view.dtype == array.dtype, (view.shape, array.shape, view.dtype)
        if self.recording is not None and not any(np.may_share_memory(b.buffer, array) for b in self.blocks):
            raise CaptureError("a copy from the host while a graph is recorded")
        self.log.append("write")
        self._do(lambda: np.copyto(view, array))

    def download(self, view):
        self._outside_capture("download")
        return np.array(view, order="C")

    def mirror(self, block):
        self._outside_capture("mirror")
        return HostMirror(self, block)

    def load(self, kernel):
        if kernel.key not in self.loaded:
            self._outside_capture("load")
        return self.loaded.setdefault(kernel.key, kernel)

    def launch(self, kernel, grid, block, arguments, shared_bytes):
        assert all(0 < n <= limit for n, limit in zip(grid, GRID_LIMIT, strict=True)), grid
        self.log.append(kernel.name)
        if self.recording is not None and kernel.name in self.refuses:
            raise RuntimeError(f"{kernel.name} cannot be recorded")
        self._do(lambda: host.run(kernel, grid, block, arguments.values, shared_bytes))

    def prepare(self, call):
        description = call.description
        if description not in self.prepared:
            self._outside_capture("prepare")
            reference = REFERENCES[type(description)]
            operands = [ref.operand for ref in call.arguments]

            def compute(pointers):
                arrays = [array_at(p, o) for p, o in zip(pointers, operands, strict=True)]
                for i, result in zip(call.writes, reference(description, arrays), strict=True):
                    arrays[i][...] = result

            def run(pointers, workspace, stream):
                assert stream == self.stream
                assert workspace % ALIGNMENT == 0
                self.log.append(description.library)
                if self.recording is not None and description.library in self.refuses:
                    raise RuntimeError(f"{description.library} cannot be recorded")
                self._do(lambda: ctypes.memset(workspace, 0x55, WORKSPACE_BYTES))
                self._do(lambda: compute(pointers))

            self.prepared[description] = Prepared(run, WORKSPACE_BYTES)
        return self.prepared[description]

    def begin_capture(self):
        self._outside_capture("begin")
        self.recording = []

    def end_capture(self):
        self.log.append("end")
        made, self.recording = self.recording, None
        return made

    def abandon_capture(self):
        self.log.append("abandon")
        self.recording = None

    def replay(self, graph):
        self._outside_capture("replay")
        for action in graph:
            action()

    def synchronize(self):
        self._outside_capture("synchronize")

    def check(self):
        for block in self.blocks:
            block.check()


def array_at(pointer, operand):
    """Return a tensor whose first element is at an address."""
    low, high = span(replace(operand, offset=0))
    assert low == 0, operand
    memory = (ctypes.c_uint8 * max(high * operand.dtype.itemsize, operand.dtype.itemsize)).from_address(pointer)
    flat = np.frombuffer(memory, np.uint8).view(operand.dtype)
    return np.lib.stride_tricks.as_strided(flat, operand.shape, [s * operand.dtype.itemsize for s in operand.strides])


def aligned(array, by=0):
    """Return a copy of an array at an address that programs read, and overwrite, it at; `by` bytes from one."""
    array = np.asarray(array)
    buffer = np.zeros(array.nbytes + 2 * ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT + by
    made = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    made[...] = array
    return made


def shifted(array):
    """Return a copy of an array at an address that programs do not read it at."""
    return aligned(array, 64)


def verify(program):
    """Check bounds, places in the arena, that nothing is read before it is written, and what launches ask for."""
    storages = [s for s in program.compiler.storages if s.first >= 0]
    for s in storages:
        assert s.offset % ALIGNMENT == 0 and s.offset >= 0 and s.offset + s.nbytes <= program.arena_bytes
    for i, a in enumerate(storages):
        for b in storages[:i]:
            apart = a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset
            assert apart or a.last < b.first or b.last < a.first or not (a.nbytes and b.nbytes), (a, b)
    written = set()
    for n, step in enumerate(program.steps):
        outputs = step.writes()
        for p in (*step.reads(), *outputs):
            low, high = span(p.operand)
            assert low >= 0 and high * p.operand.dtype.itemsize <= p.storage.nbytes, (n, p)
            assert p.storage.kind != "arena" or p.storage.first <= n <= p.storage.last
        assert outputs and all(p.storage.kind != "weight" for p in outputs), n
        fresh = {id(p.storage) for p in outputs}
        for p in step.reads():
            assert p.storage.kind != "arena" or id(p.storage) in written | fresh, f"step {n} reads what nothing wrote"
        written |= fresh
        if isinstance(step.work, Launch):
            step.work.check()
        if isinstance(step.work, LibraryCall):
            assert step.prepared is not None
    for segment in program.capture.segments:
        assert all(s.capturable == segment.capturable for s in program.steps[segment.begin : segment.end])


def run_checked(program, feeds, tensors=None, **how):
    """Run a program step by step: what a step does not write stays, what is no longer needed is poisoned."""
    verify(program)
    program.run(feeds, tensors, **how)
    arena = program._arena.bytes
    arena[:] = POISON
    before = arena.copy()

    def watch(n, step, seconds):
        may = np.zeros(arena.size, bool)
        for s in (*[p.storage for p in step.writes()], *([step.workspace] if step.workspace else [])):
            if s.kind == "arena":
                may[s.offset : s.offset + s.nbytes] = True
        changed = (before != arena) & ~may
        assert not changed.any(), f"step {n} ({step.ops}) wrote to byte {int(np.flatnonzero(changed)[0])} of the arena"
        for s in program.compiler.storages:
            if s.last == n and s.first >= 0:
                arena[s.offset : s.offset + s.nbytes] = POISON
        before[:] = arena

    return program.run(feeds, tensors, watch=watch, **how)
